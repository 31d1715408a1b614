//! What a client may do, and what it may not.

use std::time::Duration;

use doors_core::{
    eligible::Own,
    engine::{Change, Event},
    lease::Lease,
    limits,
    packet::Link,
    spa::client::Client,
    time::Wall,
};
use doors_spa::{identity::DoorId, receipt::Answer, request::Operation};

use crate::scene::{
    LAPTOP, OTHER, PHONE, SOURCE, START, Scene, client, grant_key, open, rules_with_sequence,
};

#[test]
fn a_request_opens_its_door_and_says_for_how_long() {
    let mut scene = Scene::new();
    let receipt = scene.open("ssh", 0).unwrap();
    assert_eq!((receipt.answer, receipt.seconds, receipt.time), (Answer::Granted, 30, START));
    let until = scene.now.after(Duration::from_secs(30));
    let (key, granted_to) = (grant_key("ssh", SOURCE), client(LAPTOP).who.into());
    let lease = Lease { key, link: Link(3), until, granted_to, once: false };
    assert_eq!(scene.changes, [Change::Open(lease.clone())]);
    assert_eq!(scene.events(), [Event::Granted(lease.clone()), Event::Opened(lease.clone())]);
    scene.wait(30);
    assert_eq!(scene.events(), [Event::Closed(lease)]);
}

#[test]
fn no_client_gets_more_time_than_door_and_client_allow() {
    let mut scene = Scene::new();
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 100);
    assert_eq!(scene.open("ssh", u32::MAX).unwrap().seconds, 600);
    // A request for less time does not shorten the lease.
    assert_eq!(scene.open("ssh", 5).unwrap().seconds, 600);
    let mut scene = Scene::with_laptop(|laptop| laptop.max_open_for = Some(Duration::from_secs(20)));
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 20);
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 20);
}

#[test]
fn a_door_that_is_not_for_this_client_looks_like_one_that_does_not_exist() {
    let mut scene = Scene::new();
    for door in ["admin", "none"] {
        assert_eq!(scene.opens(door, 0), Answer::NotAllowed);
    }
    assert!(scene.changes.is_empty());
    let request = scene.request(Operation::Ask { skip: 1 });
    let told = scene.ask(SOURCE, &request, LAPTOP).unwrap();
    let doors: Vec<&str> = told.doors.iter().map(|door| door.name.as_str()).collect();
    assert_eq!((told.answer, told.doors_in_all, doors), (Answer::Told, 3, vec!["once", "named"]));
}

#[test]
fn a_receipt_says_granted_only_after_the_firewall_has_confirmed_it() {
    let mut scene = Scene::new();
    scene.firewall_works = false;
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(SOURCE, &sealed.bytes), None);
    // A second request waits as well.
    assert_eq!(scene.open("ssh", 0), None);
    scene.now = scene.now.after(limits::FIREWALL_TIMEOUT);
    scene.engine.handle_timeout(scene.now, Wall(scene.wall));
    scene.work();
    assert_eq!(scene.receipts.len(), 2);
    let not_in_time = Event::NotInTime(grant_key("ssh", SOURCE));
    assert_eq!(
        scene.events().iter().filter(|event| **event == not_in_time).count(),
        2,
        "the log reports it, too"
    );
    let (_, answer) = scene.receipts[0];
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Firewall);
}

#[test]
fn a_client_can_close_what_it_has_opened_and_nothing_else() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, PHONE).unwrap().answer, Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed);
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close(grant_key("ssh", SOURCE))));
}

#[test]
fn the_address_is_the_named_one_and_must_be_one_that_a_client_can_have() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("named", 0), Answer::Address);
    let own = ["192.0.2.1/32", "2001:db8::1/128"].map(|net| net.parse().unwrap());
    scene.engine.set_own_addresses(Own::new(own.into(), ["192.0.2.255".parse().unwrap()].into()));
    for ineligible in [
        "0.0.0.0",
        "0.0.0.7",
        "127.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.0.2.255",
        "224.0.0.1",
        "240.0.0.7",
        "255.255.255.255",
        "::1",
        "2001:db8::1",
        "2001:1::7",
        "ff02::1",
    ] {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(ineligible.parse().unwrap());
        let answer = scene.ask(SOURCE, &request, LAPTOP).unwrap().answer;
        // An address of all zeros means that none is named.
        assert_eq!(answer, Answer::Address, "{ineligible}");
        let told = scene.events();
        assert!(
            matches!(told.last(), Some(Event::Refused { address: Some(_), .. })),
            "the log gives the reason: {told:?}"
        );
    }
    let mut request = scene.request(open("named", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted);
    assert!(scene.is_open("named", OTHER) && !scene.is_open("named", SOURCE));
}

#[test]
fn expired_clients_and_clients_in_the_wrong_network_are_dropped_in_silence() {
    let restrictions: [fn(&mut Client); 2] = [
        |client| client.until = Some(Wall(START)),
        |client| client.from = vec!["198.51.100.0/24".parse().unwrap()],
    ];
    for restrict in restrictions {
        let mut scene = Scene::with_laptop(restrict);
        assert_eq!(scene.open("ssh", 0), None);
        assert!(scene.disk.len() == 1 && scene.changes.is_empty());
        assert!(matches!(&scene.events()[..], [Event::Dropped { who: Some(_), .. }]));
    }
}

#[test]
fn no_sequence_opens_for_an_address_that_no_client_can_have() {
    for (source, opens) in [
        ("127.0.0.1", false),
        ("::1", false),
        ("192.0.2.1", false),
        ("192.0.2.255", false),
        ("192.0.0.8", false),
        ("10.0.0.7", true),
        ("100.64.0.7", true),
        ("fd00::7", true),
        ("fe80::7", true),
        ("192.0.2.7", true),
    ] {
        let mut scene = Scene::new();
        scene.engine.change_rules(rules_with_sequence(), scene.now, Wall(scene.wall)).unwrap();
        let own = Own::new(["192.0.2.1/32".parse().unwrap()].into(), ["192.0.2.255".parse().unwrap()].into());
        scene.engine.set_own_addresses(own);
        scene.knock(source.parse().unwrap());
        scene.work();
        assert_eq!(scene.is_open("ssh", source), opens, "{source}");
        let told = scene.events().iter().any(|event| matches!(event, Event::Ineligible { .. }));
        assert_eq!(told, !opens, "{source}");
    }
}

#[test]
fn no_grant_outlives_its_clients_key() {
    let mut scene = Scene::with_laptop(|laptop| laptop.until = Some(Wall(START + 7_000)));
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 7);
}

#[test]
fn a_client_cannot_let_in_an_address_from_which_it_may_not_knock() {
    let mut scene = Scene::with_laptop(|laptop| laptop.from = vec!["192.0.2.0/24".parse().unwrap()]);
    let mut request = scene.request(open("ssh", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Address);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}
