//! Connections that connection tracking does not know or has forgotten: `notrack` rules, `conntrack -F`, idle flows.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use rustix::process::Signal;

use crate::{
    mark::shell,
    testbed::{CLIENT, PATIENCE, PORT, SEQUENCE, SERVER, SILENCE, Testbed, echoes, gate},
    traced::{contains, nft},
};

/// The words by which every message on this is recognized.
const SAID: &str = "connection tracking";

/// A table with these rules in a chain at this hook.
fn table(hook: &str, priority: &str, rules: &str) -> String {
    format!(
        "table inet others {{\n chain {hook} {{\n type filter hook {hook} priority {priority}\n{rules}\n }}\n }}"
    )
}

/// The lines of `check` about it.
fn foreseen(testbed: &Testbed, text: &str) -> Vec<String> {
    let mut lines = testbed.checked(text);
    lines.retain(|line| line.contains(SAID));
    lines
}

/// Expects one warning with all these parts, and returns it.
fn is_warned(testbed: &Testbed, text: &str, parts: &[&str]) -> String {
    match &foreseen(testbed, text)[..] {
        [line] => {
            assert!(line.starts_with("warning: "), "{line}");
            contains(line, parts);
            line.clone()
        }
        lines => panic!("{parts:?}: {lines:#?}"),
    }
}

/// A connection through a grant that has ended.
fn outlived(testbed: &mut Testbed) -> TcpStream {
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let mut session = testbed.connect(CLIENT[0], PORT).unwrap();
    assert!(echoes(&mut session));
    testbed.hear("closed:");
    testbed.until_closed(CLIENT[0]);
    session
}

/// Whether a connection is alive. Waits only briefly for the answer.
fn lives(session: &mut TcpStream) -> bool {
    session.set_read_timeout(Some(SILENCE)).unwrap();
    let lives = echoes(session);
    session.set_read_timeout(Some(PATIENCE)).unwrap();
    lives
}

#[test]
fn a_warning_about_notrack_matches_what_then_happens() {
    for (hook, priority, rule, dies_at_end, dies_at_start) in [
        ("prerouting", "raw", "tcp dport 22 notrack", true, true),
        // Only the answers: the client's segments count as invalid.
        ("output", "raw", "tcp sport 22 notrack", true, false),
        // Too late.
        ("prerouting", "-199", "tcp dport 22 notrack", false, false),
        ("prerouting", "raw", "tcp dport 222 notrack", false, false),
        ("prerouting", "raw", "tcp dport 22 accept\ntcp dport 1-100 notrack", false, false),
        ("prerouting", "raw", "tcp flags & (syn | ack) == syn tcp dport 22 notrack", false, false),
    ] {
        let mut testbed = Testbed::new();
        let rules = table(hook, priority, rule);
        nft(&testbed, &rules);
        let text = gate("max_opened_door_duration = 1");
        match &foreseen(&testbed, &text)[..] {
            [] => assert!(!dies_at_end, "{rules}"),
            [line] => {
                assert!(dies_at_end, "{line}");
                assert_eq!(line.contains("when the daemon starts"), dies_at_start, "{line}");
            }
            lines => panic!("{lines:#?}"),
        }
        let mut before = testbed.connect(CLIENT[0], PORT).unwrap();
        assert!(echoes(&mut before));
        testbed.start(&text);
        assert_eq!(lives(&mut before), !dies_at_start, "{rules}");
        assert_eq!(lives(&mut outlived(&mut testbed)), !dies_at_end, "{rules}");
    }
}

#[test]
fn notrack_is_reported_with_its_rule_and_the_remedy() {
    let testbed = Testbed::new();
    nft(&testbed, &table("prerouting", "raw", "jump others\n }\n chain others {\n tcp dport 20-30 notrack"));
    let line = is_warned(
        &testbed,
        &gate(""),
        &[
            "connections to 22/tcp die when their grant ends, and when the daemon starts",
            "the chain inet others others keeps what comes in from connection tracking",
            "(by its rule: tcp dport 20-30 notrack)",
        ],
    );
    // The suggested command works.
    let command = line.split('`').nth(1).unwrap();
    assert_eq!(command, "nft insert rule inet others prerouting tcp dport 22 accept");
    shell(&testbed, command);
    assert_eq!(foreseen(&testbed, &gate("")), Vec::<String>::new());

    let testbed = Testbed::new();
    shell(
        &testbed,
        "iptables -t raw -A PREROUTING -p tcp --dport 22 -j CT --notrack\n\
         iptables -t raw -A OUTPUT -p tcp -m multiport --sports 22,80 -j NOTRACK",
    );
    let line = is_warned(
        &testbed,
        &gate(""),
        &[
            "the chain ip raw PREROUTING keeps what comes in from connection tracking (by its rule: tcp dport 22 notrack)",
            "the chain ip raw OUTPUT keeps the answers from connection tracking (by its rule: tcp sport { 22, 80 } notrack)",
        ],
    );
    for command in line.split('`').skip(1).step_by(2) {
        shell(&testbed, command);
    }
    assert_eq!(foreseen(&testbed, &gate("")), Vec::<String>::new());
}

#[test]
fn notrack_that_reaches_no_guarded_port_is_not_mentioned() {
    for (hook, rules) in [
        ("prerouting", "udp dport 22 notrack"),
        ("prerouting", "tcp sport 22 notrack"),
        ("prerouting", "udp dport 53 notrack\nudp sport 53 notrack"),
        ("prerouting", "iif lo notrack"),
        ("prerouting", "iifname \"other\" notrack"),
        ("output", "oif lo notrack"),
        ("output", "tcp dport 22 notrack"),
        ("output", "tcp sport { 80, 443 } notrack"),
        ("prerouting", "tcp dport != 22 notrack"),
        ("prerouting", "tcp dport vmap { 22 : accept }\nnotrack"),
        ("prerouting", "ct zone set 3"),
        ("prerouting", "goto other\n }\n chain other {\n accept\n }\n chain unused {\n notrack"),
    ] {
        let testbed = Testbed::new();
        nft(&testbed, &table(hook, "raw", rules));
        assert_eq!(foreseen(&testbed, &gate("")), Vec::<String>::new(), "{rules}");
    }
}

#[test]
fn notrack_that_applies_to_some_or_undecidable_packets_is_reported_as_such() {
    for (hook, rules) in [
        ("prerouting", "ip saddr 203.0.113.0/24 notrack"),
        ("prerouting", "ip saddr 203.0.113.0/24 accept\nnotrack"),
        ("prerouting", "iifname \"bridge\" notrack"),
        ("output", "oifname \"bridge\" notrack"),
        ("output", "tcp dport 1024-2000 notrack"),
        ("prerouting", "ip saddr 203.0.113.9 jump other\n }\n chain other {\n notrack"),
    ] {
        let testbed = Testbed::new();
        let _inside = testbed.machine_behind();
        nft(&testbed, &table(hook, "raw", rules));
        is_warned(&testbed, &gate(""), &["some connections to 22/tcp die", "notrack)"]);
    }
    // A detour that some packets take and return from makes no difference.
    let testbed = Testbed::new();
    let back = "ip saddr 203.0.113.9 jump other\nnotrack\n }\n chain other {\n udp dport 9 accept\n counter";
    nft(&testbed, &table("prerouting", "raw", back));
    is_warned(&testbed, &gate(""), &["warning: connections to 22/tcp die"]);
    for (priority, rules) in [
        ("raw", "ip length 100 notrack"),
        ("raw", "meta length 100 accept\nnotrack"),
        // Of two chains with equal priority, the older one comes first.
        ("-200", "notrack"),
    ] {
        let testbed = Testbed::new();
        nft(&testbed, &table("prerouting", priority, rules));
        match &foreseen(&testbed, &gate(""))[..] {
            [line] => contains(
                line,
                &[
                    "whether connections to 22/tcp are kept from connection tracking cannot be said without a packet",
                ],
            ),
            lines => panic!("{rules}: {lines:#?}"),
        }
    }
}

#[test]
fn notrack_of_some_ports_of_a_range_is_found() {
    let testbed = Testbed::new();
    nft(&testbed, &table("prerouting", "raw", "udp dport { 60003, 60005-60006 } notrack"));
    let text = format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"voice\"\nports = [\"60000-60010/udp\", \"60020/udp\"]\n\
         sequence = {SEQUENCE:?}\n"
    );
    is_warned(
        &testbed,
        &text,
        &["connections to ports of 60000-60010/udp die when their grant ends, and when"],
    );
}

#[test]
fn notrack_is_reported_at_the_start_and_again_after_a_relevant_change() {
    let mut testbed = Testbed::new();
    let rules = table("prerouting", "raw", "tcp dport 22 notrack");
    nft(&testbed, &rules);
    testbed.start(&gate(""));
    let line = testbed.hear("connections to 22/tcp die");
    assert!(line.contains("WARN"), "{line}");
    let said = |testbed: &mut Testbed| {
        let lines = testbed.daemon().take_lines();
        lines.into_iter().filter(|line| line.contains(SAID)).collect::<Vec<_>>()
    };
    said(&mut testbed);
    // Reloading the same rules, and rules that concern no door, are not news.
    nft(&testbed, &format!("delete table inet others\n{rules}"));
    nft(&testbed, "add rule inet others prerouting tcp dport 23 notrack");
    nft(&testbed, "add chain inet others output { type filter hook output priority raw; }");
    nft(&testbed, "add rule inet others output tcp sport 22 notrack");
    let line = testbed.hear("and the chain inet others output keeps the answers");
    assert!(line.contains("connections to 22/tcp die"), "{line}");
    assert_eq!(said(&mut testbed), Vec::<String>::new());
}

/// A connection that connection tracking has forgotten, and whose client has since had a grant, which has ended.
fn forgotten_and_granted(testbed: &mut Testbed) -> TcpStream {
    let mut session = outlived(testbed);
    assert!(lives(&mut session));
    testbed.on_server("conntrack", &["-F"]);
    // For connection tracking, the client's packets are invalid, and the gate drops them.
    assert!(!lives(&mut session));
    // A grant lets it through.
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    session.read_exact(&mut [0; 5]).unwrap();
    testbed.hear("closed:");
    testbed.until_closed(CLIENT[0]);
    session
}

#[test]
fn a_forgotten_connection_lives_on_once_its_server_sends_or_its_client_knocks() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 1"));
    let mut session = forgotten_and_granted(&mut testbed);
    // Connection tracking has learnt the connection from what the grant let through.
    assert!(lives(&mut session));

    // Packets from the server teach it the connection without a grant.
    let local = SocketAddr::new(SERVER[0].parse().unwrap(), 2222);
    let listener = testbed.server.enter(|| TcpListener::bind(local)).unwrap();
    testbed.end(Signal::KILL);
    testbed.start(&gate("max_opened_door_duration = 1").replace("[22]", "[2222]"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let mut session = testbed.connect(CLIENT[0], 2222).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    testbed.hear("closed:");
    testbed.on_server("conntrack", &["-F"]);
    served.write_all(b"hello").unwrap();
    session.read_exact(&mut [0; 5]).unwrap();
    session.write_all(b"hello").unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    served.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn a_forgotten_connection_that_cannot_be_picked_up_needs_a_grant_from_then_on() {
    let mut testbed = Testbed::new();
    testbed.server.enter(|| std::fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_loose", "0")).unwrap();
    testbed.start(&gate("max_opened_door_duration = 1"));
    let mut session = forgotten_and_granted(&mut testbed);
    assert!(!lives(&mut session));
}

#[test]
fn a_forgotten_connection_from_before_the_gate_is_restored() {
    let mut testbed = Testbed::new();
    let mut before = testbed.connect(CLIENT[0], PORT).unwrap();
    assert!(echoes(&mut before));
    testbed.start(&gate(""));
    testbed.on_server("conntrack", &["-F"]);
    // The client retransmits what was dropped.
    assert!(echoes(&mut before));
}

#[test]
fn datagrams_after_an_idle_time_need_a_grant_again() {
    let mut testbed = Testbed::new();
    for (name, seconds) in [("udp_timeout", "1"), ("udp_timeout_stream", "1")] {
        let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        testbed.server.enter(|| std::fs::write(&file, seconds)).unwrap();
    }
    let local = SocketAddr::new(SERVER[0].parse().unwrap(), 60000);
    let server = testbed.server.enter(|| UdpSocket::bind(local)).unwrap();
    let client = testbed.client.enter(|| UdpSocket::bind((CLIENT[0], 40000))).unwrap();
    server.set_read_timeout(Some(SILENCE)).unwrap();
    let arrives = || {
        client.send_to(b"hello", local).unwrap();
        server.recv_from(&mut [0; 5]).is_ok()
    };
    testbed.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"voice\"\nports = [\"60000/udp\"]\nsequence = {SEQUENCE:?}\nopen_for = 1\n"
    ));
    let open = |testbed: &mut Testbed| {
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened:");
    };
    open(&mut testbed);
    assert!(arrives());
    server.send_to(b"hello", client.local_addr().unwrap()).unwrap();
    // The grant ends while datagrams are exchanged.
    testbed.until("the grant ends", |testbed| {
        assert!(arrives());
        testbed.grants("voice").is_empty()
    });
    assert!(arrives());
    // Without packets the kernel does not remove the entry at once; the list shows what it still knows.
    testbed.until("the connection is forgotten", |testbed| {
        !testbed.on_server("conntrack", &["-L", "-p", "udp"]).contains("dport=60000")
    });
    assert!(!arrives());
    open(&mut testbed);
    assert!(arrives());
    testbed.until("the grant ends", |testbed| testbed.grants("voice").is_empty());
    testbed.on_server("conntrack", &["-F"]);
    assert!(!arrives());
    // If the server sends next, connection tracking learns the connection from that.
    server.send_to(b"hello", client.local_addr().unwrap()).unwrap();
    assert!(arrives());
}
