//! What a client may, and what it may not.

use std::time::Duration;

use doors_core::{
    eligible::Own,
    engine::{Change, Event, Report},
    limits,
    packet::Link,
    spa::client::Client,
    time::Wall,
};
use doors_spa::{
    identity::DoorId,
    receipt::{Answer, Receipt},
    request::Operation,
};

use crate::scene::{
    LAPTOP, OTHER, PHONE, SOURCE, START, Scene, admission, audience_of, client, lasting, open,
    rules_with_sequence,
};

#[test]
fn a_request_opens_its_door_and_says_for_how_long() {
    let mut scene = Scene::new();
    let receipt = scene.open("ssh", 0).unwrap();
    assert_eq!((receipt.answer, receipt.seconds, receipt.time), (Answer::Granted, 30, START));
    let until = scene.now.after(Duration::from_secs(30));
    let by = Some(client(LAPTOP).who);
    let opened = Change::Open { admission: admission("ssh", SOURCE), link: Link(3), until, by: by.clone() };
    assert_eq!(scene.changes, [opened]);
    let admission = admission("ssh", SOURCE);
    assert_eq!(
        scene.events(),
        [
            Event::Granted(admission.clone()),
            Event::Opened { admission: admission.clone(), until, by: by.clone() }
        ]
    );
    scene.wait(30);
    assert_eq!(scene.events(), [Event::Closed { admission, by }]);
}

#[test]
fn nobody_gets_more_time_than_door_and_client_allow() {
    let mut scene = Scene::new();
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 100);
    assert_eq!(scene.open("ssh", u32::MAX).unwrap().seconds, 600);
    // Less than what runs is no shortening.
    assert_eq!(scene.open("ssh", 5).unwrap().seconds, 600);
    let mut scene = Scene::with_laptop(|laptop| laptop.max_open_for = Some(Duration::from_secs(20)));
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 20);
    assert_eq!(scene.open("ssh", 100).unwrap().seconds, 20);
}

#[test]
fn a_door_that_is_not_for_this_client_looks_like_none() {
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
fn granted_is_said_only_when_the_firewall_has_said_so() {
    let mut scene = Scene::new();
    scene.firewall_works = false;
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(SOURCE, &sealed.bytes), None);
    // Whoever asks again waits with it.
    assert_eq!(scene.open("ssh", 0), None);
    scene.now = scene.now.after(limits::PATIENCE_WITH_FIREWALL);
    scene.engine.handle_timeout(scene.now);
    scene.work();
    assert_eq!(scene.receipts.len(), 2);
    let (_, answer) = scene.receipts[0];
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Firewall);
}

#[test]
fn a_client_closes_what_it_has_opened_and_nothing_else() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, PHONE).unwrap().answer, Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed);
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close { admission: admission("ssh", SOURCE) }));
}

#[test]
fn a_client_that_is_removed_has_no_open_door_and_what_others_asked_for_too_stays() {
    let mut scene = Scene::new();
    for (source, signers) in [(SOURCE, &[LAPTOP][..]), ("198.51.100.3", &[LAPTOP, PHONE])] {
        for signer in signers {
            let request = scene.request(open("ssh", 60));
            scene.ask(source, &request, *signer).unwrap();
            scene.wait(2);
        }
    }
    scene.events();
    let config = audience_of([client(PHONE)], &[lasting(&scene.gateway, None)]);
    scene.engine.change_audience(config, scene.now);
    scene.work();
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close { admission: admission("ssh", SOURCE) }));
    assert!(matches!(&scene.events()[..], [Event::Revoked { by: Some(who), .. }] if &*who.name == "laptop"));
    assert!(scene.is_open("ssh", "198.51.100.3"), "the phone has asked for it, too");
}

#[test]
fn the_address_is_the_named_one_and_one_that_a_client_can_have() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("named", 0), Answer::Address);
    let own = ["192.0.2.1/32", "2001:db8::1/128"].map(|net| net.parse().unwrap());
    scene.engine.know_own(Own::new(own.into(), ["192.0.2.255".parse().unwrap()].into()));
    for none in [
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
        request.address = Some(none.parse().unwrap());
        let answer = scene.ask(SOURCE, &request, LAPTOP).unwrap().answer;
        // All zeroes are no address at all.
        assert_eq!(answer, Answer::Address, "{none}");
        let told = scene.events();
        assert!(
            matches!(told.last(), Some(Event::Refused { address: Some(_), .. })),
            "the log names why: {told:?}"
        );
    }
    let mut request = scene.request(open("named", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted);
    assert!(scene.is_open("named", OTHER) && !scene.is_open("named", SOURCE));
}

#[test]
fn expired_and_misplaced_clients_are_strangers() {
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
fn a_grant_for_one_connection_that_is_used_up_can_be_had_again_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    let until = scene.engine.doors().get(&admission("once", SOURCE)).unwrap().until;
    let used = Report::Used { admission: admission("once", SOURCE), until };
    // It is asked for again before the firewall says that it is used up.
    scene.wait(1);
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    assert_eq!(scene.changes.len(), 2);
    scene.engine.handle_report(used, scene.now);
    assert!(scene.is_open("once", SOURCE), "the later grant is not meant");
    let until = scene.engine.doors().get(&admission("once", SOURCE)).unwrap().until;
    // Asked for again, for a shorter time, it is another grant all the same.
    assert_eq!(scene.opens("once", 1), Answer::Granted);
    scene.engine.handle_report(Report::Used { admission: admission("once", SOURCE), until }, scene.now);
    assert!(scene.is_open("once", SOURCE));
    let until = scene.engine.doors().get(&admission("once", SOURCE)).unwrap().until;
    scene.events();
    scene.engine.handle_report(Report::Used { admission: admission("once", SOURCE), until }, scene.now);
    assert!(matches!(&scene.events()[..], [Event::Used { by: Some(_), .. }]));
}

/// The phone knocks from the laptop's address.
fn phone_opens(scene: &mut Scene, door: &str, wanted: u32) -> Receipt {
    let request = scene.request(open(door, wanted));
    scene.ask(SOURCE, &request, PHONE).unwrap()
}

/// A connection is made, and the firewall says so.
fn connect(scene: &mut Scene, door: &str) {
    let until = scene.engine.doors().get(&admission(door, SOURCE)).unwrap().until;
    scene.engine.handle_report(Report::Used { admission: admission(door, SOURCE), until }, scene.now);
    scene.work();
}

#[test]
fn a_second_client_behind_one_address_has_its_line_in_the_log() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 60), Answer::Granted);
    scene.events();
    let told = phone_opens(&mut scene, "ssh", 10);
    assert_eq!((told.answer, told.seconds), (Answer::Granted, 60), "the door is open for so long");
    let events = scene.events();
    assert!(matches!(&events[..], [Event::AlsoOpen { by, .. }] if &*by.name == "phone"), "{events:?}");
    // The first one's own knock again is nobody else's.
    assert_eq!(scene.opens("ssh", 10), Answer::Granted);
    assert_eq!(scene.events(), []);
}

#[test]
fn behind_one_address_each_clients_knock_is_worth_one_connection() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 0).answer, Answer::Granted);
    // However often it knocks.
    assert_eq!(phone_opens(&mut scene, "once", 0).answer, Answer::Granted);
    let by = |scene: &Scene| {
        let running = scene.engine.doors().get(&admission("once", SOURCE));
        running.map(|running| running.by.clone().unwrap().name.to_string())
    };
    assert_eq!(by(&scene).as_deref(), Some("laptop"));
    connect(&mut scene, "once");
    assert_eq!(by(&scene).as_deref(), Some("phone"));
    let opened =
        |event: &Event| matches!(event, Event::Opened { by: Some(who), .. } if &*who.name == "phone");
    assert!(scene.events().iter().any(opened));
    connect(&mut scene, "once");
    assert_eq!(by(&scene), None);
}

#[test]
fn a_grant_behind_another_lasts_its_own_time_and_goes_with_its_client() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    let told = phone_opens(&mut scene, "once", 5);
    assert_eq!((told.answer, told.seconds), (Answer::Granted, 5));
    scene.wait(6);
    connect(&mut scene, "once");
    assert!(!scene.is_open("once", SOURCE), "its time is over");

    assert_eq!(scene.opens("once", 5), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    scene.wait(6);
    assert!(scene.is_open("once", SOURCE), "the first one's time is over, and the second one's begins");

    assert_eq!(scene.opens("once", 60), Answer::Granted);
    let close = scene.request(Operation::Close { door: DoorId::of("once") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed, "it had not begun");
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    let config = audience_of([client(PHONE)], &[lasting(&scene.gateway, None)]);
    scene.engine.change_audience(config, scene.now);
    connect(&mut scene, "once");
    assert!(!scene.is_open("once", SOURCE), "the laptop is no client any more");
}

#[test]
fn a_client_closes_its_own_grant_for_one_connection_and_the_next_one_begins() {
    let mut scene = Scene::new();
    let by = |scene: &Scene| {
        let running = scene.engine.doors().get(&admission("once", SOURCE));
        running.map(|running| running.by.clone().unwrap().name.to_string())
    };
    let closes = |scene: &mut Scene, signer| {
        let close = scene.request(Operation::Close { door: DoorId::of("once") });
        scene.ask(SOURCE, &close, signer).unwrap().answer
    };
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    assert_eq!(closes(&mut scene, LAPTOP), Answer::Closed);
    assert_eq!(by(&scene).as_deref(), Some("phone"));

    assert_eq!(scene.opens("once", 60), Answer::Granted);
    scene.events();
    assert_eq!(closes(&mut scene, LAPTOP), Answer::Closed, "it had not begun");
    assert!(matches!(&scene.events()[..], [Event::NotWaiting { by, .. }] if &*by.name == "laptop"));
    assert_eq!(closes(&mut scene, PHONE), Answer::Closed, "nobody else waits");
    assert_eq!(by(&scene), None);

    // A client that is removed takes its own with it, and leaves the others theirs.
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    let config = audience_of([client(PHONE)], &[lasting(&scene.gateway, None)]);
    scene.engine.change_audience(config, scene.now);
    scene.work();
    assert_eq!(by(&scene).as_deref(), Some("phone"));
}

#[test]
fn what_two_clients_have_opened_is_nobodys_to_close() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    let mut request = scene.request(open("ssh", 600));
    request.address = Some(SOURCE.parse().unwrap());
    assert_eq!(scene.ask(OTHER, &request, PHONE).unwrap().answer, Answer::Granted);
    for signer in [LAPTOP, PHONE] {
        let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
        assert_eq!(scene.ask(SOURCE, &close, signer).unwrap().answer, Answer::NotAllowed);
    }
    assert!(scene.is_open("ssh", SOURCE));
    // What was there before the start is closed by whoever may open it.
    let mut scene = Scene::new();
    let found = Report::Found {
        admission: admission("ssh", SOURCE),
        until: scene.now.after(Duration::from_secs(9)),
        by: None,
    };
    scene.engine.handle_report(found, scene.now);
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::Closed);
}

#[test]
fn what_a_sequence_has_opened_is_no_clients_to_close() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules_with_sequence(), scene.now).unwrap();
    scene.knock(SOURCE.parse().unwrap());
    scene.work();
    assert!(scene.is_open("ssh", SOURCE));
    let close = scene.request(Operation::Close { door: DoorId::of("ssh") });
    assert_eq!(scene.ask(SOURCE, &close, LAPTOP).unwrap().answer, Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
}

#[test]
fn no_sequence_opens_for_an_address_that_can_be_no_clients() {
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
        scene.engine.change_rules(rules_with_sequence(), scene.now).unwrap();
        let own = Own::new(["192.0.2.1/32".parse().unwrap()].into(), ["192.0.2.255".parse().unwrap()].into());
        scene.engine.know_own(own);
        scene.knock(source.parse().unwrap());
        scene.work();
        assert_eq!(scene.is_open("ssh", source), opens, "{source}");
        let told = scene.events().iter().any(|event| matches!(event, Event::Ineligible { .. }));
        assert_eq!(told, !opens, "{source}");
    }
}

#[test]
fn no_grant_outlives_its_client() {
    let mut scene = Scene::with_laptop(|laptop| laptop.until = Some(Wall(START + 7_000)));
    assert_eq!(scene.open("ssh", 0).unwrap().seconds, 7);
}

#[test]
fn a_client_lets_in_no_address_from_which_it_may_not_come() {
    let mut scene = Scene::with_laptop(|laptop| laptop.from = vec!["192.0.2.0/24".parse().unwrap()]);
    let mut request = scene.request(open("ssh", 0));
    request.address = Some(OTHER.parse().unwrap());
    assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Address);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}
