//! Whoever works against our table in nftables.

use std::process::Command;

use doors_lab::Process;
use rustix::process::Signal;

use crate::{
    raw_client::{Device, client},
    testbed::{Answer, CLIENT, PATIENCE, PORT, SEQUENCE, STRANGER, Testbed, gate},
};

/// Starts a line of the shell in the server's network.
pub(crate) fn in_a_shell(testbed: &Testbed, line: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    Process::start(&testbed.server, command).unwrap()
}

#[test]
fn a_rule_replaced_in_its_place_is_noticed() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("firewall_rules_check_periode_seconds = 3600"));
    let table = ["-a", "list", "table", "inet", "port_knocking_doors"];
    for (chain, rule, by) in
        [("door_default", "drop # handle ", "accept"), ("gate", "unicast accept # handle ", "accept")]
    {
        let listed = testbed.on_server("nft", &table);
        let handle = listed.split(rule).nth(1).unwrap().split_whitespace().next().unwrap();
        testbed.on_server(
            "nft",
            &["replace", "rule", "inet", "port_knocking_doors", chain, "handle", handle, by],
        );
        let line = testbed.hear("another program or an administrator has changed the firewall");
        assert!(line.contains(&format!("a rule of the chain {chain} was missing or changed")), "{line}");
        assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence, "{chain}");
    }
}

#[test]
fn whoever_changes_the_table_again_and_again_does_not_win() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("firewall_rules_check_periode_seconds = 3600"));
    for vandalism in [
        &["flush", "ruleset"][..],
        &["flush", "chain", "inet", "port_knocking_doors", "gate"],
        &["flush", "chain", "inet", "port_knocking_doors", "door_default"],
    ] {
        let again_and_again = format!("for i in $(seq 100); do nft {}; done", vandalism.join(" "));
        in_a_shell(&testbed, &again_and_again).finish(PATIENCE).unwrap();
        testbed.until("the gate is back", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Silence);
        testbed.until("and whole", |testbed| {
            let table = testbed.table();
            table.contains("vmap @guarded") && table.contains("drop")
        });
    }
}

#[test]
fn whoever_removes_the_table_as_soon_as_it_is_there_does_not_win() {
    for _ in 0..5 {
        let mut testbed = Testbed::new();
        let path = testbed.write(&gate("firewall_rules_check_periode_seconds = 3600"));
        let delete = "nft delete table inet port_knocking_doors";
        let mut vandal = in_a_shell(&testbed, &format!("for i in $(seq 1000); do {delete} && exit; done"));
        let mut command = testbed.program();
        command.arg("--conf").arg(path);
        testbed.start_command(command);
        assert!(vandal.finish(PATIENCE).unwrap().is_some_and(|(status, _)| status.success()));
        testbed.until("the gate is there", |testbed| testbed.ask(STRANGER[0], PORT) == Answer::Silence);
        assert!(testbed.table().contains("vmap @guarded"));
    }
}

#[test]
fn a_knock_that_finds_the_table_gone_opens_and_the_loss_is_told() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("firewall_rules_check_periode_seconds = 3600"));
    testbed.daemon().signal(Signal::STOP).unwrap();
    testbed.on_server("nft", &["flush", "ruleset"]);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.daemon().signal(Signal::CONT).unwrap();
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    assert!(
        testbed
            .hear("another program or an administrator has changed the firewall")
            .contains("the table was gone")
    );
}

/// A daemon with a door for one connection, which two clients behind one address have asked for.
fn asked_for_by_two(testbed: &mut Testbed) {
    let card = testbed.card();
    let (phone, laptop) = (Device::new(1, &card), Device::new(2, &card));
    let door = "[[doors]]\nname = \"web\"\nports = [\"22/tcp\"]\nopen_for = 60\ngrant = \"once\"\n";
    let clients = client("phone", &phone, &["web"], "") + &client("laptop", &laptop, &["web"], "");
    testbed.start(&testbed.gateway(&format!("{door}{clients}")));
    for device in [&phone, &laptop] {
        device.open(testbed, CLIENT[0], "web", 0);
    }
    testbed.hear("also open: door web for 192.0.2.7, for 60 s, by laptop");
}

#[test]
fn a_grant_for_one_connection_that_is_taken_out_by_hand_was_not_used_and_ends_what_waits_behind_it() {
    for command in [
        &["delete", "element", "inet", "port_knocking_doors", "web4", "{ 192.0.2.7 }"][..],
        &["flush", "set", "inet", "port_knocking_doors", "web4"],
    ] {
        let mut testbed = Testbed::new();
        asked_for_by_two(&mut testbed);
        testbed.on_server("nft", command);
        testbed.hear("closed by hand: door web for 192.0.2.7, by phone");
        assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
        let lines = testbed.daemon().lines();
        let untrue = |line: &&String| {
            line.contains("used: door") || line.contains("s, by laptop") && line.contains(" opened:")
        };
        assert_eq!(lines.iter().find(untrue), None);
    }
}

#[test]
fn a_grant_for_one_connection_that_is_gone_with_the_table_is_called_so() {
    for command in [&["flush", "ruleset"][..], &["delete", "table", "inet", "port_knocking_doors"]] {
        let mut testbed = Testbed::new();
        asked_for_by_two(&mut testbed);
        testbed.on_server("nft", command);
        testbed.hear("gone with the gate: door web for 192.0.2.7, by phone");
        // The next has used nothing.
        let opened = testbed.hear(", by laptop");
        assert!(opened.contains("opened: door web for 192.0.2.7"), "{opened}");
        assert!(!testbed.daemon().lines().iter().any(|line| line.contains("used: door web")));
        assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Accepted);
    }
}
