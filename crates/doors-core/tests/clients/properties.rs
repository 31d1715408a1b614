//! Whatever clients, clocks and disks do.

use std::time::Duration;

use doors_spa::{identity::DoorId, letter::Letter, receipt::Answer};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use crate::scene::{Counting, LAPTOP, OTHER, SOURCE, Scene, Sealed, client, open};

#[derive(Clone, Debug)]
enum Deed {
    Wait(u64),
    SetDate(i64),
    Restart,
    LoseDisk,
    /// A knock whose clock is off by so many milliseconds, with a challenge or without.
    Knock {
        off: i64,
        challenge: bool,
    },
    /// One of the knocks of before.
    Replay(usize),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        (0_u64..100).prop_map(Deed::Wait),
        (-200_000_i64..200_000).prop_map(Deed::SetDate),
        Just(Deed::Restart),
        Just(Deed::LoseDisk),
        (-90_000_i64..90_000, any::<bool>()).prop_map(|(off, challenge)| Deed::Knock { off, challenge }),
        any::<usize>().prop_map(Deed::Replay),
        any::<usize>().prop_map(Deed::Replay),
    ];
    proptest::collection::vec(deed, 1..60)
}

proptest! {
    /// Behind the signature, too: whatever 64 bytes a client signs, it opens its own doors only, for no longer
    /// than it may, and nothing panics.
    #[test]
    fn whatever_a_client_signs_opens_no_more_than_it_may(
        mut bytes in any::<[u8; 64]>(),
        shaped in any::<bool>(),
        operation in 0_u8..5,
        door in prop_oneof![Just("ssh"), Just("once"), Just("named"), Just("admin"), Just("none")],
    ) {
        let mut scene = Scene::new();
        let laptop = client(LAPTOP);
        if shaped {
            [bytes[0], bytes[1], bytes[2], bytes[3]] = [operation, 0, 0, 0];
            bytes[8..16].copy_from_slice(&scene.wall.to_be_bytes());
            bytes[24..32].copy_from_slice(&laptop.key.id().0);
            bytes[32..40].copy_from_slice(&DoorId::of(door).0);
            bytes[56..].fill(0);
        }
        let card = scene.gateway.card();
        let letter = Letter::of_bytes(&card, &laptop.key, bytes, &mut scene.random).unwrap();
        let signature = SigningKey::from_bytes(&[LAPTOP; 32]).sign(letter.to_sign()).to_bytes();
        let (knock, key) = letter.seal(&signature).unwrap();
        if let Some(answer) = scene.send(SOURCE, &knock) {
            prop_assert!(key.open(&answer).is_some());
        }
        for (admission, running) in scene.keeper.doors().iter() {
            prop_assert!(laptop.doors.contains(&admission.door));
            prop_assert!(running.until <= scene.now.after(Duration::from_secs(600)));
        }
    }

    #[test]
    fn no_bytes_from_anybody_are_answered_or_change_anything(
        bytes in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut scene = Scene::new();
        prop_assert_eq!(scene.send(SOURCE, &bytes), None);
        prop_assert!(scene.disk.is_empty() && scene.changes.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to clocks, disk and daemon: no knock ever opens a door twice, and whoever answers a
    /// challenge gets in.
    #[test]
    fn no_knock_ever_counts_twice_and_a_challenge_always_helps(deeds in deeds()) {
        let mut scene = Scene::new();
        let mut accepted: Vec<Sealed> = Vec::new();
        let mut floor_of_date = scene.wall;
        for deed in deeds {
            match deed {
                Deed::Wait(seconds) => scene.wait(seconds),
                Deed::SetDate(by) => scene.wall = scene.wall.saturating_add_signed(by).max(1_000_000_000),
                Deed::Restart => scene = scene.restart(),
                Deed::LoseDisk => {
                    // Lost at a moment whose date is no earlier than any before: a clock that goes back *and* a
                    // disk that is lost cannot be told from a first start.
                    scene.wall = scene.wall.max(floor_of_date);
                    let random = Counting(scene.random.0);
                    scene = Scene::after(None, scene.wall);
                    scene.random = random;
                }
                Deed::Knock { off, challenge } => {
                    let mut request = scene.request(open("ssh", 0));
                    request.time = scene.wall.saturating_add_signed(off);
                    let mut sealed = scene.seal(&request, LAPTOP);
                    let mut answer = sealed.key.open(&scene.send(SOURCE, &sealed.bytes).unwrap()).unwrap();
                    if answer.answer == Answer::Stale && challenge {
                        let time = request.time;
                        request = scene.request(open("ssh", 0));
                        (request.time, request.challenge) = (time, answer.challenge);
                        sealed = scene.seal(&request, LAPTOP);
                        answer = sealed.key.open(&scene.send(SOURCE, &sealed.bytes).unwrap()).unwrap();
                        prop_assert!([Answer::Granted, Answer::TooMany].contains(&answer.answer));
                    }
                    if answer.answer == Answer::Granted {
                        accepted.push(sealed);
                    }
                }
                Deed::Replay(which) => {
                    if let Some(sealed) = which.checked_rem(accepted.len()).map(|which| &accepted[which]) {
                        let answer = scene.send(OTHER, &sealed.bytes);
                        let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
                        prop_assert!(matches!(answer, None | Some(Answer::Stale)), "{answer:?}");
                        prop_assert!(!scene.is_open("ssh", OTHER));
                    }
                }
            }
            floor_of_date = floor_of_date.max(scene.wall);
        }
    }
}
