//! Configurations, good and bad, one file each. What a bad one says is a snapshot beside it.
#![allow(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use port_knocking_doors::config::{Config, Warning, keys};

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
    assert_eq!(snapshots.count(), files.len() + 4, "a snapshot of a file that is gone, or four of good ones");
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
            line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.contains('.')).unwrap_or(line)
        })
        .map(|line| if line.starts_with("[[doors]]") { "" } else { line })
        .take_while(|line| !line.contains("A door of its own"))
        .map(|line| format!("{line}\n"))
        .collect();
    let explicit = Config::parse(Path::new("explicit.toml"), &uncommented).unwrap();
    assert_eq!(written.rules, explicit.rules);
    assert_eq!(written.plan, explicit.plan);
    assert!(explicit.settings.iter().all(|setting| setting.origin.to_string().contains("explicit.toml")));
    let none = Config::load(&port_knocking_doors::config::Surroundings::default()).unwrap();
    assert_eq!(none.rules, written.rules);
    assert_eq!(none.plan, written.plan);
}

#[test]
fn the_help_explains_every_key() {
    let help = keys::help();
    for key in keys::TOP.iter().chain(keys::DOOR) {
        assert!(help.contains(key.name), "{}", key.name);
    }
    assert!(help.lines().all(|line| line.chars().count() <= 80), "it fits on a terminal");
}

#[test]
fn there_may_be_256_doors_and_not_one_more() {
    let door = |number: usize| {
        format!(
            "[[doors]]\nname = \"door-{number}\"\nports = [\"22/tcp\"]\nsequence = [{}, 7, 11, 5, 3]\n",
            1000 + number
        )
    };
    let parse = |count| Config::parse(Path::new("doors.toml"), &(0..count).map(door).collect::<String>());
    assert_eq!(parse(256).unwrap().rules.doors.len(), 256);
    let error = parse(257).unwrap_err().to_string();
    assert!(error.contains("one door too many; there may be 256"), "{error}");
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
