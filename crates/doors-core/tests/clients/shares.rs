//! What one client can use up at the cost of others.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use doors_core::{engine::Event, limits, spa::server::DropReason, time::Wall};
use doors_spa::{receipt::Answer, seal::UnsignedKnock};

use crate::scene::{LAPTOP, OTHER, PHONE, SOURCE, Scene, client, open, rules_with_sequence};

#[test]
fn a_client_can_fill_its_own_share_and_no_other() {
    let mut scene = Scene::new();
    scene.firewall_works = false;
    for number in 0..limits::WAITING_PER_CLIENT + 5 {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_6400 + u32::try_from(number).unwrap())));
        let told = scene.ask(SOURCE, &request, PHONE).map(|receipt| receipt.answer);
        // A refused client is told at once; the others wait for the firewall.
        assert_eq!(told, (number >= limits::WAITING_PER_CLIENT).then_some(Answer::TooMany), "{number}");
    }
    assert_eq!(scene.changes.len(), limits::WAITING_PER_CLIENT);
    scene.firewall_works = true;
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);

    let mut scene = Scene::new();
    let mut refused = 0;
    for number in 0..limits::GRANTS_PER_CLIENT + 5 {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap())));
        let answer = scene.ask(SOURCE, &request, PHONE).unwrap().answer;
        refused += usize::from(answer == Answer::TooMany);
        scene.now = scene.now.after(Duration::from_millis(2));
        scene.wall += 2;
    }
    assert_eq!(refused, 5);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_waiting_lease_counts_in_its_own_clients_share() {
    let mut scene = Scene::new();
    let mut opens = |signer, door, number: usize| {
        let mut request = scene.request(open(door, 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap())));
        scene.now = scene.now.after(Duration::from_millis(2));
        scene.wall += 2;
        scene.ask(SOURCE, &request, signer).unwrap().answer
    };
    for number in 0..limits::GRANTS_PER_CLIENT {
        assert_eq!(opens(LAPTOP, "once", number), Answer::Granted, "{number}");
    }
    for number in 0..5 {
        assert_eq!(opens(PHONE, "ssh", 1000 + number), Answer::Granted);
    }
    let waiting = (0..limits::GRANTS_PER_CLIENT).map(|number| opens(PHONE, "once", number));
    let refused = waiting.filter(|answer| *answer == Answer::TooMany).count();
    assert_eq!(refused, 5);
}

#[test]
fn a_replayed_sequence_takes_no_room_from_clients_with_keys() {
    let mut scene = Scene::new();
    scene.engine.change_rules(rules_with_sequence(), scene.now, Wall(scene.wall)).unwrap();
    for number in 0..u32::try_from(limits::GRANTS).unwrap() {
        scene.knock(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number)));
    }
    scene.work();
    assert_eq!(scene.engine.grants().iter().count(), limits::GRANTS_BY_SEQUENCE);
    for number in 0..32 {
        let mut request = scene.request(open("ssh", 0));
        request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_6400 + number)));
        assert_eq!(scene.ask(SOURCE, &request, PHONE).map(|receipt| receipt.answer), Some(Answer::Granted));
    }
}

#[test]
fn a_flood_in_one_clients_name_evicts_no_remembered_datagram_of_another() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    // An attacker who knows the card and the phone's public key makes these by the thousand.
    let tagged = scene.seal(&request, PHONE).bytes;
    for _ in 0..4 * limits::DECRYPTIONS.at_once {
        let forged = scene.seal(&request, PHONE);
        scene.send(OTHER, &forged.bytes);
    }
    assert_eq!(scene.send(OTHER, &tagged), None);
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(matches!(scene.events().last(), Some(Event::Dropped { why: DropReason::Copied, .. })));
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn an_unsigned_datagram_evicts_no_remembered_datagram_of_a_client() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    let card = scene.gateway.card();
    for _ in 0..2 * limits::COPIES_PER_CLIENT {
        let unsigned = UnsignedKnock::new(&card, &client(LAPTOP).key, &request, &mut scene.random).unwrap();
        let (unsigned, _) = unsigned.seal(&[0; 64]).unwrap();
        assert_eq!(scene.send(OTHER, &unsigned), None);
    }
    scene.events();
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(matches!(scene.events().last(), Some(Event::Dropped { why: DropReason::Copied, .. })));
}

#[test]
fn two_clients_that_ask_for_the_same_grants_each_take_no_more_than_their_shares() {
    let mut scene = Scene::new();
    for number in 0..2 * limits::GRANTS_PER_CLIENT + 20 {
        for (signer, wanted) in [(LAPTOP, 500), (PHONE, 600)] {
            opens_for(&mut scene, number, signer, wanted);
        }
    }
    assert_eq!(scene.engine.grants().iter().count(), limits::GRANTS_PER_CLIENT);
}

#[test]
fn a_client_whose_share_is_full_joins_no_grant_of_another() {
    let mut scene = Scene::new();
    assert_eq!(opens_for(&mut scene, limits::GRANTS_PER_CLIENT, LAPTOP, 600), Answer::Granted);
    for number in 0..limits::GRANTS_PER_CLIENT {
        assert_eq!(opens_for(&mut scene, number, PHONE, 600), Answer::Granted);
    }
    assert_eq!(opens_for(&mut scene, limits::GRANTS_PER_CLIENT, PHONE, 600), Answer::TooMany);
}

/// Opens a door for one of many addresses.
fn opens_for(scene: &mut Scene, number: usize, signer: u8, wanted: u32) -> Answer {
    let mut request = scene.request(open("ssh", wanted));
    request.address = Some(IpAddr::V4(Ipv4Addr::from(0xc633_0000 + u32::try_from(number).unwrap())));
    let receipt = scene.ask(SOURCE, &request, signer);
    scene.now = scene.now.after(Duration::from_millis(4));
    scene.wall += 4;
    receipt.unwrap().answer
}
