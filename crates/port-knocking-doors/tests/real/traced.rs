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
    testbed::{Answer, CLIENT, House, PATIENCE, PORT, SEQUENCE, SERVER, STRANGER, crowd, gate, server_for},
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
pub(crate) fn nft(house: &House, lines: &str) {
    shell(house, &format!("nft -f - <<'END'\n{lines}\nEND"));
}

/// Knocks and connects, and gives the warning.
fn warning(house: &mut House, source: &str, port: u16) -> String {
    house.knock(source, &SEQUENCE);
    house.hear(&format!("opened: door default for {source}"));
    assert_ne!(house.ask(source, port), Answer::Accepted);
    house.hear(WARNING)
}

pub(crate) fn contains(line: &str, all: &[&str]) {
    for one in all {
        assert!(line.contains(one), "{one:?} is not in: {line}");
    }
}

#[test]
fn what_ufw_drops_is_named_with_its_rule_and_the_remedy() {
    let mut house = House::new();
    let _ufw = Ufw::enable(&house);
    house.start(&gate("max_opened_door_duration = 60"));
    let line = warning(&mut house, CLIENT[0], PORT);
    contains(
        &line,
        &["192.0.2.7 in at 22/tcp", "ip filter INPUT", "its policy is drop", "`ufw allow 22/tcp`"],
    );
    contains(
        &line,
        &["`-A ufw-before-input -m mark --mark 0x20000000/0x20000000 -j ACCEPT`", "set mark = 0x20000000"],
    );
    let line = warning(&mut house, CLIENT[1], PORT);
    contains(
        &line,
        &["2001:db8::7 in at 22/tcp", "ip6 filter INPUT", "`-A ufw6-before-input", "before6.rules"],
    );
}

#[test]
fn what_the_policy_of_iptables_drops_is_named() {
    let mut house = House::new();
    shell(&house, IPTABLES);
    house.start(&gate("max_opened_door_duration = 60\nmark = 0x80"));
    let line = warning(&mut house, CLIENT[0], PORT);
    contains(
        &line,
        &["ip filter INPUT", "its policy is drop", "`iptables -I INPUT -m mark --mark 0x80/0x80 -j ACCEPT`"],
    );
    assert!(!line.contains("set mark"), "{line}");
    contains(&warning(&mut house, CLIENT[1], PORT), &["ip6 filter INPUT", "`ip6tables -I INPUT"]);
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
        // What is not understood has a handle.
        ("-m pkttype --pkt-type unicast -j DROP", "by its rule with handle"),
    ] {
        let mut house = House::new();
        shell(
            &house,
            &format!("iptables -N sub\niptables -A INPUT -i server -j sub\niptables -A sub {rule}"),
        );
        house.start(&gate(""));
        let line = warning(&mut house, CLIENT[0], PORT);
        contains(
            &line,
            &["the chain ip filter sub", "by its rule with handle", words, "`iptables -I INPUT -m mark"],
        );
    }
}

#[test]
fn what_nftables_drops_is_named_with_a_rule_for_the_chain_that_it_came_in_by() {
    let mut house = House::new();
    nft(&house, NATIVE);
    house.start(&gate("mark = 0x80"));
    let line = warning(&mut house, CLIENT[0], PORT);
    let remedy = "`nft insert rule inet filter input meta mark '&' 0x80 == 0x80 accept`";
    contains(&line, &["inet filter input", "its policy is drop", remedy]);

    let mut house = House::new();
    nft(
        &house,
        &NATIVE
            .replace("policy drop", "policy accept")
            .replace("accept\n    }", "accept\n tcp dport 22 reject\n }"),
    );
    house.start(&gate("mark = 0x80"));
    contains(
        &warning(&mut house, CLIENT[0], PORT),
        &["inet filter services", ": tcp dport 22 reject)", remedy],
    );
}

#[test]
fn what_the_chain_of_a_container_engine_drops_is_named() {
    let mut house = container_engine();
    shell(
        &house,
        "iptables -I DOCKER-USER -p tcp -m conntrack --ctorigdstport 8022 --ctdir ORIGINAL -j DROP",
    );
    house.start(&gate("mark = 0x80").replace("[22]", "[8022]"));
    let line = warning(&mut house, CLIENT[0], 8022);
    contains(
        &line,
        &["in at 8022/tcp", "ip filter DOCKER-USER", "`iptables -I DOCKER-USER -m mark --mark 0x80/0x80"],
    );
}

#[test]
fn datagrams_and_grants_for_one_connection_are_traced_too() {
    let mut house = House::new();
    nft(&house, NATIVE);
    house.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"once\"\nports = [\"22/tcp\"]\nsequence = {SEQUENCE:?}\n\
         grant = \"once\"\nopen_for = 60\n[[doors]]\nname = \"voice\"\nports = [\"60-70/udp\"]\n\
         sequence = [1001, 1002, 1003, 1004, 1006]\nopen_for = 60\n"
    ));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened: door once");
    assert_eq!(house.ask(CLIENT[0], PORT), Answer::Silence);
    contains(&house.hear(WARNING), &["192.0.2.7 in at 22/tcp"]);
    // The same rule drops it, so the rules have to change before it is named again.
    nft(&house, "add rule inet filter services udp dport 60-65 drop");
    house.knock(CLIENT[0], &[1001, 1002, 1003, 1004, 1006]);
    house.hear("opened: door voice");
    house.send(CLIENT[0], &[61], b"hello");
    contains(&house.hear(WARNING), &["192.0.2.7 in at 61/udp", ": udp dport 60-65 drop)"]);
}

#[test]
fn a_grant_from_before_the_start_is_traced_too() {
    let mut house = House::new();
    house.start(&gate("max_opened_door_duration = 600"));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    house.end(Signal::KILL);
    nft(&house, NATIVE);
    house.start(&gate("max_opened_door_duration = 600"));
    house.hear("found open:");
    assert_eq!(house.ask(CLIENT[0], PORT), Answer::Silence);
    house.hear(WARNING);
}

/// Whether anything was warned of since the last time.
fn is_warned(house: &mut House) -> bool {
    house.daemon().take_lines().iter().any(|line| line.contains(WARNING))
}

#[test]
fn a_rule_is_named_once_until_it_or_the_configuration_changes() {
    let mut house = House::new();
    nft(&house, NATIVE);
    let text = gate("max_opened_door_duration = 600");
    house.start(&text);
    warning(&mut house, CLIENT[0], PORT);
    // Neither the next connection, nor the next client.
    house.knock(&crowd(1), &SEQUENCE);
    house.hear("opened:");
    for source in [CLIENT[0], &crowd(1), CLIENT[0]] {
        assert_eq!(house.ask(source, PORT), Answer::Silence);
    }
    house.daemon().signal(Signal::HUP).unwrap();
    house.hear("has been read again");
    assert!(!is_warned(&mut house));
    house.until("traces are owed again", |house| house.traces() == 2);
    assert_eq!(house.ask(CLIENT[0], PORT), Answer::Silence);
    house.hear(WARNING);
    // What drops it stays as it is, and has been told of; but nobody knows that before a packet has come.
    nft(&house, "add rule inet filter services tcp dport 9999 accept");
    house.until("a trace is owed again", |house| house.traces() == 2);
    assert_eq!(house.ask(CLIENT[0], PORT), Answer::Silence);
    house.hear(WARNING);
}

#[test]
fn of_what_gets_through_nothing_is_said() {
    let mut house = House::new();
    let closes = "iptables -A INPUT -p tcp ! --syn -m conntrack --ctstate NEW -j DROP";
    shell(&house, &format!("{closes}\n{}", IPTABLES.replace("80,443", "22,80")));
    house.start(&gate("max_opened_door_duration = 60"));
    for source in CLIENT {
        house.knock(source, &SEQUENCE);
        house.hear("opened:");
        // Segments that belong to nothing are dropped by others, and rightly so.
        for flags in [raw::ACK, raw::RST, raw::FIN | raw::ACK] {
            let from = SocketAddr::new(source.parse().unwrap(), 50_000);
            let to = SocketAddr::new(server_for(source), PORT);
            house.as_client(|| raw::send(&raw::segment(from, to, 7, flags)));
        }
        assert_eq!(house.ask(source, PORT), Answer::Accepted);
    }
    // A stranger is dropped by the gate itself.
    assert_eq!(house.ask(STRANGER[0], PORT), Answer::Silence);
    // What the kernel has told until now comes before what it tells of this.
    shell(&house, "iptables -I INPUT -p tcp --dport 22 -j DROP");
    house.until("a trace is owed again", |house| house.traces() == 1);
    assert_eq!(house.ask(CLIENT[0], PORT), Answer::Silence);
    contains(&house.hear(WARNING), &[": tcp dport 22 drop)"]);
    assert!(!is_warned(&mut house));
}

#[test]
fn one_packet_of_a_grant_is_traced_and_none_of_a_stranger() {
    let mut house = House::new();
    nft(&house, NATIVE);
    house.start(&gate("max_opened_door_duration = 60"));
    let mut command = Command::new("nft");
    command.args(["monitor", "trace"]);
    let mut heard = Process::start(&house.server, command).unwrap();
    house.until("nft listens", |house| house.listens_to_traces(heard.id()));
    house.knock(CLIENT[0], &SEQUENCE);
    house.hear("opened:");
    let target = |port| SocketAddr::new(SERVER[0].parse().unwrap(), port);
    for source in [STRANGER[0], CLIENT[0]] {
        house.as_client(|| {
            for from in 2000..4000 {
                let from = SocketAddr::new(source.parse().unwrap(), from);
                // What is no SYN does not spend it.
                for flags in [raw::ACK, raw::SYN] {
                    raw::send(&raw::segment(from, target(PORT), 7, flags));
                }
            }
        });
    }
    house.hear(WARNING);
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
    let mut house = House::new();
    nft(
        &house,
        &format!(
            "{NATIVE}\ntable inet t {{\n chain p {{\n type filter hook prerouting priority raw; meta nftrace set 1\n }}\n }}"
        ),
    );
    house.start(&gate("max_opened_door_duration = 60"));
    // A trace is owed, so it listens.
    house.knock(STRANGER[0], &SEQUENCE);
    house.hear("opened:");
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (client, ended) = (&house.client, &ended);
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
            while !house.grants("default").contains_key(&source) {
                assert!(begun.elapsed() < PATIENCE, "{source}");
                house.knock(&source, &SEQUENCE);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    house.hear(&format!("opened: door default for {}", crowd(5)));
}

impl House {
    /// How many grants are owed a trace, in IPv4.
    fn traces(&self) -> usize {
        let set = self.on_server("nft", &["list", "set", "inet", "port_knocking_doors", "trace.default4"]);
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
