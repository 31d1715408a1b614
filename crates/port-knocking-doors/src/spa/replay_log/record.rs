//! The bytes of the replay log: its header, its records, and what of them is whole.

use std::fmt;

use doors_core::spa::replay::Record;
use doors_spa::identity::ClientId;
use sha2::{Digest as _, Sha256};

/// By how much the file grows, and so a divisor of its length: another length says that it was cut. Zeros are
/// written, not only reserved: a file system notes on its own what was reserved and is now used, and that note would have
/// to be on the disk too.
pub(super) const STEP: usize = 64 * 1024;
/// The length of the header in bytes.
pub(super) const HEADER: usize = 16;
/// The length of a record in bytes.
pub(super) const RECORD: usize = 32;
const MAGIC: &[u8; 6] = b"knocks";
const VERSION: u16 = 1;
const BLANK: [u8; RECORD] = [0; RECORD];

/// A record's bytes in the file with this generation, in this slot.
pub(super) fn encode(record: &Record, generation: u32, slot: usize) -> [u8; RECORD] {
    let mut bytes = BLANK;
    let time = record.time.to_be_bytes();
    let body = [&record.client.0[..], &time, &record.nonce];
    let check = check(&body, generation, slot);
    for (to, from) in bytes.iter_mut().zip(body.into_iter().chain([&check[..]]).flatten()) {
        *to = *from;
    }
    bytes
}

/// The record in these bytes.
fn decode(bytes: &[u8; RECORD], generation: u32, slot: usize) -> Option<Record> {
    let (client, rest) = bytes.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (nonce, told) = rest.split_first_chunk::<8>()?;
    let right = told == check(&[client, time, nonce], generation, slot);
    let record = Record { client: ClientId(*client), time: u64::from_be_bytes(*time), nonce: *nonce };
    right.then_some(record)
}

/// What stands in a file.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Contents {
    pub(super) generation: u32,
    pub(super) records: Vec<Record>,
    pub(super) loss: Option<Loss>,
}

/// What of a replay log is not whole.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Loss {
    /// The beginning says no longer what the file is, so that nothing in it is believed.
    pub header: bool,
    /// It is longer than any that this program writes, so that nothing in it is believed.
    pub long: bool,
    /// Places of records in which none is whole.
    pub records: usize,
    /// The bytes of the header and of these places that are there.
    pub bytes: usize,
    /// So many bytes are missing at the end, at the least. What stood there is not known.
    pub missing: usize,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, long, records, bytes, missing } = *self;
        let mut what = Vec::new();
        for (so, why) in [(header, "its header is damaged"), (long, "it is longer than a replay log can be")]
        {
            if so {
                what.push(format!("{why}, so that nothing in it counts; it is kept as knocks.damaged"));
            }
        }
        if records > 0 {
            let (s, are) = if records == 1 { ("", "is") } else { ("s", "are") };
            what.push(format!("{records} record{s} ({bytes} bytes) {are} not whole"));
        }
        if missing > 0 {
            what.push(format!("at least {missing} bytes are missing at its end"));
        }
        f.write_str(&what.join(", and "))
    }
}

/// Why the bytes of a file are no replay log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// It was written by another version.
    Version(u16),
    /// It says nothing that can be believed.
    Damaged(Loss),
}

/// The header of a file.
pub(super) fn header(generation: u32) -> [u8; HEADER] {
    let [v0, v1] = VERSION.to_be_bytes();
    let [g0, g1, g2, g3] = generation.to_be_bytes();
    let [m0, m1, m2, m3, m4, m5] = *MAGIC;
    let start = [m0, m1, m2, m3, m4, m5, v0, v1, g0, g1, g2, g3];
    let [c0, c1, c2, c3] = header_check(&start);
    [m0, m1, m2, m3, m4, m5, v0, v1, g0, g1, g2, g3, c0, c1, c2, c3]
}

/// Where a slot begins in the file.
pub(super) fn offset(slot: usize) -> usize {
    slot.saturating_mul(RECORD).saturating_add(HEADER)
}

/// Reads a file. Every record that is whole counts, wherever it stands: its check binds it to its file and
/// slot. What is not, is what a crash has left of records of which nobody was told that they are there, or
/// damage; which of them is not known, so it is as if lost.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Unreadable> {
    let missing = bytes.len().max(1).next_multiple_of(STEP).saturating_sub(bytes.len());
    let (generation, slots) = read_header(bytes).map_err(|unreadable| match unreadable {
        Unreadable::Damaged(loss) => Unreadable::Damaged(Loss { missing, ..loss }),
        version @ Unreadable::Version(_) => version,
    })?;
    let (slots, rest) = slots.as_chunks::<RECORD>();
    let blank = |bytes: &&[u8; RECORD]| **bytes == BLANK;
    let end = slots.len().saturating_sub(slots.iter().rev().take_while(blank).count());
    let written = slots.iter().enumerate().take(end);
    let records: Vec<Record> = written.filter_map(|(slot, bytes)| decode(bytes, generation, slot)).collect();
    let mut lost = end.saturating_sub(records.len());
    let mut lost_bytes = lost.saturating_mul(RECORD);
    if rest.iter().any(|byte| *byte != 0) {
        lost = lost.saturating_add(1);
        lost_bytes = lost_bytes.saturating_add(rest.len());
    }
    let loss = Loss { records: lost, bytes: lost_bytes, missing, ..Loss::default() };
    Ok(Contents { generation, records, loss: (loss != Loss::default()).then_some(loss) })
}

/// Why a file that begins so, and is too long to be read, is not.
pub(super) fn too_long(beginning: &[u8]) -> Unreadable {
    match read_header(beginning) {
        Err(version @ Unreadable::Version(_)) => version,
        Ok(_) | Err(Unreadable::Damaged(_)) => Unreadable::Damaged(Loss { long: true, ..Loss::default() }),
    }
}

fn read_header(bytes: &[u8]) -> Result<(u32, &[u8]), Unreadable> {
    let damaged = |bytes| Unreadable::Damaged(Loss { header: true, bytes, ..Loss::default() });
    let Some((header, slots)) = bytes.split_first_chunk::<HEADER>() else { return Err(damaged(bytes.len())) };
    let [magic @ .., v0, v1, g0, g1, g2, g3, c0, c1, c2, c3] = header;
    let [m0, m1, m2, m3, m4, m5] = *MAGIC;
    let named = [m0, m1, m2, m3, m4, m5, *v0, *v1, *g0, *g1, *g2, *g3];
    if magic != MAGIC || [*c0, *c1, *c2, *c3] != header_check(&named) {
        return Err(damaged(HEADER));
    }
    match u16::from_be_bytes([*v0, *v1]) {
        VERSION => Ok((u32::from_be_bytes([*g0, *g1, *g2, *g3]), slots)),
        other => Err(Unreadable::Version(other)),
    }
}

fn header_check(start: &[u8]) -> [u8; 4] {
    Sha256::digest(start).first_chunk().copied().unwrap_or_default()
}

/// Binds a record to its file and its slot, so that old bytes that come up elsewhere are no record.
fn check(body: &[&[u8]], generation: u32, slot: usize) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in body {
        hash.update(part);
    }
    hash.update(generation.to_be_bytes());
    hash.update(u64::try_from(slot).unwrap_or(u64::MAX).to_be_bytes());
    hash.finalize().first_chunk().copied().unwrap_or_default()
}
