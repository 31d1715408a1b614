//! What becomes of what a disk could not take.

use doors_core::access::Rules;

use super::*;
use crate::{
    spa::replay_log::Journal,
    spa::replay_writer::tests::{SmallDisk, record},
};

/// An entrance whose disk has failed: the core remembers two records, of which it holds none.
fn behind(disk: &SmallDisk, clock: Clock) -> (Entrance, Doorkeeper) {
    let rules = Rules { doors: Vec::new(), quiet_after_wrong: AGAIN, forget_after: AGAIN };
    let mut keeper = Doorkeeper::new(rules).unwrap();
    let freshness = Freshness::new(AGAIN, &[record(1), record(2)], clock.now(), clock.wall());
    keeper.receive_clients(Reception::new(RunKey([1; 32]), freshness));
    let (recorder, _) = Recorder::start(&disk.0, &[]).unwrap();
    let mut entrance = Entrance { recorder: Some(recorder), ..Entrance::default() };
    assert_eq!(entrance.catch_up_at(), None);
    disk.fill();
    let before = clock.now();
    entrance.recorder.as_ref().unwrap().append(record(2));
    hear(&mut entrance, &mut keeper, clock);
    let at = entrance.catch_up_at().expect("the disk is behind");
    assert!(before.after(AGAIN) <= at && at <= clock.now().after(AGAIN));
    (entrance, keeper)
}

/// Hears what the recorder says next.
fn hear(entrance: &mut Entrance, keeper: &mut Doorkeeper, clock: Clock) {
    let recorded = runtime().block_on(entrance.next()).unwrap();
    entrance.hear(keeper, recorded, clock);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// In a thread, whose namespace goes with it.
fn with_small_disk(story: impl FnOnce(SmallDisk) + Send) {
    std::thread::scope(|scope| scope.spawn(|| story(SmallDisk::new())).join().unwrap());
}

fn on(disk: &SmallDisk) -> Vec<u64> {
    Journal::open(&disk.0, &[]).unwrap().1.records.iter().map(|record| record.time).collect()
}

#[test]
fn what_the_disk_could_not_take_is_given_to_it_again_every_ten_seconds_until_it_holds_it() {
    with_small_disk(|disk| {
        let clock = Clock::start();
        let (mut entrance, mut keeper) = behind(&disk, clock);
        let at = entrance.catch_up_at().unwrap();
        // Full as before: nothing is said, and it is tried again.
        entrance.catch_up(&keeper, at);
        assert_eq!(entrance.catch_up_at(), Some(at.after(AGAIN)));
        // Of a disk that has not answered, nothing more is asked.
        assert!(entrance.is_keeping);
        hear(&mut entrance, &mut keeper, clock);
        assert!(!entrance.is_keeping && entrance.catch_up_at().is_some());
        disk.empty();
        entrance.catch_up(&keeper, at.after(AGAIN));
        hear(&mut entrance, &mut keeper, clock);
        assert_eq!(entrance.catch_up_at(), None);
        runtime().block_on(entrance.recorder.take().unwrap().end());
        // With what everybody's floor is.
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}

#[test]
fn what_the_disk_could_not_take_is_given_to_it_once_more_at_an_orderly_end() {
    with_small_disk(|disk| {
        let (entrance, keeper) = behind(&disk, Clock::start());
        disk.empty();
        runtime().block_on(entrance.end(&keeper, AGAIN));
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}
