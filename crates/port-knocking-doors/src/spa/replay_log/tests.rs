//! The promises of the replay log, also when it is killed, torn, or out of space.

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
    log::{Disk, MAX_LENGTH},
    record::{GROWTH, HEADER, RECORD},
    state_dir::DAMAGED,
    *,
};

fn knock(number: u64) -> Record {
    Record { client: ClientId([7; 8]), time: number, nonce: (!number).to_be_bytes() }
}

fn knocks(numbers: std::ops::Range<u64>) -> Vec<Record> {
    numbers.map(knock).collect()
}

fn whole(records: Vec<Record>) -> Loaded {
    Loaded { records, found: true, loss: None }
}

/// The record that the core adds after a loss.
const LOST: Record = Record { client: ClientId([0; 8]), time: 1 << 62, nonce: [0; 8] };

/// A file in memory that fails on demand.
#[derive(Debug, Default)]
struct Memory {
    bytes: Vec<u8>,
    /// The number of operations that succeed. All later ones fail until this is set again.
    works: usize,
    /// The number of bytes that a failed write leaves.
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
fn acknowledged_records_are_loaded_again() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let (mut replay_log, loaded) = ReplayLog::open(&state, &[]).unwrap();
    assert_eq!(loaded, Loaded::default());
    replay_log.append(&knocks(0..1)).unwrap();
    replay_log.append(&knocks(1..3000)).unwrap();
    drop(replay_log);

    let (mut replay_log, loaded) = ReplayLog::open(&state, &[]).unwrap();
    assert_eq!(loaded, whole(knocks(0..3000)));
    replay_log.append(&knocks(3000..3001)).unwrap();
    drop(replay_log);
    assert_eq!(ReplayLog::open(&state, &[]).unwrap().1.records, knocks(0..3001));
}

#[test]
fn only_the_owner_may_read_the_replay_log() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    let _replay_log = ReplayLog::open(&state, &[]).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join(KNOCKS)), 0o600);
}

/// A small replay log in its own directory, with records that were written one by one.
fn small(count: u64) -> (tempfile::TempDir, Vec<u8>) {
    let place = tempfile::tempdir().unwrap();
    let (mut replay_log, _) = ReplayLog::open(place.path(), &[]).unwrap();
    for number in 0..count {
        replay_log.append(&[knock(number)]).unwrap();
    }
    drop(replay_log);
    let bytes = fs::read(place.path().join(KNOCKS)).unwrap();
    assert_eq!(bytes.len(), GROWTH);
    (place, bytes)
}

/// What a start finds in a directory with these bytes as the replay log. Checks that the next start finds the same
/// and no loss.
fn found(place: &Path, bytes: &[u8]) -> (Vec<Record>, Loss) {
    fs::write(place.join(KNOCKS), bytes).unwrap();
    let (mut replay_log, loaded) = ReplayLog::open(place, &[LOST]).unwrap();
    assert_eq!(loaded.records.last(), Some(&LOST), "the core's record of the loss is on disk");
    replay_log.append(&[knock(77)]).unwrap();
    drop(replay_log);
    let (_, next) = ReplayLog::open(place, &[]).unwrap();
    assert_eq!(next, whole([&loaded.records[..], &[knock(77)]].concat()));
    let mut records = loaded.records;
    records.pop();
    (records, loaded.loss.expect("a loss"))
}

#[test]
fn a_replay_log_truncated_anywhere_opens_with_its_intact_records_and_counts_the_rest() {
    let (place, bytes) = small(20);
    let end = record::offset(20);
    for length in (0..=end + RECORD).chain([GROWTH - 1]) {
        let (records, loss) = found(place.path(), &bytes[..length]);
        let missing = if length == 0 { GROWTH } else { GROWTH - length };
        if length < HEADER {
            assert!(records.is_empty());
            assert_eq!(loss, Loss { header: true, bytes: length, missing, ..Loss::default() }, "{length}");
            continue;
        }
        let whole = ((length - HEADER) / RECORD).min(20);
        assert_eq!(records, knocks(0..whole as u64), "{length}");
        let part = if length < end { (length - HEADER) % RECORD } else { 0 };
        let torn = usize::from(part > 0);
        assert_eq!(loss, Loss { records: torn, bytes: part, missing, ..Loss::default() }, "{length}");
    }
    assert!(place.path().join(DAMAGED).exists());
}

#[test]
fn a_replay_log_with_any_bit_flipped_opens_with_every_intact_record() {
    let (place, bytes) = small(6);
    for bit in 0..record::offset(8) * 8 {
        let mut flipped = bytes.clone();
        let at = bit / 8;
        flipped[at] ^= 1 << (bit % 8);
        let (records, loss) = found(place.path(), &flipped);
        if at < HEADER {
            assert!(records.is_empty(), "{bit}");
            assert_eq!(loss, Loss { header: true, bytes: HEADER, ..Loss::default() }, "{bit}");
            assert_eq!(fs::read(place.path().join(DAMAGED)).unwrap(), flipped, "it is kept");
            continue;
        }
        let slot = (at - HEADER) / RECORD;
        let mut expected = knocks(0..6);
        // A flipped bit after the last record makes one damaged slot, and the blank slots before it count, too.
        let mut lost = 1;
        if slot < 6 {
            expected.remove(slot);
        } else {
            lost = slot - 5;
        }
        assert_eq!(records, expected, "{bit}");
        let lost = Loss { records: lost, bytes: lost * RECORD, ..Loss::default() };
        assert_eq!(loss, lost, "{bit}");
    }
}

#[test]
fn damaged_records_are_counted_wherever_they_are() {
    let (place, good) = small(20);
    for damaged in [0..4, 7..9, 16..20, 0..20] {
        for fill in [0, 1, 0xff] {
            let mut bytes = good.clone();
            bytes[record::offset(damaged.start)..record::offset(damaged.end)].fill(fill);
            // Zeros at the end are unused space.
            if fill == 0 && damaged.end == 20 {
                continue;
            }
            let (records, loss) = found(place.path(), &bytes);
            let all = knocks(0..damaged.start as u64).into_iter().chain(knocks(damaged.end as u64..20));
            assert_eq!(records, all.collect::<Vec<_>>());
            let count = damaged.len();
            assert_eq!(loss, Loss { records: count, bytes: count * RECORD, ..Loss::default() });
        }
    }
    // Records of another file or in another slot are not valid.
    let mut moved = good.clone();
    moved.copy_within(record::offset(3)..record::offset(4), record::offset(5));
    assert_eq!(found(place.path(), &moved).1.records, 1);
    let mut other = good;
    other[..HEADER].copy_from_slice(&record::header(2));
    assert_eq!(found(place.path(), &other), (vec![], Loss { records: 20, bytes: 640, ..Loss::default() }));
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn a_file_that_is_not_a_replay_log_is_kept_as_a_damaged_one_and_locks_no_client_out() {
    let (place, good) = small(3);
    let kept = || fs::read(place.path().join(DAMAGED)).unwrap();
    let mut bytes = good;
    for zeros in [HEADER, 512, GROWTH] {
        bytes[..zeros].fill(0);
        assert_eq!(found(place.path(), &bytes).1, Loss { header: true, bytes: HEADER, ..Loss::default() });
        assert_eq!(kept(), bytes);
    }
    let one_zero: &[u8] = &[0];
    for other in [one_zero, &[0; 15], b"#!/bin/sh\nexit 0\n", b"notes", &[0xff; 4096]] {
        let (records, loss) = found(place.path(), other);
        let (bytes, missing) = (other.len().min(HEADER), GROWTH - other.len());
        assert_eq!((records, loss), (vec![], Loss { header: true, bytes, missing, ..Loss::default() }));
        assert_eq!(kept(), other);
    }
    // A pipe cannot be a damaged replay log.
    fs::remove_file(place.path().join(KNOCKS)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, place.path().join(KNOCKS), rustix::fs::Mode::RUSR).unwrap();
    assert!(matches!(ReplayLog::open(place.path(), &[LOST]), Err(ReplayLogError::NotOurs { .. })));
}

#[test]
fn a_replay_log_that_is_too_long_is_kept_as_a_damaged_one_and_locks_no_client_out() {
    let (place, good) = small(3);
    for length in [MAX_LENGTH + 1, MAX_LENGTH * 16] {
        fs::write(place.path().join(KNOCKS), &good).unwrap();
        let file = fs::OpenOptions::new().write(true).open(place.path().join(KNOCKS)).unwrap();
        file.set_len(length as u64).unwrap();
        assert_eq!(ReplayLog::look(place.path()).unwrap(), State::Damaged);
        let (_, loaded) = ReplayLog::open(place.path(), &[LOST]).unwrap();
        let loss = Some(Loss { long: true, ..Loss::default() });
        assert_eq!(loaded, Loaded { records: vec![LOST], found: true, loss });
        assert_eq!(fs::metadata(place.path().join(DAMAGED)).unwrap().len(), length as u64);
        assert_eq!(ReplayLog::open(place.path(), &[]).unwrap().1, whole(vec![LOST]));
    }
}

#[test]
fn an_intact_header_of_another_version_is_an_error_and_nothing_changes() {
    let (place, mut bytes) = small(3);
    bytes[..HEADER].copy_from_slice(&of_version(9));
    let path = place.path().join(KNOCKS);
    for length in [HEADER, GROWTH, MAX_LENGTH + 1] {
        fs::write(&path, &bytes).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        let error = ReplayLog::open(place.path(), &[LOST]).unwrap_err();
        assert!(matches!(error, ReplayLogError::Version { version: 9, .. }), "{error}");
        assert!(matches!(ReplayLog::look(place.path()), Err(ReplayLogError::Version { version: 9, .. })));
        assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
    }
    assert!(!place.path().join(DAMAGED).exists());
}

/// An intact header of another version.
fn of_version(version: u8) -> [u8; HEADER] {
    let mut header = record::header(1);
    header[7] = version;
    let check = <sha2::Sha256 as sha2::Digest>::digest(&header[..12]);
    header[12..].copy_from_slice(&check[..4]);
    header
}

#[test]
fn another_version_is_distinguished_from_damage() {
    assert_eq!(record::read(&of_version(9)), Err(Unreadable::Version(9)));
    let mut damaged = of_version(9);
    damaged[7] = 8;
    assert!(matches!(record::read(&damaged), Err(Unreadable::Damaged(_))));
}

#[test]
fn only_one_process_can_open_the_replay_log() {
    let place = tempfile::tempdir().unwrap();
    let (mut replay_log, _) = ReplayLog::open(place.path(), &[]).unwrap();
    assert!(matches!(ReplayLog::open(place.path(), &[]), Err(ReplayLogError::InUse { .. })));
    // A new file does not release the lock.
    replay_log.compact(&[]).unwrap();
    assert!(matches!(ReplayLog::open(place.path(), &[]), Err(ReplayLogError::InUse { .. })));
    drop(replay_log);
    ReplayLog::open(place.path(), &[]).unwrap();
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn files_that_others_could_have_changed_are_refused() {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = ReplayLog::open(place.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("(mode 777); try: chmod go-w "), "{error}");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let elsewhere = place.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    symlink(&elsewhere, place.path().join(KNOCKS)).unwrap();
    assert!(matches!(ReplayLog::open(place.path(), &[]), Err(ReplayLogError::Read { .. })));
    fs::remove_file(place.path().join(KNOCKS)).unwrap();
    // A link in place of the next file is not followed.
    symlink(&elsewhere, place.path().join(NEXT)).unwrap();
    ReplayLog::open(place.path(), &[]).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");

    fs::set_permissions(place.path().join(KNOCKS), fs::Permissions::from_mode(0o660)).unwrap();
    assert!(matches!(ReplayLog::open(place.path(), &[]), Err(ReplayLogError::Writable { mode: 0o660, .. })));
    fs::set_permissions(place.path().join(KNOCKS), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(place.path().join(KNOCKS), Some(4242), None).unwrap();
    let error = ReplayLog::open(place.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("belongs to another user (4242); try: chown 0 "), "{error}");
}

#[test]
fn compaction_keeps_exactly_the_given_records() {
    let place = tempfile::tempdir().unwrap();
    let (mut replay_log, _) = ReplayLog::open(place.path(), &[]).unwrap();
    replay_log.append(&knocks(0..4096)).unwrap();
    assert!(!replay_log.wants_compaction());
    replay_log.append(&knocks(4096..4097)).unwrap();
    assert!(replay_log.wants_compaction());
    replay_log.compact(&knocks(4000..4097)).unwrap();
    assert!(!replay_log.wants_compaction());
    replay_log.append(&knocks(4097..4099)).unwrap();
    drop(replay_log);
    let (_, loaded) = ReplayLog::open(place.path(), &[]).unwrap();
    assert_eq!(loaded, whole(knocks(4000..4099)));
    assert!(!place.path().join(NEXT).exists());
}

#[test]
fn a_killed_compaction_leaves_the_old_replay_log() {
    let place = tempfile::tempdir().unwrap();
    let (mut replay_log, _) = ReplayLog::open(place.path(), &[]).unwrap();
    replay_log.append(&knocks(0..3)).unwrap();
    drop(replay_log);
    let next = Log::<Memory>::whole(2, &knocks(2..3));
    for length in [0, 1, HEADER, HEADER + 1, HEADER + RECORD, next.len()] {
        fs::write(place.path().join(NEXT), &next[..length]).unwrap();
        let (mut replay_log, loaded) = ReplayLog::open(place.path(), &[]).unwrap();
        assert_eq!(loaded.records, knocks(0..3));
        assert!(!place.path().join(NEXT).exists());
        replay_log.compact(&loaded.records).unwrap();
    }
}

#[test]
#[cfg_attr(not(feature = "real"), ignore = "needs root; cargo xtask test runs it")]
fn on_a_full_disk_an_append_fails_and_the_next_one_with_room_succeeds() {
    // A separate file system, in the mount namespace of a thread.
    let story = || {
        let place = doors_lab::private_directory().unwrap();
        let (flags, size) = (rustix::mount::MountFlags::NOSUID, c"size=256k,mode=700");
        rustix::mount::mount("tmpfs", &place, "tmpfs", flags, size).unwrap();
        let (mut replay_log, _) = ReplayLog::open(&place, &[]).unwrap();
        let ballast = place.join("ballast");
        fs::write(&ballast, vec![1; 128 * 1024]).unwrap();

        let mut count = 0;
        let error = loop {
            match replay_log.append(&knocks(count..count + 100)) {
                Ok(()) => count += 100,
                Err(error) => break error,
            }
        };
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left"), "{source}");
        assert!(count > 2000, "{count}");
        replay_log.append(&knocks(0..5000)).unwrap_err();
        replay_log.compact(&knocks(0..5000)).unwrap_err();
        assert!(!place.join(NEXT).exists());

        fs::remove_file(&ballast).unwrap();
        replay_log.append(&knocks(count..count + 1)).unwrap();
        drop(replay_log);
        let (_, loaded) = ReplayLog::open(&place, &[]).unwrap();
        // Complete parts of the five thousand records stay, which does no harm: it only rejects more knocks than
        // necessary.
        assert_eq!(loaded.records[..count as usize], knocks(0..count));
        assert_eq!(loaded.records.last(), Some(&knock(count)));
        assert_eq!(loaded.loss, None);
    };
    std::thread::spawn(story).join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_replay_log_panic(bytes: Vec<u8>, generation: u32) {
        let _ = record::read(&bytes);
        let mut bytes = [&record::header(generation)[..], &bytes].concat();
        prop_assert!(record::read(&bytes).unwrap().records.is_empty());
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join(KNOCKS), &bytes).unwrap();
        ReplayLog::open(place.path(), &[]).unwrap();
        bytes[..HEADER].fill(b'x');
        fs::write(place.path().join(KNOCKS), &bytes).unwrap();
        let (_, loaded) = ReplayLog::open(place.path(), &[LOST]).unwrap();
        prop_assert_eq!(loaded.records, [LOST]);
        prop_assert!(loaded.loss.is_some_and(|loss| loss.header));
    }

    #[test]
    fn whatever_fails_every_acknowledged_record_is_read_and_none_that_was_not_written(
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
                // Unacknowledged records may be there, but only after the others.
                prop_assert!(contents.records.starts_with(&acknowledged));
                prop_assert!(contents.records.len() <= acknowledged.len() + 40);
            }
        }
    }

    #[test]
    fn the_disk_may_write_the_parts_of_one_append_in_any_order(
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
        // Any of the other records may be there. Missing ones before the last are counted.
        let numbers: Vec<u64> = contents.records.iter().map(|record| record.time).collect();
        prop_assert!(numbers.is_sorted() && numbers.iter().all(|number| *number < 309));
        let last = numbers.last().map_or(0, |last| last + 1) as usize;
        let lost = contents.loss.unwrap_or_default().records;
        prop_assert!(lost >= last - numbers.len(), "{lost}");
        prop_assert!(lost <= 309 - numbers.len(), "{lost}");
    }
}
