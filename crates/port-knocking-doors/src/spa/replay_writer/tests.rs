//! What the replay writer reports when the disk fails.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use doors_spa::identity::ClientId;

use super::*;

/// A small file system in the mount namespace of this thread, which must end with the test.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    pub(crate) fn new() -> Self {
        let place = doors_lab::private_directory().unwrap();
        let (flags, size) = (rustix::mount::MountFlags::NOSUID, c"size=256k,mode=700");
        rustix::mount::mount("tmpfs", &place, "tmpfs", flags, size).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        Self(place)
    }

    /// Fills the disk, and removes the space that the replay log has reserved.
    pub(crate) fn fill(&self) {
        fs::OpenOptions::new().write(true).open(self.0.join("knocks")).unwrap().set_len(0).unwrap();
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

pub(crate) fn record(number: u64) -> Record {
    Record { client: ClientId([7; 8]), time: number, nonce: [0; 8] }
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn after_a_failure_no_record_is_confirmed_until_everything_remembered_is_on_disk() {
    // A separate file system, in the mount namespace of a thread.
    let story = || {
        let disk = SmallDisk::new();
        let place = &disk.0;
        let (mut replay_writer, _) = ReplayWriter::start(place, &[]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let next = |replay_writer: &mut ReplayWriter| runtime.block_on(replay_writer.next()).unwrap();

        replay_writer.append(Ticket(1), record(1));
        assert_eq!(next(&mut replay_writer), Recorded::Held(vec![Ticket(1)]));
        disk.fill();
        replay_writer.append(Ticket(2), record(2));
        assert!(matches!(next(&mut replay_writer), Recorded::Failed(..)));

        // There is space again, but a single record would hide that another is missing.
        disk.empty();
        replay_writer.append(Ticket(3), record(3));
        assert!(matches!(next(&mut replay_writer), Recorded::Failed(..)));
        replay_writer.keep((1..=4).map(record).collect(), vec![Ticket(4)]);
        assert_eq!(next(&mut replay_writer), Recorded::CaughtUp);
        assert_eq!(next(&mut replay_writer), Recorded::Held(vec![Ticket(4)]));
        assert_eq!(next(&mut replay_writer), Recorded::Kept);
        replay_writer.append(Ticket(5), record(5));
        assert_eq!(next(&mut replay_writer), Recorded::Held(vec![Ticket(5)]));
        // Only the stop waits for what it writes.
        replay_writer.keep((1..=5).map(record).collect(), Vec::new());
        runtime.block_on(replay_writer.end());
        let (_, loaded) = ReplayLog::open(place, &[]).unwrap();
        assert_eq!(loaded.records, (1..=5).map(record).collect::<Vec<_>>());
    };
    std::thread::spawn(story).join().unwrap();
}

#[test]
fn the_queue_for_the_disk_is_bounded_until_results_are_reported() {
    let place = tempfile::tempdir().unwrap();
    let (mut replay_writer, _) = ReplayWriter::start(&place.path().join("state"), &[]).unwrap();
    assert_eq!(replay_writer.room(), QUEUE_LENGTH);
    for number in 0..QUEUE_LENGTH {
        replay_writer.append(Ticket(number.try_into().unwrap()), record(1));
    }
    assert_eq!(replay_writer.room(), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    while replay_writer.room() < QUEUE_LENGTH {
        runtime.block_on(replay_writer.next()).unwrap();
    }
}
