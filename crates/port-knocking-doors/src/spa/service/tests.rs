//! What becomes of what a disk could not take.

use doors_core::{access::Rules, spa::challenge::RunKey, spa::replay::ReplayGuard, spa::server::SpaServer};

use super::*;
use crate::{
    spa::replay_log::ReplayLog,
    spa::replay_writer::tests::{SmallDisk, record},
};

/// A service whose disk has failed: the core remembers two records, of which it holds none.
fn behind(disk: &SmallDisk, clock: Clock) -> (SpaService, Engine) {
    let (doors, clients) = (Vec::new(), Arc::default());
    let rules = Rules { doors, quiet_after_wrong: RETRY_AFTER, forget_after: RETRY_AFTER, clients };
    let mut engine = Engine::new(rules).unwrap();
    let replay = ReplayGuard::new(RETRY_AFTER, &[record(1), record(2)], clock.now(), clock.wall());
    engine.set_server(SpaServer::new(RunKey([1; 32]), replay));
    let (replay_writer, _) = ReplayWriter::start(&disk.0, &[]).unwrap();
    let mut service = SpaService { replay_writer: Some(replay_writer), ..SpaService::new(clock) };
    assert_eq!(service.behind, None);
    disk.fill();
    let before = clock.now();
    service.replay_writer.as_mut().unwrap().append(Ticket(9), record(2));
    hear(&mut service, &mut engine);
    let at = service.behind.expect("the disk is behind");
    assert!(before.after(RETRY_AFTER) <= at && at <= clock.now().after(RETRY_AFTER));
    (service, engine)
}

/// Hears what the replay writer says next.
fn hear(service: &mut SpaService, engine: &mut Engine) {
    let heard = runtime().block_on(service.next()).unwrap();
    service.hear(engine, heard, &mut Observe::start().unwrap());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// In a thread, whose namespace goes with it.
fn with_small_disk(story: impl FnOnce(SmallDisk) + Send) {
    std::thread::scope(|scope| scope.spawn(|| story(SmallDisk::new())).join().unwrap());
}

fn on(disk: &SmallDisk) -> Vec<u64> {
    ReplayLog::open(&disk.0, &[]).unwrap().1.records.iter().map(|record| record.time).collect()
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn what_the_disk_could_not_take_is_given_to_it_again_every_ten_seconds_until_it_holds_it() {
    with_small_disk(|disk| {
        let clock = Clock::start();
        let (mut service, mut engine) = behind(&disk, clock);
        let at = service.behind.unwrap();
        // Full as before: nothing is said, and it is tried again.
        service.catch_up(&engine, at);
        assert_eq!(service.behind, Some(at.after(RETRY_AFTER)));
        // Of a disk that has not answered, nothing more is asked.
        assert!(service.is_keeping);
        hear(&mut service, &mut engine);
        assert!(!service.is_keeping && service.behind.is_some());
        disk.empty();
        service.catch_up(&engine, at.after(RETRY_AFTER));
        hear(&mut service, &mut engine);
        assert_eq!(service.behind, None);
        runtime().block_on(service.replay_writer.take().unwrap().end());
        // With what everybody's low-water mark is.
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn what_the_disk_could_not_take_is_given_to_it_once_more_at_an_orderly_end() {
    with_small_disk(|disk| {
        let (service, engine) = behind(&disk, Clock::start());
        disk.empty();
        runtime().block_on(service.end(&engine, RETRY_AFTER));
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}
