//! Lets every knock count once.
//!
//! ```text
//!                    ┌ challenge in place ──► made here, for this client, of late, and not used? ─┐
//!   Proven ── seen? ─┤                                                                            ├─► Fresh
//!      │        │    └ none ──► time within the window, and after the floor? ─────────────────────┘
//!      │        └ yes: silence               └ no: Stale; the client gets a challenge
//! ```
//!
//! What was accepted is remembered by client: the times and nonces of the latest, and the *floor*, below
//! which nothing is accepted by its time any more. Both are on disk before a knock has any effect, so a
//! restart forgets nothing. If the disk has lost them, the time of the start is the floor.
//!
//! Time never locks anybody out: whoever is stale gets a challenge, and then time is not asked.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::{net::IpAddr, time::Duration};

use doors_spa::{
    gateway::Proven,
    identity::ClientId,
    receipt::ReceiptKey,
    request::{Operation, Request},
};

use crate::{
    challenge::RunKey,
    limits::{CHALLENGES_USED, KNOCKS_REMEMBERED},
    time::{Moment, Wall},
};

/// A request of a client that was never seen before. Only [`Freshness::judge`] makes one.
#[derive(Debug)]
pub struct Fresh {
    pub(crate) request: Request,
    receipt_key: ReceiptKey,
}

impl Fresh {
    /// The address that the client names.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.request.address
    }

    /// What seals the receipt.
    pub(crate) fn receipt_key(&self) -> &ReceiptKey {
        &self.receipt_key
    }

    /// What is asked for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.request.operation
    }
}

/// Why a client's request is not fresh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unfresh {
    /// It was accepted before.
    Replayed,
    /// Its time says nothing; a challenge would.
    Stale,
    /// The client has used up its share of challenges for this minute.
    Crowded,
}

/// One accepted request, as it is kept on disk.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Record {
    /// Whose it was.
    pub client: ClientId,
    /// Its time, in milliseconds since 1970. The highest bit says that it was accepted for its challenge, so
    /// that its time may be anything; the bit below says that this is no request, but the client's floor, or
    /// that of everybody if the client is zero.
    pub time: u64,
    /// Its nonce.
    pub nonce: [u8; 8],
}

/// See [`Record::time`].
const BY_CHALLENGE: u64 = 1 << 63;
const FLOOR: u64 = 1 << 62;
const EVERYBODY: ClientId = ClientId([0; 8]);

/// A time without the two bits. No clock gets so far.
fn bare(time: u64) -> u64 {
    time & !(BY_CHALLENGE | FLOOR)
}

/// What is remembered of one client.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Accepted by their time, all above the floor.
    by_time: BTreeSet<(u64, [u8; 8])>,
    /// Accepted for their challenge, the latest last.
    by_challenge: VecDeque<(u64, [u8; 8])>,
    /// Challenges of this run that are used, and when they are worthless anyway.
    used: VecDeque<([u8; 8], Moment)>,
    floor: u64,
}

impl Memory {
    fn has_seen(&self, time: u64, nonce: [u8; 8]) -> bool {
        self.by_time.contains(&(time, nonce)) || self.by_challenge.contains(&(bare(time), nonce))
    }

    fn note_time(&mut self, time: u64, nonce: [u8; 8]) {
        self.by_time.insert((time, nonce));
        // What is forgotten must not be accepted again.
        while self.by_time.len() > KNOCKS_REMEMBERED
            && let Some((time, _)) = self.by_time.pop_first()
        {
            self.floor = self.floor.max(time);
        }
    }

    fn note_challenge(&mut self, time: u64, nonce: [u8; 8]) {
        self.by_challenge.push_back((bare(time), nonce));
        while self.by_challenge.len() > KNOCKS_REMEMBERED {
            self.by_challenge.pop_front();
        }
    }
}

/// What was accepted, of all clients.
#[derive(Clone, Debug)]
pub struct Freshness {
    window: Duration,
    memories: BTreeMap<ClientId, Memory>,
    /// The floor of clients of whom nothing is remembered.
    floor: u64,
    /// Set if the memories of the run before are lost: how far the date was ahead of the monotonic clock. A
    /// date that is set forward later would bring back knocks from before the start.
    lost_at: Option<u64>,
}

/// A challenge is worthless after this long; see `challenge`.
const CHALLENGE_LIVES: Duration = Duration::from_secs(90);

impl Freshness {
    /// Starts with what the run before has left; `None` if that is lost.
    pub fn new(window: Duration, records: Option<&[Record]>, now: Moment, wall: Wall) -> Self {
        let mut freshness = Self { window, memories: BTreeMap::new(), floor: 0, lost_at: None };
        match records {
            Some(records) => {
                records.iter().for_each(|record| freshness.remember(record));
                // An earlier run has lost its memory, and its date may have been as wrong as this one's.
                freshness.lost_at = (freshness.floor > 0).then(|| ahead(now, wall));
            }
            None => {
                freshness.lost_at = Some(ahead(now, wall));
                freshness.floor = freshness.end_of_window(wall);
            }
        }
        freshness
    }

    /// Accepts another difference between the clocks from here on.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Watches the date. Gives what has to be on disk if it was set forward after the memory of before was
    /// lost: knocks from before the start must not come back with it.
    pub fn watch_the_date(&mut self, now: Moment, wall: Wall) -> Option<Record> {
        let ahead = ahead(now, wall);
        if ahead <= self.lost_at?.saturating_add(1000) {
            return None;
        }
        self.lost_at = Some(ahead);
        let record = Record { client: EVERYBODY, time: self.end_of_window(wall) | FLOOR, nonce: [0; 8] };
        self.remember(&record);
        Some(record)
    }

    /// Judges a request that its client has signed. Gives what has to be on disk before anything is done.
    ///
    /// # Errors
    /// [`Unfresh`] says why it must not be done.
    pub fn judge(
        &mut self,
        proven: Proven,
        source: IpAddr,
        key: &RunKey,
        now: Moment,
        wall: Wall,
    ) -> Result<(Fresh, Record), (Unfresh, ReceiptKey)> {
        let (request, receipt_key) = proven.into_parts();
        let (client, time, nonce) = (request.client, request.time, request.nonce);
        let by_challenge = request.challenge != [0; 8];
        let accepted = match by_challenge {
            true => self.judge_challenge(&request, source, key, now),
            false => self.judge_time(&request, wall),
        };
        if let Err(unfresh) = accepted {
            return Err((unfresh, receipt_key));
        }
        let time = if by_challenge { bare(time) | BY_CHALLENGE } else { time };
        let record = Record { client, time, nonce };
        self.remember(&record);
        Ok((Fresh { request, receipt_key }, record))
    }

    /// Everything that has to stay on disk.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let floor = |floor: u64| (floor > 0).then_some((floor | FLOOR, [0; 8]));
        let record = |client, (time, nonce)| Record { client, time, nonce };
        let of_one = move |(client, memory): (&ClientId, &Memory)| {
            let mut all: VecDeque<(u64, [u8; 8])> = floor(memory.floor).into_iter().collect();
            all.extend(&memory.by_time);
            all.extend(memory.by_challenge.iter().map(|(time, nonce)| (time | BY_CHALLENGE, *nonce)));
            let client = *client;
            all.into_iter().map(move |item| record(client, item))
        };
        let of_everybody = floor(self.floor).map(|item| record(EVERYBODY, item));
        of_everybody.into_iter().chain(self.memories.iter().flat_map(of_one))
    }

    fn judge_time(&self, request: &Request, wall: Wall) -> Result<(), Unfresh> {
        let memory = self.memories.get(&request.client);
        if memory.is_some_and(|memory| memory.has_seen(request.time, request.nonce)) {
            return Err(Unfresh::Replayed);
        }
        let floor = memory.map_or(self.floor, |memory| memory.floor);
        let apart = u128::from(request.time.abs_diff(wall.0));
        match apart <= self.window.as_millis() && request.time > floor {
            true => Ok(()),
            false => Err(Unfresh::Stale),
        }
    }

    fn judge_challenge(
        &mut self,
        request: &Request,
        source: IpAddr,
        key: &RunKey,
        now: Moment,
    ) -> Result<(), Unfresh> {
        let known = self.memories.get_mut(&request.client);
        if known.as_ref().is_some_and(|memory| memory.has_seen(request.time, request.nonce)) {
            return Err(Unfresh::Replayed);
        }
        if !key.recognises(request.challenge, request.client, source, now) {
            return Err(Unfresh::Stale);
        }
        let memory = match known {
            Some(memory) => memory,
            None => self.memories.entry(request.client).or_insert(Memory {
                // Whatever held for the unknown client holds for the known one.
                floor: self.floor,
                ..Memory::default()
            }),
        };
        memory.used.retain(|(_, worthless)| *worthless > now);
        if memory.used.len() >= CHALLENGES_USED {
            return Err(Unfresh::Crowded);
        }
        // One challenge serves for all knocks of a client in its slot, each with its own nonce; what is
        // bounded is how many of these a client can have.
        memory.used.push_back((request.nonce, now.after(CHALLENGE_LIVES)));
        Ok(())
    }

    fn remember(&mut self, record: &Record) {
        let is_floor = record.time & FLOOR != 0;
        if is_floor && record.client == EVERYBODY {
            self.floor = self.floor.max(bare(record.time));
            for memory in self.memories.values_mut() {
                memory.floor = memory.floor.max(self.floor);
            }
            return;
        }
        let floor = self.floor;
        let new = || Memory { floor, ..Memory::default() };
        let memory = self.memories.entry(record.client).or_insert_with(new);
        match record.time & BY_CHALLENGE {
            _ if is_floor => memory.floor = memory.floor.max(bare(record.time)),
            0 => memory.note_time(record.time, record.nonce),
            _ => memory.note_challenge(record.time, record.nonce),
        }
    }

    fn end_of_window(&self, wall: Wall) -> u64 {
        wall.0.saturating_add(u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How far the date is ahead of the monotonic clock, in milliseconds.
fn ahead(now: Moment, wall: Wall) -> u64 {
    wall.0.saturating_sub(u64::try_from(now.since_start().as_millis()).unwrap_or(u64::MAX))
}
