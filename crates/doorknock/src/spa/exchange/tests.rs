//! The clock is an argument, the gateway is the real one, and the network is a `Vec`.

#![allow(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::net::SocketAddr;

use doors_spa::{
    gateway::{Gateway, GatewayKey},
    identity::{ClientKey, DoorId},
};
use ed25519_dalek::{Signer as _, SigningKey};
use getrandom::SysRng;
use rand_core::UnwrapErr;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

struct Scene {
    key: GatewayKey,
    signer: SigningKey,
    exchange: Exchange,
    /// What was sent, and when.
    sent: Vec<(Duration, [u8; KNOCK])>,
}

impl Scene {
    fn new() -> Self {
        let signer = SigningKey::from_bytes(&[3; 32]);
        let client = ClientKey::new(signer.verifying_key().as_bytes()).unwrap();
        let operation = Operation::Open { door: DoorId::of("ssh"), wanted: 30 };
        let exchange = Exchange::new(Errand { operation, client, address: None });
        Self { key: GatewayKey::generate(&mut UnwrapErr(SysRng)), signer, exchange, sent: Vec::new() }
    }

    /// Lets time pass up to `until`, and sends what is due. Gives what is next then.
    fn run(&mut self, mut now: Duration, until: Duration) -> Next {
        loop {
            match self.exchange.next(now) {
                Next::Knock => {
                    let mut random = UnwrapErr(SysRng);
                    let unsigned = self.exchange.unsigned(&self.key.card(), 1_000, &mut random).unwrap();
                    let signature = self.signer.sign(unsigned.to_sign()).to_bytes();
                    let knock = self.exchange.seal(unsigned, &signature, now).unwrap();
                    self.sent.push((now, knock));
                }
                Next::Wait(wait) if now + wait <= until => now += wait,
                next => return next,
            }
        }
    }

    fn client(&self) -> ClientKey {
        ClientKey::new(self.signer.verifying_key().as_bytes()).unwrap()
    }

    fn request(&self, number: usize) -> Request {
        *self.unseal(number).0
    }

    fn unseal(&self, number: usize) -> (Box<Request>, ReceiptKey) {
        let client = self.client();
        let gateway = Gateway::new(&self.key).unwrap();
        let tagged = gateway.tag_key(&client).fits(&self.sent[number].1).unwrap();
        let unproven = gateway.open(tagged).unwrap();
        let (request, key) = unproven.prove(&client).unwrap().into_parts();
        (Box::new(request), key)
    }

    fn receipt(&self, number: usize, answer: Answer, challenge: [u8; 8]) -> [u8; KNOCK] {
        let seen: SocketAddr = "203.0.113.7:4711".parse().unwrap();
        let receipt =
            Receipt { answer, seconds: 30, time: 9_000, seen, challenge, doors_in_all: 0, doors: Vec::new() };
        self.unseal(number).1.seal(&receipt, [u8::try_from(number).unwrap(); 16])
    }
}

#[test]
fn a_knock_that_gets_no_receipt_is_repeated_five_times_in_five_seconds() {
    let mut scene = Scene::new();
    assert!(matches!(scene.run(ms(0), ms(60_000)), Next::Over));
    let times: Vec<Duration> = scene.sent.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [ms(0), ms(300), ms(900), ms(2100), ms(4500)]);
}

#[test]
fn the_wait_ends_after_five_seconds() {
    let mut scene = Scene::new();
    assert!(matches!(scene.run(ms(0), ms(4_999)), Next::Wait(wait) if wait == ms(500)));
    assert!(matches!(scene.exchange.next(ms(5_000)), Next::Over));
}

#[test]
fn a_repeated_knock_is_the_same_request_in_another_envelope() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(300));
    let (first, second) = (scene.request(0), scene.request(1));
    assert_ne!(first.nonce, second.nonce);
    assert_eq!(Request { nonce: first.nonce, ..second }, first);
    let envelope = |number: usize| scene.sent[number].1[16..48].to_vec();
    assert_ne!(envelope(0), envelope(1));
}

#[test]
fn a_receipt_settles_it_whichever_knock_it_is_for_and_the_second_is_ignored() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(900));
    let (early, late) =
        (scene.receipt(0, Answer::Granted, [0; 8]), scene.receipt(2, Answer::TooMany, [0; 8]));
    assert_eq!(scene.exchange.heard(&early, ms(950)), Heard::Answer);
    assert_eq!(scene.exchange.heard(&late, ms(951)), Heard::Nothing);
    let Next::Settled(receipt) = scene.exchange.next(ms(952)) else { panic!("it is settled") };
    assert_eq!((receipt.answer, receipt.seconds), (Answer::Granted, 30));
}

#[test]
fn forged_datagrams_change_nothing() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(10));
    let right = scene.receipt(0, Answer::NotAllowed, [0; 8]);
    for at in 0..KNOCK {
        let mut wrong = right;
        wrong[at] ^= 1;
        assert_eq!(scene.exchange.heard(&wrong, ms(20)), Heard::Nothing);
    }
    let echo = scene.sent[0].1;
    for wrong in [&right[..191], &[&right[..], &[0]].concat(), &echo, &[], &[0; KNOCK]] {
        assert_eq!(scene.exchange.heard(wrong, ms(20)), Heard::Nothing);
    }
    let other = Scene { sent: scene.sent.clone(), ..Scene::new() };
    assert!(Gateway::new(&other.key).unwrap().tag_key(&other.client()).fits(&other.sent[0].1).is_none());
    assert!(matches!(scene.run(ms(20), ms(20)), Next::Wait(wait) if wait == ms(280)));
    assert_eq!(scene.exchange.heard(&right, ms(21)), Heard::Answer);
}

#[test]
fn a_challenge_is_answered_at_once() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(310));
    let stale = scene.receipt(0, Answer::Stale, *b"a riddle");
    let again = scene.receipt(1, Answer::Stale, *b"another!");
    assert_eq!(scene.exchange.heard(&stale, ms(320)), Heard::Challenge(9_000));
    // It is for a knock whose clock was the same; the answer to the first challenge is on its way.
    assert_eq!(scene.exchange.heard(&again, ms(321)), Heard::Nothing);
    scene.run(ms(321), ms(330));
    assert_eq!((scene.sent.len(), scene.sent[2].0), (3, ms(321)));
    assert_eq!((scene.request(0).challenge, scene.request(2).challenge), ([0; 8], *b"a riddle"));
    let granted = scene.receipt(2, Answer::Granted, [0; 8]);
    assert_eq!(scene.exchange.heard(&granted, ms(340)), Heard::Answer);
}

#[test]
fn a_lost_answer_to_a_challenge_is_repeated_with_the_challenge() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(10));
    let stale = scene.receipt(0, Answer::Stale, *b"a riddle");
    scene.exchange.heard(&stale, ms(20));
    scene.run(ms(20), ms(320));
    assert_eq!(scene.sent.len(), 3);
    assert_eq!((scene.sent[2].0, scene.request(2).challenge), (ms(320), *b"a riddle"));
}

#[test]
fn two_challenges_are_answered_and_the_third_is_the_answer() {
    let mut scene = Scene::new();
    for number in 0..2 {
        scene.run(ms(10), ms(10));
        let stale = scene.receipt(number, Answer::Stale, [7; 8]);
        assert_eq!(scene.exchange.heard(&stale, ms(10)), Heard::Challenge(9_000));
    }
    scene.run(ms(10), ms(10));
    let stale = scene.receipt(2, Answer::Stale, [7; 8]);
    assert_eq!(scene.exchange.heard(&stale, ms(10)), Heard::Answer);
    assert!(matches!(scene.exchange.next(ms(10)), Next::Settled(receipt) if receipt.answer == Answer::Stale));
}

#[test]
fn a_challenge_that_comes_last_is_still_answered() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(4_990));
    let stale = scene.receipt(4, Answer::Stale, [7; 8]);
    assert_eq!(scene.exchange.heard(&stale, ms(4_990)), Heard::Challenge(9_000));
    assert!(matches!(scene.run(ms(4_990), ms(5_100)), Next::Wait(_)));
    assert_eq!(scene.sent.len(), 6);
    assert!(matches!(scene.exchange.next(ms(5_490)), Next::Over));
}

#[test]
fn a_knock_that_its_user_had_to_confirm_has_time_for_its_receipt() {
    let mut scene = Scene::new();
    scene.run(ms(0), ms(10));
    let mut random = UnwrapErr(SysRng);
    assert!(matches!(scene.exchange.next(ms(300)), Next::Knock));
    let unsigned = scene.exchange.unsigned(&scene.key.card(), 1_000, &mut random).unwrap();
    let signature = scene.signer.sign(unsigned.to_sign()).to_bytes();
    // It took a minute.
    scene.exchange.seal(unsigned, &signature, ms(60_000)).unwrap();
    assert!(matches!(scene.exchange.next(ms(60_000)), Next::Wait(wait) if wait == ms(500)));
}
