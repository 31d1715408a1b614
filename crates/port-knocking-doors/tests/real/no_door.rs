//! A configuration without a door, as the installation provides it.

use std::fs;

use rustix::process::Signal;

use crate::{
    raw_client::Device,
    testbed::{Answer, CLIENT, PORT, SEQUENCE, STRANGER, Testbed, config, with_every_firewalld},
};

const NONE: &str =
    "there is no door, so nothing is guarded and nothing opens; write one into the configuration file";
const DOOR: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";

/// The published sequence.
const PUBLISHED: [u16; 5] = [16001, 16002, 16003, 16004, 16005];

#[test]
fn a_daemon_without_a_door_runs_and_gets_one_by_a_reload() {
    for top in ["", "listen = \"sockets\""] {
        let mut testbed = Testbed::new();
        let path = testbed.write(&format!("firewall = \"nftables\"\n{top}\n"));
        let mut command = testbed.program();
        command.arg("--conf").arg(path);
        testbed.spawn(command);
        testbed.hear("ready: there is no door to open yet");
        let said = testbed.daemon().lines().join("\n");
        assert!(said.contains(NONE), "{said}");
        assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Accepted, "nothing is guarded");

        testbed.write(&config(&format!("firewall = \"nftables\"\n{top}")));
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("the configuration has been read again");
        testbed.until("the port is guarded", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Silence);
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened: door default for 192.0.2.7");
        assert!(testbed.is_open(CLIENT[0]));

        testbed.write(&format!("firewall = \"nftables\"\n{top}\n"));
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("closed: door default for 192.0.2.7");
        testbed.hear(NONE);
        testbed.until("nothing is guarded", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Accepted);
    }
}

fn beside_firewalld_a_door_comes_by_a_reload(mut testbed: Testbed) {
    testbed.start("max_opened_door_duration = 60\n");
    testbed.write(&config("max_opened_door_duration = 60"));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened: door default for 192.0.2.7");
    assert!(testbed.is_open(CLIENT[0]));
}

with_every_firewalld! {
    beside_firewalld_a_door_comes_by_a_reload
}

#[test]
fn the_installed_file_opens_nothing_and_check_fails_until_it_has_a_door() {
    let mut testbed = Testbed::new();
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/port_knocker.toml");
    let installed = fs::read_to_string(installed).unwrap();
    let key = testbed.place_for("gateway.key");
    let state = testbed.place_for("state");
    let text = format!("gateway_key = {key:?}\nstate_dir = {state:?}\n{installed}");
    let path = testbed.write(&text);
    let path = path.to_str().unwrap();
    let (status, said) = testbed.run(&["check", "--conf", path]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.split_whitespace().collect::<Vec<_>>().join(" ").contains(NONE), "{said}");
    testbed.start(&text);
    testbed.knock(CLIENT[0], &PUBLISHED);
    testbed.knock(CLIENT[0], &SEQUENCE);

    // Continue as the page for clients describes.
    let (status, said) = testbed.run(&["gateway", "init", "--conf", path]);
    assert!(status.success(), "{said}");
    let (_, card) = testbed.run(&["gateway", "card", "--conf", path]);
    let device = Device::new(1, &card.trim().parse().unwrap());
    let public = device.client().to_openssh();
    let add = ["client", "add", "laptop", "--door", "ssh", "--key", &public, "--conf", path];
    let (status, said) = testbed.run(&add);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("there is no door `ssh`; there is none; write a [[doors]] with this name"),
        "{said}"
    );
    testbed.write(&format!("{text}\n{DOOR}"));
    let (status, said) = testbed.run(&add);
    assert!(status.success(), "{said}");
    let (status, said) = testbed.run(&["check", "--conf", path]);
    assert_eq!(status.code(), Some(0), "{said}");
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("the configuration has been read again");
    testbed.until("the port is guarded", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Silence);
    assert!(
        !testbed.daemon().lines().iter().any(|line| line.contains("opened:")),
        "no knock has opened anything"
    );
}

#[test]
fn half_a_door_from_an_option_is_not_completed_with_the_published_sequence() {
    let testbed = Testbed::new();
    let path = testbed.write("max_opened_door_duration = 10\n");
    let (status, said) = testbed.run(&["check", "--conf", path.to_str().unwrap(), "--ports", "8080"]);
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(
        said.contains("--ports: ") && said.contains("whose sequence neither the file nor anything else"),
        "{said}"
    );
    let both =
        ["check", "--conf", path.to_str().unwrap(), "--ports", "8080", "-m", "40871,12903,55012,7741,31337"];
    let (status, said) = testbed.run(&both);
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("door default: opens 8080/tcp"), "{said}");
}
