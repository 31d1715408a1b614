//! The bytes of the journal: its header, its records, and where in a file they end.

use doors_core::freshness::Record;
use doors_spa::identity::ClientId;
use sha2::{Digest as _, Sha256};

/// The length of the header in bytes.
pub(super) const HEADER: usize = 16;
/// The length of a record in bytes.
pub(super) const RECORD: usize = 32;
/// The most records that are written at once. A crash can tear no more than these.
pub(super) const AT_ONCE: usize = 512;
const MAGIC: &[u8; 6] = b"knocks";
const VERSION: u16 = 1;
const BLANK: [u8; RECORD] = [0; RECORD];

/// A record's bytes in the file with this generation, in this slot, as the `place`th of those that are
/// written at once.
pub(super) fn encode(record: &Record, generation: u32, slot: usize, place: u16) -> [u8; RECORD] {
    let mut bytes = BLANK;
    let time = record.time.to_be_bytes();
    let place = place.to_be_bytes();
    let body = [&record.client.0[..], &time, &record.nonce, &place];
    let check = check(&body, generation, slot);
    for (to, from) in bytes.iter_mut().zip(body.into_iter().chain([&check[..]]).flatten()) {
        *to = *from;
    }
    bytes
}

/// The record in these bytes, and its place among those that were written at once.
fn decode(bytes: &[u8; RECORD], generation: u32, slot: usize) -> Option<(Record, u16)> {
    let (client, rest) = bytes.split_first_chunk::<8>()?;
    let (time, rest) = rest.split_first_chunk::<8>()?;
    let (nonce, rest) = rest.split_first_chunk::<8>()?;
    let (place, told) = rest.split_first_chunk::<2>()?;
    let right = told == check(&[client, time, nonce, place], generation, slot);
    let record = Record { client: ClientId(*client), time: u64::from_be_bytes(*time), nonce: *nonce };
    right.then_some((record, u16::from_be_bytes(*place)))
}

/// What stands in a file.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Contents {
    pub(super) generation: u32,
    pub(super) records: Vec<Record>,
    /// After the last record is something that is none.
    pub(super) torn: bool,
}

/// Why the bytes of a file are no journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// It ends within the header: nothing was ever written after it.
    Empty,
    /// It begins in another way.
    NotOurs,
    /// It was written by another version.
    Version(u16),
    /// What begins at this byte was whole once.
    Damaged(usize),
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

/// Reads a file. The data end at the first slot without a record; what follows has to be blank, or torn.
///
/// Torn is what a crash leaves of records that were written at once: the disk may have taken any of them,
/// in any order, and nobody was told that they are there. A record that was written *later* proves that
/// the bad slot was once whole, and that is damage.
pub(super) fn read(bytes: &[u8]) -> Result<Contents, Unreadable> {
    let (generation, slots) = read_header(bytes)?;
    let (slots, rest) = slots.as_chunks::<RECORD>();
    let mut records = Vec::new();
    for (slot, bytes) in slots.iter().enumerate() {
        let Some((record, _)) = decode(bytes, generation, slot) else { break };
        records.push(record);
    }

    let end = records.len();
    let damaged = Unreadable::Damaged(offset(end));
    let mut torn = rest.iter().any(|byte| *byte != 0);
    for (slot, bytes) in slots.iter().enumerate().skip(end).filter(|(_, bytes)| **bytes != BLANK) {
        torn = true;
        let distance = slot.saturating_sub(end);
        let later = decode(bytes, generation, slot).is_some_and(|(_, place)| usize::from(place) < distance);
        if later || distance >= AT_ONCE {
            return Err(damaged);
        }
    }
    Ok(Contents { generation, records, torn })
}

fn read_header(bytes: &[u8]) -> Result<(u32, &[u8]), Unreadable> {
    let Some((header, slots)) = bytes.split_first_chunk::<HEADER>() else {
        let ours = bytes.iter().zip(MAGIC).all(|(is, should)| is == should);
        return Err(if ours { Unreadable::Empty } else { Unreadable::NotOurs });
    };
    let (start, told) = header.split_last_chunk::<4>().ok_or(Unreadable::NotOurs)?;
    let [magic @ .., v0, v1, g0, g1, g2, g3] = start else { return Err(Unreadable::NotOurs) };
    if magic != MAGIC {
        return Err(Unreadable::NotOurs);
    }
    if *told != header_check(start) {
        return Err(Unreadable::Damaged(0));
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
fn check(body: &[&[u8]], generation: u32, slot: usize) -> [u8; 6] {
    let mut hash = Sha256::new();
    for part in body {
        hash.update(part);
    }
    hash.update(generation.to_be_bytes());
    hash.update(u64::try_from(slot).unwrap_or(u64::MAX).to_be_bytes());
    hash.finalize().first_chunk().copied().unwrap_or_default()
}
