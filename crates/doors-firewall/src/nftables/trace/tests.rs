//! What is told of packets, and how much is kept of them.

use std::net::Ipv4Addr;

use doors_core::door::DoorName;

use super::*;
use crate::plan::{PlannedDoor, Refuse};

const NOW: Moment = Moment::new(Duration::from_secs(1000));

fn plan() -> Plan {
    Plan {
        doors: vec![PlannedDoor {
            name: DoorName::new("ssh").unwrap(),
            ports: vec![Ports::tcp(22)],
            open_for: Duration::from_secs(60),
            max_open_for: Duration::from_secs(60),
            once: false,
        }],
        trusted: Vec::new(),
        refuse: Refuse::Drop,
        mark: None,
        zone: None,
        check_every: Duration::from_secs(10),
        clean_every: Duration::from_secs(10),
        remove_on_exit: false,
    }
}

fn source(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn grants(numbers: std::ops::Range<u8>, until: Moment) -> impl Iterator<Item = (GrantKey, Moment)> {
    let door = DoorName::new("ssh").unwrap();
    numbers.map(move |number| (GrantKey { door: door.clone(), source: source(number) }, until))
}

fn place(family: u8, table: &str, chain: &str, rule: Option<u64>) -> Place {
    Place { family, table: table.to_owned(), chain: chain.to_owned(), rule }
}

fn at_gate(id: u32, number: u8) -> Step {
    let place = place(abi::NFPROTO_INET, TABLE, "door_ssh", Some(3));
    let packet = Packet { source: source(number), ports: Ports::tcp(22) };
    Step { id, place, verdict: abi::NFT_CONTINUE, packet: Some(packet) }
}

fn elsewhere(id: u32, chain: &str, rule: Option<u64>, verdict: i32) -> Step {
    Step { id, place: place(abi::NFPROTO_IPV4, "filter", chain, rule), verdict, packet: None }
}

fn story(numbers: std::ops::Range<u8>) -> Story {
    let mut story = Story::default();
    story.owe(&plan(), grants(numbers, NOW.after(Duration::from_secs(60))), NOW);
    story
}

#[test]
fn the_chain_that_a_packet_came_in_by_is_told_with_the_rule_that_dropped_it() {
    let mut story = story(7..8);
    for step in [
        at_gate(1, 7),
        elsewhere(1, "PREROUTING", None, abi::NF_ACCEPT),
        elsewhere(1, "INPUT", Some(5), abi::NFT_JUMP),
        elsewhere(1, "sub", Some(6), abi::NFT_CONTINUE),
    ] {
        assert_eq!(story.follow(step, NOW), None);
    }
    let told = story.follow(elsewhere(1, "sub", Some(9), abi::NF_DROP), NOW).unwrap();
    assert_eq!(told.packet.source, source(7));
    assert_eq!((told.entry.as_str(), told.place.chain.as_str(), told.place.rule), ("INPUT", "sub", Some(9)));
    assert!(story.is_over());
}

#[test]
fn a_packet_that_nobody_waits_for_is_not_followed() {
    let mut story = story(7..8);
    // Another source, another port, and what others have begun to trace.
    assert_eq!(story.follow(at_gate(1, 8), NOW), None);
    let mut other_port = at_gate(2, 7);
    other_port.packet = Some(Packet { source: source(7), ports: Ports::tcp(80) });
    assert_eq!(story.follow(other_port, NOW), None);
    for id in 1..4 {
        assert_eq!(story.follow(elsewhere(id, "INPUT", None, abi::NF_DROP), NOW), None);
    }
    // One packet for each grant.
    assert_eq!(story.follow(at_gate(4, 7), NOW), None);
    assert_eq!(story.follow(at_gate(5, 7), NOW), None);
    assert_eq!(story.follow(elsewhere(5, "INPUT", None, abi::NF_DROP), NOW), None);
    assert!(story.follow(elsewhere(4, "INPUT", None, abi::NF_DROP), NOW).is_some());
}

#[test]
fn what_the_gate_itself_drops_is_no_news() {
    let mut story = story(7..8);
    story.follow(at_gate(1, 7), NOW);
    let refused = Step { verdict: abi::NF_DROP, packet: None, ..at_gate(1, 7) };
    assert_eq!(story.follow(refused, NOW), None);
    assert!(story.is_over());
}

#[test]
fn a_rule_is_told_of_once_and_only_so_many_are() {
    let mut story = story(1..60);
    for number in 1..60_u8 {
        let rule = Some(u64::from(number / 2));
        story.follow(at_gate(u32::from(number), number), NOW);
        let told = story.follow(elsewhere(u32::from(number), "INPUT", rule, abi::NF_DROP), NOW);
        assert_eq!(told.is_some(), number == 1 || number % 2 == 0, "{number}");
    }
    assert_eq!(story.told.len(), 30);
    for number in 100..200 {
        story.told.insert(place(abi::NFPROTO_IPV4, "filter", "INPUT", Some(number)));
    }
    story.owe(&plan(), grants(1..2, NOW.after(Duration::from_secs(60))), NOW);
    story.follow(at_gate(1, 1), NOW);
    assert_eq!(story.follow(elsewhere(1, "INPUT", Some(999), abi::NF_DROP), NOW), None);
}

#[test]
fn so_many_grants_are_owed_a_trace_and_no_longer_than_some_minutes() {
    let mut story = Story::default();
    let in_a_year = NOW.after(Duration::from_secs(366 * 24 * 3600));
    let owed = story.owe(&plan(), grants(0..200, in_a_year), NOW);
    assert_eq!(owed.len(), OWED_AT_ONCE);
    assert!(owed.iter().all(|(_, left)| *left == OWED_FOR));
    assert!(story.owe(&plan(), grants(200..201, in_a_year), NOW).is_empty());
    story.tidy(NOW.after(OWED_FOR));
    assert!(story.is_over());
    assert_eq!(story.owe(&plan(), grants(200..201, NOW), NOW), []);
}

#[test]
fn what_never_ends_is_forgotten() {
    let mut story = story(1..60);
    for number in 1..60_u8 {
        story.follow(at_gate(u32::from(number), number), NOW);
    }
    assert_eq!(story.ways.len(), 59);
    story.tidy(NOW.after(ON_ITS_WAY));
    assert!(story.is_over());
}

#[test]
fn changes_without_a_pause_have_all_traced_again_every_ten_seconds() {
    let mut traces = Traces::default();
    let mut again = 0;
    for tenths in 0..300_u64 {
        let now = NOW.after(Duration::from_millis(tenths * 100));
        traces.rules_changed(now);
        again += usize::from(traces.is_due_again(now));
    }
    assert_eq!(again, 3);
}

#[test]
fn source_and_port_are_read_out_of_both_kinds_of_headers() {
    let tcp = [0x9c, 0x40, 0, 22, 0, 0];
    let mut v4 = [0; 20];
    (v4[0], v4[9]) = (0x45, 6);
    v4[12..16].copy_from_slice(&[192, 0, 2, 7]);
    assert_eq!(packet(&v4, &tcp), Some(Packet { source: source(7), ports: Ports::tcp(22) }));
    let mut v6 = [0; 40];
    (v6[0], v6[6], v6[23]) = (0x60, 17, 1);
    assert_eq!(packet(&v6, &tcp).map(|packet| packet.source), Some("::1".parse().unwrap()));
    for short in 0..20 {
        assert_eq!(packet(&v4[..short.min(15)], &tcp), None);
    }
    assert_eq!(packet(&v4, &tcp[..3]), None);
    v4[9] = 1;
    assert_eq!(packet(&v4, &tcp), None);
}
