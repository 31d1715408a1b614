//! The commands that ask the running daemon: see, open, close, watch.

use std::{fs, net::Ipv4Addr, path::PathBuf, process::ExitStatus};

use doors_lab::Process;
use rustix::process::Signal;
use serde_json::Value;

use crate::testbed::{CLIENT, PATIENCE, SEQUENCE, STRANGER, Testbed, gate};

pub(crate) fn socket(testbed: &Testbed) -> PathBuf {
    testbed.place_for("control.varlink")
}

pub(crate) fn started(more: &str) -> Testbed {
    let mut testbed = Testbed::new();
    testbed.start(&gate(more));
    testbed
}

impl Testbed {
    /// Runs a command that asks the daemon of this testbed.
    pub(crate) fn ask_daemon(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let socket = socket(self);
        self.run(&[arguments, &["--control-socket", socket.to_str().unwrap()]].concat())
    }
}

/// Runs a command that has to end well, and returns what it says.
pub(crate) fn fine(testbed: &Testbed, arguments: &[&str]) -> String {
    let (status, said) = testbed.ask_daemon(arguments);
    assert!(status.success(), "{arguments:?}: {status}: {said}");
    said
}

pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap()
}

#[test]
fn a_door_opens_and_closes_by_hand_and_the_list_says_whose_it_is() {
    let testbed = started("");
    assert!(!testbed.is_open(CLIENT[0]));
    assert_eq!(fine(&testbed, &["list"]), "no door is open");
    let said = fine(&testbed, &["open", "default", CLIENT[0], "--for", "1h", "--note", "on the telephone"]);
    assert!(
        said.starts_with("door default is open for 192.0.2.7, until 20") && said.contains("60 min 0 s"),
        "{said}"
    );
    assert!(testbed.is_open(CLIENT[0]) && !testbed.is_open(STRANGER[0]));
    assert!(testbed.table().contains("comment \"by hand: on the telephone\""), "{}", testbed.table());
    testbed.knock(STRANGER[0], &SEQUENCE);
    testbed.until("the stranger who knocked is in", |testbed| testbed.is_open(STRANGER[0]));
    let listed = fine(&testbed, &["list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].contains("192.0.2.7") && lines[0].contains("by hand (on the telephone)")
    );
    assert!(lines[1].contains(STRANGER[0]) && lines[1].contains("a sequence, since 20"), "{listed}");
    let said = fine(&testbed, &["close", "default", CLIENT[0]]);
    assert_eq!(said, "closed: 1 door; connections that were made through it live on (--cut ends them)");
    assert!(!testbed.is_open(CLIENT[0]) && testbed.is_open(STRANGER[0]));
    assert_eq!(fine(&testbed, &["close", "default", CLIENT[0]]), "nothing like that was open");
    fine(&testbed, &["open", "default", CLIENT[1]]);
    assert!(testbed.is_open(CLIENT[1]), "for the door's own time");
    let said = fine(&testbed, &["close", "--all"]);
    assert!(said.starts_with("closed: 2 doors"), "{said}");
    assert!(!testbed.is_open(CLIENT[1]) && !testbed.is_open(STRANGER[0]));
}

#[test]
fn very_many_doors_are_closed_and_the_command_says_how_many() {
    let testbed = started("");
    let count: u32 = 5000;
    let elements: Vec<String> = (0..count)
        .map(|number| format!("{} timeout 1h", Ipv4Addr::from_bits(0x0a00_0000 | number)))
        .collect();
    let file = testbed.place_for("elements");
    let text = format!("add element inet port_knocking_doors default4 {{ {} }}", elements.join(", "));
    fs::write(&file, text).unwrap();
    testbed.on_server("nft", &["-f", file.to_str().unwrap()]);
    testbed.until("they are found", |testbed| {
        testbed.ask_daemon(&["status", "--json"]).1.contains(&format!("\"grants\":{count}"))
    });
    let said = fine(&testbed, &["close", "--all"]);
    assert!(said.starts_with("closed: 5000 doors;"), "{said}");
    assert!(testbed.grants("default").is_empty());
}

#[test]
fn what_was_opened_by_hand_stays_open_over_a_restart_and_is_still_by_hand() {
    let mut testbed = started("");
    fine(&testbed, &["open", "default", CLIENT[0], "--for", "10m", "--note", "a restart"]);
    testbed.end(Signal::KILL);
    assert!(testbed.is_open(CLIENT[0]));
    testbed.start(&gate(""));
    testbed.hear("found open: door default for 192.0.2.7");
    let listed = fine(&testbed, &["list"]);
    assert!(listed.contains("by hand (a restart), found open at the start,"), "{listed}");
    fine(&testbed, &["close", "--all"]);
    assert!(!testbed.is_open(CLIENT[0]));
}

#[test]
fn the_status_says_what_runs_since_when_and_what_happened_last() {
    let testbed = started("");
    testbed.knock(STRANGER[0], &[1, 2]);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.until("the door is open", |testbed| testbed.is_open(CLIENT[0]));
    let status = fine(&testbed, &["status"]);
    let said = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {status}")).split_once(' ').unwrap().1.trim().to_owned()
    };
    assert!(said("running").starts_with("port-knocking-doors 2."), "{status}");
    assert!(said("configuration").contains("doors.toml, in force since 20"), "{status}");
    assert!(said("firewall").starts_with("nftables, because"), "{status}");
    assert!(said("gate").starts_with("in place since 20"), "{status}");
    assert_eq!(said("door"), "default: 22/tcp, for 10 s, by a sequence or a key");
    assert_eq!((&*said("clients"), &*said("open")), ("none has a key", "now       1"));
    assert!(
        said("accepted").starts_with("1; the last at 20") && said("accepted").contains(CLIENT[0]),
        "{status}"
    );
    assert!(said("refused").contains("wrong knock: 198.51.100.66 on port"), "{status}");
    assert_eq!((&*said("repairs"), &*said("errors")), ("0", "0"));
    testbed.on_server("nft", &["flush", "ruleset"]);
    testbed.until("the repair is counted", |testbed| {
        let (_, status) = testbed.ask_daemon(&["status", "--json"]);
        let status: Value = serde_json::from_str(&status).unwrap();
        status["repairs"]["count"] == 1 && status["repairs"]["last"]["kind"] == "repaired"
    });
}

#[test]
fn every_command_says_clearly_that_no_daemon_runs() {
    let mut testbed = Testbed::new();
    let commands: [&[&str]; 8] = [
        &["status"],
        &["list"],
        &["list", "clients", "--json"],
        &["open", "default", "192.0.2.7"],
        &["close", "--all"],
        &["watch"],
        &["reload"],
        &["log-level", "debug"],
    ];
    let refused =
        |testbed: &Testbed| {
            for command in commands {
                let (status, said) = testbed.run(command);
                assert_eq!(code(status), 3, "{command:?}: {said}");
                assert!(said.starts_with(
                    "port-knocking-doors: no port-knocking-doors runs here: nothing answers at "
                ));
            }
        };
    refused(&testbed);
    testbed.start(&gate(""));
    fine(&testbed, &["status"]);
    testbed.end(Signal::TERM);
    assert!(!socket(&testbed).exists(), "the socket goes with the daemon");
    testbed.start(&gate(""));
    testbed.end(Signal::KILL);
    assert!(socket(&testbed).exists());
    refused(&testbed);
    testbed.start(&gate(""));
    fine(&testbed, &["status"]);
}

#[test]
fn a_daemon_that_hangs_is_said_to() {
    let mut testbed = started("");
    testbed.daemon().signal(Signal::STOP).unwrap();
    let (status, said) = testbed.ask_daemon(&["status"]);
    assert!(
        code(status) == 1 && said.contains("the daemon does not answer: it hangs, or is stopped"),
        "{said}"
    );
    testbed.daemon().signal(Signal::CONT).unwrap();
    fine(&testbed, &["status"]);
}

#[test]
fn what_cannot_be_opened_or_closed_says_why() {
    let testbed = started("");
    for (command, expected, why) in [
        (&["open", "cellar", "192.0.2.7"][..], 1, "there is no door \"cellar\""),
        (&["open", "../../x", "192.0.2.7"], 1, "there is no door \"../../x\""),
        (
            &["open", "default", "192.0.2.1"],
            1,
            "no door can be opened for 192.0.2.1: 192.0.2.1 is an address of this",
        ),
        (&["open", "default", "192.0.2.7", "--for", "0"], 2, "write a time like 90s, 10m, 2h or 1d"),
        (
            &["open", "default", "192.0.2.7", "--note", "two\nlines"],
            2,
            "a note is one line of at most 64 bytes",
        ),
        (&["open", "default", "192.0.2.300"], 2, "invalid IP address"),
        (&["close"], 2, "required arguments were not provided"),
        (&["close", "shh", "192.0.2.7"], 1, "there is no door \"shh\""),
        (&["close", "--client", "nobody-here"], 1, "there is no client \"nobody-here\""),
        (&["log-level", "loud"], 2, "the daemon takes no such level"),
    ] {
        let (status, said) = testbed.ask_daemon(command);
        assert!(code(status) == expected && said.contains(why), "{command:?}: {status}: {said}");
    }
    assert_eq!(fine(&testbed, &["list"]), "no door is open");
}

#[test]
fn a_reload_says_whether_the_configuration_is_in_force() {
    let testbed = started("");
    let said = fine(&testbed, &["reload"]);
    assert!(said.starts_with("in force: ") && said.ends_with("doors.toml, doors: 1"), "{said}");
    testbed.write(&gate("no_such_key = 1"));
    let (status, said) = testbed.ask_daemon(&["reload"]);
    assert!(
        code(status) == 1 && said.contains("keeps what was in force") && said.contains("no_such_key"),
        "{said}"
    );
    let (status, said) = testbed.ask_daemon(&["status"]);
    assert!(code(status) == 1 && said.contains("REFUSED, so what was in force stays so: "), "{said}");
    testbed.write(&gate("max_opened_door_duration = 20"));
    fine(&testbed, &["reload"]);
    let said = fine(&testbed, &["status"]);
    assert!(said.contains("default: 22/tcp, for 20 s") && !said.contains("REFUSED"), "{said}");
}

#[test]
fn whoever_watches_sees_knocks_and_doors_as_they_happen() {
    let testbed = started("");
    let watching = |more: &[&str]| {
        let mut command = testbed.program();
        command.arg("watch").args(more).arg("--control-socket").arg(socket(&testbed));
        let mut watch = Process::start(&testbed.server, command).unwrap();
        watch.wait_for("watching; end it with Ctrl-C", PATIENCE).unwrap();
        watch
    };
    let (mut all, mut one) = (watching(&[]), watching(&["--address", CLIENT[0]]));
    testbed.knock(STRANGER[0], &[1, 2]);
    all.wait_for("wrong knock: 198.51.100.66 on port", PATIENCE).unwrap();
    testbed.knock(CLIENT[0], &SEQUENCE);
    for watch in [&mut all, &mut one] {
        watch.wait_for("192.0.2.7 has knocked right 4 times", PATIENCE).unwrap();
        watch.wait_for("opened: door default for 192.0.2.7, for 10 s", PATIENCE).unwrap();
    }
    assert!(!one.lines().iter().any(|line| line.contains(STRANGER[0])), "{:?}", one.lines());
    testbed.on_server("nft", &["delete", "table", "inet", "port_knocking_doors"]);
    all.wait_for("another program or an administrator has changed the firewall", PATIENCE).unwrap();
}

#[test]
fn the_log_level_changes_and_comes_back() {
    let mut testbed = started("");
    let said = fine(&testbed, &["log-level", "debug", "--for", "1h"]);
    assert_eq!(said, "the daemon logs at debug for 60 min 0 s, and then as at its start");
    testbed.hear("the log shows debug from here on, by command of the user 0");
    testbed.knock(CLIENT[0], &SEQUENCE[..2]);
    testbed.hear("192.0.2.7 has knocked right 2 times");
    assert!(fine(&testbed, &["status"]).contains("shows debug, by command"));
    // The hour of before ends nothing now.
    fine(&testbed, &["log-level", "error", "--for", "1s"]);
    testbed.hear("the log shows what it did at the start again");
    let status = fine(&testbed, &["status"]);
    assert!(!status.contains("by command"), "{status}");
    testbed.daemon().take_lines();
    testbed.knock(CLIENT[1], &SEQUENCE);
    testbed.hear("opened: door default for 2001:db8::7");
    assert!(
        !testbed.daemon().lines().iter().any(|line| line.contains("has knocked right")),
        "not debug any more"
    );
}
