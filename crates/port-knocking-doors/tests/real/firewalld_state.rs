//! What a real firewalld holds of ours, whatever is done to it in between.

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
    of_zones_with_overlapping_sources_the_first_by_name_is_the_clients
    the_zone_of_an_interface_and_a_pattern_for_it_is_found_as_this_firewalld_does
    a_door_that_is_open_in_a_zone_that_vanishes_can_be_closed
    whatever_opens_a_port_to_everybody_is_named_at_start_and_when_firewalld_comes
}

#[test]
fn no_timer_of_before_a_reload_closes_a_door_that_was_extended_after_it() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 20"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let opened = Instant::now();
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("put back in");
    // The first extension changes the text, the second may change it back.
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
fn of_two_doors_with_the_same_port_the_longer_one_keeps_it_open() {
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
    // By now firewalld would have taken it out, had it been given the short time.
    thread::sleep(Duration::from_secs(2));
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_door_that_was_made_permanent_is_closed_after_a_reload_however_long_doors_last() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 600"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--runtime-to-permanent"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("put back in");
    let line = testbed.hear("held a door open that nobody had knocked for");
    assert!(line.contains("--permanent --zone=public --remove-rich-rule="), "{line}");
    // The grant still runs, and has its own rule.
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
fn after_many_reloads_in_a_row_open_doors_are_back() {
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
    // Also after the last of them.
    testbed.until("it is open, with one rule", |testbed| {
        testbed.is_open(CLIENT[0]) && in_kernel(testbed, CLIENT[0]) == 1
    });
    stays_open(&testbed, Instant::now(), Duration::from_secs(3));
}

fn of_zones_with_overlapping_sources_the_first_by_name_is_the_clients(mut testbed: Testbed) {
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

fn the_zone_of_an_interface_and_a_pattern_for_it_is_found_as_this_firewalld_does(mut testbed: Testbed) {
    for (zone, interface) in [("dmz", "ser+"), ("work", "server")] {
        testbed.firewall_cmd(&[&format!("--zone={zone}"), "--remove-service=ssh"]);
        testbed.firewall_cmd(&[&format!("--zone={zone}"), &format!("--change-interface={interface}")]);
    }
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

fn a_door_that_is_open_in_a_zone_that_vanishes_can_be_closed(mut testbed: Testbed) {
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

fn whatever_opens_a_port_to_everybody_is_named_at_start_and_when_firewalld_comes(mut testbed: Testbed) {
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

/// Of firewalld 2; before, there are no priorities.
#[test]
fn a_zone_with_a_lower_priority_goes_before_the_zone_of_a_source() {
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
fn the_zone_of_no_interface_closes_nothing_before_the_gate() {
    let mut testbed = Testbed::with_firewalld();
    // ssh is let through there.
    testbed.firewall_cmd(&["--zone=internal", "--change-interface=server"]);
    testbed.start(&config("firewall = \"nftables\""));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    // By now it has been asked.
    testbed.firewall_cmd(&["--state"]);
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("so no knock can open it")));
}
