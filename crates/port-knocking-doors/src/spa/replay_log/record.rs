//! Encodes and decodes the replay log: its header and its records. Tells intact records from damaged ones.

use std::fmt;

use doors_core::spa::replay::Record;
use doors_spa::identity::ClientId;
use sha2::{Digest as _, Sha256};

/// The unit in which the file grows. A length that is not a multiple of it shows that the file was truncated. Zeros
/// are written, not only reserved: when reserved space is first used, the file system records that in metadata, which
/// would have to be synced, too.
pub(super) const GROWTH: usize = 64 * 1024;
/// The length of the header in bytes.
pub(super) const HEADER: usize = 16;
/// The length of a record in bytes.
pub(super) const RECORD: usize = 32;
const MAGIC: &[u8; 6] = b"knocks";
const VERSION: u16 = 1;
const BLANK: [u8; RECORD] = [0; RECORD];

/// Encodes a record for this slot of the file with this generation.
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

/// Decodes a record; `None` if its check fails.
fn decode(bytes: &[u8; RECORD], generation: u32, slot: usize) -> Option<Record> {
    let (client, rest) = bytes.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (nonce, told) = rest.split_first_chunk::<8>()?;
    let right = told == check(&[client, time, nonce], generation, slot);
    let record = Record { client: ClientId(*client), time: u64::from_be_bytes(*time), nonce: *nonce };
    right.then_some(record)
}

/// The contents of a file.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Contents {
    pub(super) generation: u32,
    pub(super) records: Vec<Record>,
    pub(super) loss: Option<Loss>,
}

/// What is not intact in a replay log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Loss {
    /// Whether the header is damaged, so that nothing in the file is usable.
    pub header: bool,
    /// Whether the file is longer than any that this program writes, so that nothing in it is usable.
    pub long: bool,
    /// The number of slots that hold no intact record.
    pub records: usize,
    /// The number of bytes that are present of the damaged header and of these slots.
    pub bytes: usize,
    /// The minimum number of bytes missing at the end. What they contained is unknown.
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

/// Why a file is not a usable replay log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// It has another version.
    Version(u16),
    /// Nothing in it is usable.
    Damaged(Loss),
}

/// Encodes the header of a file.
pub(super) fn header(generation: u32) -> [u8; HEADER] {
    let [v0, v1] = VERSION.to_be_bytes();
    let [g0, g1, g2, g3] = generation.to_be_bytes();
    let [m0, m1, m2, m3, m4, m5] = *MAGIC;
    let start = [m0, m1, m2, m3, m4, m5, v0, v1, g0, g1, g2, g3];
    let [c0, c1, c2, c3] = header_check(&start);
    [m0, m1, m2, m3, m4, m5, v0, v1, g0, g1, g2, g3, c0, c1, c2, c3]
}

/// The offset of a slot in the file.
pub(super) fn offset(slot: usize) -> usize {
    slot.saturating_mul(RECORD).saturating_add(HEADER)
}

/// Parses a file. Every intact record counts, wherever it is: its check binds it to the file and the slot. A slot
/// that is not intact holds either an unacknowledged record that a crash has torn, or damage. The two look alike, so
/// both count as lost.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Unreadable> {
    let missing = bytes.len().max(1).next_multiple_of(GROWTH).saturating_sub(bytes.len());
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

/// Why a file that is too long to be read and starts with these bytes is unusable.
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

/// Binds a record to its file and its slot, so that old bytes that reappear elsewhere are not taken for a record.
fn check(body: &[&[u8]], generation: u32, slot: usize) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in body {
        hash.update(part);
    }
    hash.update(generation.to_be_bytes());
    hash.update(u64::try_from(slot).unwrap_or(u64::MAX).to_be_bytes());
    hash.finalize().first_chunk().copied().unwrap_or_default()
}
