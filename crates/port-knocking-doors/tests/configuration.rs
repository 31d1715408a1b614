//! Configurations, good and bad, one file each. What a bad one says is a snapshot beside it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use doors_spa::identity::ClientKey;
use port_knocking_doors::config::{Config, Inputs, Warning, keys};

fn files(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations").join(kind);
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

#[test]
fn every_bad_file_gets_a_message_that_says_where_what_and_how_else() {
    let files = files("bad");
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let error = match Config::parse(Path::new("doors.toml"), &text) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{} is taken for good", path.display()),
        };
        insta::assert_snapshot!(stem(path), error, &text);
    }
    let snapshots = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")).unwrap();
    assert_eq!(snapshots.count(), files.len() + 5, "a snapshot of a file that is gone, or five of good ones");
}

#[test]
fn every_good_file_means_what_it_says() {
    for path in files("good") {
        let text = fs::read_to_string(&path).unwrap();
        let config = Config::parse(Path::new("doors.toml"), &text).unwrap();
        let settings: Vec<String> = config
            .settings
            .iter()
            .map(|setting| format!("{} = {}  # {}", setting.key, setting.value, setting.origin))
            .collect();
        insta::assert_snapshot!(format!("good_{}", stem(&path)), settings.join("\n"), &text);
    }
}

#[test]
fn the_default_file_is_accepted_and_says_the_defaults() {
    let written = Config::parse(Path::new("written.toml"), &keys::default_file()).unwrap();
    // With every comment before a key taken away, all defaults are written out, and nothing changes.
    let uncommented: String = keys::default_file()
        .lines()
        .map(|line| {
            let is_default =
                |rest: &&str| rest.contains(" = ") && !rest.contains('.') && !rest.ends_with("# an example");
            line.strip_prefix("# ").filter(is_default).unwrap_or(line)
        })
        .map(|line| if line.starts_with("[[doors]]") { "" } else { line })
        .take_while(|line| !line.contains("A door of its own"))
        .map(|line| format!("{line}\n"))
        .collect();
    let explicit = Config::parse(Path::new("explicit.toml"), &uncommented).unwrap();
    assert_eq!(written.rules, explicit.rules);
    assert_eq!(written.plan, explicit.plan);
    assert!(explicit.settings.iter().all(|setting| setting.origin.to_string().contains("explicit.toml")));
    let none = Config::load(&Inputs::default()).unwrap();
    assert_eq!(none.rules, written.rules);
    assert_eq!(none.plan, written.plan);
}

#[test]
fn the_file_that_is_installed_has_no_door_and_each_line_in_it_can_be_taken_up() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dist/port_knocker.toml");
    let text = fs::read_to_string(dist).unwrap();
    assert_eq!(text, keys::installed_file());
    let config = Config::parse(Path::new("installed.toml"), &text).unwrap();
    assert!(config.rules.doors.is_empty() && config.plan.doors.is_empty());
    assert_eq!(config.warnings, [Warning::NoDoor]);

    // Without the comment signs, and with a sequence: two doors.
    let is_key = |rest: &str| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let is_setting = |rest: &&str| is_key(rest) || *rest == "[[doors]]";
    let lines = text.lines().filter_map(|line| line.strip_prefix("# ").filter(is_setting));
    let whole: String = lines.map(|line| format!("{line}\n")).collect();
    let error = Config::parse(Path::new("installed.toml"), &whole).unwrap_err().to_string();
    assert!(error.contains("`opening_sequence`: 0 ports are no sequence; write 5 to 20"), "{error}");
    let whole = whole.replace("opening_sequence = []", "opening_sequence = [9107, 23, 40011, 5120, 61002]");
    let config = Config::parse(Path::new("installed.toml"), &whole).unwrap();
    let doors: Vec<&str> = config.rules.doors.iter().map(|door| door.name.as_str()).collect();
    assert_eq!(doors, ["default", "ssh"]);
    // Every key at the top is there, but for the tables.
    let keys: Vec<&str> = whole.lines().filter_map(|line| Some(line.split_once(" = ")?.0)).collect();
    for name in keys::names_at_the_top().filter(|name| !["doors", "clients"].contains(name)) {
        assert!(keys.contains(&name), "{name}");
    }
}

#[test]
fn every_link_in_the_manual_leads_to_the_key_of_its_own_table() {
    let manual = keys::manual();
    let mut tried = 0;
    for part in manual.split("\n## ") {
        let links = part.split("](#").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links {
            let anchor = format!("<a id=\"{link}\"></a>\n\n### ");
            let heading = format!("\n### `{link}`\n");
            // A heading alone is the anchor only of the first of its name.
            let is_first = manual.find(&heading) == part.find(&heading).map(|at| at + offset(&manual, part));
            assert!(part.contains(&anchor) || part.contains(&heading) && is_first, "{link}");
            tried += 1;
        }
    }
    assert!(tried > 0, "the manual has links");
}

/// Where a part of a text begins in it.
fn offset(whole: &str, part: &str) -> usize {
    part.as_ptr() as usize - whole.as_ptr() as usize
}

#[test]
fn the_help_explains_every_key() {
    let help = keys::help();
    for name in keys::names() {
        assert!(help.contains(name), "{name}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80), "it fits on a terminal");
}

#[test]
fn there_may_be_1024_doors_and_not_one_more() {
    let door = |number: usize| {
        format!(
            "[[doors]]\nname = \"door-{number}\"\nports = [\"22/tcp\"]\nsequence = [{}, 7, 11, 5, 3]\n",
            1000 + number
        )
    };
    let parse = |count| Config::parse(Path::new("doors.toml"), &(0..count).map(door).collect::<String>());
    assert_eq!(parse(1024).unwrap().rules.doors.len(), 1024);
    let error = parse(1025).unwrap_err().to_string();
    assert!(error.contains("doors.toml:4098:8: this is one door too many; there may be 1024"), "{error}");
}

#[test]
fn all_doors_together_may_have_4096_ports_and_not_one_more() {
    let door = |number: usize, ports: usize| {
        let ports: String = (1..=ports).map(|port| format!("\"{}/tcp\",", number * 32 + port)).collect();
        let sequence = 1000 + number;
        format!(
            "[[doors]]\nname = \"door-{number}\"\nports = [{ports}]\nsequence = [{sequence}, 7, 11, 5, 3]\n"
        )
    };
    let text: String = (0..128).map(|number| door(number, 32)).collect();
    let parse = |text: &str| Config::parse(Path::new("doors.toml"), text);
    assert_eq!(parse(&text).unwrap().plan.doors.len(), 128);
    let error = parse(&(text + &door(128, 1))).unwrap_err().to_string();
    assert!(error.contains("doors.toml:515:9: these are too many ports"), "{error}");
    assert!(error.contains("4097") && error.contains("4096"), "{error}");
}

#[test]
fn with_sockets_fourteen_different_ports_are_few_and_fifteen_are_not() {
    let ports = [9107, 23, 40011, 5120, 61002, 777, 31999, 12345, 2, 50505, 8181, 19, 33001, 4242, 60606];
    // A port twice makes nothing harder to guess.
    let twice = [&ports[..14], &ports[..2]].concat();
    for (listen, sequence, few) in [
        ("sockets", &ports[..14], Some(14)),
        ("sockets", &twice, Some(14)),
        ("sockets", &ports, None),
        ("capture", &ports[..14], None),
    ] {
        let text =
            format!("listen = \"{listen}\"\nports_to_controls = [22]\nopening_sequence = {sequence:?}\n");
        let config = Config::parse(Path::new("doors.toml"), &text).unwrap();
        let warned = config.warnings.iter().find_map(|warning| match warning {
            Warning::Short { len, .. } => Some(*len),
            _ => None,
        });
        assert_eq!(warned, few, "{listen}, {sequence:?}");
    }
}

/// The public key of a device with this number.
fn key(number: u32) -> String {
    let mut secret = [0; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
    ClientKey::new(public.as_bytes()).unwrap().to_openssh()
}

/// What it gives, and how long a processor was busy with it: on a busy machine that says more than a clock.
fn time_of<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let busy = || {
        let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let begun = busy();
    let done = work();
    (done, busy() - begun)
}

#[test]
fn a_file_of_eight_times_the_clients_takes_eight_times_as_long_to_read() {
    let door = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    let client = |number: u32| {
        let (name, key) = (format!("client-{number}"), key(number));
        format!("name = \"{name}\", key = \"{key} a comment\", doors = [\"ssh\"], until = 9999-12-31")
    };
    let clients: Vec<String> = (0..8000).map(client).collect();
    for in_one_line in [false, true] {
        let parse = |count: usize| {
            let clients = &clients[..count];
            let text = match in_one_line {
                true => format!("clients = [{{{}}}]\n{door}", clients.join("}, {")),
                false => {
                    let tables = clients.iter().map(|client| client.replace(", key", "\nkey"));
                    let tables = tables.map(|table| table.replace(", doors", "\ndoors"));
                    let tables = tables.map(|table| table.replace(", until", "\nuntil"));
                    let tables: String = tables.map(|table| format!("[[clients]]\n{table}\n")).collect();
                    door.to_owned() + &tables
                }
            };
            let (config, time) = time_of(|| Config::parse(Path::new("doors.toml"), &text).unwrap());
            assert_eq!(config.key_access.unwrap().clients.iter().count(), count);
            time
        };
        let few = (0..3).map(|_| parse(1000)).min().unwrap();
        let many = parse(8000);
        // 64 times as long if each value is looked for from the beginning of the text.
        assert!(many < few * 24, "in one line: {in_one_line}, 1,000 in {few:?}, 8,000 in {many:?}");
    }
}

#[test]
fn there_may_be_a_hundred_thousand_clients_and_the_first_too_many_is_named() {
    let place = tempfile::tempdir().unwrap();
    let (keys, conf) = (place.path().join("keys"), place.path().join("doors.toml"));
    let line = |number| format!("{} device\n", key(number));
    let text: String = (0..=100_000).map(line).collect();
    fs::write(&keys, &text).unwrap();
    let authorized = format!("authorized_keys = \"{}\"\nauthorized_keys_doors = [\"ssh\"]\n", keys.display());
    let written = authorized + "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
    fs::write(&conf, written).unwrap();
    let load = || Config::load(&Inputs { conf: Some(conf.clone()), ..Inputs::default() });
    let error = load().unwrap_err().to_string();
    assert!(error.ends_with("keys:100001:1: this is one client too many; there may be 100000"), "{error}");
}

#[test]
fn what_is_longer_than_a_configuration_can_be_is_refused_with_the_bound() {
    let place = tempfile::tempdir().unwrap();
    let conf = place.path().join("doors.toml");
    fs::write(&conf, vec![b'#'; 32 * 1024 * 1024 + 1]).unwrap();
    let error = Config::load(&Inputs { conf: Some(conf), ..Inputs::default() }).unwrap_err();
    assert!(error.to_string().contains("32 megabytes"), "{error}");
}

#[test]
fn places_are_counted_in_lines_and_characters_wherever_they_are() {
    for before in [0, 1, 100, 255, 256, 257, 5000] {
        let text = format!("# {}\n# ü\nzone = \"{}\u{e9}\", x = 1", "é".repeat(before), "ö".repeat(before));
        let error = Config::parse(Path::new("doors.toml"), &text).unwrap_err().to_string();
        // At the comma behind the value.
        let column = "zone = \"\"".len() + before + 2;
        assert!(error.starts_with(&format!("doors.toml:3:{column}: ")), "{before}: {error}");
    }
}

#[test]
fn of_a_file_with_several_faults_each_is_told_with_its_place() {
    let text = "refuse = \"dorp\"\nspa_prot = 1\nmax_knocker_live_time = 0\n\
                [[doors]]\nname = \"ssh\"\nports = [\"22\"]\nonce = true\n\
                [[doors]]\nname = \"web\"\nports = [\"443/tcp\"]\n\
                [[doors]]\nname = \"web\"\nports = [\"80/tcp\"]\n\
                [[clients]]\nname = \"laptop\"\nkey = \"ssh-rsa AAAA\"\n\
                [[clients]]\ndoors = [\"ssh\"]\n";
    let error = Config::parse(Path::new("doors.toml"), text).unwrap_err().to_string();
    let places = ["1:10", "2:1", "3:25", "6:10", "7:1", "12:8", "14:1", "16:7", "17:1", "17:1"];
    let mut rest = error.strip_prefix("10 faults:").unwrap_or_else(|| panic!("{error}"));
    for (number, place) in (1..).zip(places) {
        let told = format!(" ({number}) doors.toml:{place}: ");
        rest = rest.split_once(&told).unwrap_or_else(|| panic!("{told} in {error}")).1;
    }
    // What is missed may be what has the fault.
    assert!(!error.contains("there is no door"), "{error}");
}

#[test]
fn what_does_not_fit_together_is_told_beside_other_such_faults() {
    let text = "firewall = \"rich-rules\"\nmark = 0x1\n[[doors]]\nname = \"a\"\nports = [\"22/tcp\"]\ngrant = \"once\"\n\
                [[doors]]\nname = \"b\"\nports = [\"23/tcp\"]\ngrant = \"once\"\n";
    let error = Config::parse(Path::new("doors.toml"), text).unwrap_err().to_string();
    let told = ["3 faults: (1) doors.toml:2:8: `mark`", " (2) doors.toml:6:9: ", " (3) doors.toml:10:9: "];
    assert!(told.iter().all(|told| error.contains(told)), "{error}");
}

#[test]
fn of_a_file_that_is_no_toml_each_line_that_is_none_is_told_once() {
    let told = |text: &str| Config::parse(Path::new("f"), text).unwrap_err().to_string();
    let error = told("refuse = reject\nzone == \"a\"\non_exit = keep\n");
    for place in ["3 faults: (1) f:1:10: ", "; (2) f:2:7: ", "; (3) f:3:11: "] {
        assert!(error.contains(place), "{error}");
    }
    // A key that is there twice hides no other fault.
    let error = told("refuse = \"drop\"\nrefuse = \"drop\"\nzone = 1\n");
    assert!(
        error.starts_with("2 faults: (1) f:2:1: this key is there twice; write it once; (2) f:3:8: "),
        "{error}"
    );
    // Behind an open bracket everything is misunderstood.
    let error = told("trusted = [\"192.0.2.0/24\"\nzone = \"a\"\nrefuse = \"drop\"\n");
    assert!(error.starts_with("f:"), "{error}");
}
