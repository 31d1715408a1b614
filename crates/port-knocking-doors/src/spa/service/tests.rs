//! What happens to records that a disk could not write.

use doors_core::{access::Rules, spa::challenge::RunKey, spa::replay::ReplayGuard, spa::server::SpaServer};

use super::*;
use crate::{
    spa::replay_log::ReplayLog,
    spa::replay_writer::tests::{SmallDisk, record},
};

/// A service whose disk has failed: the core remembers two records, and neither is on disk.
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

/// Handles the next news from the replay writer.
fn hear(service: &mut SpaService, engine: &mut Engine) {
    let heard = runtime().block_on(service.next()).unwrap();
    service.hear(engine, heard, &mut Observe::start(Clock::start()).unwrap());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Runs in a thread, whose mount namespace ends with it.
fn with_small_disk(story: impl FnOnce(SmallDisk) + Send) {
    std::thread::scope(|scope| scope.spawn(|| story(SmallDisk::new())).join().unwrap());
}

fn on(disk: &SmallDisk) -> Vec<u64> {
    ReplayLog::open(&disk.0, &[]).unwrap().1.records.iter().map(|record| record.time).collect()
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_failed_write_is_retried_every_ten_seconds_until_the_disk_holds_it() {
    with_small_disk(|disk| {
        let clock = Clock::start();
        let (mut service, mut engine) = behind(&disk, clock);
        let at = service.behind.unwrap();
        // Still full: the failure is not logged again, and the retry is scheduled.
        service.catch_up(&engine, at);
        assert_eq!(service.behind, Some(at.after(RETRY_AFTER)));
        // While the disk has not answered, no further write is queued.
        assert!(service.is_keeping);
        hear(&mut service, &mut engine);
        assert!(!service.is_keeping && service.behind.is_some());
        disk.empty();
        service.catch_up(&engine, at.after(RETRY_AFTER));
        hear(&mut service, &mut engine);
        assert_eq!(service.behind, None);
        runtime().block_on(service.replay_writer.take().unwrap().end());
        // The first record is the common low-water mark.
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_failed_write_is_retried_at_an_orderly_stop() {
    with_small_disk(|disk| {
        let (service, engine) = behind(&disk, Clock::start());
        disk.empty();
        runtime().block_on(service.end(&engine, RETRY_AFTER));
        assert_eq!(on(&disk)[1..], [1, 2]);
    });
}
