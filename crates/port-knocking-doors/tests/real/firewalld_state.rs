//! Our rules in a real firewalld, whatever changes in between.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    firewalld::{in_kernel, stays_open},
    testbed::{CLIENT, Origin, SEQUENCE, Testbed, config, with_every_firewalld},
};

with_every_firewalld! {
    with_overlapping_sources_the_client_is_in_the_first_zone_by_name
    an_interface_and_a_matching_pattern_resolve_to_the_same_zone_as_in_this_firewalld
    a_door_that_is_open_in_a_deleted_zone_can_be_closed
    every_rule_that_opens_a_port_to_all_is_reported_at_the_start_and_when_firewalld_starts
}

#[test]
fn a_timer_from_before_a_reload_does_not_close_a_door_extended_after_it() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 20"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let opened = Instant::now();
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("put back in");
    // The first extension changes the text of the rule, the second may change it back.
    for _ in 0..2 {
        stays_open(&testbed, Instant::now(), Duration::from_millis(1500));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("extended:");
    }
    stays_open(&testbed, opened, Duration::from_secs(8));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("extended:");
    stays_open(&testbed, opened, Duration::from_secs(23));
    assert_eq!(in_kernel(&testbed, CLIENT[0]), 1);
}

#[test]
fn with_two_doors_on_one_port_the_longer_grant_keeps_it_open() {
    let mut testbed = Testbed::with_firewalld();
    let door = |name: &str, first: u16, time: u64| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"22/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = {time}\n"
        )
    };
    testbed.start(&format!("{}{}", door("long", 100, 60), door("short", 200, 5)));
    testbed.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    testbed.hear("opened: door long");
    testbed.knock(CLIENT[0], &[200, 2, 3, 4, 6]);
    testbed.hear("opened: door short");
    assert_eq!(in_kernel(&testbed, CLIENT[0]), 1);
    testbed.hear("closed: door short");
    // By now firewalld would have removed the rule if it had the short timeout.
    thread::sleep(Duration::from_secs(2));
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_permanent_rule_is_removed_after_a_reload_however_long_grants_last() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 600"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--runtime-to-permanent"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("put back in");
    let line = testbed.hear("held a door open that nobody had knocked for");
    assert!(line.contains("--permanent --zone=public --remove-rich-rule="), "{line}");
    // The grant is still open, and has its own rule.
    testbed.until("there is one rule", |testbed| in_kernel(testbed, CLIENT[0]) == 1);
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn an_open_door_moves_with_its_client_to_another_zone() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 600\nfirewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--zone=internal", "--remove-service=ssh"]);
    testbed.firewall_cmd(&["--zone=internal", "--add-source=192.0.2.0/24"]);
    testbed.until("it is open there", |testbed| testbed.is_open(CLIENT[0]));
    testbed.until("there is one rule", |testbed| in_kernel(testbed, CLIENT[0]) == 1);
    testbed.firewall_cmd(&["--zone=internal", "--remove-source=192.0.2.0/24"]);
    testbed.until("it is open again", |testbed| testbed.is_open(CLIENT[0]));
}

#[test]
fn after_many_reloads_in_a_row_open_doors_are_restored() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 600\nfirewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let address = testbed.firewalld.as_ref().unwrap().address();
    for _ in 0..4 {
        let mut command = std::process::Command::new("dbus-send");
        command.args([&format!("--bus={address}"), "--dest=org.fedoraproject.FirewallD1", "--print-reply"]);
        command.args(["/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.reload"]);
        assert!(command.output().unwrap().status.success());
    }
    testbed.hear("put back in");
    // After the last of them, too.
    testbed.until("it is open, with one rule", |testbed| {
        testbed.is_open(CLIENT[0]) && in_kernel(testbed, CLIENT[0]) == 1
    });
    stays_open(&testbed, Instant::now(), Duration::from_secs(3));
}

fn with_overlapping_sources_the_client_is_in_the_first_zone_by_name(mut testbed: Testbed) {
    for (zone, source) in [("home", "192.0.2.0/24"), ("work", "192.0.2.7")] {
        testbed.firewall_cmd(&[&format!("--zone={zone}"), "--remove-service=ssh"]);
        testbed.firewall_cmd(&[&format!("--zone={zone}"), &format!("--add-source={source}")]);
    }
    testbed.start(&config("max_opened_door_duration = 60"));
    assert!(!testbed.is_open(CLIENT[0]));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

fn an_interface_and_a_matching_pattern_resolve_to_the_same_zone_as_in_this_firewalld(mut testbed: Testbed) {
    for (zone, interface) in [("dmz", "ser+"), ("work", "server")] {
        testbed.firewall_cmd(&[&format!("--zone={zone}"), "--remove-service=ssh"]);
        testbed.firewall_cmd(&[&format!("--zone={zone}"), &format!("--change-interface={interface}")]);
    }
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

fn a_door_that_is_open_in_a_deleted_zone_can_be_closed(mut testbed: Testbed) {
    let door = |name: &str, first: u16| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"22/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = 600\n"
        )
    };
    testbed.firewall_cmd(&["--permanent", "--new-zone=attic"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.start(&format!("zone = \"attic\"\n{}{}", door("a", 100), door("b", 200)));
    testbed.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    testbed.hear("opened: door a");
    testbed.firewall_cmd(&["--permanent", "--delete-zone=attic"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("INVALID_ZONE");
    testbed.write(&format!("zone = \"attic\"\n{}", door("b", 200)));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("closed: door a");
    let lines = testbed.daemon().lines().join("\n");
    assert!(!lines.contains("cannot close"), "{lines}");
    assert_eq!(testbed.end(Signal::TERM).code(), Some(0));
}

fn every_rule_that_opens_a_port_to_all_is_reported_at_the_start_and_when_firewalld_starts(
    mut testbed: Testbed,
) {
    for (zone, way) in [
        ("public", "--add-rich-rule=rule service name=ssh accept"),
        ("public", "--add-protocol=tcp"),
        ("public", "--add-source-port=53/tcp"),
        (
            "public",
            "--add-rich-rule=rule family=ipv4 source address=0.0.0.0/0 port port=22 protocol=tcp accept",
        ),
        ("public", "--add-rich-rule=rule family=ipv4 source NOT address=203.0.113.9 service name=ssh accept"),
        ("trusted", "--add-source=0.0.0.0/0"),
    ] {
        testbed.firewall_cmd(&["--permanent", &format!("--zone={zone}"), way]);
    }
    testbed.firewall_cmd(&["--permanent", "--new-policy=let"]);
    for way in ["--add-ingress-zone=ANY", "--add-egress-zone=HOST", "--set-target=ACCEPT"] {
        testbed.firewall_cmd(&["--permanent", "--policy=let", way]);
    }
    testbed.firewalld.as_mut().unwrap().stop_daemon();
    testbed.start(&config("firewall = \"rich-rules\""));
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    for way in [
        "--zone=public --remove-rich-rule='rule service name=\"ssh\" accept'",
        "--zone=public --remove-protocol=tcp",
        "--zone=public --remove-source-port=53/tcp",
        "--zone=public --remove-rich-rule='rule family=\"ipv4\" source address=\"0.0.0.0/0\"",
        "--zone=public --remove-rich-rule='rule family=\"ipv4\" source NOT address=\"203.0.113.9\"",
        "--permanent --zone=trusted --set-target=default",
        "--permanent --policy=let --set-target=CONTINUE",
    ] {
        let line = testbed.hear(way);
        assert!(line.contains("22/tcp is open to everybody"), "{line}");
    }
}

/// firewalld 2 only; older ones have no priorities.
#[test]
fn a_zone_with_a_lower_priority_value_precedes_the_zone_of_a_source() {
    let mut testbed = Testbed::with_firewalld_of(Origin::Trixie);
    for (zone, arrives) in [("dmz", "--change-interface=server"), ("internal", "--add-source=192.0.2.0/24")] {
        testbed.firewall_cmd(&["--permanent", &format!("--zone={zone}"), "--remove-service=ssh"]);
        testbed.firewall_cmd(&["--permanent", &format!("--zone={zone}"), arrives]);
    }
    testbed.firewall_cmd(&["--permanent", "--zone=dmz", "--set-ingress-priority=-20"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    assert!(testbed.firewall_cmd(&["--zone=dmz", "--list-rich-rules"]).contains(CLIENT[0]));
}

#[test]
fn a_zone_without_interfaces_does_not_close_the_port() {
    let mut testbed = Testbed::with_firewalld();
    // That zone allows ssh.
    testbed.firewall_cmd(&["--zone=internal", "--change-interface=server"]);
    testbed.start(&config("firewall = \"nftables\""));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    // By now the daemon has asked firewalld.
    testbed.firewall_cmd(&["--state"]);
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("so no knock can open it")));
}
