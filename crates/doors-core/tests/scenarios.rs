//! Short scenes with sequences. The clock is a number in the scene; nothing sleeps.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, GrantKey, Sequence},
    engine::{Change, Engine, Event, Report},
    lease::{GrantedTo, Lease},
    limits,
    packet::{AllRoutes, Arrival, Link, Packet, Routes},
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

const SSH: [u16; 5] = [7001, 7002, 7003, 7004, 7005];
const WEB: [u16; 6] = [7001, 7002, 9003, 9004, 9005, 7001];
const CLIENT: &str = "192.0.2.7";
const OTHER: &str = "2001:db8::7";

struct Scene {
    engine: Engine,
    now: Moment,
}

impl Scene {
    fn new() -> Self {
        Self { engine: Engine::new(rules(&[("ssh", &SSH), ("web", &WEB)])).unwrap(), now: at(0) }
    }

    fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = at(seconds);
        self.engine.handle_timeout(self.now, Wall(0));
        self
    }

    fn knock(&mut self, source: &str, ports: &[u16]) -> &mut Self {
        for port in ports {
            let source = source.parse().unwrap();
            let packet = Packet { source, port: *port, link: Link(3), payload: b"knock\n", ..NOWHERE };
            self.engine.handle_packet(&packet, self.now, Wall(0), &mut AllRoutes);
        }
        self
    }

    fn done(&mut self, door: &str, source: &str) -> &mut Self {
        self.engine.handle_report(Report::Done(grant_key(door, source)), self.now, Wall(0));
        self
    }

    fn changes(&mut self) -> Vec<Change> {
        std::iter::from_fn(|| self.engine.poll_change()).collect()
    }

    /// The events, without the details.
    fn events(&mut self) -> Vec<Event> {
        let detail = |event: &Event| {
            matches!(event, Event::Further { .. } | Event::Waiting { .. } | Event::StillOpen(_))
        };
        std::iter::from_fn(|| self.engine.poll_event()).filter(|event| !detail(event)).collect()
    }

    fn details(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.engine.poll_event()).collect()
    }
}

/// A kernel that accepts packets on one interface only, and counts how often it is asked.
#[derive(Default)]
struct Strict {
    asked: usize,
}

/// The interface that leads to the clients, and one that does not.
const INSIDE: Link = Link(3);
const OUTSIDE: Link = Link(4);

impl Routes for Strict {
    fn accept(&mut self, _: IpAddr, arrival: Arrival) -> bool {
        self.asked += 1;
        arrival.link == INSIDE
    }
}

impl Strict {
    fn knock(&mut self, scene: &mut Scene, link: Link, source: IpAddr, ports: &[u16]) {
        for port in ports {
            let packet = Packet { source, port: *port, link, payload: b"knock\n", ..NOWHERE };
            scene.engine.handle_packet(&packet, scene.now, Wall(0), self);
        }
    }
}

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn rules(doors: &[(&str, &[u16])]) -> Rules {
    Rules {
        doors: doors
            .iter()
            .map(|(name, ports)| {
                Door::with_sequence(
                    DoorName::new(name).unwrap(),
                    Sequence::new(ports).unwrap(),
                    Duration::from_secs(10),
                )
            })
            .collect(),
        quiet_after_wrong: Duration::from_secs(5),
        forget_after: Duration::from_secs(30),
        clients: Arc::default(),
    }
}

fn lease(door: &str, source: &str, until: u64) -> Lease {
    Lease {
        key: grant_key(door, source),
        link: Link(3),
        until: at(until),
        granted_to: GrantedTo::Sequence,
        once: false,
    }
}

/// A lease that the firewall holds from an earlier run.
fn found_open(key: &GrantKey, until: u64) -> Lease {
    Lease {
        key: key.clone(),
        link: Link::default(),
        until: at(until),
        granted_to: GrantedTo::Sequence,
        once: false,
    }
}

fn grant_key(door: &str, source: &str) -> GrantKey {
    let source: IpAddr = source.parse().unwrap();
    GrantKey { door: DoorName::new(door).unwrap(), source }
}

fn open(door: &str, source: &str, until: u64) -> Change {
    Change::Open(lease(door, source, until))
}

#[test]
fn a_knock_that_the_kernel_drops_neither_advances_a_client_nor_starts_its_quiet_period() {
    let (mut scene, mut routes, client) = (Scene::new(), Strict::default(), CLIENT.parse().unwrap());
    for right in 0..SSH.len() {
        scene.at(u64::try_from(right).unwrap() * 100);
        let (before, after) = SSH.split_at(right);
        routes.knock(&mut scene, INSIDE, client, before);
        // A wrong knock, the first, the next, and a wrong one twice.
        routes.knock(&mut scene, OUTSIDE, client, &[9, SSH[0], after[0], 9, 9]);
        assert_eq!(scene.changes(), []);
        routes.knock(&mut scene, INSIDE, client, after);
        assert_eq!(scene.changes().len(), 1, "after {right}");
    }
    scene.at(1000);
    routes.knock(&mut scene, OUTSIDE, client, &SSH);
    assert_eq!(scene.changes(), []);
    assert!(scene.events().iter().all(|event| !matches!(event, Event::Wrong { .. })));
}

#[test]
fn a_flood_of_first_or_wrong_knocks_causes_few_route_queries() {
    let (mut scene, mut routes) = (Scene::new(), Strict::default());
    for number in 0..20_000_u32 {
        let source = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
        routes.knock(&mut scene, OUTSIDE, source, &[SSH[0]]);
    }
    assert_eq!(routes.asked, 0);
    scene.details();
    for number in 0..20_000_u32 {
        let source = IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number));
        // Each twice: the second comes in the same way as the first.
        routes.knock(&mut scene, OUTSIDE, source, &[9, 9]);
    }
    assert!(routes.asked < 100, "{}", routes.asked);
}

#[test]
fn the_exact_sequence_opens_the_door_for_its_source_only() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);
    assert_eq!(scene.events(), [Event::Granted(lease("ssh", CLIENT, 10))]);
}

#[test]
fn nothing_less_than_the_sequence_opens() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..4]).knock(OTHER, &SSH[1..]);
    assert_eq!(scene.changes(), []);
}

#[test]
fn knocks_of_two_sources_are_never_combined() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..3]).knock(OTHER, &SSH[3..]).knock(CLIENT, &SSH[4..]);
    assert_eq!(scene.changes(), []);
}

#[test]
fn two_doors_may_share_the_beginning_of_their_sequences() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &WEB).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("web", CLIENT, 10), open("ssh", CLIENT, 10)]);
}

#[test]
fn a_wrong_knock_starts_a_quiet_period() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &[7001, 7002, 7004]);
    let (source, quiet) = (CLIENT.parse().unwrap(), Duration::from_secs(5));
    let wrong = Event::Wrong { source, port: 7004, after: 2, quiet, checked: true };
    assert_eq!(scene.events(), [wrong]);

    scene.at(4).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), []);

    // Each knock during the quiet period restarts it: the last was at 4.
    scene.at(8).knock(CLIENT, &SSH[..1]);
    scene.at(12).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), []);

    scene.at(17).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 27)]);
}

#[test]
fn a_knock_on_any_other_port_is_wrong_even_as_the_first() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &[1]).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), []);
}

#[test]
fn each_knock_is_reported_for_fault_finding() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &[7001, 7002, 1, 7001]);
    let source = CLIENT.parse().unwrap();
    let [first, second, _, last] = &scene.details()[..] else { panic!("four details") };
    assert_eq!([first, second], [1, 2].map(|right| Event::Further { source, right }).each_ref());
    assert_eq!(last, &Event::Waiting { source });
}

#[test]
fn a_quiet_period_is_reported_once() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &[1, 2, 3, 4]);
    assert_eq!(scene.events().len(), 1);
}

#[test]
fn progress_expires_some_time_after_the_last_knock() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..2]);
    scene.at(29).knock(CLIENT, &SSH[2..4]);
    scene.at(58).knock(CLIENT, &SSH[4..]);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 68)]);

    scene.at(100).knock(CLIENT, &SSH[..4]);
    scene.at(130).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 140)]);
}

#[test]
fn a_repeated_datagram_is_ignored() {
    let mut scene = Scene::new();
    for port in SSH {
        scene.knock(CLIENT, &[port, port, port]);
    }
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);

    // Also after the last knock: that starts no quiet period.
    scene.at(1).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 11)]);
}

#[test]
fn a_sequence_may_hold_a_port_twice_in_a_row() {
    let twice = [7001, 7001, 7002, 7002, 7001];
    for knocks in [&twice[..], &[7001, 7001, 7001, 7002, 7002, 7001]] {
        let mut scene = Scene::new();
        scene.engine = Engine::new(rules(&[("ssh", &twice)])).unwrap();
        scene.knock(CLIENT, knocks);
        assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);
    }
}

#[test]
fn a_completed_sequence_extends_an_open_door() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH).done("ssh", CLIENT);
    scene.at(8).knock(CLIENT, &SSH).done("ssh", CLIENT);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10), open("ssh", CLIENT, 18)]);
    let granted = |until| Event::Granted(lease("ssh", CLIENT, until));
    let opened = Event::Opened(lease("ssh", CLIENT, 10));
    let extended = Event::Extended(lease("ssh", CLIENT, 18));
    assert_eq!(scene.events(), [granted(10), opened, granted(18), extended]);

    scene.at(17);
    assert_eq!(scene.events(), []);
    scene.at(18);
    assert_eq!(scene.events(), [Event::Closed(lease("ssh", CLIENT, 18))]);
    assert_eq!(scene.changes(), [], "the firewall closes doors by itself");
}

#[test]
fn a_source_in_its_quiet_period_keeps_its_open_door() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH).done("ssh", CLIENT).knock(CLIENT, &[1]);
    scene.changes();
    scene.events();
    scene.at(9);
    assert_eq!(scene.events(), []);
    assert_eq!(scene.changes(), []);
    assert_eq!(scene.engine.grants().iter().count(), 1);
}

#[test]
fn a_door_that_the_firewall_never_opened_is_never_reported_as_open() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH).at(10);
    let door = lease("ssh", CLIENT, 10);
    assert_eq!(scene.events(), [Event::Granted(door.clone()), Event::NeverOpened(door)]);
}

#[test]
fn a_door_found_open_is_adopted_with_its_time() {
    let mut scene = Scene::new();
    let found = grant_key("ssh", CLIENT);
    scene.engine.handle_report(Report::Found(found_open(&found, 7)), at(0), Wall(0));
    assert_eq!(scene.events(), [Event::Adopted(found_open(&found, 7))]);
    assert_eq!(scene.changes(), []);
    scene.at(7);
    assert_eq!(scene.events(), [Event::Closed(found_open(&found, 7))]);
}

#[test]
fn a_lease_found_for_a_door_that_does_not_exist_is_closed() {
    let mut scene = Scene::new();
    let found = grant_key("gone", CLIENT);
    scene.engine.handle_report(Report::Found(found_open(&found, 7)), at(0), Wall(0));
    assert_eq!(scene.changes(), [Change::Close(found.clone())]);
    assert_eq!(scene.events(), [Event::NotAdopted(found_open(&found, 7))]);
    assert_eq!(scene.engine.grants().iter().count(), 0);
}

#[test]
fn new_rules_close_the_doors_that_are_gone_and_no_others() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH).knock(OTHER, &WEB).done("ssh", CLIENT).done("web", OTHER);
    scene.changes();
    scene.events();

    scene.engine.change_rules(rules(&[("ssh", &[1, 2, 3, 4, 5])]), scene.now, Wall(0)).unwrap();
    assert_eq!(scene.changes(), [Change::Close(grant_key("web", OTHER))]);
    assert_eq!(scene.events(), [Event::Revoked(lease("web", OTHER, 10))]);

    scene.at(1).knock(CLIENT, &[1, 2, 3, 4, 5]);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 11)]);
}

#[test]
fn new_rules_close_any_number_of_doors() {
    let mut scene = Scene::new();
    let source = |number: usize| format!("2001:db8::{number:x}");
    for number in 0..5_000 {
        scene.knock(&source(number), &WEB).done("web", &source(number));
    }
    scene.changes();
    scene.events();

    scene.engine.change_rules(rules(&[("ssh", &SSH)]), scene.now, Wall(0)).unwrap();
    assert_eq!(scene.changes().len(), 5_000);
    assert_eq!(scene.events().len(), 5_000);
}

#[test]
fn progress_survives_new_rules_with_the_same_sequences() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..3]);
    scene.engine.change_rules(rules(&[("ssh", &SSH), ("web", &WEB)]), scene.now, Wall(0)).unwrap();
    scene.knock(CLIENT, &SSH[3..]);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);
}

#[test]
fn rules_with_a_conflict_change_nothing() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules(&[("ssh", &SSH), ("web", &SSH)]), scene.now, Wall(0)).unwrap_err();
    scene.knock(CLIENT, &WEB);
    assert_eq!(scene.changes(), [open("web", CLIENT, 10)]);
}

#[test]
fn grants_are_bounded_and_live_ones_are_never_evicted() {
    let mut scene = Scene::new();
    let source = |number: usize| format!("2001:db8::{number:x}");
    for number in 0..limits::GRANTS_BY_SEQUENCE {
        scene.knock(&source(number), &SSH);
    }
    assert_eq!(scene.changes().len(), limits::GRANTS_BY_SEQUENCE);
    scene.events();

    scene.knock(CLIENT, &SSH);
    assert_eq!(scene.events(), [Event::NoRoom(lease("ssh", CLIENT, 10))]);
    assert_eq!(scene.changes(), []);

    scene.at(1).knock(&source(5), &SSH);
    assert_eq!(scene.changes().len(), 1, "extending needs no room");
    scene.at(10).knock(CLIENT, &SSH);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 20)]);
}

#[test]
fn a_sequence_repeated_without_end_causes_one_change_a_second() {
    let mut scene = Scene::new();
    for tenth in 0..100_u64 {
        scene.now = Moment::new(Duration::from_millis(tenth * 100));
        scene.knock(CLIENT, &SSH);
    }
    assert_eq!(scene.changes().len(), 10);
    assert_eq!(scene.events().len(), 10, "without those that change nothing");
}

#[test]
fn the_engine_sleeps_exactly_until_the_next_door_closes() {
    let mut scene = Scene::new();
    assert_eq!(scene.engine.next_deadline(), None);
    scene.knock(CLIENT, &SSH[..3]).knock(OTHER, &[1]);
    assert_eq!(scene.engine.next_deadline(), None, "progress expires without waking up");
    scene.at(2).knock(CLIENT, &SSH[3..]);
    assert_eq!(scene.engine.next_deadline(), Some(at(12)));
    scene.at(12);
    assert_eq!(scene.engine.next_deadline(), None);
}

#[test]
fn a_flood_of_forged_knocks_does_not_stop_a_client_that_is_half_way() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..2]);
    for number in 0..200_000 {
        let forged = format!("2001:db8:f::{:x}:{:x}", number >> 16, number & 0xffff);
        scene.knock(&forged, &[if number % 2 == 0 { 7001 } else { 1 }]);
    }
    scene.knock(CLIENT, &SSH[2..]);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);
    assert!(scene.engine.access().knockers().len() <= doors_core::limits::KNOCKERS);
}

#[test]
fn new_rules_with_other_sequences_drop_all_progress() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..3]);
    // The sequence in progress is unchanged, the other is not.
    scene
        .engine
        .change_rules(rules(&[("ssh", &SSH), ("web", &[1, 2, 3, 4, 5])]), scene.now, Wall(0))
        .unwrap();
    scene.knock(CLIENT, &SSH[3..]);
    assert_eq!(scene.changes(), []);
}

#[test]
fn a_datagram_to_port_0_is_ignored() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &SSH[..3]).knock(CLIENT, &[0]).knock(CLIENT, &SSH[3..]);
    assert_eq!(scene.changes(), [open("ssh", CLIENT, 10)]);
    assert_eq!(scene.events(), [Event::Granted(lease("ssh", CLIENT, 10))]);
}

/// A scene with the maximum of live grants.
fn full() -> Scene {
    let mut scene = Scene::new();
    for number in 0..limits::GRANTS {
        let key = grant_key("ssh", &format!("2001:db8::{number:x}"));
        scene.engine.handle_report(Report::Found(found_open(&key, 60)), at(0), Wall(0));
    }
    scene.events();
    scene
}

#[test]
fn adopted_leases_are_bounded() {
    let mut scene = full();
    let one_more = Report::Found(found_open(&grant_key("ssh", CLIENT), 60));
    scene.engine.handle_report(one_more, at(0), Wall(0));
    assert_eq!(scene.engine.grants().iter().count(), limits::GRANTS);
    assert_eq!(scene.events(), [], "what is not adopted is not reported as adopted");
}

#[test]
fn a_known_lease_that_the_firewall_holds_for_longer_needs_no_room() {
    let mut scene = full();
    let known = grant_key("ssh", "2001:db8::5");
    scene.engine.handle_report(Report::Found(found_open(&known, 120)), at(0), Wall(0));
    assert_eq!(scene.engine.grants().get(&known).map(|running| running.lease.until), Some(at(120)));
}

#[test]
fn a_lease_that_the_firewall_holds_for_longer_is_adopted() {
    let mut scene = Scene::new();
    let door = grant_key("ssh", CLIENT);
    scene.knock(CLIENT, &SSH).done("ssh", CLIENT);
    scene.engine.handle_report(Report::Found(found_open(&door, 60)), at(5), Wall(0));
    scene.changes();
    scene.events();
    scene.at(59);
    assert_eq!(scene.events(), [], "it is open until the firewall closes it");
    scene.at(60);
    assert_eq!(scene.events(), [Event::Closed(lease("ssh", CLIENT, 60))]);
}

#[test]
fn a_door_that_never_opened_is_not_reported_as_closed_by_new_rules() {
    let mut scene = Scene::new();
    scene.knock(CLIENT, &WEB);
    scene.changes();
    scene.engine.change_rules(rules(&[("ssh", &SSH)]), scene.now, Wall(0)).unwrap();
    assert_eq!(scene.changes(), [Change::Close(grant_key("web", CLIENT))]);
    assert_eq!(scene.events(), [Event::Granted(lease("web", CLIENT, 10))]);
}
