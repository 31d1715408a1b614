//! What a real firewalld holds of ours, whatever is done to it in between.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    firewalld::{in_kernel, stays_open},
    testbed::{CLIENT, House, Origin, SEQUENCE, config, with_every_firewalld},
};

with_every_firewalld! {
    of_zones_with_overlapping_sources_the_first_by_name_is_the_clients
    the_zone_of_an_interface_and_a_pattern_for_it_is_found_as_this_firewalld_does
    a_door_that_is_open_in_a_zone_that_vanishes_can_be_closed
    whatever_opens_a_port_to_everybody_is_named_at_start_and_when_firewalld_comes
}

#[test]
fn no_timer_of_before_a_reload_closes_a_door_that_was_extended_after_it() {
    let mut house = House::with_firewalld();
    house.start(&config("max_opened_door_duration = 20"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    let opened = Instant::now();
    house.firewall_cmd(&["--reload"]);
    house.hear("put back in");
    // The first extension changes the text, the second may change it back.
    for _ in 0..2 {
        stays_open(&house, Instant::now(), Duration::from_millis(1500));
        house.knock(CLIENT[0], &SEQUENCE);
        house.hear("extended:");
    }
    stays_open(&house, opened, Duration::from_secs(8));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("extended:");
    stays_open(&house, opened, Duration::from_secs(23));
    assert_eq!(in_kernel(&house, CLIENT[0]), 1);
}

#[test]
fn of_two_doors_with_the_same_port_the_longer_one_keeps_it_open() {
    let mut house = House::with_firewalld();
    let door = |name: &str, first: u16, time: u64| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"22/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = {time}\n"
        )
    };
    house.start(&format!("{}{}", door("long", 100, 60), door("short", 200, 5)));
    house.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    house.hear("opened: door long");
    house.knock(CLIENT[0], &[200, 2, 3, 4, 6]);
    house.hear("opened: door short");
    assert_eq!(in_kernel(&house, CLIENT[0]), 1);
    house.hear("closed: door short");
    // By now firewalld would have taken it out, had it been given the short time.
    thread::sleep(Duration::from_secs(2));
    assert!(house.is_open(CLIENT[0]));
}

#[test]
fn a_door_that_was_made_permanent_is_closed_after_a_reload_however_long_doors_last() {
    let mut house = House::with_firewalld();
    house.start(&config("max_opened_door_duration = 600"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    house.firewall_cmd(&["--runtime-to-permanent"]);
    house.firewall_cmd(&["--reload"]);
    house.hear("put back in");
    let line = house.hear("held a door open that nobody had knocked for");
    assert!(line.contains("--permanent --zone=public --remove-rich-rule="), "{line}");
    // The grant still runs, and has its own rule.
    house.until("there is one rule", |house| in_kernel(house, CLIENT[0]) == 1);
    assert!(house.is_open(CLIENT[0]));
}

#[test]
fn an_open_door_moves_with_its_client_to_another_zone() {
    let mut house = House::with_firewalld();
    house.start(&config("max_opened_door_duration = 600\nfirewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    house.firewall_cmd(&["--zone=internal", "--remove-service=ssh"]);
    house.firewall_cmd(&["--zone=internal", "--add-source=192.0.2.0/24"]);
    house.until("it is open there", |house| house.is_open(CLIENT[0]));
    house.until("there is one rule", |house| in_kernel(house, CLIENT[0]) == 1);
    house.firewall_cmd(&["--zone=internal", "--remove-source=192.0.2.0/24"]);
    house.until("it is open again", |house| house.is_open(CLIENT[0]));
}

#[test]
fn after_many_reloads_in_a_row_open_doors_are_back() {
    let mut house = House::with_firewalld();
    house.start(&config("max_opened_door_duration = 600\nfirewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    let address = house.firewalld.as_ref().unwrap().address();
    for _ in 0..4 {
        let mut command = std::process::Command::new("dbus-send");
        command.args([&format!("--bus={address}"), "--dest=org.fedoraproject.FirewallD1", "--print-reply"]);
        command.args(["/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.reload"]);
        assert!(command.output().unwrap().status.success());
    }
    house.hear("put back in");
    // Also after the last of them.
    house.until("it is open, with one rule", |house| {
        house.is_open(CLIENT[0]) && in_kernel(house, CLIENT[0]) == 1
    });
    stays_open(&house, Instant::now(), Duration::from_secs(3));
}

fn of_zones_with_overlapping_sources_the_first_by_name_is_the_clients(mut house: House) {
    for (zone, source) in [("home", "192.0.2.0/24"), ("work", "192.0.2.7")] {
        house.firewall_cmd(&[&format!("--zone={zone}"), "--remove-service=ssh"]);
        house.firewall_cmd(&[&format!("--zone={zone}"), &format!("--add-source={source}")]);
    }
    house.start(&config("max_opened_door_duration = 60"));
    assert!(!house.is_open(CLIENT[0]));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    assert!(house.is_open(CLIENT[0]));
}

fn the_zone_of_an_interface_and_a_pattern_for_it_is_found_as_this_firewalld_does(mut house: House) {
    for (zone, interface) in [("dmz", "ser+"), ("work", "server")] {
        house.firewall_cmd(&[&format!("--zone={zone}"), "--remove-service=ssh"]);
        house.firewall_cmd(&[&format!("--zone={zone}"), &format!("--change-interface={interface}")]);
    }
    house.start(&config("max_opened_door_duration = 60"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    assert!(house.is_open(CLIENT[0]));
}

fn a_door_that_is_open_in_a_zone_that_vanishes_can_be_closed(mut house: House) {
    let door = |name: &str, first: u16| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"22/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = 600\n"
        )
    };
    house.firewall_cmd(&["--permanent", "--new-zone=attic"]);
    house.firewall_cmd(&["--reload"]);
    house.start(&format!("zone = \"attic\"\n{}{}", door("a", 100), door("b", 200)));
    house.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    house.hear("opened: door a");
    house.firewall_cmd(&["--permanent", "--delete-zone=attic"]);
    house.firewall_cmd(&["--reload"]);
    house.hear("INVALID_ZONE");
    house.write(&format!("zone = \"attic\"\n{}", door("b", 200)));
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("closed: door a");
    let lines = house.daemon().lines().join("\n");
    assert!(!lines.contains("cannot close"), "{lines}");
    assert_eq!(house.end(Signal::TERM).code(), Some(0));
}

fn whatever_opens_a_port_to_everybody_is_named_at_start_and_when_firewalld_comes(mut house: House) {
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
        house.firewall_cmd(&["--permanent", &format!("--zone={zone}"), way]);
    }
    house.firewall_cmd(&["--permanent", "--new-policy=let"]);
    for way in ["--add-ingress-zone=ANY", "--add-egress-zone=HOST", "--set-target=ACCEPT"] {
        house.firewall_cmd(&["--permanent", "--policy=let", way]);
    }
    house.firewalld.as_mut().unwrap().stop_daemon();
    house.start(&config("firewall = \"rich-rules\""));
    let House { firewalld, server, .. } = &mut house;
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
        let line = house.hear(way);
        assert!(line.contains("22/tcp is open to everybody"), "{line}");
    }
}

/// Of firewalld 2; before, there are no priorities.
#[test]
fn a_zone_with_a_lower_priority_goes_before_the_zone_of_a_source() {
    let mut house = House::with_firewalld_of(Origin::Trixie);
    for (zone, arrives) in [("dmz", "--change-interface=server"), ("internal", "--add-source=192.0.2.0/24")] {
        house.firewall_cmd(&["--permanent", &format!("--zone={zone}"), "--remove-service=ssh"]);
        house.firewall_cmd(&["--permanent", &format!("--zone={zone}"), arrives]);
    }
    house.firewall_cmd(&["--permanent", "--zone=dmz", "--set-ingress-priority=-20"]);
    house.firewall_cmd(&["--reload"]);
    house.start(&config("max_opened_door_duration = 60"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    assert!(house.is_open(CLIENT[0]));
    assert!(house.firewall_cmd(&["--zone=dmz", "--list-rich-rules"]).contains(CLIENT[0]));
}

#[test]
fn the_zone_of_no_interface_closes_nothing_before_the_gate() {
    let mut house = House::with_firewalld();
    // ssh is let through there.
    house.firewall_cmd(&["--zone=internal", "--change-interface=server"]);
    house.start(&config("firewall = \"nftables\""));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    // By now it has been asked.
    house.firewall_cmd(&["--state"]);
    assert!(!house.daemon().lines().iter().any(|line| line.contains("so no knock can open it")));
}
