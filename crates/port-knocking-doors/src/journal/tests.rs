//! What must stay true of the journal, also when it is killed, torn, or out of room.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a test may overflow: then it fails"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use doors_spa::identity::ClientId;
use proptest::prelude::*;

use super::{
    log::Disk,
    record::{AT_ONCE, HEADER, RECORD},
    *,
};

fn knock(number: u64) -> Record {
    Record { client: ClientId([7; 8]), time: number, nonce: (!number).to_be_bytes() }
}

fn knocks(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(knock).collect()
}

/// A file in memory, that fails when it is told to.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    /// So many operations succeed before one fails, and all after it until this is set again.
    works: usize,
    /// A write that fails leaves so many bytes.
    leaves: usize,
}

impl Memory {
    fn next(&mut self) -> io::Result<()> {
        self.works = self.works.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
        Ok(())
    }
}

impl Disk for Memory {
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        let result = self.next();
        let length = if result.is_ok() { bytes.len() } else { bytes.len().min(self.leaves) };
        let end = self.bytes.len().max(offset + length);
        self.bytes.resize(end, 0);
        self.bytes[offset..offset + length].copy_from_slice(&bytes[..length]);
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        self.next()
    }

    fn cut(&mut self, length: usize) -> io::Result<()> {
        self.next()?;
        self.bytes.resize(length, 0);
        Ok(())
    }
}

fn in_memory(works: usize, leaves: usize) -> Log<Memory> {
    let bytes = Log::<Memory>::whole(3, &[]);
    let room = bytes.len();
    Log::new(Memory { bytes, works, leaves }, 3, 0, room)
}

#[test]
fn what_was_acknowledged_is_loaded_again() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let (mut journal, loaded) = Journal::open(&state, &[]).unwrap();
    assert_eq!(loaded, Loaded { records: vec![], found: false, torn: false });
    journal.append(&knocks(0..1)).unwrap();
    journal.append(&knocks(1..3000)).unwrap();
    drop(journal);

    let (mut journal, loaded) = Journal::open(&state, &[]).unwrap();
    assert_eq!(loaded, Loaded { records: knocks(0..3000), found: true, torn: false });
    journal.append(&knocks(3000..3001)).unwrap();
    drop(journal);
    assert_eq!(Journal::open(&state, &[]).unwrap().1.records, knocks(0..3001));
}

#[test]
fn only_the_owner_may_read_the_journal() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let _journal = Journal::open(&state, &[]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(KNOCKS)), 0o600);
}

#[test]
fn a_process_that_is_killed_at_any_instant_leaves_exactly_the_whole_records() {
    let mut written = Log::<Memory>::whole(1, &[]);
    for slot in 0..20 {
        let at = record::offset(slot);
        // Alone, and several at once.
        let place = if slot < 10 { 0 } else { u16::try_from(slot - 10).unwrap() };
        let bytes = record::encode(&knock(slot as u64), 1, slot, place);
        written[at..at + RECORD].copy_from_slice(&bytes);
    }
    let end = record::offset(20);
    for length in 0..=end {
        let whole = length.saturating_sub(HEADER) / RECORD;
        let mut zeros_after = written[..length].to_vec();
        match record::read(&zeros_after) {
            Ok(contents) => {
                assert_eq!(contents.records, knocks(0..whole as u64), "{length}");
                let part = &written[record::offset(whole)..length];
                assert_eq!(contents.torn, part.iter().any(|byte| *byte != 0), "{length}");
            }
            Err(error) => assert!(length < HEADER && error == Unreadable::Empty, "{length}: {error:?}"),
        }
        if length < HEADER {
            continue;
        }
        zeros_after.resize(written.len(), 0);
        assert_eq!(record::read(&zeros_after).unwrap().records, knocks(0..whole as u64), "{length}");
    }
}

#[test]
fn a_torn_end_is_cut_off_and_written_over() {
    for length in 1..RECORD {
        let place = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(place.path(), &[]).unwrap();
        journal.append(&knocks(0..3)).unwrap();
        drop(journal);
        let file = place.path().join(KNOCKS);
        let mut bytes = fs::read(&file).unwrap();
        bytes.truncate(record::offset(2) + length);
        fs::write(&file, bytes).unwrap();

        let (mut journal, loaded) = Journal::open(place.path(), &[]).unwrap();
        assert_eq!(loaded, Loaded { records: knocks(0..2), found: true, torn: true });
        journal.append(&knocks(2..4)).unwrap();
        drop(journal);
        let (_, loaded) = Journal::open(place.path(), &[]).unwrap();
        assert_eq!(loaded, Loaded { records: knocks(0..4), found: true, torn: false });
    }
}

#[test]
fn damage_before_a_later_record_is_never_passed_over() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(place.path(), &[]).unwrap();
    for number in 0..4 {
        journal.append(&[knock(number)]).unwrap();
    }
    drop(journal);
    let file = place.path().join(KNOCKS);
    let good = fs::read(&file).unwrap();
    for at in 0..record::offset(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let error = Journal::open(place.path(), &[]).unwrap_err();
        let expected = match at {
            0..6 => format!("{} is no journal of knocks; move it away", file.display()),
            6..HEADER => format!("{} is damaged at byte 0; move it away", file.display()),
            _ => {
                let slot = (at - HEADER) / RECORD * RECORD + HEADER;
                format!("{} is damaged at byte {slot}; move it away", file.display())
            }
        };
        assert!(error.to_string().starts_with(&expected), "{at}: {error}");
    }
    // The same for a hole, and for the end of the file that another one was.
    let mut bytes = good.clone();
    bytes[record::offset(1)..record::offset(2)].fill(0);
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::Damaged { offset: 48, .. })));
    bytes.copy_from_slice(&good);
    bytes[..HEADER].copy_from_slice(&record::header(2));
    bytes[HEADER..record::offset(AT_ONCE + 1)].fill(1);
    fs::write(&file, &bytes).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::Damaged { offset: 16, .. })));
}

#[test]
fn a_file_of_another_version_is_told_from_damage() {
    let mut header = record::header(1);
    header[7] = 9;
    let check = <sha2::Sha256 as sha2::Digest>::digest(&header[..12]);
    header[12..].copy_from_slice(&check[..4]);
    assert_eq!(record::read(&header), Err(Unreadable::Version(9)));
}

#[test]
fn only_one_process_has_the_journal() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(place.path(), &[]).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::InUse { .. })));
    // A new file changes nothing about that.
    journal.compact(&[]).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::InUse { .. })));
    drop(journal);
    Journal::open(place.path(), &[]).unwrap();
}

#[test]
fn what_others_could_have_made_is_refused() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Journal::open(place.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("(mode 777); try: chmod go-w "), "{error}");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let elsewhere = place.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    symlink(&elsewhere, place.path().join(KNOCKS)).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::Read { .. })));
    fs::remove_file(place.path().join(KNOCKS)).unwrap();
    // What the link would have led to if it had been the file that is made.
    symlink(&elsewhere, place.path().join(NEXT)).unwrap();
    Journal::open(place.path(), &[]).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");

    fs::set_permissions(place.path().join(KNOCKS), fs::Permissions::from_mode(0o660)).unwrap();
    assert!(matches!(Journal::open(place.path(), &[]), Err(JournalError::Writable { mode: 0o660, .. })));
    fs::set_permissions(place.path().join(KNOCKS), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(place.path().join(KNOCKS), Some(4242), None).unwrap();
    let error = Journal::open(place.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("belongs to another user (4242); try: chown 0 "), "{error}");
}

#[test]
fn compaction_keeps_what_it_is_told_to_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(place.path(), &[]).unwrap();
    journal.append(&knocks(0..4096)).unwrap();
    assert!(!journal.wants_compaction());
    journal.append(&knocks(4096..4097)).unwrap();
    assert!(journal.wants_compaction());
    journal.compact(&knocks(4000..4097)).unwrap();
    assert!(!journal.wants_compaction());
    journal.append(&knocks(4097..4099)).unwrap();
    drop(journal);
    let (_, loaded) = Journal::open(place.path(), &[]).unwrap();
    assert_eq!(loaded, Loaded { records: knocks(4000..4099), found: true, torn: false });
    assert!(!place.path().join(NEXT).exists());
}

#[test]
fn a_compaction_that_is_killed_leaves_the_old_journal() {
    let place = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(place.path(), &[]).unwrap();
    journal.append(&knocks(0..3)).unwrap();
    drop(journal);
    let next = Log::<Memory>::whole(2, &knocks(2..3));
    for length in [0, 1, HEADER, HEADER + 1, HEADER + RECORD, next.len()] {
        fs::write(place.path().join(NEXT), &next[..length]).unwrap();
        let (mut journal, loaded) = Journal::open(place.path(), &[]).unwrap();
        assert_eq!(loaded.records, knocks(0..3));
        assert!(!place.path().join(NEXT).exists());
        journal.compact(&loaded.records).unwrap();
    }
}

#[test]
fn on_a_full_disk_an_append_fails_and_the_next_one_with_room_succeeds() {
    // A file system of its own, in the namespace of a thread.
    let story = || {
        let place = crate::lab::private_place().unwrap();
        let (flags, size) = (rustix::mount::MountFlags::NOSUID, c"size=256k,mode=700");
        rustix::mount::mount("tmpfs", &place, "tmpfs", flags, size).unwrap();
        let (mut journal, _) = Journal::open(&place, &[]).unwrap();
        let ballast = place.join("ballast");
        fs::write(&ballast, vec![1; 128 * 1024]).unwrap();

        let mut count = 0;
        let error = loop {
            match journal.append(&knocks(count..count + 100)) {
                Ok(()) => count += 100,
                Err(error) => break error,
            }
        };
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left"), "{source}");
        assert!(count > 2000, "{count}");
        journal.append(&knocks(0..5000)).unwrap_err();
        journal.compact(&knocks(0..5000)).unwrap_err();
        assert!(!place.join(NEXT).exists());

        fs::remove_file(&ballast).unwrap();
        journal.append(&knocks(count..count + 1)).unwrap();
        drop(journal);
        let (_, loaded) = Journal::open(&place, &[]).unwrap();
        // Of the five thousand, what was written in whole parts stays: refusing more knocks than
        // necessary does no harm.
        assert_eq!(loaded.records[..count as usize], knocks(0..count));
        assert_eq!(loaded.records.last(), Some(&knock(count)));
        assert!(!loaded.torn);
    };
    std::thread::spawn(story).join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_journal_panic(bytes: Vec<u8>, generation: u32) {
        let _ = record::read(&bytes);
        let mut bytes = [&record::header(generation)[..], &bytes].concat();
        prop_assert!(record::read(&bytes).unwrap().records.is_empty());
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(KNOCKS), &bytes).unwrap();
        Journal::open(place.path(), &[]).unwrap();
        bytes[0] = 0;
        fs::write(place.path().join(KNOCKS), &bytes).unwrap();
        Journal::open(place.path(), &[]).unwrap_err();
    }

    #[test]
    fn whatever_fails_everything_acknowledged_is_read_and_nothing_that_was_not_written(
        steps in prop::collection::vec((1..40_u64, 0..12_usize, 0..1400_usize), 1..24),
    ) {
        let mut log = in_memory(usize::MAX, 0);
        let mut acknowledged = Vec::new();
        let mut number = 0;
        for (count, works, leaves) in steps {
            (log.disk().works, log.disk().leaves) = (works, leaves);
            let records = knocks(number..number + count);
            number += count;
            let done = log.append(&records).is_ok();
            let contents = record::read(&log.disk().bytes).unwrap();
            if done {
                acknowledged.extend(&records);
                prop_assert_eq!(&contents.records, &acknowledged);
            } else {
                // What was not acknowledged may be there, but in its place.
                prop_assert!(contents.records.starts_with(&acknowledged));
                prop_assert!(contents.records.len() <= acknowledged.len() + 40);
            }
        }
    }

    #[test]
    fn the_disk_may_take_what_was_written_at_once_in_any_order(
        kept in prop::collection::vec(any::<bool>(), 300),
        unit in prop::sample::select(vec![1_usize, 8, RECORD, 512, 4096]),
    ) {
        let mut log = in_memory(usize::MAX, 0);
        log.append(&knocks(0..9)).unwrap();
        let before = log.disk().bytes.clone();
        log.append(&knocks(9..309)).unwrap();
        let mut bytes = log.disk().bytes.clone();
        for (piece, (to, from)) in bytes.chunks_mut(unit).zip(before.chunks(unit)).enumerate() {
            if !kept[piece % kept.len()] {
                to.copy_from_slice(from);
            }
        }
        let contents = record::read(&bytes).unwrap();
        prop_assert!(contents.records.starts_with(&knocks(0..9)));
        prop_assert!(knocks(0..309).starts_with(&contents.records));
    }
}
