//! A real firewalld on its own bus.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use doors_lab::{Namespace, Process};
use rustix::process::Signal;

use crate::testbed::{
    Answer, CLIENT, PATIENCE, PORT, SEQUENCE, SERVER, SILENCE, STRANGER, Testbed, config, crowd, echoes,
    with_every_firewalld,
};

with_every_firewalld! {
    a_door_opens_for_its_knocker_only_and_firewalld_closes_it
    a_second_sequence_extends_without_a_gap
    after_a_reload_open_doors_are_back_within_a_second_with_their_time
    a_restart_of_firewalld_closes_no_door_early_and_loses_no_knock
    a_grant_is_in_the_zone_of_the_source_or_of_the_interface
    a_rule_that_an_administrator_removes_closes_the_door
    several_ports_and_both_families_open_together
}

pub(crate) fn rules(testbed: &Testbed) -> Vec<String> {
    testbed.firewall_cmd(&["--list-rich-rules"]).lines().map(str::to_owned).collect()
}

/// The number of firewalld's rules for a client in the kernel. Asking the kernel is quicker than `firewall-cmd`,
/// which takes seconds on a busy machine.
pub(crate) fn in_kernel(testbed: &Testbed, client: &str) -> usize {
    let ruleset = testbed.on_server("nft", &["list", "ruleset"]);
    let firewalld =
        ruleset.split("\ntable ").find(|table| table.contains("inet firewalld {")).unwrap_or_default();
    firewalld.lines().filter(|line| line.split_whitespace().any(|word| word == client)).count()
}

/// Connects repeatedly until `time` has passed since `since`. An attempt that ends later, because the machine is
/// busy, is ignored: the door may have closed by then.
pub(crate) fn stays_open(testbed: &Testbed, since: Instant, time: Duration) {
    loop {
        let answer = testbed.ask(CLIENT[0], PORT);
        if since.elapsed() >= time {
            return;
        }
        assert_eq!(answer, Answer::Accepted, "after {:?}", since.elapsed());
        // Connecting without a pause would fill the listener's queue.
        thread::sleep(Duration::from_millis(5));
    }
}

fn a_door_opens_for_its_knocker_only_and_firewalld_closes_it(mut testbed: Testbed) {
    testbed.start(&config("max_opened_door_duration = 8"));
    testbed.hear("firewall: nftables and firewalld, because firewalld is on the system bus");
    for (client, stranger) in CLIENT.iter().zip(STRANGER) {
        assert_ne!(testbed.ask(client, PORT), Answer::Accepted);
        testbed.knock(client, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {client}"));
        assert_eq!(testbed.ask(client, PORT), Answer::Accepted);
        assert_ne!(testbed.ask(stranger, PORT), Answer::Accepted);
        let mut session = testbed.connect(client, PORT).unwrap();
        testbed.hear(&format!("closed: door default for {client}"));
        testbed.until("firewalld closes the door", |testbed| !testbed.is_open(client));
        assert!(echoes(&mut session));
    }
    testbed.until("there is no rule", |testbed| CLIENT.iter().all(|client| in_kernel(testbed, client) == 0));
}

fn a_second_sequence_extends_without_a_gap(mut testbed: Testbed) {
    testbed.start(&config("max_opened_door_duration = 10"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let opened = Instant::now();
    for time in 1..=3 {
        // More than a second apart, or it is not an extension.
        stays_open(&testbed, opened, time * Duration::from_millis(2500));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("extended:");
        assert_eq!(in_kernel(&testbed, CLIENT[0]), 1);
    }
    // Longer than the first grant alone lasts.
    stays_open(&testbed, opened, Duration::from_secs(14));
    testbed.hear("closed:");
    testbed.until("firewalld closes the door", |testbed| !testbed.is_open(CLIENT[0]));
}

fn after_a_reload_open_doors_are_back_within_a_second_with_their_time(mut testbed: Testbed) {
    testbed.start(&config("max_opened_door_duration = 20"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let opened = Instant::now();
    // Late enough that a grant restored with its full time would be noticed.
    stays_open(&testbed, opened, Duration::from_secs(5));
    testbed.firewall_cmd(&["--reload"]);
    testbed.hear("firewalld was reloaded, and an open door was missing; put back in");
    assert!(testbed.is_open(CLIENT[0]));
    testbed.hear("closed:");
    testbed.until("firewalld closes the door", |testbed| !testbed.is_open(CLIENT[0]));
    assert!(opened.elapsed() < Duration::from_secs(24), "{:?}", opened.elapsed());
}

fn a_restart_of_firewalld_closes_no_door_early_and_loses_no_knock(mut testbed: Testbed) {
    testbed.start(&config("max_opened_door_duration = 30"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewalld.as_mut().unwrap().stop_daemon();
    testbed.hear("firewalld has stopped");
    testbed.knock(&crowd(9), &SEQUENCE);
    // What a stopped firewalld leaves in the kernel does not matter here; it was killed.
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    testbed.hear("firewalld has started, and 2 open doors were missing; put back in");
    testbed.hear(&format!("opened: door default for {}", crowd(9)));
    assert!(testbed.is_open(CLIENT[0]));
    assert!(testbed.is_open(&crowd(9)));
    assert!(!testbed.is_open(&crowd(10)));
}

#[test]
fn firewalld_may_start_after_the_daemon() {
    let mut testbed = Testbed::with_firewalld();
    testbed.firewalld.as_mut().unwrap().stop_daemon();
    testbed.start(&config("firewall = \"firewalld\"\nmax_opened_door_duration = 60"));
    testbed.hear("firewalld is not on the system bus, and what it had in the kernel is still there");
    testbed.knock(CLIENT[0], &SEQUENCE);
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn with_auto_a_firewalld_that_starts_later_gets_the_grants_and_the_gate_stays() {
    let mut testbed = Testbed::with_firewalld();
    testbed.end_firewalld();
    testbed.start(&config("max_opened_door_duration = 60\nrefuse = \"reject\""));
    testbed.hear("firewall: nftables, because firewalld is not on the system bus");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
    let Testbed { firewalld, server, .. } = &mut testbed;
    firewalld.as_mut().unwrap().start_daemon(server).unwrap();
    testbed.hear("firewalld has started");
    testbed.until("the door is open in firewalld, too", |testbed| rules(testbed).len() == 1);
    assert!(testbed.table().contains("vmap @guarded"), "the gate stays");
    assert!(testbed.is_open(CLIENT[0]));
    testbed.knock(&crowd(3), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(3)));
    assert!(testbed.is_open(&crowd(3)));
    assert!(!testbed.is_open(&crowd(4)));
}

#[test]
fn settings_that_only_the_gate_supports_are_reported_with_rich_rules_alone() {
    let mut testbed = Testbed::with_firewalld();
    let text = config(
        "firewall = \"rich-rules\"\ntrusted = [\"192.0.2.0/24\"]\nrefuse = \"reject\"\non_exit = \"remove\"\n\
         zone = \"public\"",
    );
    testbed.start(&text);
    testbed.hear("no gate guards the doors: strangers get in without a knock where");
    let path = testbed.write(&text);
    let (_, said) = testbed.run(&["check", "--conf", path.to_str().unwrap()]);
    for key in ["trusted", "refuse", "on_exit"] {
        let told =
            format!("`{key}` has no effect, because doors are opened by firewalld's rich rules alone here");
        testbed.hear(&told);
        assert!(said.replace("\n    ", " ").contains(&told), "{said}");
    }
    assert!(!said.contains("`zone` has no effect"), "{said}");
    assert!(testbed.table().contains("No such file"), "there is no gate");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert_eq!(rules(&testbed).len(), 1);
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn with_auto_a_bus_that_hangs_at_the_start_is_retried_until_it_answers() {
    let mut testbed = Testbed::with_firewalld();
    let bus = |testbed: &Testbed, signal| testbed.firewalld.as_ref().unwrap().bus().signal(signal).unwrap();
    bus(&testbed, Signal::STOP);
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.hear("firewall: nftables, because the system bus does not answer");
    testbed.knock(CLIENT[0], &SEQUENCE);
    let path = testbed.write(&config("firewall = \"firewalld\""));
    let (status, said) = testbed.run(&["check", "--conf", path.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.replace("\n    ", " ").contains("and the system bus does not answer"), "{said}");

    bus(&testbed, Signal::CONT);
    testbed.hear("opened:");
    assert_eq!(rules(&testbed).len(), 1);
    assert!(testbed.is_open(CLIENT[0]));
}

#[test]
fn a_firewalld_that_hangs_at_the_start_does_not_delay_hearing() {
    for zone in ["auto", "public"] {
        let mut testbed = Testbed::with_firewalld();
        testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::STOP).unwrap();
        let begun = Instant::now();
        testbed.start(&config(&format!("zone = \"{zone}\"\nmax_opened_door_duration = 60")));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        testbed.knock(CLIENT[0], &[1]);
        testbed.hear("wrong knock:");
        testbed.knock(&crowd(5), &SEQUENCE);
        testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::CONT).unwrap();
        testbed.hear("opened:");
        assert!(testbed.is_open(&crowd(5)));
    }
}

#[test]
fn a_grant_that_expires_before_firewalld_answers_is_removed_at_once() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 12"));
    testbed.knock(&crowd(4), &SEQUENCE);
    testbed.hear("opened:");
    // firewalld answers requests in order: the requests of the start are done, and the call for the next knock is
    // under way when it hangs.
    testbed.firewall_cmd(&["--state"]);
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::STOP).unwrap();
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear(&format!("never opened: door default for {}", CLIENT[0]));
    let begun = Instant::now();
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::CONT).unwrap();
    // This answer comes after the call. The rule would live for twelve more seconds; it is removed at once.
    testbed.firewall_cmd(&["--state"]);
    testbed.until("there is no rule", |testbed| in_kernel(testbed, CLIENT[0]) == 0);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_forged_signal_is_ignored() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let address = testbed.firewalld.as_ref().unwrap().address();
    // To every connection on the bus: a signal with a destination bypasses the bus's filter.
    for number in 0..40 {
        let (bus, destination) = (format!("--bus={address}"), format!("--dest=:1.{number}"));
        let signal = ["/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.Reloaded"];
        testbed.on_server("dbus-send", &[&bus, &destination, "--type=signal", signal[0], signal[1]]);
    }
    testbed.knock(&crowd(2), &SEQUENCE);
    testbed.hear(&format!("opened: door default for {}", crowd(2)));
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("reloaded")));
}

#[test]
fn a_firewalld_that_does_not_answer_does_not_delay_hearing() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 60"));
    let firewalld = testbed.firewalld.as_ref().unwrap().daemon().unwrap();
    firewalld.signal(Signal::STOP).unwrap();
    testbed.knock(CLIENT[0], &SEQUENCE);
    // Handled while the earlier call hangs: the wrong knock is logged at once.
    testbed.knock(&crowd(5), &[1]);
    testbed.hear("wrong knock: 198.51.100.5");
    testbed.firewalld.as_ref().unwrap().daemon().unwrap().signal(Signal::CONT).unwrap();
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));
}

fn a_grant_is_in_the_zone_of_the_source_or_of_the_interface(mut testbed: Testbed) {
    testbed.firewall_cmd(&["--zone=internal", "--add-source=198.51.100.0/24"]);
    testbed.firewall_cmd(&["--zone=internal", "--remove-service=ssh"]);
    testbed.firewall_cmd(&["--zone=dmz", "--change-interface=server"]);
    testbed.firewall_cmd(&["--zone=dmz", "--remove-service=ssh"]);
    testbed.start(&config("max_opened_door_duration = 60"));
    for (client, zone) in [(CLIENT[0], "dmz"), (STRANGER[0], "internal")] {
        assert_ne!(testbed.ask(client, PORT), Answer::Accepted);
        testbed.knock(client, &SEQUENCE);
        testbed.hear("opened:");
        assert_eq!(testbed.ask(client, PORT), Answer::Accepted);
        let rules = testbed.firewall_cmd(&[&format!("--zone={zone}"), "--list-rich-rules"]);
        assert!(rules.contains(&format!("source address=\"{client}\"")), "{rules}");
    }
}

fn a_rule_that_an_administrator_removes_closes_the_door(mut testbed: Testbed) {
    // The periodic checks are too rare to play a role.
    testbed.start(&config("max_opened_door_duration = 60\nfirewall_rules_check_periode_seconds = 3600\ndoors_cleanup_periode = 3600"));
    for source in [CLIENT[0].to_owned(), crowd(3)] {
        testbed.knock(&source, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {source}"));
    }
    let rule = rules(&testbed).into_iter().find(|rule| rule.contains(CLIENT[0])).unwrap();
    testbed.firewall_cmd(&[&format!("--remove-rich-rule={rule}")]);
    testbed.hear(&format!("closed by hand: door default for {}", CLIENT[0]));
    testbed.until("the gate is closed, too", |testbed| !testbed.grants("default").contains_key(CLIENT[0]));
    assert!(!testbed.is_open(CLIENT[0]));
    assert!(testbed.is_open(&crowd(3)));
    // Removing the element from the set removes the rule in firewalld, too.
    let element = format!("{{ {} }}", crowd(3));
    testbed.on_server("nft", &["delete", "element", "inet", "port_knocking_doors", "default4", &element]);
    testbed.hear(&format!("closed by hand: door default for {}", crowd(3)));
    testbed.until("there is no rule", |testbed| rules(testbed).is_empty());
}

#[test]
fn a_door_that_was_made_permanent_is_found_and_closed() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 10\nfirewall_rules_check_periode_seconds = 1"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.firewall_cmd(&["--runtime-to-permanent"]);
    testbed.hear("closed:");
    testbed.until("firewalld takes its rule out, this time", |testbed| in_kernel(testbed, CLIENT[0]) == 0);
    assert!(testbed.firewall_cmd(&["--permanent", "--list-rich-rules"]).contains(CLIENT[0]));
    // Here firewalld opens it permanently.
    testbed.firewall_cmd(&["--reload"]);
    let line = testbed.hear("held a door open that nobody had knocked for");
    assert!(line.contains("--permanent --zone=public --remove-rich-rule="), "{line}");
    assert!(!testbed.is_open(CLIENT[0]));
}

#[test]
fn a_restart_of_the_daemon_neither_closes_nor_doubles() {
    let mut testbed = Testbed::with_firewalld();
    let text = config("max_opened_door_duration = 15");
    testbed.start(&text);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert_eq!(testbed.end(Signal::TERM).code(), Some(0));
    assert!(testbed.is_open(CLIENT[0]));
    testbed.start(&text);
    assert!(testbed.is_open(CLIENT[0]));
    // There is a rule that the new daemon does not know; the grant gets its full new time all the same. More than a
    // second later, or it is not an extension.
    testbed.hear("found open:");
    testbed.until("some time has passed", |testbed| testbed.grants("default")[CLIENT[0]] < 12);
    let knocked = Instant::now();
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("extended:");
    testbed.until("there is one rule", |testbed| in_kernel(testbed, CLIENT[0]) == 1);
    // firewalld's timers count whole seconds, and may end a quarter of one early (`g_timeout_add_seconds`).
    stays_open(&testbed, knocked, Duration::from_millis(14_500));
    testbed.until("firewalld closes the door", |testbed| !testbed.is_open(CLIENT[0]));
}

/// Whether a datagram from the client reaches the server.
fn arrives(testbed: &Testbed, client: &str, listener: &UdpSocket) -> bool {
    let target = listener.local_addr().unwrap();
    let source = SocketAddr::new(client.parse().unwrap(), 0);
    testbed.as_client(|| UdpSocket::bind(source).unwrap().send_to(b"hello", target).unwrap());
    let mut datagram = [0; 5];
    listener.recv(&mut datagram).is_ok_and(|length| datagram[..length] == *b"hello")
}

fn several_ports_and_both_families_open_together(mut testbed: Testbed) {
    testbed.serve(8443);
    let listeners = SERVER.map(|address| {
        let address = SocketAddr::new(address.parse().unwrap(), 60_005);
        let listener = testbed.server.enter(|| UdpSocket::bind(address)).unwrap();
        listener.set_read_timeout(Some(SILENCE)).unwrap();
        listener
    });
    let knocks = [1001, 1002, 1003, 1004, 1006];
    testbed.start(&format!(
        "[[doors]]\nname = \"both\"\nports = [\"22/tcp\", \"8440-8450/tcp\", \"60000-60010/udp\"]\n\
         sequence = {knocks:?}\nopen_for = 60\n"
    ));
    for ((client, stranger), listener) in CLIENT.iter().zip(STRANGER).zip(&listeners) {
        assert!(!arrives(&testbed, client, listener));
        testbed.knock(client, &knocks);
        testbed.hear(&format!("opened: door both for {client}"));
        assert_eq!(testbed.ask(client, 8443), Answer::Accepted);
        assert_eq!(testbed.ask(client, PORT), Answer::Accepted);
        assert!(arrives(&testbed, client, listener));
        assert_eq!(in_kernel(&testbed, client), 3);
        assert_ne!(testbed.ask(stranger, 8443), Answer::Accepted);
        assert!(!arrives(&testbed, stranger, listener));
    }
}

#[test]
fn a_granted_client_keeps_all_services_of_its_zone() {
    let mut testbed = Testbed::with_firewalld();
    testbed.serve(9090);
    testbed.firewall_cmd(&["--add-port=9090/tcp"]);
    testbed.start(&config("max_opened_door_duration = 60"));
    assert_eq!(testbed.ask(CLIENT[0], 9090), Answer::Accepted);
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert_eq!(testbed.ask(CLIENT[0], 9090), Answer::Accepted);
    assert!(testbed.firewall_cmd(&["--get-active-zones"]).lines().all(|line| !line.contains("sources")));
}

#[test]
fn a_port_open_to_all_is_reported_with_rich_rules_alone_and_not_called_closed() {
    let testbed = Testbed::with_firewalld();
    testbed.firewall_cmd(&["--add-service=ssh"]);
    let mut command = testbed.program();
    command.arg("--conf").arg(testbed.write(&config("firewall = \"rich-rules\"")));
    let mut daemon = Process::start(&testbed.server, command).unwrap();
    let ready = daemon.wait_for("ready", PATIENCE).unwrap();
    assert!(!ready.contains("closed"), "{ready}");
    let line = daemon.wait_for("open to everybody", PATIENCE).unwrap();
    assert!(line.contains("22/tcp") && line.contains("zone public"), "{line}");
    assert!(line.contains("firewall-cmd --zone=public --remove-service=ssh"), "{line}");
}

#[test]
fn check_fails_where_firewalld_alone_does_not_close_the_port() {
    let mut testbed = Testbed::with_firewalld();
    let path = testbed.write(&config("firewall = \"rich-rules\""));
    let path = path.to_str().unwrap();
    let check = |testbed: &Testbed| {
        let (status, said) = testbed.run(&["check", "--conf", path]);
        (status.code(), said.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(check(&testbed).0, Some(0), "the zone closes the port");
    testbed.firewall_cmd(&["--add-service=ssh"]);
    let (code, said) = check(&testbed);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("22/tcp is open to everybody in firewalld's zone public"), "{said}");
    testbed.firewall_cmd(&["--remove-service=ssh"]);
    // A zone for what is behind the machine is open, but does not concern others.
    testbed.firewall_cmd(&["--new-zone=guests", "--permanent"]);
    testbed.firewall_cmd(&["--permanent", "--zone=guests", "--set-target=ACCEPT"]);
    testbed.on_server("ip", &["link", "add", "docker0", "type", "bridge"]);
    testbed.firewall_cmd(&["--permanent", "--zone=guests", "--add-interface=docker0"]);
    testbed.firewall_cmd(&["--reload"]);
    let (code, said) = check(&testbed);
    assert_eq!(code, Some(0), "{said}");
    testbed.firewalld.as_mut().unwrap().stop_daemon();
    let (code, said) = check(&testbed);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("firewalld does not run") && said.contains("keep no stranger out"), "{said}");
}

#[test]
fn a_port_that_firewalld_closes_is_reported_when_only_the_gate_is_used() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("firewall = \"nftables\""));
    let line = testbed.hear("so no knock can open it");
    assert!(line.contains("firewall-cmd --zone=public --add-port=22/tcp"), "{line}");
}

#[test]
fn an_unknown_zone_is_an_error_that_lists_the_zones() {
    let testbed = Testbed::with_firewalld();
    let path = testbed.write(&config("zone = \"pubic\""));
    for command in [&["check", "--conf"][..], &["--conf"]] {
        let (status, said) = testbed.run(&[command, &[path.to_str().unwrap()]].concat());
        assert_eq!(status.code(), Some(2), "trying again is of no use: {said}");
        assert!(said.contains("zone = \"pubic\"") && said.contains("public"), "{said}");
    }
    let path = testbed.write(&config("zone = \"public\""));
    assert_eq!(testbed.run(&["check", "--conf", path.to_str().unwrap()]).0.code(), Some(0));
}

#[test]
fn a_reload_with_an_unknown_zone_keeps_the_old_zone() {
    let mut testbed = Testbed::with_firewalld();
    testbed.start(&config("max_opened_door_duration = 60"));
    testbed.write(&config("max_opened_door_duration = 60\nzone = \"pubic\""));
    testbed.daemon().signal(Signal::HUP).unwrap();
    let line = testbed.hear("cannot use the zone pubic");
    assert!(line.contains("public"), "{line}");
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(testbed.is_open(CLIENT[0]));

    testbed.firewall_cmd(&["--zone=dmz", "--remove-service=ssh"]);
    testbed.write(&config("max_opened_door_duration = 60\nzone = \"dmz\""));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.until("the rule is in the other zone", |testbed| {
        testbed.firewall_cmd(&["--zone=dmz", "--list-rich-rules"]).contains(CLIENT[0])
    });
    testbed.until("and only there", |testbed| rules(testbed).is_empty());
}

#[test]
fn a_reload_closes_removed_doors() {
    let mut testbed = Testbed::with_firewalld();
    let door = |name: &str, first: u16| {
        format!(
            "[[doors]]\nname = \"{name}\"\nports = [\"22/tcp\"]\nsequence = [{first},2,3,4,6]\nopen_for = 60\n"
        )
    };
    testbed.start(&format!("{}{}", door("a", 100), door("b", 200)));
    testbed.knock(CLIENT[0], &[100, 2, 3, 4, 6]);
    testbed.hear("opened: door a");
    testbed.write(&door("b", 200));
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("closed: door a");
    testbed.until("there is no rule", |testbed| rules(testbed).is_empty());
    assert!(!testbed.is_open(CLIENT[0]));
}

#[test]
fn requiring_firewalld_without_a_bus_is_an_error() {
    let testbed = Testbed::new();
    let path = testbed.write(&config("firewall = \"firewalld\""));
    let (status, said) = testbed.run(&["--conf", path.to_str().unwrap()]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("there is no system bus to reach it"), "{said}");
}

#[test]
fn a_lab_with_two_namespaces_keeps_their_firewalls_apart() {
    let testbed = Testbed::with_firewalld();
    let other = Namespace::new().unwrap();
    testbed.server.enter(|| std::net::TcpStream::connect((SERVER[0], PORT))).unwrap();
    for (network, has_firewall) in [(&testbed.server, true), (&other, false)] {
        let mut command = std::process::Command::new("nft");
        command.args(["list", "ruleset"]);
        let (_, rules) = Process::start(network, command).unwrap().finish(PATIENCE).unwrap().unwrap();
        assert_eq!(rules.contains("table inet firewalld"), has_firewall, "{rules}");
        // `/proc/net` shows the network of the process's first thread. Where nothing is tracked, the file may be
        // missing.
        let tracked = || std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap_or_default();
        let tracked = network.enter(tracked);
        assert!(has_firewall || tracked.is_empty(), "{tracked}");
    }
    assert!(testbed.firewall_cmd(&["--state"]).contains("running"));
    assert!(!testbed.is_open(CLIENT[0]));
}
