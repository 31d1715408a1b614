//! The engine against a model that is too simple to be wrong.
//!
//! The model keeps the whole history of every source and applies the rules as they are documented. It has no
//! trie, no table and no expiry.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, Sequence},
    engine::{Change, Engine},
    packet::{AllRoutes, Arrival, Link, Packet},
    sequence::knock::Knock,
    sequence::table::{Knocker, KnockerTable},
    sequence::trie::TrieNode,
    time::{Moment, Wall},
};

/// Values that no rule depends on.
const NOWHERE: Packet<'_> = Packet {
    source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    source_port: 40000,
    destination: IpAddr::V4(Ipv4Addr::LOCALHOST),
    port: 0,
    link: Link(0),
    payload: b"",
};
use proptest::prelude::*;

const SEQUENCES: [(&str, &[u16]); 3] =
    [("a", &[1, 2, 3, 4, 5]), ("b", &[1, 2, 2, 1, 3, 1]), ("c", &[6, 1, 6, 1, 6])];
const QUIET: u64 = 5;
const FORGET: u64 = 30;
const OPEN: u64 = 10;

#[derive(Clone, Debug, Default)]
struct Model {
    sources: BTreeMap<u8, Source>,
    grants: BTreeMap<(u8, &'static str), u64>,
}

#[derive(Clone, Debug, Default)]
struct Source {
    right: Vec<u16>,
    last: Option<u16>,
    last_knock: u64,
    quiet_until: u64,
}

impl Model {
    /// The door that opens, if one does.
    fn knock(&mut self, source: u8, port: u16, now: u64) -> Option<&'static str> {
        let known = self.sources.entry(source).or_default();
        if now < known.quiet_until {
            known.quiet_until = now + QUIET;
            return None;
        }
        if now >= known.last_knock + FORGET {
            known.right.clear();
            known.last = None;
        }
        let mut knocked = known.right.clone();
        knocked.push(port);
        let mut fitting = SEQUENCES.iter().filter(|(_, sequence)| sequence.starts_with(&knocked));
        match fitting.next() {
            Some((door, sequence)) => {
                known.last = Some(port);
                known.last_knock = now;
                if sequence.len() > knocked.len() {
                    known.right = knocked;
                    return None;
                }
                known.right.clear();
                let before = self.grants.insert((source, door), now + OPEN);
                // A lease is extended only if it then ends at least a second later. In whole seconds: not
                // within the same second.
                (before != Some(now + OPEN)).then_some(*door)
            }
            None if known.last == Some(port) => None,
            None => {
                *known = Source { quiet_until: now + QUIET, ..Source::default() };
                None
            }
        }
    }
}

fn rules() -> Rules {
    let door = |(name, ports): &(&str, &[u16])| {
        Door::with_sequence(
            DoorName::new(name).unwrap(),
            Sequence::new(ports).unwrap(),
            Duration::from_secs(OPEN),
        )
    };
    Rules {
        doors: SEQUENCES.iter().map(door).collect(),
        quiet_after_wrong: Duration::from_secs(QUIET),
        forget_after: Duration::from_secs(FORGET),
        clients: std::sync::Arc::default(),
    }
}

fn address(source: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, source))
}

/// Mostly whole sequences and pieces of them, so that doors do open, with some noise between.
fn knocks() -> impl Strategy<Value = Vec<(u8, u16, u64)>> {
    let ports = prop_oneof![
        6 => (0..SEQUENCES.len()).prop_map(|number| SEQUENCES[number].1.to_vec()),
        2 => (0..SEQUENCES.len(), 1..5_usize).prop_map(|(number, len)| SEQUENCES[number].1[..len].to_vec()),
        2 => prop::collection::vec(1..8_u16, 1..3),
    ];
    let pause = prop_oneof![8 => Just(0), 2 => 1..8_u64, 1 => 28..40_u64];
    let burst = (1..4_u8, ports, pause, any::<bool>());
    prop::collection::vec(burst, 1..40).prop_map(|bursts| {
        bursts
            .into_iter()
            .flat_map(|(source, ports, pause, doubled)| {
                let copies = if doubled { 2 } else { 1 };
                ports.into_iter().enumerate().flat_map(move |(number, port)| {
                    let wait = if number == 0 { pause } else { 0 };
                    (0..copies).map(move |copy| (source, port, if copy == 0 { wait } else { 0 }))
                })
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn doors_open_exactly_when_the_model_says(knocks in knocks()) {
        let mut engine = Engine::new(rules()).unwrap();
        let mut model = Model::default();
        let mut seconds = 0;
        for (source, port, pause) in knocks {
            seconds += pause;
            let now = Moment::new(Duration::from_secs(seconds));
            let packet = Packet { source: address(source), port, link: Link(1), payload: b"knock\n", ..NOWHERE };
            engine.handle_packet(&packet, now, Wall(0), &mut AllRoutes);
            let opened: Vec<_> = std::iter::from_fn(|| engine.poll_change()).collect();
            let expected = model.knock(source, port, seconds);
            match (&opened[..], expected) {
                ([], None) => {}
                ([Change::Open(lease)], Some(door)) => {
                    prop_assert_eq!(lease.key.door.as_str(), door);
                    prop_assert_eq!(lease.key.source, address(source));
                    prop_assert_eq!(lease.until, now.after(Duration::from_secs(OPEN)));
                }
                other => prop_assert!(false, "{:?}", other),
            }
            let running: BTreeSet<_> =
                engine.grants().iter().map(|running| (running.lease.key.clone(), running.lease.until)).collect();
            prop_assert_eq!(running.len(), model.grants.values().filter(|until| **until > seconds).count());
            for (_, until) in running {
                prop_assert!(until > now, "a grant outlives its time");
            }
        }
    }

    #[test]
    fn only_the_exact_payload_to_a_valid_port_is_a_knock(
        payload in payloads(),
        port in prop_oneof![Just(0_u16), any::<u16>()],
    ) {
        let packet = Packet { source: address(1), port, link: Link(1), payload: &payload, ..NOWHERE };
        prop_assert_eq!(Knock::parse(&packet).is_some(), payload == b"knock\n" && port != 0);
    }

    #[test]
    fn whatever_is_knocked_the_table_keeps_its_bound_and_the_sources_with_the_most_progress(
        capacity in 1..8_usize,
        knocks in prop::collection::vec((0..20_u8, 0..20_u8, any::<bool>(), 0..3_u64), 1..200)
    ) {
        let mut table = KnockerTable::new(capacity);
        // The sources in the table, with their number of right knocks.
        let mut present: BTreeMap<u8, u8> = BTreeMap::new();
        let mut seconds = 0;
        for (source, right, waiting, pause) in knocks {
            seconds += pause;
            let now = Moment::new(Duration::from_secs(seconds));
            let until = Moment::new(Duration::from_secs(seconds + FORGET));
            let arrival = Arrival { link: Link(1), destination: address(0) };
            let newcomer = Knocker { node: TrieNode::START, last_port: 1, waiting, arrival, until };
            let one_has_expired = present.keys().any(|source| table.get(address(*source), now).is_none());
            let full = present.len() == capacity && !present.contains_key(&source);
            table.put(address(source), newcomer, right, now);
            prop_assert!(table.len() <= capacity);
            // The sources that the table still holds, expired or not.
            let holds = |source: &u8| table.get(address(*source), Moment::default()).is_some();
            let (stay, evicted): (BTreeMap<u8, u8>, BTreeMap<u8, u8>) =
                present.into_iter().partition(|(source, _)| holds(source));
            prop_assert_eq!(evicted.len(), usize::from(full), "one is evicted if the table is full");
            if !one_has_expired {
                let furthest = evicted.values().max();
                prop_assert!(stay.values().all(|right| furthest.is_none_or(|most| most <= right)), "{evicted:?}");
            }
            prop_assert_eq!(table.get(address(source), now), Some(newcomer));
            present = stay;
            present.insert(source, if waiting { 0 } else { right });
        }
    }
}

/// The knock's payload, payloads that differ from it a little, and random ones.
fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let knock = || Knock::PAYLOAD.to_vec();
    prop_oneof![
        Just(knock()),
        (0..6_usize, any::<u8>()).prop_map(move |(at, byte)| {
            let mut near = knock();
            near[at] = byte;
            near
        }),
        (0..6_usize).prop_map(move |length| knock()[..length].to_vec()),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(move |more| [knock(), more].concat()),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(move |before| [before, knock()].concat()),
        prop::collection::vec(any::<u8>(), 0..32),
    ]
}
