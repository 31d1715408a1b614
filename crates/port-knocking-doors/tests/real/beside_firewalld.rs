//! Our gate beside a real firewalld.

use std::{net::TcpListener, thread, time::Duration};

use rustix::process::Signal;

use crate::{
    firewalld::{in_kernel, rules, stays_open},
    testbed::{Answer, CLIENT, PORT, SEQUENCE, STRANGER, Testbed, config, crowd, with_every_firewalld},
};

with_every_firewalld! {
    a_port_that_firewalld_leaves_open_is_guarded_and_opens_without_asking_firewalld
    no_rule_of_firewalld_bypasses_the_gate
    a_policy_that_accepts_everything_does_not_bypass_the_gate
    a_reload_and_a_restart_of_firewalld_never_open_the_gate
    a_door_closes_on_time_although_a_killed_firewalld_has_left_its_rule
    a_killed_firewalld_alone_leaves_a_door_open_and_the_log_says_so
    a_zone_that_closes_the_port_while_a_door_is_open_does_not_close_the_door
}

/// A testbed whose firewalld allows ssh, as Debian's and Fedora's do.
fn as_installed(testbed: Testbed) -> Testbed {
    testbed.firewall_cmd(&["--permanent", "--add-service=ssh"]);
    testbed.firewall_cmd(&["--reload"]);
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Accepted, "the port is open");
    testbed
}

fn a_port_that_firewalld_leaves_open_is_guarded_and_opens_without_asking_firewalld(testbed: Testbed) {
    let mut testbed = as_installed(testbed);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("firewalld's zone public lets 22/tcp through, and the gate alone keeps it closed");
    for (client, stranger) in CLIENT.into_iter().zip(STRANGER) {
        // The gate does not wait for a firewalld that hangs.
        let firewalld = testbed.firewalld.as_ref().unwrap().daemon().unwrap();
        firewalld.signal(Signal::STOP).unwrap();
        assert_eq!(testbed.ask(client, PORT), Answer::Silence);
        testbed.knock(client, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {client}"));
        assert_eq!(testbed.ask(client, PORT), Answer::Accepted);
        assert_eq!(testbed.ask(stranger, PORT), Answer::Silence);
        testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::CONT).unwrap();
    }
    assert!(rules(&testbed).is_empty());
}

fn a_zone_that_closes_the_port_while_a_door_is_open_does_not_close_the_door(testbed: Testbed) {
    let mut testbed = as_installed(testbed);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("lets 22/tcp through");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--remove-service=ssh"]);
    testbed.hear("firewalld's zone public closes 22/tcp");
    testbed.until("the door is open in firewalld, too", |testbed| in_kernel(testbed, CLIENT[0]) == 1);
    assert!(testbed.is_open(CLIENT[0]));
    // A later knock opens both.
    testbed.knock(&crowd(4), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(4)));
    assert!(testbed.is_open(&crowd(4)));
    // A deny rule of an administrator closes the port just as a zone does.
    testbed.firewall_cmd(&["--add-service=ssh"]);
    testbed.hear("lets 22/tcp through");
    testbed.firewall_cmd(&[
        "--add-rich-rule=rule family=ipv4 source address=198.51.100.0/24 service name=ssh drop",
    ]);
    testbed.hear("closes 22/tcp");
    testbed.knock(&crowd(5), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(5)));
    assert!(testbed.is_open(&crowd(5)));
    assert!(!testbed.is_open(&crowd(6)));
}

fn no_rule_of_firewalld_bypasses_the_gate(mut testbed: Testbed) {
    let inside = testbed.machine_behind();
    let listener = inside.enter(|| TcpListener::bind("203.0.113.2:80")).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    testbed.serve(2200);
    // Port 8080 is published as a container engine does it, port 8022 is forwarded by firewalld.
    testbed.on_server(
        "nft",
        &["add table ip engine; \
         add chain ip engine pre { type nat hook prerouting priority dstnat; }; \
         add rule ip engine pre tcp dport 8080 dnat to 203.0.113.2:80"],
    );
    testbed.firewall_cmd(&["--add-forward-port=port=8022:proto=tcp:toport=2200"]);
    testbed
        .firewall_cmd(&["--add-rich-rule=rule family=ipv4 source address=0.0.0.0/0 service name=ssh accept"]);
    testbed.firewall_cmd(&[
        "--add-rich-rule=rule family=ipv6 source NOT address=2001:db8::99 service name=ssh accept",
    ]);
    testbed.firewall_cmd(&["--zone=trusted", "--add-source=198.51.100.66"]);
    let ways =
        [(STRANGER[0], 8080), ("198.51.100.8", 8022), (STRANGER[0], 22), (STRANGER[1], 22), (CLIENT[0], 22)];
    for (stranger, port) in ways {
        assert_eq!(
            testbed.ask(stranger, port),
            Answer::Accepted,
            "{stranger} to {port} before the daemon runs"
        );
    }
    testbed.start(&config("max_opened_door_duration = 60").replace("[22]", "[22, 8022, 8080]"));
    for (stranger, port) in ways {
        assert_eq!(testbed.ask(stranger, port), Answer::Silence, "{stranger} to {port}");
    }
    for (client, port) in ways {
        testbed.knock(client, &SEQUENCE);
        testbed.until("the door is open", |testbed| testbed.ask(client, port) == Answer::Accepted);
    }
    assert_eq!(testbed.ask(&crowd(9), 8080), Answer::Silence);
}

fn a_policy_that_accepts_everything_does_not_bypass_the_gate(mut testbed: Testbed) {
    testbed.firewall_cmd(&["--permanent", "--new-policy=let"]);
    for way in ["--add-ingress-zone=ANY", "--add-egress-zone=HOST", "--set-target=ACCEPT"] {
        testbed.firewall_cmd(&["--permanent", "--policy=let", way]);
    }
    testbed.firewall_cmd(&["--reload"]);
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Accepted);
    testbed.start(&config("max_opened_door_duration = 60"));
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

fn a_reload_and_a_restart_of_firewalld_never_open_the_gate(testbed: Testbed) {
    let mut testbed = as_installed(testbed);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("lets 22/tcp through");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("firewalld was reloaded");
    assert!(testbed.is_open(CLIENT[0]));
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence);
    testbed.firewalld.as_mut().unwrap().stop_daemon();
    testbed.hear("firewalld has stopped");
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence);
    // The rules of the killed firewalld allow ssh, so there is nothing to wait for.
    testbed.knock(&crowd(3), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(3)));
    assert!(testbed.is_open(&crowd(3)));
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    testbed.hear("firewalld has started");
    assert!(testbed.is_open(CLIENT[0]));
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence);
}

fn a_door_closes_on_time_although_a_killed_firewalld_has_left_its_rule(mut testbed: Testbed) {
    testbed.start(&config("max_opened_door_duration = 4"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::KILL).unwrap();
    let line = testbed
        .hear("firewalld has stopped, and what it had in the kernel is still there, with a rule of ours");
    assert!(line.contains("systemctl restart firewalld"), "{line}");
    testbed.hear("closed:");
    testbed.until_closed(CLIENT[0]);
    assert_eq!(in_kernel(&testbed, CLIENT[0]), 1, "the rule is still there");
    // A port that its table closes is not reported as open.
    testbed.knock(&crowd(3), &SEQUENCE);
    testbed.hear(&format!("never opened: door default for {}", crowd(3)));
    // Once the table is removed, the gate alone decides.
    testbed.on_server("nft", &["delete", "table", "inet", "firewalld"]);
    testbed.knock(&crowd(4), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(4)));
    assert!(testbed.is_open(&crowd(4)));
    assert!(!testbed.is_open(&crowd(5)));
}

fn a_killed_firewalld_alone_leaves_a_door_open_and_the_log_says_so(mut testbed: Testbed) {
    testbed.start(&config(
        "firewall = \"rich-rules\"\nmax_opened_door_duration = 4\nfirewall_rules_check_periode_seconds = 1",
    ));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::KILL).unwrap();
    testbed.hear("with a rule of ours: nobody takes them out on time, so those doors stay open");
    testbed.hear("closed:");
    // A firewalld older than 2 does not know the rule after a restart, so its lists do not show it.
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    testbed.hear("firewalld has started");
    if in_kernel(&testbed, CLIENT[0]) > 0 {
        let line = testbed.hear("firewalld has not taken out what it had in the kernel when it was killed");
        assert!(line.contains("those doors are open; try: firewall-cmd --reload"), "{line}");
        testbed.firewall_cmd(&["--reload"]);
    }
    assert_eq!(in_kernel(&testbed, CLIENT[0]), 0);
    assert!(!testbed.is_open(CLIENT[0]));
}

#[test]
fn once_trusted_and_refuse_hold_beside_firewalld() {
    let mut testbed = as_installed(Testbed::with_firewalld());
    testbed.start(&format!(
        "trusted = [\"198.51.100.64/26\"]\nrefuse = \"reject\"\nfirewall_rules_check_periode_seconds = 1\n\
         [[doors]]\nname = \"once\"\nports = [\"22/tcp\"]\nsequence = {SEQUENCE:?}\ngrant = \"once\"\nopen_for = 60\n"
    ));
    testbed.hear("lets 22/tcp through");
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Accepted, "trusted");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Refused);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Accepted);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Refused);
    // The same holds where firewalld has a rule for the grant.
    testbed.hear("used:");
    testbed.firewall_cmd(&["--remove-service=ssh"]);
    testbed.hear("closes 22/tcp");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert_eq!(rules(&testbed).len(), 1);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Accepted);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Refused);
    testbed.hear("used:");
    testbed.until("its rule goes, too", |testbed| rules(testbed).is_empty());
}

#[test]
fn a_restart_of_the_daemon_keeps_a_door_open_in_firewalld_over_a_reload() {
    let mut testbed = Testbed::with_firewalld();
    let text = config("max_opened_door_duration = 60");
    testbed.start(&text);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.end(Signal::TERM);
    testbed.start(&text);
    testbed.hear("found open: door default for");
    testbed.until("there is one rule", |testbed| rules(testbed).len() == 1);
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("put back in");
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_policy_that_denies_before_every_zone_is_reported() {
    let mut testbed = Testbed::with_firewalld();
    testbed.firewall_cmd(&["--permanent", "--new-policy=wall"]);
    for way in ["--add-ingress-zone=ANY", "--add-egress-zone=HOST", "--set-target=REJECT"] {
        testbed.firewall_cmd(&["--permanent", "--policy=wall", way]);
    }
    testbed.firewall_cmd(&["--reload"]);
    testbed.start(&config(""));
    let line = testbed.hear("firewalld's policy wall comes before every zone and denies something");
    assert!(line.contains("--policy=wall --set-priority=10"), "{line}");
    // After the command in the message, the door opens.
    testbed.firewall_cmd(&["--permanent", "--policy=wall", "--set-priority=10"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("firewalld was reloaded");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_port_that_firewalld_forwards_for_ipv4_only_opens_for_ipv6_too() {
    let mut testbed = Testbed::with_firewalld();
    testbed.serve(2200);
    testbed.firewall_cmd(&["--add-forward-port=port=22:proto=tcp:toport=2200"]);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("closes 22/tcp");
    for client in CLIENT {
        testbed.knock(client, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {client}"));
        assert!(testbed.is_open(client), "{client}");
    }
}

#[test]
fn a_zone_of_containers_is_reported_as_such_without_advice_to_close_it() {
    let testbed = Testbed::with_firewalld();
    testbed.server.cable("docker0", &testbed.client, "container").unwrap();
    testbed.firewall_cmd(&["--permanent", "--new-zone=docker"]);
    testbed.firewall_cmd(&["--permanent", "--zone=docker", "--set-target=ACCEPT"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.firewall_cmd(&["--zone=docker", "--change-interface=docker0"]);
    for (firewall, names_it) in [("rich-rules", true), ("nftables", false), ("auto", false)] {
        let path = testbed.write(&config(&format!("firewall = \"{firewall}\"")));
        let (_, said) = testbed.run(&["check", "--conf", path.to_str().unwrap()]);
        let said = said.replace("\n    ", " ");
        assert!(!said.contains("--zone=docker"), "{said}");
        let named = "as containers and virtual machines behind docker0 need it";
        assert_eq!(said.contains(named), names_it, "{said}");
    }
}

#[test]
fn a_service_with_a_destination_address_does_not_count_as_open() {
    let mut testbed = Testbed::with_firewalld();
    testbed.firewall_cmd(&["--permanent", "--new-service=here"]);
    testbed.firewall_cmd(&["--permanent", "--service=here", "--add-port=22/tcp"]);
    testbed.firewall_cmd(&["--permanent", "--service=here", "--set-destination=ipv4:203.0.113.77"]);
    testbed.firewall_cmd(&["--permanent", "--add-service=here"]);
    testbed.firewall_cmd(&["--reload"]);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("closes 22/tcp");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    stays_open(&testbed, std::time::Instant::now(), Duration::from_millis(200));
}

#[test]
fn a_port_closed_by_a_killed_firewalld_with_the_iptables_backend_is_not_called_open() {
    let mut testbed = Testbed::with_firewalld_that_says("FirewallBackend=iptables");
    testbed.start(&config("max_opened_door_duration = 4"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::KILL).unwrap();
    testbed.hear("firewalld has stopped, and what it had in the kernel is still there, with a rule of ours");
    testbed.knock(&crowd(3), &SEQUENCE);
    testbed.hear(&format!("never opened: door default for {}", crowd(3)));
}
