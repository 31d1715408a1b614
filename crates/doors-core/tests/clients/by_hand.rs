//! An administrator opens and closes doors by command.

use std::{net::IpAddr, time::Duration};

use doors_core::{
    eligible::{Ineligible, Own},
    engine::{Change, Event, NotOpened, Report},
    lease::{GrantedTo, Lease, Note},
    limits,
    packet::Link,
    time::{Moment, Wall},
};
use doors_spa::receipt::Answer;

use crate::scene::{LAPTOP, OTHER, SOURCE, Scene, client, door, grant_key, rules};

impl Scene {
    fn open_by_hand(&mut self, door: &str, source: &str, seconds: Option<u64>) -> Result<Moment, NotOpened> {
        let note = Note::new("on the telephone").unwrap();
        let (key, open_for) = (grant_key(door, source), seconds.map(Duration::from_secs));
        let opened = self.engine.open_by_hand(key, open_for, note, self.now, Wall(self.wall));
        self.work();
        opened.map(|opened| opened.until)
    }

    fn close_by_hand(&mut self, which: impl Fn(&Lease) -> bool) -> usize {
        let mut ended = 0;
        loop {
            let closed = self.engine.close_by_hand(&which, None, self.now, Wall(self.wall));
            self.work();
            ended += closed.ended.len();
            if !closed.more {
                return ended;
            }
        }
    }

    fn after_seconds(&self, seconds: u64) -> Moment {
        self.now.after(Duration::from_secs(seconds))
    }
}

fn by_hand() -> GrantedTo {
    GrantedTo::Administrator(Note::new("a note").unwrap())
}

#[test]
fn a_door_opens_by_hand_for_as_long_as_is_said_and_closes_by_itself() {
    let mut scene = Scene::new();
    let until = scene.after_seconds(7200);
    assert_eq!(scene.open_by_hand("ssh", SOURCE, Some(7200)), Ok(until), "the door's maximum is for clients");
    let lease = scene.lease("ssh", SOURCE).unwrap();
    assert_eq!((lease.until, &lease.granted_to), (until, &by_hand()));
    assert!(matches!(&scene.events()[..], [Event::Granted(_), Event::Opened(opened)] if *opened == lease));
    let longer = scene.after_seconds(9000);
    assert_eq!(scene.open_by_hand("ssh", SOURCE, Some(9000)), Ok(longer));
    assert_eq!(scene.open_by_hand("ssh", SOURCE, None), Ok(longer), "it is never shortened");
    scene.events();
    scene.wait(9000);
    assert!(matches!(&scene.events()[..], [Event::Closed(_)]) && !scene.is_open("ssh", SOURCE));
    assert_eq!(scene.open_by_hand("ssh", SOURCE, None), Ok(scene.after_seconds(30)), "the door's own time");
}

#[test]
fn a_door_that_does_not_exist_and_an_address_of_this_machine_are_refused_by_hand() {
    let mut scene = Scene::new();
    assert_eq!(scene.open_by_hand("cellar", SOURCE, None), Err(NotOpened::NoSuchDoor));
    let own: IpAddr = OTHER.parse().unwrap();
    scene.engine.set_own_addresses(Own::new(vec![own.into()], Vec::new()));
    let refused = scene.open_by_hand("ssh", OTHER, None);
    assert!(
        matches!(refused, Err(NotOpened::Address(Ineligible::Own(address))) if address == own),
        "{refused:?}"
    );
    assert_eq!((scene.changes.len(), scene.events().len()), (0, 0));
}

#[test]
fn a_door_that_is_closed_by_hand_stays_open_for_others_behind_the_address() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 60), Answer::Granted);
    scene.open_by_hand("ssh", SOURCE, Some(300)).unwrap();
    scene.events();
    assert_eq!(scene.close_by_hand(|lease| lease.granted_to == by_hand()), 1);
    let lease = scene.lease("ssh", SOURCE).unwrap();
    assert_eq!(
        (lease.until, lease.granted_to.client()),
        (scene.after_seconds(60), Some(&client(LAPTOP).who))
    );
    let events = scene.events();
    let [Event::ClosedByHand { lease: gone, rest: Some(rest) }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&gone.granted_to, rest), (&by_hand(), &lease));
    // And the client's goes, too.
    assert_eq!(scene.close_by_hand(|lease| lease.granted_to.client() == Some(&client(LAPTOP).who)), 1);
    assert!(matches!(&scene.events()[..], [Event::ClosedByHand { rest: None, .. }]));
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close(grant_key("ssh", SOURCE))));
    assert_eq!(scene.opens("ssh", 60), Answer::Granted, "a client may knock again after its door was closed");
}

#[test]
fn all_doors_are_closed_by_hand_with_those_that_wait_for_their_turn() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    scene.open_by_hand("once", SOURCE, Some(60)).unwrap();
    scene.open_by_hand("ssh", OTHER, Some(60)).unwrap();
    assert_eq!(scene.close_by_hand(|_| true), 2);
    assert!(scene.engine.grants().is_empty());
    scene.wait(1);
    assert!(scene.engine.grants().is_empty() && scene.engine.next_deadline().is_none());
}

#[test]
fn knocks_that_fill_the_firewall_keep_no_administrator_out() {
    let mut scene = Scene::new();
    let full = u32::try_from(limits::GRANTS).unwrap();
    for number in 0..full {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number).to_string();
        let (key, until) = (grant_key("ssh", &source), scene.after_seconds(60));
        let found = Lease { key, link: Link(0), until, granted_to: GrantedTo::Sequence, once: false };
        scene.engine.handle_report(Report::Found(found), scene.now, Wall(scene.wall));
    }
    assert_eq!((scene.opens("ssh", 0), scene.engine.grants().len()), (Answer::TooMany, limits::GRANTS));
    for number in 0..u32::try_from(limits::GRANTS_BY_HAND).unwrap() {
        let source = std::net::Ipv4Addr::from_bits(0x0b00_0000 | number).to_string();
        scene.open_by_hand("ssh", &source, None).unwrap();
    }
    assert_eq!(scene.open_by_hand("ssh", OTHER, None), Err(NotOpened::TooMany));
    assert_eq!(scene.close_by_hand(|lease| lease.granted_to == by_hand()), limits::GRANTS_BY_HAND);
    scene.open_by_hand("ssh", OTHER, None).unwrap();
}

#[test]
fn what_was_opened_by_hand_outlives_a_restart_and_a_reload_but_not_its_door() {
    let mut scene = Scene::new();
    let (key, until) = (grant_key("ssh", SOURCE), scene.after_seconds(7200));
    let found = Lease { key, link: Link(0), until, granted_to: by_hand(), once: false };
    scene.engine.handle_report(Report::Found(found.clone()), scene.now, Wall(scene.wall));
    assert_eq!(scene.lease("ssh", SOURCE), Some(found.clone()));
    let remark = scene.lease("ssh", SOURCE).unwrap().granted_to.remark();
    assert_eq!(remark, found.granted_to.remark(), "with its note");
    scene.set_clients([]);
    assert!(scene.is_open("ssh", SOURCE));
    let without = doors_core::access::Rules { doors: vec![door("admin")], ..rules() };
    scene.engine.change_rules(without, scene.now, Wall(scene.wall)).unwrap();
    assert!(!scene.is_open("ssh", SOURCE));
}

#[test]
fn grants_are_listed_page_by_page_and_none_twice() {
    let mut scene = Scene::new();
    for number in 0..10 {
        scene.open_by_hand(["ssh", "admin"][number % 2], &format!("192.0.2.{number}"), None).unwrap();
    }
    let mut listed = Vec::new();
    while let page = scene.engine.grants().after(listed.last().cloned()).take(3)
        && let keys = page.map(|running| running.lease.key.clone()).collect::<Vec<_>>()
        && !keys.is_empty()
    {
        listed.extend(keys);
    }
    let all: Vec<_> = scene.engine.grants().iter().map(|running| running.lease.key.clone()).collect();
    assert_eq!((listed.len(), &listed), (10, &all));
}

#[test]
fn a_lease_behind_a_longer_one_is_closed_by_hand_too_and_is_told() {
    for door in ["ssh", "once"] {
        let mut scene = Scene::new();
        scene.open_by_hand(door, SOURCE, Some(300)).unwrap();
        assert_eq!(scene.opens(door, 60), Answer::Granted);
        let longest = scene.lease(door, SOURCE).unwrap();
        scene.events();
        scene.changes.clear();
        let laptop = client(LAPTOP).who;
        assert_eq!(scene.close_by_hand(|lease| lease.granted_to.client() == Some(&laptop)), 1, "{door}");
        let events = scene.events();
        let [Event::ClosedByHand { lease, rest: Some(rest) }] = &events[..] else {
            panic!("{door}: {events:?}")
        };
        assert_eq!((lease.granted_to.client(), rest), (Some(&laptop), &longest));
        assert_eq!((scene.lease(door, SOURCE), scene.changes.len()), (Some(longest), 0), "the other stays");
        assert_eq!(scene.close_by_hand(|lease| lease.granted_to.client() == Some(&laptop)), 0);
    }
}

#[test]
fn very_many_doors_are_closed_part_by_part() {
    let mut scene = Scene::new();
    let many = limits::CLOSED_AT_ONCE + 5;
    for number in 0..u32::try_from(many).unwrap() {
        let source = std::net::Ipv4Addr::from_bits(0x0a00_0000 | number).to_string();
        let (key, until) = (grant_key("ssh", &source), scene.after_seconds(60));
        let found = Lease { key, link: Link(0), until, granted_to: GrantedTo::Sequence, once: false };
        scene.engine.handle_report(Report::Found(found), scene.now, Wall(scene.wall));
    }
    let mut close = || scene.engine.close_by_hand(|_| true, None, scene.now, Wall(scene.wall));
    let (first, second) = (close(), close());
    assert_eq!((first.ended.len(), first.more), (limits::CLOSED_AT_ONCE, true));
    assert_eq!((second.ended.len(), second.more), (5, false));
}

#[test]
fn a_named_door_is_closed_in_the_firewall_though_nothing_is_known_of_it() {
    let mut scene = Scene::new();
    let key = grant_key("ssh", SOURCE);
    let closed = scene.engine.close_by_hand(|_| true, Some(&key), scene.now, Wall(scene.wall));
    assert_eq!((closed.ended, closed.asked), (vec![], vec![key.clone()]));
    assert_eq!(scene.engine.poll_change(), Some(Change::Close(key)));
    assert!(scene.events().is_empty());
}

#[test]
fn grants_by_hand_beyond_the_room_of_knocks_are_known_after_a_restart() {
    let mut scene = Scene::new();
    let mut found = |first: u32, count: usize, granted_to: GrantedTo| {
        for number in 0..u32::try_from(count).unwrap() {
            let source = std::net::Ipv4Addr::from_bits(first | number).to_string();
            let (key, until) = (grant_key("ssh", &source), scene.after_seconds(60));
            let lease = Lease { key, link: Link(0), until, granted_to: granted_to.clone(), once: false };
            scene.engine.handle_report(Report::Found(lease), scene.now, Wall(scene.wall));
        }
        scene.engine.grants().len()
    };
    assert_eq!(found(0x0a00_0000, limits::GRANTS + 9, GrantedTo::Sequence), limits::GRANTS);
    let all = limits::GRANTS + limits::GRANTS_BY_HAND;
    assert_eq!(found(0x0b00_0000, limits::GRANTS_BY_HAND + 9, by_hand()), all);
}

#[test]
fn a_client_that_is_disabled_while_its_request_waits_for_the_disk_opens_nothing() {
    let mut scene = Scene::new();
    scene.disk_is_slow = true;
    let request = scene.request(crate::scene::open("ssh", 0));
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP), None, "the disk has not answered");
    let disabled = doors_core::spa::client::Client { disabled: true, ..client(LAPTOP) };
    scene.set_clients([disabled]);
    scene.disk_is_slow = false;
    scene.work();
    assert!(!scene.is_open("ssh", SOURCE) && scene.changes.is_empty());
}
