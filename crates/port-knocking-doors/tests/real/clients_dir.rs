//! Clients that have a file of their own, and the commands that write and remove it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::PathBuf,
};

use doors_lab::Process;
use doors_spa::receipt::Answer as Told;
use rustix::{
    fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat},
    process::Signal,
};

use crate::{
    raw_client::{Device, client, open},
    testbed::{CLIENT, PATIENCE, SILENCE, Testbed},
};

const DOORS: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nopen_for = 30\n\
                     [[doors]]\nname = \"web\"\nports = [\"80/tcp\"]\n";

impl Testbed {
    /// Runs a command on the configuration of this testbed. Gives its exit code, and what it says in one line.
    fn command(&self, arguments: &[&str]) -> (i32, String) {
        let conf = self.place_for("doors.toml");
        let (status, said) = self.run(&[arguments, &["--conf", conf.to_str().unwrap()]].concat());
        (status.code().unwrap(), said.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    fn add(&self, name: &str, device: &Device, more: &[&str]) -> (i32, String) {
        let key = device.client().to_openssh();
        self.command(&[&["client", "add", name, "--key", &key, "--door", "ssh"], more].concat())
    }

    pub(crate) fn file_of(&self, name: &str) -> PathBuf {
        self.place_for("clients.d").join(format!("{name}.toml"))
    }
}

/// A gateway without clients, and some devices.
fn gateway() -> (Testbed, Vec<Device>) {
    let testbed = Testbed::new();
    let card = testbed.card();
    testbed.write(&testbed.gateway(DOORS));
    let devices = (1..=4).map(|number| Device::new(number, &card)).collect();
    (testbed, devices)
}

fn is_heard(testbed: &Testbed, device: &Device) -> bool {
    !testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes)
}

#[test]
fn a_client_comes_and_goes_with_its_file_and_the_configuration_file_stays_as_it_is() {
    let (mut testbed, devices) = gateway();
    let text = testbed.gateway(DOORS);
    testbed.start(&text);
    let (code, said) =
        testbed.add("laptop", &devices[0], &["--max-open-for", "600", "--until", "2999-12-31"]);
    assert!(code == 0 && said.contains("the running daemon has taken it over"), "{said}");
    // The replay log for the very first client is opened beside the reload.
    testbed.until("the client is heard", |testbed| is_heard(testbed, &devices[0]));
    assert_eq!(devices[0].open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    let file = testbed.file_of("laptop");
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o644, 0));
    assert_eq!(fs::metadata(testbed.place_for("clients.d")).unwrap().mode() & 0o7777, 0o755);
    // Written by hand, it is the same.
    testbed.client_file("phone", &devices[1], "");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.hear("the configuration has been read again");
    assert!(is_heard(&testbed, &devices[1]));
    let (code, said) = testbed.command(&["client", "remove", "phone"]);
    assert!(code == 0 && said.contains("the running daemon has taken it over"), "{said}");
    assert!(!is_heard(&testbed, &devices[1]) && is_heard(&testbed, &devices[0]));
    assert_eq!(fs::read_dir(testbed.place_for("clients.d")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(testbed.place_for("doors.toml")).unwrap(), text);
    testbed.end(Signal::TERM);
}

#[test]
fn what_is_done_already_is_no_error_and_what_is_in_the_way_is_named() {
    let (testbed, devices) = gateway();
    assert_eq!(testbed.add("laptop", &devices[0], &["--door", "web"]).0, 0);
    let written = fs::metadata(testbed.file_of("laptop")).unwrap().ino();
    let key = devices[0].client().to_openssh();
    let again = ["client", "add", "laptop", "--key", &key, "--door", "web", "--door", "ssh"];
    let (code, said) = testbed.command(&again);
    assert!(code == 0 && said.starts_with("is there already: laptop ("), "{said}");
    assert_eq!(fs::metadata(testbed.file_of("laptop")).unwrap().ino(), written);
    let place = format!("({}:1)", testbed.file_of("laptop").display());
    let cases = [
        (
            testbed.add("laptop", &devices[0], &[]),
            "there is a client `laptop` already, with another key, other doors",
        ),
        (testbed.add("phone", &devices[0], &[]), "this is the key of the client `laptop` already"),
    ];
    for ((code, said), told) in cases {
        assert!(code == 2 && said.contains(told) && said.contains(&place), "{said}");
    }
    for (name, more, told) in [
        ("old", &["--until", "2020-01-31"][..], "--until is in the past (2020-01-31)"),
        ("../old", &[], "\"../old\" is no name for a client"),
        ("new", &["--door", "shh"], "there is no door `shh`; there are: ssh, web"),
        ("new", &["--from", "192.0.2.1/24"], "nothing was changed: "),
        ("new", &["--until", "soon"], "`until` is no date"),
    ] {
        let (code, said) = testbed.add(name, &devices[1], more);
        assert!(code == 2 && said.contains(told), "{said}");
    }
    assert_eq!(fs::read_dir(testbed.place_for("clients.d")).unwrap().count(), 1);
    let (code, said) = testbed.command(&["client", "remove", "lapto"]);
    assert!(code == 2 && said.contains("did you mean `laptop`?"), "{said}");
}

#[test]
fn a_client_that_the_administrator_has_written_is_left_to_the_administrator() {
    let (testbed, devices) = gateway();
    let keys = testbed.place_for("keys");
    fs::write(&keys, format!("# mine\n{} phone\n", devices[1].client().to_openssh())).unwrap();
    let top = format!("authorized_keys = \"{}\"\nauthorized_keys_doors = [\"ssh\"]\n", keys.display());
    let text = testbed.gateway(&format!("{top}{DOORS}{}", client("laptop", &devices[0], &["ssh"], "")));
    let conf = testbed.write(&text);
    let line = 1 + text.lines().position(|line| line == "name = \"laptop\"").unwrap();
    for (name, told) in [
        (
            "laptop",
            format!(
                "stands in {}:{line}, which is yours to edit; take its [[clients]] out there",
                conf.display()
            ),
        ),
        (
            "phone",
            format!("stands in {}:2, which is yours to edit; take that line out there", keys.display()),
        ),
    ] {
        let (code, said) = testbed.command(&["client", "remove", name]);
        assert!(code == 2 && said.contains("nothing was changed") && said.contains(&told), "{said}");
    }
    assert_eq!(fs::read_to_string(&conf).unwrap(), text);
    let (code, said) = testbed.add("laptop", &devices[0], &[]);
    assert!(code == 0 && said.starts_with("is there already"), "{said}");
}

#[test]
fn with_a_file_that_cannot_be_used_the_commands_say_that_nothing_was_changed() {
    let (testbed, devices) = gateway();
    assert_eq!(testbed.add("laptop", &devices[0], &[]).0, 0);
    testbed.write("colour = 1\n");
    for (arguments, told) in [
        (&["client", "remove", "laptop"][..], "if the client `laptop` was let in, it still is"),
        (&["client", "list"], "nothing was changed, and clients are let in as before"),
        (&["gateway", "card"], "nothing was changed, and clients are let in as before"),
    ] {
        let (code, said) = testbed.command(arguments);
        assert!(code == 2 && said.contains("`colour` is no key") && said.contains(told), "{said}");
    }
    assert!(testbed.file_of("laptop").exists());
}

#[test]
fn a_client_may_come_before_the_gateway_has_a_key() {
    let (mut testbed, devices) = gateway();
    testbed.start(&testbed.gateway(DOORS));
    fs::rename(testbed.place_for("gateway.key"), testbed.place_for("away")).unwrap();
    let (code, said) = testbed.add("laptop", &devices[0], &[]);
    assert!(
        said.contains("added: laptop") && said.contains("port-knocking-doors gateway init"),
        "{code}, {said}"
    );
    let (code, said) = testbed.command(&["gateway", "init"]);
    assert!(code == 0 && said.contains("the running daemon was asked to take it over"), "{said}");
    testbed.hear("the configuration has been read again");
    let (code, card) = testbed.command(&["gateway", "card"]);
    assert_eq!(code, 0, "{card}");
    let device = Device::new(1, &card.parse().unwrap());
    // The replay log for the very first client is opened beside the reload.
    testbed.until("the client is heard", |testbed| is_heard(testbed, &device));
    testbed.end(Signal::TERM);
}

#[test]
fn two_commands_at_once_do_not_make_a_configuration_that_cannot_be_used() {
    let (testbed, devices) = gateway();
    let start = |name: &str, device: &Device| {
        let (key, conf) = (device.client().to_openssh(), testbed.place_for("doors.toml"));
        let mut command = testbed.program();
        command.args(["client", "add", name, "--key", &key, "--door", "ssh", "--conf"]).arg(conf);
        Process::start(&testbed.server, command).unwrap()
    };
    let code = |mut process: Process| process.finish(PATIENCE).unwrap().expect("it ends").0.code().unwrap();
    // One key under two names is good for neither.
    let mut codes = ["one", "two"].map(|name| start(name, &devices[0])).map(code);
    codes.sort_unstable();
    assert_eq!(codes, [0, 2]);
    assert_eq!(testbed.command(&["client", "list"]).0, 0);
    // A change that goes on is waited for.
    let directory = fs::File::open(testbed.place_for("clients.d")).unwrap();
    flock(&directory, FlockOperation::LockExclusive).unwrap();
    let mut waiting = start("three", &devices[1]);
    assert!(waiting.wait(SILENCE).unwrap().is_none() && !testbed.file_of("three").exists());
    flock(&directory, FlockOperation::Unlock).unwrap();
    assert_eq!(code(waiting), 0);
    assert!(testbed.file_of("three").exists());
}

#[test]
fn what_a_killed_command_has_left_is_taken_over() {
    let (testbed, devices) = gateway();
    assert_eq!(testbed.add("laptop", &devices[0], &[]).0, 0);
    // Killed while it wrote.
    let draft = testbed.place_for("clients.d/.phone.toml.new");
    fs::write(&draft, "key = \"ssh-ed").unwrap();
    let (code, said) = testbed.command(&["check"]);
    assert!(code == 0 && !said.contains("not read as a client"), "{said}");
    assert_eq!(testbed.add("phone", &devices[1], &[]).0, 0);
    assert!(!draft.exists());
}

#[test]
fn a_removal_that_was_cut_short_before_the_daemon_knew_is_done_by_the_next_one() {
    let (mut testbed, devices) = gateway();
    testbed.client_file("laptop", &devices[0], "");
    testbed.start(&testbed.gateway(DOORS));
    assert!(is_heard(&testbed, &devices[0]));
    fs::remove_file(testbed.file_of("laptop")).unwrap();
    let (code, said) = testbed.command(&["client", "remove", "laptop"]);
    assert!(
        code == 0 && said.contains("there is no client laptop any more the running daemon has taken it"),
        "{said}"
    );
    assert!(!is_heard(&testbed, &devices[0]));
    let (code, said) = testbed.command(&["client", "remove", "laptop"]);
    assert!(code == 2 && said.contains("there is no client `laptop`; there is none at all"), "{said}");
    testbed.end(Signal::TERM);
}

#[test]
fn a_directory_or_file_that_another_user_could_have_written_is_refused_with_the_command_that_mends_it() {
    let (testbed, devices) = gateway();
    let file = testbed.client_file("laptop", &devices[0], "");
    let directory = testbed.place_for("clients.d");
    for (path, good) in [(&directory, 0o755), (&file, 0o644)] {
        let shown = path.display();
        chown(path, Some(4242), None).unwrap();
        let (code, said) = testbed.command(&["check"]);
        assert!(code == 2 && said.contains("belongs to another user (4242)"), "{said}");
        assert!(said.contains(&format!("chown 0 {shown}")), "{said}");
        chown(path, Some(0), None).unwrap();
        fs::set_permissions(path, Permissions::from_mode(good | 0o020)).unwrap();
        let (code, said) = testbed.command(&["check"]);
        assert!(code == 2 && said.contains(&format!("chmod go-w {shown}")), "{said}");
        fs::set_permissions(path, Permissions::from_mode(good)).unwrap();
        assert_eq!(testbed.command(&["check"]).0, 0);
    }
    // A default that is missing is no fault; what was named has to be there.
    let none =
        testbed.gateway(&format!("clients_dir = \"{}/none\"\n{DOORS}", testbed.directory.path().display()));
    testbed.write(&none);
    let (code, said) = testbed.command(&["check"]);
    assert!(code == 2 && said.contains(":4:15: `clients_dir`: ") && said.contains("(mkdir "), "{said}");
}

#[test]
fn other_files_beside_those_of_clients_are_named_and_waited_for_is_none() {
    let (testbed, devices) = gateway();
    testbed.client_file("laptop", &devices[0], "");
    let place = |name: &str| testbed.place_for("clients.d").join(name);
    for name in [
        "laptop.toml~",
        ".#laptop.toml",
        ".laptop.toml.swp",
        "#laptop.toml#",
        "laptop.toml.bak",
        "phone.toml.new",
    ] {
        fs::write(place(name), "no TOML").unwrap();
    }
    let (code, said) = testbed.command(&["check"]);
    assert!(code == 0 && !said.contains("not read as a client"), "{said}");
    for name in ["README", "TODO", "laptop.conf"] {
        fs::write(place(name), "no TOML").unwrap();
    }
    let (code, said) = testbed.command(&["check"]);
    let told = format!("{} and 2 more beside it are not read as a client", place("README").display());
    assert!(code == 0 && said.contains(&told), "{said}");

    // A file with the ending is meant as a client.
    fs::write(place("my laptop.toml"), "").unwrap();
    symlink("nowhere", place("link.toml")).unwrap();
    mknodat(CWD, place("pipe.toml"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::write(place("long.toml"), vec![b'#'; 65 * 1024]).unwrap();
    fs::write(place("other.toml"), "[[clients]]\nkey = \"x\"\n").unwrap();
    testbed.client_file("renamed", &devices[1], "name = \"phone\"");
    testbed.client_file("top", &devices[2], "refuse = \"drop\"");
    let (code, said) = testbed.command(&["check"]);
    for told in [
        "\"my laptop\" is no name for a client; call the file NAME.toml",
        "link.toml: it is a link to nothing",
        "pipe.toml: it is no regular file",
        "long.toml: it is longer than 64 kilobytes",
        "other.toml:1:3: `clients` does not belong here; this file is one client, so leave out [[clients]]",
        "renamed.toml:3:8: `name` is \"phone\", and the client of this file is \"renamed\"; leave `name` out, or rename",
        "top.toml:3:1: `refuse` does not belong here; this file is one client; write it into the configuration file",
    ] {
        assert!(code == 2 && said.contains(told), "{told}: {said}");
    }
    // A link to a file is that file, as everywhere.
    for name in
        ["my laptop.toml", "link.toml", "pipe.toml", "long.toml", "other.toml", "renamed.toml", "top.toml"]
    {
        fs::remove_file(place(name)).unwrap();
    }
    fs::rename(place("laptop.toml"), testbed.place_for("elsewhere")).unwrap();
    symlink(testbed.place_for("elsewhere"), place("laptop.toml")).unwrap();
    let (_, said) = testbed.command(&["client", "list"]);
    assert!(said.starts_with("laptop SHA256:"), "{said}");
    assert_eq!(testbed.command(&["client", "remove", "laptop"]).0, 0);
    assert!(testbed.place_for("elsewhere").exists() && !place("laptop.toml").is_symlink());
}

#[test]
fn where_nothing_can_be_written_nothing_is_changed_and_the_place_is_named() {
    let (testbed, devices) = gateway();
    testbed.client_file("laptop", &devices[0], "");
    let directory = testbed.place_for("clients.d");
    // Root may write wherever the disk is not read-only.
    let shown = directory.to_str().unwrap().to_owned();
    let script = format!("mount --bind {shown} {shown} && mount -o remount,ro,bind {shown} && exec \"$@\"");
    let conf = testbed.place_for("doors.toml");
    let key = devices[1].client().to_openssh();
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_port-knocking-doors")]);
        command.args(arguments).arg("--conf").arg(&conf).env("HOME", testbed.directory.path());
        let mut process = Process::start(&testbed.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().expect("it ends");
        (status.code().unwrap(), said)
    };
    let (code, said) = run(&["client", "add", "phone", "--key", &key, "--door", "ssh"]);
    assert!(code == 1 && said.contains("nothing was changed: cannot write"), "{said}");
    assert!(said.contains("phone.toml") && said.contains("Read-only file system"), "{said}");
    let (code, said) = run(&["client", "remove", "laptop"]);
    assert!(code == 1 && said.contains("nothing was changed: cannot remove"), "{said}");
    assert!(testbed.file_of("laptop").exists());
}

#[test]
fn clients_of_files_belong_to_what_was_last_in_force() {
    let (mut testbed, devices) = gateway();
    let file = testbed.client_file("laptop", &devices[0], "");
    let conf = testbed.place_for("doors.toml").to_str().unwrap().to_owned();
    let start = |testbed: &mut Testbed| {
        let mut command = testbed.program();
        command.env("STATE_DIRECTORY", testbed.place_for("kept")).args(["--last-good", "--conf", &conf]);
        testbed.start_command(command);
    };
    start(&mut testbed);
    testbed.end(Signal::TERM);
    // Broken in the file of a client itself.
    fs::write(&file, "key = \n").unwrap();
    start(&mut testbed);
    testbed.hear("RUNNING WITH WHAT WAS LAST IN FORCE");
    assert!(is_heard(&testbed, &devices[0]));
    testbed.end(Signal::TERM);
}

#[test]
fn a_disabled_client_opens_nothing_and_has_nothing_open_until_it_is_enabled() {
    let (mut testbed, devices) = gateway();
    testbed.start(&testbed.gateway(DOORS));
    for (name, device) in ["laptop", "phone"].iter().zip(&devices) {
        assert_eq!(testbed.add(name, device, &[]).0, 0);
        testbed.until("the client is heard", |testbed| is_heard(testbed, device));
    }
    for (device, source) in devices.iter().zip(CLIENT) {
        assert_eq!(device.open(&testbed, source, "ssh", 30).answer, Told::Granted);
    }
    let before = fs::read_to_string(testbed.file_of("laptop")).unwrap();
    let (code, said) = testbed.command(&["client", "disable", "laptop"]);
    assert_eq!((code, &*said), (0, "disabled: laptop the running daemon has taken it over"));
    testbed.until("its door is closed", |testbed| !testbed.is_open(CLIENT[0]));
    assert!(testbed.is_open(CLIENT[1]), "the phone's is not");
    assert!(!is_heard(&testbed, &devices[0]) && is_heard(&testbed, &devices[1]));
    testbed.hear(
        "not answered: 192.0.2.7: the client is disabled (`client enable` lets it in again), by laptop",
    );
    assert!(testbed.command(&["client", "list"]).1.contains("ssh DISABLED"));
    let (_, listed) = testbed.ask_daemon(&["list", "clients"]);
    assert_eq!(listed.matches("DISABLED").count(), 1, "{listed}");
    let (code, said) = testbed.command(&["client", "disable", "laptop"]);
    assert_eq!((code, &*said), (0, "is disabled already: laptop"));
    // Also over a restart.
    testbed.end(Signal::KILL);
    testbed.start(&testbed.gateway(DOORS));
    testbed.until("the phone is heard", |testbed| is_heard(testbed, &devices[1]));
    assert!(!is_heard(&testbed, &devices[0]));
    let (code, said) = testbed.command(&["client", "enable", "laptop"]);
    assert_eq!((code, &*said), (0, "enabled: laptop the running daemon has taken it over"));
    assert_eq!(
        fs::read_to_string(testbed.file_of("laptop")).unwrap(),
        before,
        "the rest of the file is as it was"
    );
    testbed.until("it is heard", |testbed| is_heard(testbed, &devices[0]));
    assert_eq!(devices[0].open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
    let (code, said) = testbed.command(&["client", "disable", "lapto"]);
    assert!(code == 2 && said.contains("there is no client `lapto`; did you mean `laptop`?"), "{said}");
}
