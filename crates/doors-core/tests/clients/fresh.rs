//! No knock counts twice.

use std::{collections::BTreeSet, sync::Arc};

use doors_core::{doorkeeper::Event, limits, reception::Stranger, time::Wall};
use doors_spa::{
    gateway::{Gateway, GatewayKey},
    receipt::Answer,
    request::Request,
};

use crate::scene::{Counting, LAPTOP, OTHER, PHONE, SOURCE, START, Scene, audience, open};

#[test]
fn nothing_happens_before_the_disk_has_it_and_nothing_if_it_cannot() {
    let mut scene = Scene::new();
    scene.disk_is_full = true;
    assert_eq!(scene.opens("ssh", 0), Answer::NotRecorded);
    assert!(scene.changes.is_empty());
    scene.disk_is_full = false;
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_knock_counts_once_from_wherever_and_whenever_it_comes_again() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for source in [SOURCE, OTHER] {
        assert_eq!(scene.send(source, &sealed.bytes), None);
    }
    assert!(matches!(scene.events().last(), Some(Event::Stranger { why: Stranger::Copied, .. })));
    let mut next = scene.restart();
    assert_eq!(next.send(SOURCE, &sealed.bytes), None);
    assert!(matches!(next.events().last(), Some(Event::Stranger { why: Stranger::Replayed, .. })));
    let mut next = next.restart();
    // When it is forgotten, though its time is still within the window, it is stale; and its challenge is for
    // whoever can read it.
    for _ in 0..limits::KNOCKS_REMEMBERED + 1 {
        next.wait(1);
        assert_eq!(next.opens("ssh", 0), Answer::Granted);
    }
    let stale = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&stale).unwrap().answer, Answer::Stale);
    assert!(!next.is_open("ssh", OTHER));
}

#[test]
fn a_wrong_clock_costs_one_challenge_and_the_challenge_is_for_one_place() {
    for time in [0, START - 61_000, START + 61_000, u64::MAX] {
        let mut scene = Scene::new();
        let mut request = scene.request(open("ssh", 0));
        request.time = time;
        let stale = scene.ask(SOURCE, &request, LAPTOP).unwrap();
        assert_eq!((stale.answer, stale.time), (Answer::Stale, START), "{time}");
        let again =
            |scene: &mut Scene| Request { time, challenge: stale.challenge, ..scene.request(open("ssh", 0)) };
        let request = again(&mut scene);
        assert_eq!(scene.ask(OTHER, &request, LAPTOP).unwrap().answer, Answer::Stale);
        let request = again(&mut scene);
        assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Stale);
        let request = again(&mut scene);
        let sealed = scene.seal(&request, LAPTOP);
        assert!(scene.send(SOURCE, &sealed.bytes).is_some());
        assert!(scene.is_open("ssh", SOURCE));
        assert_eq!(scene.send(SOURCE, &sealed.bytes), None, "replayed");
        assert_eq!(scene.restart().send(SOURCE, &sealed.bytes), None, "replayed after a restart");
        scene.wait(90);
        let request = again(&mut scene);
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Stale, "too late");
    }
}

#[test]
fn no_challenge_is_answered_so_often_that_one_could_be_forgotten() {
    let mut scene = Scene::new();
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let challenge = scene.ask(SOURCE, &request, LAPTOP).unwrap().challenge;
    for number in 0..limits::CHALLENGES_USED + 3 {
        let request = Request { challenge, time: 0, ..scene.request(open("ssh", 0)) };
        let answer = scene.ask(SOURCE, &request, LAPTOP).unwrap().answer;
        let expected = if number < limits::CHALLENGES_USED { Answer::Granted } else { Answer::TooMany };
        assert_eq!(answer, expected, "{number}");
    }
    // The other client has its own.
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let challenge = scene.ask(SOURCE, &request, PHONE).unwrap().challenge;
    let request = Request { challenge, time: 0, ..scene.request(open("ssh", 0)) };
    assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Granted);
}

#[test]
fn a_clock_that_was_wrong_and_is_right_again_needs_no_challenge() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.wait(10);
        let mut request = scene.request(open("ssh", 0));
        request.time = START + 50 * 365 * 24 * 3_600_000;
        let stale = scene.ask(SOURCE, &request, LAPTOP).unwrap();
        let challenge = stale.challenge;
        let request = Request { challenge, time: request.time, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted);
    }
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    assert_eq!(scene.restart().opens("ssh", 0), Answer::Granted);
}

#[test]
fn without_the_memory_of_before_the_start_is_the_floor_over_every_later_restart() {
    let mut before = Scene::new();
    let mut request = before.request(open("ssh", 0));
    request.time = before.wall + 60_000;
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());

    let mut lost = Scene::after(None, START + 1000);
    for _ in 0..3 {
        lost.wait(1);
        let answer = lost.send(SOURCE, &sealed.bytes).unwrap();
        assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
        lost = lost.restart();
    }
    // A date that is set only after the start brings nothing back.
    let mut early = Scene::after(None, 0);
    early.wall = START + 2000;
    let answer = early.send(SOURCE, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
    // And it passes.
    lost.wait(130);
    assert_eq!(lost.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_copy_from_where_the_client_may_not_be_does_not_take_the_originals_place() {
    let mut scene = Scene::with_laptop(|laptop| laptop.from = vec!["192.0.2.0/24".parse().unwrap()]);
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
}

#[test]
fn a_copy_is_silent_and_costs_no_keys_even_of_a_knock_that_was_stale() {
    let mut scene = Scene::new();
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for _ in 0..3 * limits::OPENINGS_AT_ONCE {
        assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    }
    // The client's own budget is untouched by copies.
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_floor_that_rises_with_the_date_is_on_disk_before_anything_is_done() {
    let mut before = Scene::new();
    let request = before.request(open("ssh", 0));
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());
    // The memory is lost, and so is the date; then the date comes back, and somebody knocks.
    let mut early = Scene::after(None, 0);
    early.wall = START + 1000;
    assert_eq!(early.opens("ssh", 0), Answer::Stale);
    // And after another restart, nothing of before is fresh.
    let mut next = early.restart();
    let answer = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
}

#[test]
fn an_old_gateway_key_works_until_its_date() {
    let mut scene = Scene::new();
    let old = scene.gateway.clone();
    let mut audience = audience(&GatewayKey::generate(&mut Counting(77)));
    audience.gateways.push((Arc::new(Gateway::new(&old).unwrap()), Some(Wall(START + 10_000))));
    scene.keeper.change_audience(audience);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    scene.wait(10);
    assert_eq!(scene.open("ssh", 0), None);
}

#[test]
fn no_salt_is_used_twice() {
    let mut scene = Scene::new();
    let mut salts = BTreeSet::new();
    for number in 0..100_u32 {
        let request = scene.request(open("ssh", number));
        let sealed = scene.seal(&request, LAPTOP);
        let answer = scene.send(SOURCE, &sealed.bytes).unwrap();
        assert!(salts.insert(answer[..16].to_vec()));
    }
}
