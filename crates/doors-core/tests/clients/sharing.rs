//! Several clients behind one address translator: they share one address, and each keeps its own lease.

use std::time::Duration;

use doors_core::{
    engine::{Change, Event, Report},
    lease::{GrantedTo, Lease},
    limits,
    packet::Link,
    time::Wall,
};
use doors_spa::{
    identity::DoorId,
    receipt::{Answer, Receipt},
    request::Operation,
};

use crate::scene::{
    LAPTOP, OTHER, PHONE, SOURCE, START, Scene, client, grant_key, open, rules_with_sequence,
};

/// The phone knocks from the laptop's address.
fn phone_opens(scene: &mut Scene, door: &str, wanted: u32) -> Receipt {
    let request = scene.request(open(door, wanted));
    scene.ask(SOURCE, &request, PHONE).unwrap()
}

fn closes(scene: &mut Scene, door: &str, signer: u8) -> Answer {
    let close = scene.request(Operation::Close { door: DoorId::of(door) });
    scene.ask(SOURCE, &close, signer).unwrap().answer
}

/// The owner of the lease that the firewall holds, and the seconds that are left.
fn held(scene: &Scene, door: &str) -> Option<(String, u64)> {
    let lease = scene.lease(door, SOURCE)?;
    let left = lease.until.remaining(scene.now).as_secs();
    Some((lease.granted_to.client().map_or("a sequence".to_owned(), |who| who.name.to_string()), left))
}

fn is(name: &str, seconds: u64) -> Option<(String, u64)> {
    Some((name.to_owned(), seconds))
}

#[test]
fn a_removed_client_has_no_open_door_and_doors_that_others_asked_for_stay() {
    let mut scene = Scene::new();
    for (source, signers) in [(SOURCE, &[LAPTOP][..]), ("198.51.100.3", &[LAPTOP, PHONE])] {
        for signer in signers {
            let request = scene.request(open("ssh", 60));
            scene.ask(source, &request, *signer).unwrap();
            scene.wait(2);
        }
    }
    scene.events();
    scene.set_clients([client(PHONE)]);
    assert!(!scene.is_open("ssh", SOURCE));
    assert_eq!(scene.changes.last(), Some(&Change::Close(grant_key("ssh", SOURCE))));
    assert!(matches!(&scene.events()[..], [Event::Revoked(lease)] if lease.key == grant_key("ssh", SOURCE)));
    assert!(scene.is_open("ssh", "198.51.100.3"), "the phone has asked for it, too");
}

#[test]
fn the_lease_of_a_removed_client_ends_and_those_of_others_stay() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 20), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "ssh", 600).seconds, 600);
    assert_eq!(held(&scene, "ssh"), is("phone", 600));
    scene.changes.clear();
    scene.events();
    scene.set_clients([client(LAPTOP)]);
    // The firewall gets the laptop's lease, with the time that is left.
    assert_eq!(held(&scene, "ssh"), is("laptop", 20));
    let lease = scene.lease("ssh", SOURCE).unwrap();
    assert_eq!(scene.changes, [Change::Close(lease.key.clone()), Change::Open(lease.clone())]);
    let events = scene.events();
    assert!(matches!(&events[..], [Event::Reduced { now, .. }] if *now == lease), "{events:?}");
    scene.wait(20);
    assert!(!scene.is_open("ssh", SOURCE), "the laptop's time is over");
}

#[test]
fn after_a_client_is_removed_the_lease_of_a_sequence_for_the_same_door_stays() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules_with_sequence(), scene.now, Wall(scene.wall)).unwrap();
    scene.knock(SOURCE.parse().unwrap());
    scene.work();
    assert_eq!(scene.opens("ssh", 600), Answer::Granted);
    assert_eq!(held(&scene, "ssh"), is("laptop", 600));
    scene.set_clients([client(PHONE)]);
    assert_eq!(held(&scene, "ssh"), is("a sequence", 30));
}

#[test]
fn a_client_that_loses_its_permission_loses_its_open_and_waiting_leases() {
    let without = |door: &str, number| {
        let mut client = client(number);
        client.doors = client.doors.iter().filter(|name| name.as_str() != door).cloned().collect();
        client
    };
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 60), Answer::Granted);
    scene.set_clients([without("ssh", LAPTOP), client(PHONE)]);
    assert!(!scene.is_open("ssh", SOURCE));

    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    scene.set_clients([without("once", LAPTOP), client(PHONE)]);
    scene.use_up("once", SOURCE);
    assert!(!scene.is_open("once", SOURCE), "the laptop waited for what it may not open any more");

    // The same for an address from which it may no longer knock, and for an expired key.
    for restrict in [
        |client: &mut doors_core::spa::client::Client| client.from = vec!["198.51.100.0/24".parse().unwrap()],
        |client: &mut doors_core::spa::client::Client| client.until = Some(Wall(0)),
    ] {
        let mut scene = Scene::new();
        assert_eq!(scene.opens("ssh", 60), Answer::Granted);
        let mut laptop = client(LAPTOP);
        restrict(&mut laptop);
        scene.set_clients([laptop, client(PHONE)]);
        assert!(!scene.is_open("ssh", SOURCE));
    }
}

#[test]
fn leases_of_a_client_that_was_removed_while_no_daemon_ran_are_closed_at_the_start() {
    let mut scene = Scene::new();
    scene.set_clients([client(LAPTOP)]);
    scene.changes.clear();
    let found = |number, source| Lease {
        key: grant_key("ssh", source),
        link: Link::default(),
        until: scene.now.after(Duration::from_secs(9)),
        granted_to: client(number).who.into(),
        once: false,
    };
    let (known, unknown) = (found(LAPTOP, SOURCE), found(PHONE, OTHER));
    for lease in [&known, &unknown] {
        scene.engine.handle_report(Report::Found(lease.clone()), scene.now, Wall(scene.wall));
    }
    scene.work();
    assert_eq!(scene.changes, [Change::Close(grant_key("ssh", OTHER))]);
    assert!(scene.is_open("ssh", SOURCE) && !scene.is_open("ssh", OTHER));
    assert_eq!(scene.events(), [Event::Adopted(known), Event::NotAdopted(unknown)]);
}

#[test]
fn a_single_connection_lease_that_is_used_up_can_be_requested_again_at_once() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    let used = scene.lease("once", SOURCE).unwrap();
    // The next request comes before the firewall reports that the lease is used up.
    scene.wait(1);
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    let opened = scene.changes.iter().filter(|change| matches!(change, Change::Open(_)));
    assert_eq!(opened.count(), 2);
    scene.engine.handle_report(Report::Used(used), scene.now, Wall(scene.wall));
    assert!(scene.is_open("once", SOURCE), "the report is not about the later lease");
    let before = scene.lease("once", SOURCE).unwrap();
    // The next one is shorter, but is a new lease all the same.
    assert_eq!(scene.opens("once", 1), Answer::Granted);
    scene.engine.handle_report(Report::Used(before), scene.now, Wall(scene.wall));
    assert!(scene.is_open("once", SOURCE));
    scene.events();
    scene.use_up("once", SOURCE);
    assert!(matches!(&scene.events()[..], [Event::Used(lease)] if lease.granted_to.client().is_some()));
}

#[test]
fn each_single_connection_lease_is_watched_because_the_kernel_does_not_report_its_use() {
    let mut scene = Scene::new();
    scene.opens("once", 0);
    assert_eq!(scene.changes.last(), Some(&Change::Watch(grant_key("once", SOURCE))));
}

#[test]
fn a_second_client_behind_one_address_is_reported_in_the_log() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 60), Answer::Granted);
    scene.events();
    let told = phone_opens(&mut scene, "ssh", 10);
    assert_eq!((told.answer, told.seconds), (Answer::Granted, 60), "the door is open for so long");
    let events = scene.events();
    let [Event::AlsoOpen { lease, before }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (lease.granted_to.client(), before.client()),
        (Some(&client(PHONE).who), Some(&client(LAPTOP).who))
    );
    assert_eq!(lease.until.remaining(scene.now).as_secs(), 10, "its own time");
    // A second request of the first client is reported as its own.
    assert_eq!(scene.opens("ssh", 10), Answer::Granted);
    assert!(matches!(&scene.events()[..], [Event::StillOpen(_)]));
}

#[test]
fn behind_one_address_each_client_gets_one_connection() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 0), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 0).answer, Answer::Granted);
    // No matter how often it knocks.
    assert_eq!(phone_opens(&mut scene, "once", 0).answer, Answer::Granted);
    assert_eq!(held(&scene, "once"), is("laptop", 30));
    scene.use_up("once", SOURCE);
    assert_eq!(held(&scene, "once"), is("phone", 30));
    let opened =
        |event: &Event| matches!(event, Event::Opened(lease) if lease.granted_to == client(PHONE).who.into());
    assert!(scene.events().iter().any(opened));
    scene.use_up("once", SOURCE);
    assert_eq!(held(&scene, "once"), None);
}

#[test]
fn a_sequence_that_waits_for_a_clients_single_connection_lease_gets_one_connection_too() {
    let mut scene = Scene::new();
    let mut rules = rules_with_sequence();
    rules.doors[2].sequence = rules.doors[0].sequence.take();
    scene.engine.change_rules(rules, scene.now, Wall(scene.wall)).unwrap();
    assert_eq!(scene.opens("once", 600), Answer::Granted);
    scene.events();
    scene.knock(SOURCE.parse().unwrap());
    let also = |event: &Event| matches!(event, Event::AlsoOpen { lease, .. } if lease.granted_to == GrantedTo::Sequence);
    assert!(scene.events().iter().any(also), "the log reports it");
    scene.use_up("once", SOURCE);
    assert_eq!(held(&scene, "once"), is("a sequence", 30));
    scene.use_up("once", SOURCE);
    assert_eq!(held(&scene, "once"), None);
}

#[test]
fn a_waiting_lease_lasts_its_own_time_and_ends_with_its_client() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    let told = phone_opens(&mut scene, "once", 5);
    assert_eq!((told.answer, told.seconds), (Answer::Granted, 5));
    scene.wait(6);
    scene.use_up("once", SOURCE);
    assert!(!scene.is_open("once", SOURCE), "its time is over");

    assert_eq!(scene.opens("once", 5), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    scene.wait(6);
    assert!(scene.is_open("once", SOURCE), "the first one's time is over, and the second one's begins");

    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(closes(&mut scene, "once", LAPTOP), Answer::Closed, "it had not begun");
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    scene.set_clients([client(PHONE)]);
    scene.use_up("once", SOURCE);
    assert!(!scene.is_open("once", SOURCE), "the laptop is not a client any more");
}

#[test]
fn a_client_closes_its_own_single_connection_lease_and_the_next_one_starts() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    assert_eq!(closes(&mut scene, "once", LAPTOP), Answer::Closed);
    assert_eq!(held(&scene, "once"), is("phone", 60));

    assert_eq!(scene.opens("once", 60), Answer::Granted);
    scene.events();
    assert_eq!(closes(&mut scene, "once", LAPTOP), Answer::Closed, "it had not begun");
    assert!(
        matches!(&scene.events()[..], [Event::GivenUp(lease)] if lease.granted_to == client(LAPTOP).who.into())
    );
    assert_eq!(closes(&mut scene, "once", PHONE), Answer::Closed, "no other lease waits");
    assert_eq!(held(&scene, "once"), None);

    // When a client is removed, its own lease ends and those of the others stay.
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    scene.set_clients([client(PHONE)]);
    assert_eq!(held(&scene, "once"), is("phone", 60));
}

#[test]
fn a_door_that_two_clients_opened_stays_open_until_both_have_closed_it() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 20), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "ssh", 600).answer, Answer::Granted);
    scene.events();
    // The phone's lease has ended with that, the laptop's has not.
    assert_eq!(closes(&mut scene, "ssh", PHONE), Answer::NotAllowed);
    assert!(
        matches!(&scene.events()[..], [Event::GivenUp(lease)] if lease.granted_to == client(PHONE).who.into())
    );
    assert_eq!(held(&scene, "ssh"), is("laptop", 20));
    assert_eq!(closes(&mut scene, "ssh", LAPTOP), Answer::Closed);
    assert!(!scene.is_open("ssh", SOURCE));
}

#[test]
fn a_door_of_unknown_owner_can_be_closed_by_each_client_that_may_open_it() {
    let mut scene = Scene::new();
    let until = scene.now.after(Duration::from_secs(9));
    let found = Lease {
        key: grant_key("ssh", SOURCE),
        link: Link::default(),
        until,
        granted_to: GrantedTo::Sequence,
        once: false,
    };
    scene.engine.handle_report(Report::Found(found), scene.now, Wall(scene.wall));
    assert_eq!(closes(&mut scene, "ssh", LAPTOP), Answer::Closed);
}

#[test]
fn a_client_cannot_close_what_a_sequence_has_opened() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules_with_sequence(), scene.now, Wall(scene.wall)).unwrap();
    scene.knock(SOURCE.parse().unwrap());
    scene.work();
    assert!(scene.is_open("ssh", SOURCE));
    assert_eq!(closes(&mut scene, "ssh", LAPTOP), Answer::NotAllowed);
    assert!(scene.is_open("ssh", SOURCE));
}

#[test]
fn a_lease_that_an_administrator_removes_is_closed_for_all_clients_that_share_it_or_wait() {
    for door in ["ssh", "once"] {
        let mut scene = Scene::new();
        assert_eq!(scene.opens(door, 60), Answer::Granted);
        assert_eq!(phone_opens(&mut scene, door, 600).answer, Answer::Granted);
        let lease = scene.lease(door, SOURCE).unwrap();
        scene.engine.handle_report(Report::Withdrawn(lease), scene.now, Wall(scene.wall));
        scene.work();
        assert!(!scene.is_open(door, SOURCE), "{door}");
        assert_eq!(scene.changes.last(), Some(&Change::Close(grant_key(door, SOURCE))));
    }
}

#[test]
fn a_lease_that_is_over_takes_no_room_from_others_behind_the_address() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 600), Answer::Granted);
    let others = (100..).take(limits::SHARING_ONE_ADDRESS);
    scene.set_clients([LAPTOP, PHONE].into_iter().chain(others.clone()).map(client));
    for other in others {
        let mut request = scene.request(open("ssh", 1));
        request.address = Some(SOURCE.parse().unwrap());
        assert_eq!(scene.ask(OTHER, &request, other).unwrap().answer, Answer::Granted);
    }
    assert_eq!(phone_opens(&mut scene, "ssh", 1).answer, Answer::TooMany);
    scene.wait(2);
    let holder = scene.lease("ssh", SOURCE).and_then(|lease| lease.granted_to.client().cloned());
    assert_eq!(holder, Some(client(LAPTOP).who), "the longest lease goes on");
    assert_eq!(phone_opens(&mut scene, "ssh", 1).answer, Answer::Granted);

    // Nor from its own client's share.
    let mut scene = Scene::new();
    let to = |number: usize| std::net::Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap()).into();
    for number in 0..limits::GRANTS_PER_CLIENT {
        for (signer, wanted) in [(LAPTOP, 600), (PHONE, 10)] {
            let mut request = scene.request(open("ssh", wanted));
            request.address = Some(to(number));
            scene.now = scene.now.after(Duration::from_millis(2));
            scene.wall += 2;
            assert_eq!(scene.ask(SOURCE, &request, signer).unwrap().answer, Answer::Granted, "{number}");
        }
    }
    for answer in [Answer::TooMany, Answer::Granted] {
        let mut request = scene.request(open("ssh", 1));
        request.address = Some(to(limits::GRANTS_PER_CLIENT));
        assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, answer);
        scene.wait(12);
    }
}

#[test]
fn a_client_that_is_given_less_time_has_no_more_than_that() {
    for restrict in [
        |client: &mut doors_core::spa::client::Client| client.max_open_for = Some(Duration::from_secs(10)),
        |client: &mut doors_core::spa::client::Client| client.until = Some(Wall(START + 10_000)),
    ] {
        let mut scene = Scene::new();
        assert_eq!(scene.opens("ssh", 600), Answer::Granted);
        scene.events();
        let mut laptop = client(LAPTOP);
        restrict(&mut laptop);
        scene.set_clients([laptop]);
        assert_eq!(held(&scene, "ssh"), is("laptop", 10));
        let lease = scene.lease("ssh", SOURCE).unwrap();
        assert_eq!(scene.changes.last(), Some(&Change::Open(lease.clone())));
        assert_eq!(scene.events(), [Event::Shortened(lease.clone())]);
        // The same for one that is found open at a start.
        let found = Lease { until: scene.now.after(Duration::from_secs(600)), ..lease.clone() };
        scene.engine.handle_report(Report::Found(found), scene.now, Wall(scene.wall));
        scene.work();
        assert_eq!(held(&scene, "ssh"), is("laptop", 10));
        assert_eq!(scene.changes.last(), Some(&Change::Open(lease.clone())));
        assert_eq!(scene.events(), [Event::Adopted(lease)]);
    }
    // Rules that are the same change nothing.
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 600), Answer::Granted);
    scene.events();
    scene.set_clients([client(LAPTOP), client(PHONE)]);
    assert_eq!(scene.events(), []);
}

#[test]
fn a_client_that_gets_another_name_keeps_what_it_has_open() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("ssh", 60), Answer::Granted);
    let other = client(LAPTOP);
    let mut renamed = doors_core::spa::client::Client::new("notebook", other.key, other.doors);
    renamed.max_open_for = other.max_open_for;
    scene.set_clients([renamed]);
    assert!(scene.is_open("ssh", SOURCE));
    assert_eq!(closes(&mut scene, "ssh", LAPTOP), Answer::Closed);
}

#[test]
fn each_who_loses_a_door_to_an_administrator_has_a_line_in_the_log() {
    let mut scene = Scene::new();
    assert_eq!(scene.opens("once", 60), Answer::Granted);
    assert_eq!(phone_opens(&mut scene, "once", 60).answer, Answer::Granted);
    scene.events();
    let lease = scene.lease("once", SOURCE).unwrap();
    scene.engine.handle_report(Report::Withdrawn(lease), scene.now, Wall(scene.wall));
    let withdrawn = scene.events().into_iter().filter(|event| matches!(event, Event::Withdrawn(_)));
    assert_eq!(withdrawn.count(), 2);
}
