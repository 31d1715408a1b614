//! Somebody else drops what the gate lets in: the kernel tells which rule it was, and the log names it with the remedy.

use std::{
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};

use doors_lab::Process;
use rustix::process::Signal;

use crate::{
    mark::{IPTABLES, container_engine, shell},
    raw,
    testbed::{Answer, CLIENT, PATIENCE, PORT, SEQUENCE, SERVER, STRANGER, Testbed, crowd, gate, server_for},
    ufw::Ufw,
};

/// Of what a warning of this kind is known.
const WARNING: &str = "has dropped the connection";

pub(crate) const NATIVE: &str = "
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif lo accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
        jump services
    }
    chain services {
        ip saddr 203.0.113.0/24 tcp dport 22 accept
    }
}";

/// Loads lines of `nft`.
pub(crate) fn nft(testbed: &Testbed, lines: &str) {
    shell(testbed, &format!("nft -f - <<'END'\n{lines}\nEND"));
}

/// Knocks and connects, and gives the warning.
fn warning(testbed: &mut Testbed, source: &str, port: u16) -> String {
    testbed.knock(source, &SEQUENCE);
    testbed.hear(&format!("opened: door default for {source}"));
    assert_ne!(testbed.ask(source, port), Answer::Accepted);
    testbed.hear(WARNING)
}

pub(crate) fn contains(line: &str, all: &[&str]) {
    for one in all {
        assert!(line.contains(one), "{one:?} is not in: {line}");
    }
}

#[test]
fn what_ufw_drops_is_named_with_its_rule_and_the_remedy() {
    let mut testbed = Testbed::new();
    let _ufw = Ufw::enable(&testbed);
    testbed.start(&gate("max_opened_door_duration = 60"));
    let line = warning(&mut testbed, CLIENT[0], PORT);
    contains(
        &line,
        &["192.0.2.7 in at 22/tcp", "ip filter INPUT", "its policy is drop", "`ufw allow 22/tcp`"],
    );
    contains(
        &line,
        &["`-A ufw-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT`", "set mark = 0x20000000"],
    );
    let line = warning(&mut testbed, CLIENT[1], PORT);
    contains(
        &line,
        &["2001:db8::7 in at 22/tcp", "ip6 filter INPUT", "`-A ufw6-before-input", "before6.rules"],
    );
}

#[test]
fn what_the_policy_of_iptables_drops_is_named() {
    let mut testbed = Testbed::new();
    shell(&testbed, IPTABLES);
    testbed.start(&gate("max_opened_door_duration = 60\nmark = 0x80"));
    let line = warning(&mut testbed, CLIENT[0], PORT);
    contains(
        &line,
        &["ip filter INPUT", "its policy is drop", "`iptables -I INPUT -m mark --mark 0x80/0x80 -j ACCEPT`"],
    );
    assert!(!line.contains("set mark"), "{line}");
    contains(&warning(&mut testbed, CLIENT[1], PORT), &["ip6 filter INPUT", "`ip6tables -I INPUT"]);
}

#[test]
fn what_a_rule_of_iptables_rejects_is_named_with_the_rule() {
    for (rule, words) in [
        ("-j REJECT", ": reject)"),
        (
            "-p tcp -m tcp --dport 22 -m comment --comment closed -j REJECT",
            ": tcp dport 22 reject comment \"closed\")",
        ),
        (
            "-p tcp -m multiport --dports 20:23,80 -m conntrack --ctstate NEW -j DROP",
            ": tcp dport { 20-23, 80 } ct state new drop)",
        ),
        (
            "-p tcp ! -s 203.0.113.0/24 -m state --state NEW,INVALID -j DROP",
            ": meta l4proto tcp saddr != 203.0.113.0/24 ct state invalid,new drop)",
        ),
        // What is not understood has a handle, and may be so for this packet alone.
        ("-m pkttype --pkt-type unicast -j DROP", "not understood: pkttype): that was this packet"),
        (
            "-p tcp -m ttl --ttl-lt 255 -j DROP",
            "that was this packet; whether it drops others cannot be said",
        ),
        ("-p tcp --dport 22 -j DROP", "drop): no knock can open that"),
    ] {
        let mut testbed = Testbed::new();
        shell(
            &testbed,
            &format!("iptables -N sub\niptables -A INPUT -i server -j sub\niptables -A sub {rule}"),
        );
        testbed.start(&gate(""));
        let line = warning(&mut testbed, CLIENT[0], PORT);
        contains(
            &line,
            &["the chain ip filter sub", "by its rule with handle", words, "`iptables -I INPUT -m mark"],
        );
    }
}

#[test]
fn what_nftables_drops_is_named_with_a_rule_for_the_chain_that_it_came_in_by() {
    let mut testbed = Testbed::new();
    nft(&testbed, NATIVE);
    testbed.start(&gate("mark = 0x80"));
    let line = warning(&mut testbed, CLIENT[0], PORT);
    let remedy = "`nft insert rule inet filter input meta mark '&' 0x80 == 0x80 accept`";
    contains(&line, &["inet filter input", "its policy is drop", remedy]);

    let mut testbed = Testbed::new();
    nft(
        &testbed,
        &NATIVE
            .replace("policy drop", "policy accept")
            .replace("accept\n    }", "accept\n tcp dport 22 reject\n }"),
    );
    testbed.start(&gate("mark = 0x80"));
    contains(
        &warning(&mut testbed, CLIENT[0], PORT),
        &["inet filter services", ": tcp dport 22 reject)", remedy],
    );
}

#[test]
fn what_the_chain_of_a_container_engine_drops_is_named() {
    let mut testbed = container_engine();
    shell(
        &testbed,
        "iptables -I DOCKER-USER -p tcp -m conntrack --ctorigdstport 8022 --ctdir ORIGINAL -j DROP",
    );
    testbed.start(&gate("mark = 0x80").replace("[22]", "[8022]"));
    let line = warning(&mut testbed, CLIENT[0], 8022);
    contains(
        &line,
        &["in at 8022/tcp", "ip filter DOCKER-USER", "`iptables -I DOCKER-USER -m mark --mark 0x80/0x80"],
    );
}

#[test]
fn datagrams_and_grants_for_one_connection_are_traced_too() {
    let mut testbed = Testbed::new();
    nft(&testbed, NATIVE);
    testbed.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"once\"\nports = [\"22/tcp\"]\nsequence = {SEQUENCE:?}\n\
         grant = \"once\"\nopen_for = 60\n[[doors]]\nname = \"voice\"\nports = [\"60-70/udp\"]\n\
         sequence = [1001, 1002, 1003, 1004, 1006]\nopen_for = 60\n"
    ));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened: door once");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    contains(&testbed.hear(WARNING), &["192.0.2.7 in at 22/tcp"]);
    // The same rule drops it, so the rules have to change before it is named again.
    nft(&testbed, "add rule inet filter services udp dport 60-65 drop");
    testbed.knock(CLIENT[0], &[1001, 1002, 1003, 1004, 1006]);
    testbed.hear("opened: door voice");
    testbed.send(CLIENT[0], &[61], b"hello");
    contains(&testbed.hear(WARNING), &["192.0.2.7 in at 61/udp", ": udp dport 60-65 drop)"]);
}

#[test]
fn a_grant_from_before_the_start_is_traced_too() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 600"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    testbed.end(Signal::KILL);
    nft(&testbed, NATIVE);
    testbed.start(&gate("max_opened_door_duration = 600"));
    testbed.hear("found open:");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    testbed.hear(WARNING);
}

/// Whether anything was warned of since the last time.
fn is_warned(testbed: &mut Testbed) -> bool {
    testbed.daemon().take_lines().iter().any(|line| line.contains(WARNING))
}

#[test]
fn a_rule_is_named_once_until_it_or_the_configuration_changes() {
    let mut testbed = Testbed::new();
    nft(&testbed, NATIVE);
    let text = gate("max_opened_door_duration = 600");
    testbed.start(&text);
    warning(&mut testbed, CLIENT[0], PORT);
    // Neither the next connection, nor the next client.
    testbed.knock(&crowd(1), &SEQUENCE);
    testbed.hear("opened:");
    for source in [CLIENT[0], &crowd(1), CLIENT[0]] {
        assert_eq!(testbed.ask(source, PORT), Answer::Silence);
    }
    testbed.daemon().signal(Signal::HUP).unwrap();
    testbed.hear("has been read again");
    assert!(!is_warned(&mut testbed));
    testbed.until("traces are owed again", |testbed| testbed.traces() == 2);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    testbed.hear(WARNING);
    // What drops it stays as it is, and has been told of; but nobody knows that before a packet has come.
    nft(&testbed, "add rule inet filter services tcp dport 9999 accept");
    testbed.until("a trace is owed again", |testbed| testbed.traces() == 2);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    testbed.hear(WARNING);
}

#[test]
fn of_what_gets_through_nothing_is_said() {
    let mut testbed = Testbed::new();
    let closes = "iptables -A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP";
    shell(&testbed, &format!("{closes}\n{}", IPTABLES.replace("80,443", "22,80")));
    testbed.start(&gate("max_opened_door_duration = 60"));
    for source in CLIENT {
        testbed.knock(source, &SEQUENCE);
        testbed.hear("opened:");
        // Segments that belong to nothing are dropped by others, and rightly so.
        for flags in [raw::ACK, raw::RST, raw::FIN | raw::ACK] {
            let from = SocketAddr::new(source.parse().unwrap(), 50_000);
            let to = SocketAddr::new(server_for(source), PORT);
            testbed.as_client(|| raw::send(&raw::segment(from, to, 7, flags)));
        }
        assert_eq!(testbed.ask(source, PORT), Answer::Accepted);
    }
    // A stranger is dropped by the gate itself.
    assert_eq!(testbed.ask(STRANGER[0], PORT), Answer::Silence);
    // What the kernel has told until now comes before what it tells of this.
    shell(&testbed, "iptables -I INPUT -p tcp --dport 22 -j DROP");
    testbed.until("a trace is owed again", |testbed| testbed.traces() == 1);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
    contains(&testbed.hear(WARNING), &[": tcp dport 22 drop)"]);
    assert!(!is_warned(&mut testbed));
}

#[test]
fn one_packet_of_a_grant_is_traced_and_none_of_a_stranger() {
    let mut testbed = Testbed::new();
    nft(&testbed, NATIVE);
    testbed.start(&gate("max_opened_door_duration = 60"));
    let mut command = Command::new("nft");
    command.args(["monitor", "trace"]);
    let mut heard = Process::start(&testbed.server, command).unwrap();
    testbed.until("nft listens", |testbed| testbed.listens_to_traces(heard.id()));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    let target = |port| SocketAddr::new(SERVER[0].parse().unwrap(), port);
    for source in [STRANGER[0], CLIENT[0]] {
        testbed.as_client(|| {
            for from in 2000..4000 {
                let from = SocketAddr::new(source.parse().unwrap(), from);
                // What is no SYN does not spend it.
                for flags in [raw::ACK, raw::SYN] {
                    raw::send(&raw::segment(from, target(PORT), 7, flags));
                }
            }
        });
    }
    testbed.hear(WARNING);
    assert!(heard.wait_for("policy drop", PATIENCE).is_some());
    let lines = heard.take_lines();
    let mut packets: Vec<&str> = lines.iter().filter_map(|line| line.split(' ').nth(2)).collect();
    packets.sort_unstable();
    packets.dedup();
    assert_eq!(packets.len(), 1, "{packets:?}");
    assert!(!lines.iter().any(|line| line.contains(STRANGER[0])));
}

#[test]
fn orders_are_done_while_others_trace_without_a_pause() {
    let mut testbed = Testbed::new();
    nft(
        &testbed,
        &format!(
            "{NATIVE}\ntable inet t {{\n chain p {{\n type filter hook prerouting priority raw; meta nftrace set 1\n }}\n }}"
        ),
    );
    testbed.start(&gate("max_opened_door_duration = 60"));
    // A trace is owed, so it listens.
    testbed.knock(STRANGER[0], &SEQUENCE);
    testbed.hear("opened:");
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (client, ended) = (&testbed.client, &ended);
        scope.spawn(move || {
            client.enter(|| {
                let socket = std::net::UdpSocket::bind((crowd(9).as_str(), 0)).unwrap();
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = socket.send_to(b"x", (SERVER[0], 9));
                }
            });
        });
        for number in 1..6 {
            let source = crowd(number);
            // Under a flood the kernel may lose a knock.
            let begun = Instant::now();
            while !testbed.grants("default").contains_key(&source) {
                assert!(begun.elapsed() < PATIENCE, "{source}");
                testbed.knock(&source, &SEQUENCE);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    testbed.hear(&format!("opened: door default for {}", crowd(5)));
}

impl Testbed {
    /// How many grants are owed a trace, in IPv4.
    fn traces(&self) -> usize {
        let set = self.on_server("nft", &["list", "set", "inet", "port_knocking_doors", "trace.4"]);
        set.matches("expires").count()
    }

    /// Whether a process listens to what the kernel traces.
    fn listens_to_traces(&self, process: u32) -> bool {
        let sockets = self.server.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap());
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // Address, family, process, groups; NETLINK_NETFILTER, NFNLGRP_NFTRACE.
            let in_group = u32::from_str_radix(fields[3], 16).is_ok_and(|groups| groups & 1 << 8 != 0);
            fields[1] == "12" && fields[2] == process.to_string() && in_group
        })
    }
}
