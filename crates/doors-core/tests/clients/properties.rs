//! Properties that hold whatever clients, clocks and disks do.

use std::time::Duration;

use doors_spa::{identity::DoorId, receipt::Answer, request::Request, seal::UnsignedKnock};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use crate::scene::{LAPTOP, OTHER, SOURCE, Scene, Sealed, client, open};

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    SetDate(i64),
    /// The next run, with the disk as it is.
    Restart,
    /// The next run, with the disk as it was that many steps ago.
    Restore(usize),
    LoseDisk,
    FillDisk(bool),
    /// A knock with a clock that is off by so many milliseconds; `challenge`: it answers a challenge.
    Knock {
        off: i64,
        challenge: bool,
    },
    /// The same, but the datagram is held back.
    HoldBack {
        off: i64,
    },
    /// A copy of an earlier knock, from another address.
    Copy(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let off = || prop_oneof![-90_000_i64..90_000, Just(0), Just(60_000)];
    let step = prop_oneof![
        2 => (0_u64..100).prop_map(Step::Wait),
        1 => (-200_000_i64..200_000).prop_map(Step::SetDate),
        1 => Just(Step::Restart),
        1 => any::<usize>().prop_map(Step::Restore),
        1 => Just(Step::LoseDisk),
        1 => any::<bool>().prop_map(Step::FillDisk),
        3 => (off(), any::<bool>()).prop_map(|(off, challenge)| Step::Knock { off, challenge }),
        2 => off().prop_map(|off| Step::HoldBack { off }),
        6 => any::<usize>().prop_map(Step::Copy),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A knock that a client has made, and its result.
struct Made {
    sealed: Sealed,
    time: u64,
    challenged: bool,
    /// The run in which it was made.
    run: u32,
    opened: bool,
    /// The run in which it arrived and was refused.
    refused_in: Option<u32>,
}

proptest! {
    /// Whatever 64 bytes a client signs, they open only its own doors, for no longer than it may, and nothing
    /// panics.
    #[test]
    fn no_signed_request_opens_more_than_its_client_may(
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
        let unsigned = UnsignedKnock::of_bytes(&card, &laptop.key, bytes, &mut scene.random).unwrap();
        let signature = SigningKey::from_bytes(&[LAPTOP; 32]).sign(unsigned.to_sign()).to_bytes();
        let (knock, key) = unsigned.seal(&signature).unwrap();
        if let Some(answer) = scene.send(SOURCE, &knock) {
            prop_assert!(key.open(&answer).is_some());
        }
        for running in scene.engine.grants().iter() {
            prop_assert!(laptop.doors.contains(&running.lease.key.door));
            prop_assert!(running.lease.until <= scene.now.after(Duration::from_secs(600)));
        }
    }

    #[test]
    fn no_random_bytes_are_answered_or_change_anything(
        bytes in proptest::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut scene = Scene::new();
        prop_assert_eq!(scene.send(SOURCE, &bytes), None);
        prop_assert!(scene.disk.len() == 1 && scene.changes.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to clocks, disk and daemon:
    ///
    /// - no knock opens a door twice;
    /// - no knock from before the last start opens a door by its time alone;
    /// - no refused knock opens a door in the same run;
    /// - a client that answers a challenge gets in.
    ///
    /// Only the records on disk reveal that the date at a start is behind. So where the disk is lost or
    /// restored at the same time, the date is as late as it ever was.
    #[test]
    fn no_knock_ever_counts_twice_and_a_client_that_answers_a_challenge_gets_in(steps in steps()) {
        let mut scene = Scene::new();
        let mut disks = vec![scene.disk.clone()];
        let mut all: Vec<Made> = Vec::new();
        let (mut run, mut latest) = (0, scene.wall);
        for step in steps {
            latest = latest.max(scene.wall);
            match step {
                Step::Wait(seconds) => scene.wait(seconds),
                Step::SetDate(by) => scene.wall = scene.wall.saturating_add_signed(by).max(1_000_000_000),
                Step::FillDisk(full) => scene.disk_is_full = full,
                Step::Restart | Step::Restore(_) | Step::LoseDisk => {
                    let older = match step {
                        Step::Restore(which) => Some(disks[which % disks.len()].clone()),
                        _ => Some(scene.disk.clone()),
                    };
                    // A knock that was made before and never arrived is on no disk.
                    scene.wall = scene.wall.max(latest);
                    let disk = if matches!(step, Step::LoseDisk) { None } else { older };
                    scene = scene.restart_with(disk.as_deref());
                    run += 1;
                }
                Step::Knock { off, challenge } => {
                    let time = scene.wall.saturating_add_signed(off);
                    let request = Request { time, ..scene.request(open("ssh", 0)) };
                    let sealed = scene.seal(&request, LAPTOP);
                    let bytes = scene.send(SOURCE, &sealed.bytes).unwrap();
                    let stale = sealed.key.open(&bytes).unwrap();
                    let made = |sealed, answer, challenged| Made {
                        sealed, time, challenged, run,
                        opened: answer == Answer::Granted,
                        refused_in: (answer != Answer::Granted).then_some(run),
                    };
                    all.push(made(sealed, stale.answer, false));
                    if stale.answer == Answer::Stale && challenge {
                        let challenge = stale.challenge;
                        let request = Request { time, challenge, ..scene.request(open("ssh", 0)) };
                        let sealed = scene.seal(&request, LAPTOP);
                        let bytes = scene.send(SOURCE, &sealed.bytes).unwrap();
                        let answer = sealed.key.open(&bytes).unwrap().answer;
                        match scene.disk_is_full {
                            true => prop_assert!([Answer::NotRecorded, Answer::TooMany].contains(&answer)),
                            false => prop_assert!([Answer::Granted, Answer::TooMany].contains(&answer)),
                        }
                        all.push(made(sealed, answer, true));
                    }
                }
                Step::HoldBack { off } => {
                    let time = scene.wall.saturating_add_signed(off);
                    let request = Request { time, ..scene.request(open("ssh", 0)) };
                    let sealed = scene.seal(&request, LAPTOP);
                    all.push(Made { sealed, time, challenged: false, run, opened: false, refused_in: None });
                }
                Step::Copy(which) => {
                    let Some(which) = which.checked_rem(all.len()) else { continue };
                    let made = &mut all[which];
                    scene.changes.clear();
                    let answer = scene.send(OTHER, &made.sealed.bytes);
                    let answer = answer.map(|answer| made.sealed.key.open(&answer).unwrap().answer);
                    let opens = answer == Some(Answer::Granted);
                    prop_assert_eq!(opens, scene.is_open("ssh", OTHER) && !scene.changes.is_empty());
                    if opens {
                        prop_assert!(!made.opened, "twice");
                        prop_assert!(made.refused_in != Some(run), "refused before");
                        prop_assert!(!made.challenged, "from elsewhere");
                        // If it is dated later than the window at the start, it looks like a new one.
                        let ahead = made.time > scene.started + 60_000;
                        prop_assert!(made.run == run || ahead, "from before the start");
                    }
                    made.opened |= opens;
                    if answer.is_some() && !opens {
                        made.refused_in = Some(run);
                    }
                    scene.use_up("ssh", OTHER);
                }
            }
            disks.push(scene.disk.clone());
        }
    }

    /// The same with a date that may also be behind at a start, on the disk as it is: a request that arrived
    /// before, and was accepted or refused for its time, opens nothing any more.
    #[test]
    fn a_date_that_is_behind_at_a_start_makes_no_earlier_request_acceptable(
        steps in proptest::collection::vec((-300_000_i64..300_000, -90_000_i64..90_000, 0_u64..200), 1..12)
    ) {
        let mut scene = Scene::new();
        let mut arrived: Vec<Sealed> = Vec::new();
        for (date, off, wait) in steps {
            let time = scene.wall.saturating_add_signed(off);
            let request = Request { time, ..scene.request(open("ssh", 0)) };
            let sealed = scene.seal(&request, LAPTOP);
            prop_assert!(scene.send(SOURCE, &sealed.bytes).is_some());
            arrived.push(sealed);
            scene.wall = scene.wall.saturating_add_signed(date);
            scene = scene.restart();
            for _ in 0..3 {
                scene.wait(wait);
                for sealed in &arrived {
                    let answer = scene.send(OTHER, &sealed.bytes);
                    let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
                    prop_assert!(matches!(answer, None | Some(Answer::Stale)), "{:?}", answer);
                }
                prop_assert_eq!(scene.gets_in(0), Answer::Granted);
            }
        }
    }
}
