//! Lets every knock count once.
//!
//! ```text
//!                    ┌ challenge in place ──► made here, for this client, of late, and not used? ─┐
//!   Proven ── seen? ─┤                                                                            ├─► Fresh
//!      │        │    └ none ──► time within the window, and after the low-water marks? ────────────────────┘
//!      │        └ yes: silence               └ no: Stale; the low-water mark rises to its time, and the client gets
//!      │                                           a challenge
//!      └─ whatever the answer: the request is spent, but for one whose challenge is worthless
//! ```
//!
//! By its time alone a request is accepted only if it is later than two low-water marks.
//!
//! - *The client's own*: what was accepted of it and is forgotten, and what was refused for its time. A knock
//!   that is dated ahead would be good as soon as our date gets there; so the low-water mark rises to its time, on disk,
//!   before it is answered. If the disk cannot take it, the answer says so. No other client's low-water mark is touched
//!   by that, or one clock could make all others knock twice.
//! - *Everybody's*: the end of the window at the start, and the latest time that was ever accepted of anybody
//!   by its time. What was made before the start, with a clock that is ahead by no more than the window, lies
//!   below the first; what was accepted by an earlier run whose date was later than ours, below the second. So
//!   neither a date that goes back nor a state that is restored brings an accepted knock back.
//!
//! Everybody's low-water mark is a number on the disk that only rises: a window that is made smaller does not lower it, nor
//! does a later start. After a loss it is the end of the widest window that can be configured, since how wide the
//! window was is lost, too.
//!
//! While it runs, a date that jumps is a start: from there on, everybody's low-water mark is the end of the window at
//! the later of both dates. A date that is set forward was behind, and so was what the low-water mark was made of: as far
//! as the date, the low-water mark is set forward, but never beyond the end of the widest window.
//!
//! On disk is what a later start cannot know: what was accepted and what was refused for its time, of each client,
//! and everybody's low-water mark.
//!
//! What is *spent* opens nothing in this run, though its client was told that it had too much on its way or that
//! it cannot be recorded. By time, what is forgotten is below the low-water mark. By challenge, a client that has answered
//! more challenges than can be remembered has those that it got so far made worthless, and gets another when it
//! asks. What comes with a challenge of another run, source, slot or round is not remembered: that can never
//! become good there, and with recordings of it anybody could make the client's challenges worthless.
//!
//! Time never locks anybody out: a client whose request is stale gets a challenge, and then time is not asked.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::{net::IpAddr, time::Duration};

use doors_spa::{
    gateway::Proven,
    identity::ClientId,
    receipt::ReceiptKey,
    request::{Operation, Request},
};

use crate::{
    limits::{CHALLENGES_REMEMBERED, KNOCKS_REMEMBERED, WIDEST_WINDOW},
    spa::challenge::RunKey,
    time::{Moment, Wall},
};

/// A request of a client that was never seen before. Only [`ReplayGuard::judge`] makes one.
#[derive(Debug)]
pub struct Accepted {
    pub(crate) request: Request,
}

impl Accepted {
    /// The address that the client names.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.request.address
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
    /// It was seen before.
    Replayed,
    /// Its time says nothing; a challenge would. With what has to be on disk before the client gets one.
    Stale(Option<Record>),
}

/// One accepted request, or a low-water mark, as it is kept on disk.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Record {
    /// Whose it was.
    pub client: ClientId,
    /// Its time, in milliseconds since 1970. The highest bit says that it was accepted for its challenge, so
    /// that its time may be anything; the bit below says that this is no request, but the client's low-water mark, or
    /// that of everybody if the client is zero.
    pub time: u64,
    /// Its nonce.
    pub nonce: [u8; 8],
}

impl Record {
    fn low_water(client: ClientId, time: u64) -> Self {
        Self { client, time: time.min(LATEST) | FLOOR, nonce: [0; 8] }
    }
}

/// See [`Record::time`].
const BY_CHALLENGE: u64 = 1 << 63;
const FLOOR: u64 = 1 << 62;
const EVERYBODY: ClientId = ClientId([0; 8]);
/// The latest time that leaves room for the two bits. No clock gets so far.
const LATEST: u64 = FLOOR - 1;

/// A time without the two bits.
fn bare(time: u64) -> u64 {
    time & LATEST
}

/// A date that differs from the monotonic clock by so much more or less than before has jumped.
const JUMP: i64 = 1000;

/// A challenge is worthless after this long; see `challenge`.
const CHALLENGE_LIVES: Duration = Duration::from_secs(90);

/// What is remembered of one client.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// Within the window when they came, by their time.
    by_time: BTreeSet<(u64, [u8; 8])>,
    /// With a challenge, the latest last, and when that challenge is worthless.
    by_challenge: VecDeque<(u64, [u8; 8], Moment)>,
    /// Challenges of earlier rounds are worthless.
    round: u64,
    low_water: u64,
    /// What the disk is known to say of the low-water mark. Less than `low_water` while the disk has not answered, or fails.
    floor_on_disk: u64,
}

impl Memory {
    fn has_seen(&self, time: u64, nonce: [u8; 8]) -> bool {
        let challenged = (bare(time), nonce);
        self.by_time.contains(&(time, nonce))
            || self.by_challenge.iter().any(|(time, nonce, _)| (*time, *nonce) == challenged)
    }

    fn note_time(&mut self, time: u64, nonce: [u8; 8]) {
        self.by_time.insert((time, nonce));
        // What is forgotten must not be accepted again.
        while self.by_time.len() > KNOCKS_REMEMBERED
            && let Some((time, _)) = self.by_time.pop_first()
        {
            self.low_water = self.low_water.max(time);
        }
    }

    fn note_challenge(&mut self, time: u64, nonce: [u8; 8], now: Moment, worthless: Moment) {
        self.by_challenge.push_back((bare(time), nonce, worthless));
        while self.by_challenge.len() > CHALLENGES_REMEMBERED
            && let Some((_, _, worthless)) = self.by_challenge.pop_front()
        {
            // What is forgotten must not be accepted again.
            if worthless > now {
                self.round = self.round.saturating_add(1);
                // So are the challenges of all others: forgetting those ends no other round.
                self.by_challenge.iter_mut().for_each(|(_, _, worthless)| *worthless = now);
            }
        }
    }
}

/// What was accepted, of all clients.
#[derive(Clone, Debug)]
pub struct ReplayGuard {
    window: Duration,
    memories: BTreeMap<ClientId, Memory>,
    /// Everybody's low-water mark in this run. It only rises.
    low_water: u64,
    /// Everybody's low-water mark in the next run, as the disk will know it: ours, or the latest time that was accepted of
    /// anybody by its time, if that is later.
    highest: u64,
    /// The disk has not been given `highest`.
    unwritten: bool,
    /// The date at the start, or at the latest jump of the date if that was later.
    since: u64,
    /// How far the date is ahead of the monotonic clock, in milliseconds.
    ahead: i64,
}

impl ReplayGuard {
    /// Starts with what the run before has left.
    #[must_use]
    pub fn new(window: Duration, records: &[Record], now: Moment, wall: Wall) -> Self {
        let mut replay = Self {
            window,
            memories: BTreeMap::new(),
            low_water: 0,
            highest: 0,
            unwritten: false,
            since: wall.0,
            ahead: ahead(now, wall),
        };
        // A challenge of another run is worthless.
        records.iter().for_each(|record| replay.remember(record, now, now));
        replay.low_water = replay.highest;
        replay.raise(end_of_window(wall.0, window));
        replay.memories.values_mut().for_each(|memory| memory.floor_on_disk = memory.low_water);
        replay
    }

    /// What a disk that has lost something has to hold from a start at this date on: what was accepted before
    /// is not known, and was not dated later than this, however wide the window was.
    #[must_use]
    pub fn lost(wall: Wall) -> Record {
        Record::low_water(EVERYBODY, end_of_window(wall.0, WIDEST_WINDOW))
    }

    /// Accepts another difference between the clocks from here on. What was made before the start, by a clock that
    /// is ahead by no more than a wider one, is accepted no more than before.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
        self.raise(end_of_window(self.since, window));
    }

    /// Watches the date.
    pub fn watch_the_date(&mut self, now: Moment, wall: Wall) {
        let (before, after) = (self.ahead, ahead(now, wall));
        if before.abs_diff(after) <= JUMP.unsigned_abs() {
            return;
        }
        self.ahead = after;
        // Where the date would be without the jump.
        let unmoved = u64::try_from(milliseconds(now).saturating_add(before)).unwrap_or(0);
        self.since = self.since.max(wall.0).max(unmoved);
        let moved = self.low_water.saturating_add(wall.0.saturating_sub(unmoved));
        self.raise(moved.min(end_of_window(wall.0, WIDEST_WINDOW)));
        self.raise(end_of_window(self.since, self.window));
    }

    /// What has to be on disk because everybody's low-water mark has risen.
    pub fn poll_floor(&mut self) -> Option<Record> {
        core::mem::take(&mut self.unwritten).then(|| Record::low_water(EVERYBODY, self.highest))
    }

    /// Raises everybody's low-water mark. It never falls: below it is what nobody remembers.
    fn raise(&mut self, to: u64) {
        let to = to.min(LATEST);
        self.low_water = self.low_water.max(to);
        self.unwritten |= to > self.highest;
        self.highest = self.highest.max(to);
    }

    /// Judges a request that its client has signed. Gives what seals its receipt, and what has to be on disk
    /// before anything is done. Whatever comes of it, the same request is never fresh again in this run; only one
    /// whose challenge was for another source may still come from there.
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
    ) -> (ReceiptKey, Result<(Accepted, Record), Unfresh>) {
        let (request, receipt_key) = proven.into_parts();
        let seen =
            self.memories.get(&request.client).map(|memory| memory.has_seen(request.time, request.nonce));
        let judged = match request.challenge {
            _ if seen == Some(true) => Err(Unfresh::Replayed),
            [0, 0, 0, 0, 0, 0, 0, 0] => self.judge_time(&request, now, wall),
            _ => self.judge_challenge(&request, source, key, now),
        };
        (receipt_key, judged.map(|record| (Accepted { request }, record)))
    }

    /// What the disk will say of a client's low-water mark when it holds all that it was given so far.
    #[must_use]
    pub fn low_water(&self, client: ClientId) -> u64 {
        self.memories.get(&client).map_or(0, |memory| memory.low_water)
    }

    /// The disk says this of a client's low-water mark.
    pub fn confirm_floor(&mut self, client: ClientId, low_water: u64) {
        if let Some(memory) = self.memories.get_mut(&client) {
            memory.floor_on_disk = memory.floor_on_disk.max(low_water);
        }
    }

    /// A challenge for this client.
    #[must_use]
    pub fn challenge(&self, key: &RunKey, client: ClientId, source: IpAddr, now: Moment) -> [u8; 8] {
        key.challenge(client, source, self.round(client), now)
    }

    /// Everything that has to stay on disk.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let low_water = |client, time: u64| (time > 0).then(|| Record::low_water(client, time));
        let of_one = move |(client, memory): (&ClientId, &Memory)| {
            let client = *client;
            let record = |(time, nonce)| Record { client, time, nonce };
            let mut all: VecDeque<Record> = low_water(client, memory.low_water).into_iter().collect();
            all.extend(memory.by_time.iter().copied().map(record));
            // A later start believes no challenge of this run. It knows the latest of these again, to be silent.
            let untold = memory.by_challenge.len().saturating_sub(KNOCKS_REMEMBERED);
            let by_challenge = memory.by_challenge.iter().skip(untold);
            all.extend(by_challenge.map(|(time, nonce, _)| record((time | BY_CHALLENGE, *nonce))));
            all
        };
        low_water(EVERYBODY, self.highest).into_iter().chain(self.memories.iter().flat_map(of_one))
    }

    fn judge_time(&mut self, request: &Request, now: Moment, wall: Wall) -> Result<Record, Unfresh> {
        let Request { client, time, nonce, .. } = *request;
        let own_floor = self.low_water(client);
        let low_water = own_floor.max(self.low_water);
        let apart = u128::from(time.abs_diff(wall.0));
        if apart <= self.window.as_millis() && time > low_water && time <= LATEST {
            let record = Record { client, time, nonce };
            self.remember(&record, now, now);
            return Ok(record);
        }
        // Its own low-water mark, though it may be below everybody's: that one may not be on disk yet. And nothing is answered
        // that the disk does not know of: what it has failed to write is asked of it again.
        let on_disk = self.memories.get(&client).map_or(0, |memory| memory.floor_on_disk);
        let raised = (time.min(LATEST) > on_disk).then(|| Record::low_water(client, time.max(own_floor)));
        Err(Unfresh::Stale(raised.inspect(|record| self.remember(record, now, now))))
    }

    fn judge_challenge(
        &mut self,
        request: &Request,
        source: IpAddr,
        key: &RunKey,
        now: Moment,
    ) -> Result<Record, Unfresh> {
        let Request { client, nonce, challenge, .. } = *request;
        if !key.recognises(challenge, client, source, self.round(client), now) {
            return Err(Unfresh::Stale(None));
        }
        // One challenge serves for all knocks of a client in its slot, each with its own nonce. The time is the
        // client's, and may have any bits.
        let record = Record { client, time: bare(request.time) | BY_CHALLENGE, nonce };
        self.remember(&record, now, now.after(CHALLENGE_LIVES));
        Ok(record)
    }

    fn round(&self, client: ClientId) -> u64 {
        self.memories.get(&client).map_or(0, |memory| memory.round)
    }

    /// Remembers what was accepted, and until when its challenge is good, if it had one.
    fn remember(&mut self, record: &Record, now: Moment, worthless: Moment) {
        let time = bare(record.time);
        let is_floor = record.time & FLOOR != 0;
        if is_floor && record.client == EVERYBODY {
            self.highest = self.highest.max(time);
            return;
        }
        let memory = self.memories.entry(record.client).or_default();
        match record.time & BY_CHALLENGE {
            _ if is_floor => memory.low_water = memory.low_water.max(time),
            0 => {
                self.highest = self.highest.max(time);
                memory.note_time(time, record.nonce);
            }
            _ => memory.note_challenge(time, record.nonce, now, worthless),
        }
    }
}

fn end_of_window(date: u64, window: Duration) -> u64 {
    date.saturating_add(u64::try_from(window.as_millis()).unwrap_or(u64::MAX))
}

/// How far the date is ahead of the monotonic clock, in milliseconds.
fn ahead(now: Moment, wall: Wall) -> i64 {
    i64::try_from(wall.0).unwrap_or(i64::MAX).saturating_sub(milliseconds(now))
}

fn milliseconds(now: Moment) -> i64 {
    i64::try_from(now.since_start().as_millis()).unwrap_or(i64::MAX)
}
