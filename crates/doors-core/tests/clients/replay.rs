//! No request counts twice.

use std::{collections::BTreeSet, time::Duration};

use doors_core::{engine::Event, limits, spa::server::DropReason, time::Wall};
use doors_spa::{
    gateway::GatewayKey,
    receipt::Answer,
    request::{Operation, Request},
};

use crate::scene::{
    Counting, LAPTOP, OTHER, PHONE, SOURCE, START, Scene, Sealed, client, lasting, open, rules, server_config,
};

#[test]
fn nothing_happens_before_the_record_is_on_disk_nor_if_it_cannot_be_written() {
    let mut scene = Scene::new();
    scene.disk_is_full = true;
    assert_eq!(scene.opens("ssh", 0), Answer::NotRecorded);
    assert!(scene.changes.is_empty());
    scene.disk_is_full = false;
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_request_counts_once_from_any_source_and_at_any_time() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for source in [SOURCE, OTHER] {
        assert_eq!(scene.send(source, &sealed.bytes), None);
    }
    assert!(matches!(scene.events().last(), Some(Event::Dropped { why: DropReason::Copied, .. })));
    let mut next = scene.restart();
    assert_eq!(next.send(SOURCE, &sealed.bytes), None);
    assert!(matches!(next.events().last(), Some(Event::Dropped { why: DropReason::Replayed, .. })));
    assert!(!next.is_open("ssh", OTHER));
}

#[test]
fn a_copy_of_an_evicted_request_within_the_window_is_stale_and_its_receipt_is_for_its_client() {
    let mut scene = Scene::new();
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for _ in 0..limits::COPIES_PER_CLIENT + 1 {
        scene.now = scene.now.after(Duration::from_millis(100));
        scene.wall += 100;
        assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    }
    let stale = scene.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&stale).unwrap().answer, Answer::Stale);
    assert!(!scene.is_open("ssh", OTHER));
}

#[test]
fn a_wrong_clock_costs_one_challenge_which_is_valid_for_one_client_at_one_address() {
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
fn a_client_that_answers_any_number_of_challenges_gets_in_and_no_answer_counts_twice() {
    let mut scene = Scene::new();
    let mut made = Vec::new();
    for number in 0..2 * limits::CHALLENGES_REMEMBERED {
        scene.now = scene.now.after(Duration::from_millis(10));
        scene.wall += 10;
        let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
        let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
        let request = Request { time: 0, challenge, ..scene.request(open("ssh", 0)) };
        let sealed = scene.seal(&request, LAPTOP);
        let answer = scene.send(SOURCE, &sealed.bytes).unwrap();
        assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Granted, "{number}");
        made.push(sealed);
    }
    scene.changes.clear();
    scene.wait(2);
    for sealed in &made {
        let answer = scene.send(SOURCE, &sealed.bytes);
        let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
        assert!(matches!(answer, None | Some(Answer::Stale)), "{answer:?}");
        assert!(scene.changes.is_empty());
    }
}

#[test]
fn the_records_of_one_client_on_disk_are_bounded() {
    let mut scene = Scene::new();
    for number in 0..limits::CHALLENGES_REMEMBERED {
        scene.now = scene.now.after(Duration::from_millis(500));
        scene.wall += 500;
        let by_time = scene.request(open("ssh", 0));
        scene.ask(SOURCE, &by_time, LAPTOP).unwrap();
        let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
        let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
        let challenged = Request { time: 0, challenge, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &challenged, LAPTOP).unwrap().answer, Answer::Granted, "{number}");
    }
    // Records of both kinds, the client's low-water mark, and the gateway's.
    assert_eq!(scene.remembered().len(), 2 * limits::KNOCKS_REMEMBERED + 2);
}

/// Makes one answered challenge in each of so many earlier runs, all recorded. Returns the next run and the
/// datagrams.
fn recorded_answers(many: usize) -> (Scene, Vec<Sealed>) {
    let (mut scene, mut recorded) = (Scene::new(), Vec::new());
    for _ in 0..many {
        scene = scene.restart();
        let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
        let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
        let request = Request { challenge, ..scene.request(open("ssh", 0)) };
        let sealed = scene.seal(&request, LAPTOP);
        assert!(scene.send(SOURCE, &sealed.bytes).is_some());
        recorded.push(sealed);
        scene.wait(200);
    }
    (scene.restart(), recorded)
}

#[test]
fn replaying_answers_to_challenges_of_earlier_runs_ends_no_round() {
    let (mut scene, recorded) = recorded_answers(limits::CHALLENGES_REMEMBERED + 44);
    let mut copies = recorded.iter().cycle();
    for number in 0..100 {
        let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
        let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
        for copy in copies.by_ref().take(3) {
            scene.now = scene.now.after(Duration::from_millis(25));
            scene.wall += 25;
            scene.send(OTHER, &copy.bytes);
        }
        let request = Request { time: 0, challenge, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted, "{number}");
    }
}

#[test]
fn records_of_challenges_of_an_earlier_run_end_no_round() {
    let (mut scene, _) = recorded_answers(limits::CHALLENGES_REMEMBERED);
    let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
    let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
    for number in 0..limits::CHALLENGES_REMEMBERED {
        scene.now = scene.now.after(Duration::from_millis(10));
        scene.wall += 10;
        let request = Request { time: 0, challenge, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::Granted, "{number}");
    }
}

#[test]
fn sixteen_requests_at_once_get_in_after_any_number_of_answered_challenges() {
    for before in [0, 36, limits::CHALLENGES_REMEMBERED - 20, limits::CHALLENGES_REMEMBERED + 5] {
        let mut scene = Scene::new();
        for _ in 0..before {
            assert_eq!(scene.gets_in(500_000_000), Answer::Granted);
            scene.now = scene.now.after(Duration::from_millis(100));
            scene.wall += 100;
        }
        let mut challenges = vec![Some([0; 8]); 16];
        // As many challenges as a client answers before it gives up.
        for _ in 0..4 {
            for challenge in &mut challenges {
                let Some(answered) = *challenge else { continue };
                let request = Request { time: 0, challenge: answered, ..scene.request(open("ssh", 0)) };
                let receipt = scene.ask(SOURCE, &request, LAPTOP).unwrap();
                *challenge = (receipt.answer == Answer::Stale).then_some(receipt.challenge);
            }
        }
        assert_eq!(challenges, vec![None; 16], "after {before}");
    }
}

#[test]
fn a_request_that_is_dated_ahead_is_answered_once_and_opens_nothing_when_its_time_comes() {
    for (restart, junk) in [(false, false), (true, false), (false, true)] {
        let mut scene = Scene::new();
        let request = Request { time: scene.wall + 75_000, ..scene.request(open("ssh", 0)) };
        let sealed = scene.seal(&request, LAPTOP);
        let stale = scene.send(SOURCE, &sealed.bytes).unwrap();
        assert_eq!(sealed.key.open(&stale).unwrap().answer, Answer::Stale);
        // More signed datagrams of this client than are remembered, and unsigned ones in the phone's name.
        for number in 0..limits::COPIES_PER_CLIENT + 1 {
            let request = Request { time: number as u64, ..scene.request(open("ssh", 0)) };
            scene.ask(SOURCE, &request, LAPTOP);
        }
        for _ in 0..if junk { 4 * limits::COPIES_PER_CLIENT } else { 0 } {
            let forged = scene.seal(&request, PHONE);
            scene.send(OTHER, &forged.bytes);
        }
        scene.wait(15);
        if restart {
            scene = scene.restart();
        }
        // Its time comes; after a restart, as soon as requests are accepted by their time at all.
        scene.wait(60);
        for _ in 0..3 {
            let answer = scene.send(OTHER, &sealed.bytes);
            let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
            assert!(matches!(answer, None | Some(Answer::Stale)), "{answer:?}");
            assert!(!scene.is_open("ssh", OTHER));
            scene.wait(20);
        }
    }
}

#[test]
fn a_low_water_mark_that_rises_for_a_request_dated_ahead_is_on_disk_before_the_challenge_is_sent() {
    let mut scene = Scene::new();
    let request = Request { time: scene.wall + 75_000, ..scene.request(open("ssh", 0)) };
    let sealed = scene.seal(&request, LAPTOP);
    scene.disk_is_full = true;
    let answer = scene.send(SOURCE, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::NotRecorded);
    // In memory the mark has risen all the same.
    scene.wait(75);
    assert!(
        scene
            .send(OTHER, &sealed.bytes)
            .is_none_or(|answer| { sealed.key.open(&answer).unwrap().answer == Answer::NotRecorded })
    );
    assert!(!scene.is_open("ssh", OTHER));
    // It comes to the disk with the next record that can be written.
    scene.disk_is_full = false;
    assert_eq!(scene.disk.len(), 1, "the gateway's low-water mark at the start");
    assert_eq!(scene.gets_in(0), Answer::Granted);
    assert_eq!(scene.disk, scene.remembered());
    let mut next = scene.restart();
    next.wall = START;
    next = next.restart();
    next.wall = request.time;
    assert!(
        next.send(OTHER, &sealed.bytes)
            .is_none_or(|answer| { sealed.key.open(&answer).unwrap().answer == Answer::Stale })
    );
    assert!(!next.is_open("ssh", OTHER));
}

/// Fills the client's waiting requests: the firewall does not answer.
fn crowd(scene: &mut Scene) {
    scene.firewall_works = false;
    for _ in 0..limits::WAITING_PER_CLIENT {
        let request = scene.request(open("ssh", 0));
        scene.ask(SOURCE, &request, LAPTOP);
    }
    scene.now = scene.now.after(Duration::from_millis(10));
    scene.wall += 10;
}

fn answer(sealed: &Sealed, bytes: Option<[u8; 192]>) -> Option<Answer> {
    bytes.map(|bytes| sealed.key.open(&bytes).unwrap().answer)
}

/// Whether a datagram opens its door after a restart that begins so many milliseconds before this date, at
/// any time after it. Each time is tried in a run of its own, because a run that has refused a request does
/// not accept it later.
fn opens_in_a_later_run(scene: &Scene, back: u64, sealed: &Sealed) -> bool {
    (1..20).any(|twenty| {
        let mut next = scene.restart_at(scene.wall - back);
        next.wait(20 * twenty);
        next.send(OTHER, &sealed.bytes);
        next.is_open("ssh", OTHER)
    })
}

#[test]
fn a_request_refused_as_too_many_opens_nothing_after_a_restart() {
    // Dated ahead; or with a right clock, after which the date goes back.
    for (ahead, back) in [(300_000, 0), (0, 180_000)] {
        let mut scene = Scene::new();
        crowd(&mut scene);
        let request = Request { time: scene.wall + ahead, ..scene.request(open("ssh", 0)) };
        let sealed = scene.seal(&request, LAPTOP);
        // Another that does not arrive: it shows that this one could be accepted.
        let unheard = Request { time: request.time, ..scene.request(open("ssh", 0)) };
        let unheard = scene.seal(&unheard, LAPTOP);
        assert!(opens_in_a_later_run(&scene, back, &unheard), "{ahead} {back}");
        let got = scene.send(SOURCE, &sealed.bytes);
        assert_eq!(answer(&sealed, got), Some(Answer::TooMany));
        assert!(!opens_in_a_later_run(&scene, back, &sealed), "{ahead} {back}");
        // One that is dated a little less ahead, when there is room again.
        scene.firewall_works = true;
        scene.wait(4);
        scene.receipts.clear();
        let request = Request { time: scene.wall + ahead - 5_000, ..scene.request(open("ssh", 0)) };
        let less = scene.seal(&request, LAPTOP);
        scene.send(SOURCE, &less.bytes);
        assert!(!opens_in_a_later_run(&scene, back, &less), "{ahead} {back}");
    }
}

#[test]
fn too_many_is_answered_only_after_the_record_is_on_disk_and_at_four_times_as_many_datagrams_are_dropped() {
    let mut scene = Scene::new();
    scene.disk_is_slow = true;
    for _ in 0..limits::WAITING_AT_MOST {
        let request = scene.request(Operation::Ask { skip: 0 });
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP), None);
    }
    let mut flood = 0;
    for _ in 0..100 {
        let request = scene.request(Operation::Ask { skip: 0 });
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP), None);
        flood += scene
            .events()
            .iter()
            .filter(|event| matches!(event, Event::Dropped { why: DropReason::Flood, .. }))
            .count();
    }
    assert!(flood > 0);
    // Another client's request is accepted.
    let request = scene.request(Operation::Ask { skip: 0 });
    let phone = scene.seal(&request, PHONE);
    assert_eq!(scene.send(SOURCE, &phone.bytes), None);
    scene.disk_is_slow = false;
    scene.work();
    assert_eq!(scene.disk.len(), 1 + limits::WAITING_AT_MOST + 1);
    assert_eq!(scene.receipts.len(), limits::WAITING_AT_MOST + 1);
}

#[test]
fn a_stale_request_gets_no_challenge_before_the_clients_low_water_mark_is_on_disk() {
    let mut scene = Scene::new();
    scene.disk_is_full = true;
    let time = scene.wall + 300_000;
    let first = Request { time, ..scene.request(open("ssh", 0)) };
    let second = Request { time: time + 500, ..scene.request(open("ssh", 0)) };
    // The second arrives before the first.
    for request in [second, first] {
        assert_eq!(scene.ask(SOURCE, &request, LAPTOP).unwrap().answer, Answer::NotRecorded);
    }
    scene.disk_is_full = false;
    let again = Request { time, ..scene.request(open("ssh", 0)) };
    assert_eq!(scene.ask(SOURCE, &again, LAPTOP).unwrap().answer, Answer::Stale);
    // From here on the mark is known to be on disk, and nothing more is written.
    let written = scene.disk.len();
    for _ in 0..5 {
        let again = Request { time, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &again, LAPTOP).unwrap().answer, Answer::Stale);
    }
    assert_eq!(scene.disk.len(), written);
}

#[test]
fn a_clock_that_is_ahead_costs_its_own_client_a_challenge_each_time_and_no_other() {
    let mut scene = Scene::new();
    for _ in 0..100 {
        scene.wait(10);
        assert_eq!(scene.gets_in(50 * 365 * 24 * 3_600_000), Answer::Granted);
    }
    // With a right clock it still needs one: its earlier requests are dated later.
    assert_eq!(scene.opens("ssh", 0), Answer::Stale);
    assert_eq!(scene.gets_in(0), Answer::Granted);
    for _ in 0..2 {
        let request = scene.request(open("ssh", 0));
        assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Granted);
        scene = scene.restart();
        scene.wait(121);
        assert_eq!(scene.gets_in(0), Answer::Granted);
    }
}

#[test]
fn in_the_first_minute_after_a_start_a_request_costs_one_challenge_and_then_none() {
    let mut scene = Scene::new().restart();
    for _ in 0..6 {
        assert_eq!(scene.opens("ssh", 0), Answer::Stale);
        assert_eq!(scene.gets_in(0), Answer::Granted);
        // A clock that is ahead as far as it may be.
        assert_eq!(scene.gets_in(60_000), Answer::Granted);
        scene.wait(10);
    }
    let request = scene.request(open("ssh", 0));
    assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Stale, "60 s");
    scene.wait(1);
    let request = scene.request(open("ssh", 0));
    assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Granted, "61 s");
}

#[test]
fn a_start_on_an_earlier_day_accepts_no_request_of_that_day() {
    let day = 24 * 3_600_000;
    let mut scene = Scene::new();
    let yesterday = Request { time: START - day + 5_000, ..scene.request(open("ssh", 0)) };
    let sealed = scene.seal(&yesterday, LAPTOP);
    for _ in 0..5 {
        assert_eq!(scene.opens("ssh", 0), Answer::Granted);
        scene.wait(2);
    }
    scene.wall = START - day;
    for _ in 0..3 {
        let mut next = scene.restart();
        for _ in 0..30 {
            next.wait(10);
            let answer = next.send(OTHER, &sealed.bytes);
            assert!(answer.is_none_or(|answer| sealed.key.open(&answer).unwrap().answer == Answer::Stale));
            assert!(!next.is_open("ssh", OTHER));
            assert_eq!(next.gets_in(0), Answer::Granted, "no client is locked out");
        }
        scene = next;
        scene.disk = scene.remembered();
        scene.wall = START - day;
    }
}

#[test]
fn a_state_restored_from_a_minute_ago_lets_no_copy_in() {
    let mut scene = Scene::new();
    let older = scene.disk.clone();
    for off in [-60_000, 0, 60_000] {
        let request =
            Request { time: scene.wall.saturating_add_signed(off), ..scene.request(open("ssh", 0)) };
        let sealed = scene.seal(&request, LAPTOP);
        let answer = scene.send(SOURCE, &sealed.bytes).unwrap();
        assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Granted);
        let mut next = scene.restart_with(Some(&older));
        for _ in 0..150 {
            let answer = next.send(OTHER, &sealed.bytes);
            assert!(answer.is_none_or(|answer| sealed.key.open(&answer).unwrap().answer == Answer::Stale));
            assert!(!next.is_open("ssh", OTHER));
            next.wait(1);
        }
    }
}

#[test]
fn after_a_start_accepted_requests_of_one_client_are_a_low_water_mark_for_all_and_refused_ones_are_not() {
    let mut scene = Scene::new();
    for number in 0..limits::KNOCKS_REMEMBERED * 2 {
        let request = Request { time: scene.wall + 30_000 + number as u64, ..scene.request(open("ssh", 0)) };
        assert_eq!(scene.ask(SOURCE, &request, PHONE).unwrap().answer, Answer::Granted);
        scene.wait(1);
    }
    let highest = scene.wall - 1_000 + 30_000 + 2 * limits::KNOCKS_REMEMBERED as u64 - 1;
    assert_eq!(scene.gets_in(500_000), Answer::Granted);
    // Also after the replay log has been compacted.
    scene.disk = scene.remembered();
    scene.wall -= 300_000;
    let mut next = scene.restart();
    next.wait(310);
    let late = Request { time: highest, ..next.request(open("ssh", 0)) };
    assert_eq!(next.ask(SOURCE, &late, PHONE).unwrap().answer, Answer::Stale);
    next.wait(60);
    let later = Request { time: highest + 1, ..next.request(open("ssh", 0)) };
    assert_eq!(next.ask(SOURCE, &later, PHONE).unwrap().answer, Answer::Granted);
}

#[test]
fn after_the_date_jumps_no_request_from_before_the_jump_is_accepted() {
    for by in [-3_600_000_i64, -61_000, 3_600_000, 61_000] {
        let mut scene = Scene::new();
        // Held back: datagrams from before the jump, one for each moment after it.
        let made: Vec<_> = (0..80)
            .map(|number: u64| {
                let date = scene.wall.min(scene.wall.saturating_add_signed(by)) + number * 2_000;
                let request = Request { time: date, ..scene.request(open("ssh", 0)) };
                scene.seal(&request, LAPTOP)
            })
            .collect();
        scene.wall = scene.wall.saturating_add_signed(by);
        for sealed in &made {
            let answer = scene.send(OTHER, &sealed.bytes);
            let answer = answer.map(|answer| sealed.key.open(&answer).unwrap().answer);
            let end = START.max(START.saturating_add_signed(by)) + 60_000;
            if scene.wall < end {
                assert!(matches!(answer, None | Some(Answer::Stale)), "{by}: {answer:?}");
            }
            scene.wait(1);
        }
        assert_eq!(scene.gets_in(0), Answer::Granted);
    }
}

#[test]
fn correcting_a_date_far_ahead_costs_challenges_and_locks_no_client_out() {
    let years = 14 * 365 * 24 * 3_600_000;
    let mut scene = Scene::new();
    scene.wall += years;
    assert_eq!(scene.gets_in(0), Answer::Granted);
    scene.wait(3_601);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    scene.wall -= years;
    for _ in 0..3 {
        for _ in 0..10 {
            assert_eq!(scene.opens("ssh", 0), Answer::Stale);
            assert_eq!(scene.gets_in(0), Answer::Granted);
            scene.wait(30);
        }
        scene = scene.restart();
    }
    // The way out: the state is removed.
    let mut scene = scene.restart_with(None);
    scene.wait(3_601);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn after_a_first_start_in_1970_requests_are_accepted_an_hour_after_the_date_is_set() {
    let mut scene = Scene::after(None, 20_000);
    let before = Request { time: START, ..scene.request(open("ssh", 0)) };
    let sealed = scene.seal(&before, LAPTOP);
    let request = Request { time: START, ..scene.request(open("ssh", 0)) };
    let stale = scene.ask(SOURCE, &request, LAPTOP).unwrap();
    assert_eq!(stale.answer, Answer::Stale);
    scene.wall = START;
    let answer = scene.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
    assert_eq!(scene.gets_in(0), Answer::Granted);
    scene.wait(3_601);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_refused_request_opens_nothing_later_whatever_the_reason() {
    type Refuse = fn(&mut Scene);
    let too_many_on_the_way: Refuse = |scene| {
        scene.firewall_works = false;
        for _ in 0..limits::WAITING_PER_CLIENT {
            let request = scene.request(open("ssh", 0));
            scene.ask(SOURCE, &request, LAPTOP);
        }
    };
    let cannot_be_recorded: Refuse = |scene| scene.disk_is_full = true;
    let not_allowed: Refuse = |scene| {
        let mut rules = rules();
        rules.doors.retain(|door| door.name.as_str() != "ssh");
        scene.engine.change_rules(rules, scene.now, Wall(scene.wall)).unwrap();
    };
    for (refuse, answer) in [
        (too_many_on_the_way, Answer::TooMany),
        (cannot_be_recorded, Answer::NotRecorded),
        (not_allowed, Answer::NotAllowed),
    ] {
        // None, so that copies are known by their bytes; and so many that those are evicted.
        for more in [0, limits::COPIES_PER_CLIENT + 1] {
            for challenged in [false, true] {
                let mut scene = Scene::new();
                let time = if challenged { 0 } else { scene.wall };
                let stale = Request { time: 0, ..scene.request(open("ssh", 0)) };
                let challenge = scene.ask(SOURCE, &stale, LAPTOP).unwrap().challenge;
                let challenge = if challenged { challenge } else { [0; 8] };
                refuse(&mut scene);
                let request = Request { time, challenge, ..scene.request(open("ssh", 0)) };
                let sealed = scene.seal(&request, LAPTOP);
                let refused = scene.send(SOURCE, &sealed.bytes).unwrap();
                assert_eq!(sealed.key.open(&refused).unwrap().answer, answer, "{challenged}");
                for _ in 0..more {
                    let request = Request { challenge, time, ..scene.request(open("ssh", 0)) };
                    scene.ask(SOURCE, &request, LAPTOP);
                }
                // All is well again: nothing waits, the challenges are a minute old, the disk has room.
                (scene.disk_is_full, scene.firewall_works) = (false, true);
                scene.engine.change_rules(rules(), scene.now, Wall(scene.wall)).unwrap();
                scene.changes.clear();
                for _ in 0..20 {
                    scene.wait(5);
                    scene.receipts.clear();
                    let again = scene.send(SOURCE, &sealed.bytes);
                    let again = again.map(|again| sealed.key.open(&again).unwrap().answer);
                    assert!(!matches!(again, Some(Answer::Granted)), "{answer:?}, {more}, {challenged}");
                    assert!(scene.changes.is_empty(), "{answer:?}, {more}, {challenged}");
                }
            }
        }
    }
}

#[test]
fn after_a_loss_the_start_sets_the_low_water_mark_for_every_later_run() {
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
    // Also if the date then goes back, and the replay log has been compacted.
    lost.disk = lost.remembered();
    lost.wall = START - 600_000;
    lost = lost.restart();
    lost.wait(640);
    let answer = lost.send(SOURCE, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
    // Setting the date only after the start makes nothing acceptable.
    let mut early = Scene::after(None, 0);
    early.wall = START + 2000;
    let answer = early.send(SOURCE, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
    // In time, the mark is passed.
    lost.wait(3_600);
    assert_eq!(lost.opens("ssh", 0), Answer::Granted);
}

/// The answer to a datagram as soon as its date comes.
fn when_its_date_comes(scene: &mut Scene, sealed: &Sealed, date: u64) -> Option<Answer> {
    scene.wait((date - scene.wall).div_ceil(1000));
    let got = scene.send(OTHER, &sealed.bytes);
    answer(sealed, got)
}

#[test]
fn the_low_water_mark_of_a_start_falls_neither_with_a_smaller_window_nor_with_a_later_start() {
    let mut scene = Scene::new();
    // Held back: it never arrived.
    let request = Request { time: START + 2_000_000, ..scene.request(open("ssh", 0)) };
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(when_its_date_comes(&mut scene.restart(), &sealed, request.time), Some(Answer::Granted));
    // Restarted, with a window of an hour.
    scene = scene.restart();
    scene.set_window(3_600);
    scene.wait(10);
    // Also after the replay log has been compacted.
    for disk in [scene.disk.clone(), scene.remembered()] {
        let mut next = scene.restart_with(Some(&disk)).restart();
        assert_eq!(when_its_date_comes(&mut next, &sealed, request.time), Some(Answer::Stale));
    }
    scene.set_window(60);
    assert_eq!(when_its_date_comes(&mut scene, &sealed, request.time), Some(Answer::Stale));
    // In time, the mark is passed.
    scene.wait(1_601);
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn the_low_water_mark_of_a_start_is_written_at_once_and_only_once() {
    let scene = Scene::new().restart();
    assert_eq!(scene.disk.last(), scene.remembered().first());
    let low_waters = scene.disk.len();
    assert_eq!(scene.restart().disk.len(), low_waters, "it is written only when it rises");
}

#[test]
fn after_a_loss_no_request_is_accepted_by_its_time_that_the_widest_window_could_have_let_in_before() {
    let mut before = Scene::after(Some(&[]), START - 4_000_000);
    before.set_window(3_600);
    before.wait(4_000);
    let request = Request { time: START + 3_590_000, ..before.request(open("ssh", 0)) };
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());
    assert!(before.is_open("ssh", SOURCE));
    // The state is lost. Or the date is lost, too, and comes back in this run, or in two steps with a start
    // between.
    let mut lost = Scene::after(None, START);
    assert_eq!(when_its_date_comes(&mut lost, &sealed, request.time), Some(Answer::Stale));
    let mut early = Scene::after(None, 20_000);
    early.wall = START;
    assert_eq!(early.opens("ssh", 0), Answer::Stale);
    let mut again = early.restart();
    for run in [&mut early, &mut again] {
        assert_eq!(when_its_date_comes(run, &sealed, request.time), Some(Answer::Stale));
    }
    let mut behind = Scene::after(None, START - 1_000_000).restart();
    behind.wall = START - 500_000;
    behind.gets_in(0);
    behind = behind.restart();
    behind.wall = START;
    assert_eq!(behind.opens("ssh", 0), Answer::Stale);
    assert_eq!(when_its_date_comes(&mut behind, &sealed, request.time), Some(Answer::Stale));
    // In time, the mark is passed.
    lost.wait(20);
    assert_eq!(lost.opens("ssh", 0), Answer::Granted);
}

#[test]
fn setting_the_date_forward_by_seconds_long_after_a_start_costs_a_minute_of_challenges() {
    let mut scene = Scene::after(None, START - 7_200_000);
    scene.wait(7_200);
    for _ in 0..5 {
        scene.wall += 30_000;
        assert_eq!(scene.opens("ssh", 0), Answer::Stale);
        scene.wait(61);
        assert_eq!(scene.opens("ssh", 0), Answer::Granted);
    }
}

#[test]
fn the_record_of_a_loss_survives_compaction_of_the_replay_log() {
    let mut before = Scene::new();
    let request = Request { time: START + 60_000, ..before.request(open("ssh", 0)) };
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());
    let mut lost = Scene::after(None, START + 1000);
    lost.disk = lost.remembered();
    lost.wall = START - 600_000;
    let mut next = lost.restart();
    next.wait(640);
    let answer = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
}

#[test]
fn a_copy_from_a_network_that_the_client_may_not_use_does_not_block_the_original() {
    let mut scene = Scene::with_laptop(|laptop| laptop.from = vec!["192.0.2.0/24".parse().unwrap()]);
    let request = scene.request(open("ssh", 0));
    let sealed = scene.seal(&request, LAPTOP);
    assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
}

#[test]
fn a_copy_gets_no_answer_and_costs_no_decryption_even_if_the_original_was_stale() {
    let mut scene = Scene::new();
    let mut request = scene.request(open("ssh", 0));
    request.time = 0;
    let sealed = scene.seal(&request, LAPTOP);
    assert!(scene.send(SOURCE, &sealed.bytes).is_some());
    for _ in 0..3 * limits::DECRYPTIONS.at_once {
        assert_eq!(scene.send(OTHER, &sealed.bytes), None);
    }
    // Copies do not use up the client's budget.
    assert_eq!(scene.opens("ssh", 0), Answer::Granted);
}

#[test]
fn a_low_water_mark_that_rises_with_the_date_is_on_disk_before_anything_is_done() {
    let mut before = Scene::new();
    let request = before.request(open("ssh", 0));
    let sealed = before.seal(&request, LAPTOP);
    assert!(before.send(SOURCE, &sealed.bytes).is_some());
    // The records are lost, and so is the date. Then the date comes back, and a client knocks.
    let mut early = Scene::after(None, 0);
    early.wall = START + 1000;
    assert_eq!(early.opens("ssh", 0), Answer::Stale);
    // After another restart, no earlier request is accepted.
    let mut next = early.restart();
    let answer = next.send(OTHER, &sealed.bytes).unwrap();
    assert_eq!(sealed.key.open(&answer).unwrap().answer, Answer::Stale);
}

#[test]
fn an_old_gateway_key_works_until_its_date() {
    let mut scene = Scene::new();
    let old = scene.gateway.clone();
    let new = lasting(&GatewayKey::generate(&mut Counting(77)), None);
    let config = server_config([client(LAPTOP)], &[new, lasting(&old, Some(Wall(START + 10_000)))]);
    scene.engine.set_server_config(config);
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
