//! What the daemon is told of a disk that fails.

use std::{fs, os::unix::fs::PermissionsExt as _};

use doors_spa::identity::ClientId;

use super::*;

fn record(number: u64) -> Record {
    Record { client: ClientId([7; 8]), time: number, nonce: [0; 8] }
}

#[test]
fn after_a_failure_nothing_is_held_before_all_that_is_remembered_is_on_the_disk() {
    // A file system of its own, in the namespace of a thread.
    let story = || {
        let place = crate::lab::private_place().unwrap();
        let (flags, size) = (rustix::mount::MountFlags::NOSUID, c"size=256k,mode=700");
        rustix::mount::mount("tmpfs", &place, "tmpfs", flags, size).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).unwrap();
        let (mut recorder, _) = Recorder::start(&place, &[]).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let next = |recorder: &mut Recorder| runtime.block_on(recorder.next()).unwrap();

        recorder.append(record(1));
        assert_eq!(next(&mut recorder), Recorded::Held(1));
        // No room, and what was reserved is gone.
        let knocks = fs::OpenOptions::new().write(true).open(place.join("knocks")).unwrap();
        knocks.set_len(0).unwrap();
        let mut ballast = fs::File::create(place.join("ballast")).unwrap();
        while io::Write::write_all(&mut ballast, &[1; 4096]).is_ok() {}
        recorder.append(record(2));
        assert!(matches!(next(&mut recorder), Recorded::Failed(1, _)));

        // There is room again; but alone, a record would hide that another is missing.
        fs::remove_file(place.join("ballast")).unwrap();
        drop(ballast);
        recorder.append(record(3));
        assert!(matches!(next(&mut recorder), Recorded::Failed(1, _)));
        recorder.keep((1..=4).map(record).collect(), 1);
        assert_eq!(next(&mut recorder), Recorded::Held(1));
        recorder.append(record(5));
        assert_eq!(next(&mut recorder), Recorded::Held(1));
        drop(recorder);
        // The thread lets go of the directory when it is done.
        let loaded = loop {
            match Journal::open(&place, &[]) {
                Ok((_, loaded)) => break loaded,
                Err(JournalError::InUse { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(loaded.records, (1..=5).map(record).collect::<Vec<_>>());
    };
    thread::spawn(story).join().unwrap();
}
