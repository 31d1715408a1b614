//! Anti-replay: accepts every request at most once.
//!
//! ```text
//!                    ┌ with challenge ─► made in this run, recently, for this client and source? ─┐ yes
//!   Proven ─► seen? ─┤                                                                            ├────► Accepted
//!               │    └ without ────────► time in the window, and above both low-water marks? ─────┘
//!               │                          │ no: Stale. The client's low-water mark rises to its time,
//!               └ yes: Replayed            └     and the client gets a challenge.
//! ```
//!
//! Whatever the result, the request is spent, unless its challenge is not valid.
//!
//! Without a challenge, a request is accepted only if its time is in the window and above two low-water
//! marks:
//!
//! - *The client's low-water mark* covers its requests that were accepted and then evicted from memory, and
//!   those that were refused for their time. A request that is dated ahead would become acceptable when our
//!   date gets there. So the mark rises to the request's time, on disk, before the request is answered. If
//!   the disk cannot take it, the receipt says so. The marks of other clients do not change: otherwise one
//!   wrong clock would cost all clients a challenge.
//! - *The gateway's low-water mark* is the later of two times: the end of the window at the start, and the
//!   latest time by which an earlier run accepted a request of any client. A request that was made before the
//!   start, by a clock that is ahead by no more than the window, is below the first. A request that an
//!   earlier run accepted when its date was later than ours is below the second. So neither a date that goes
//!   back nor a restored state makes an accepted request acceptable again.
//!
//! The disk holds the gateway's low-water mark, and it only rises: neither a smaller window nor a later start
//! lowers it. If the replay log is lost, the mark is the end of the widest window that can be configured,
//! because the window that was in force is lost, too.
//!
//! A jump of the date while the daemon runs counts as a start: from then on, the gateway's low-water mark is
//! at least the end of the window at the later of the two dates. If the date jumps forward, it was behind
//! before, and the mark was computed from it: the mark moves forward by as much, but not beyond the end of
//! the widest window.
//!
//! The disk holds what a later start cannot know: for each client the accepted requests that are remembered
//! and the low-water mark, and the gateway's low-water mark.
//!
//! A request that is *spent* opens nothing in this run, even if its client was told that too many are in
//! progress or that it cannot be recorded. If it was judged by its time and is evicted, it is below the
//! client's low-water mark. If it was judged by its challenge and is evicted, the client's round ends: all
//! its challenges so far become invalid, and it gets another when it asks. A request with a challenge of
//! another run, source, slot or round is not remembered. It cannot become acceptable there, and if it were
//! remembered, an attacker could end the client's rounds with recordings of such requests.
//!
//! A wrong clock never locks a client out: a client whose request is stale gets a challenge, and with that
//! its time is not checked.

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

/// A client's request that was never seen before. Only [`ReplayGuard::judge`] makes one.
#[derive(Debug)]
pub struct Accepted {
    pub(crate) request: Request,
}

impl Accepted {
    /// The address to let in, if the request names one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.request.address
    }

    /// The operation that is requested.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.request.operation
    }
}

/// Why a client's request is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rejected {
    /// It was seen before.
    Replayed,
    /// It cannot be accepted by its time, or its challenge is not valid. With the record that has to be on
    /// disk before the client gets a challenge, if there is one.
    Stale(Option<Record>),
}

/// A record of the replay log: one accepted request, or a low-water mark.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Record {
    /// The client; all zeros in the gateway's low-water mark.
    pub client: ClientId,
    /// The request's time in milliseconds since 1970, or the low-water mark. Bit 63 is set if the request was
    /// accepted by its challenge, so that its time may be anything. Bit 62 is set if this is a low-water mark
    /// and not a request.
    pub time: u64,
    /// The request's nonce; zeros in a low-water mark.
    pub nonce: [u8; 8],
}

impl Record {
    fn low_water(client: ClientId, time: u64) -> Self {
        Self { client, time: time.min(MAX_TIME) | LOW_WATER, nonce: [0; 8] }
    }
}

/// See [`Record::time`].
const BY_CHALLENGE: u64 = 1 << 63;
const LOW_WATER: u64 = 1 << 62;
const ALL_CLIENTS: ClientId = ClientId([0; 8]);
/// The latest time that leaves these two bits clear. No clock gets there.
const MAX_TIME: u64 = LOW_WATER - 1;

/// A time without these two bits.
fn bare(time: u64) -> u64 {
    time & MAX_TIME
}

/// The date has jumped if its distance from the monotonic clock changes by more than this, in milliseconds.
const JUMP_MILLISECONDS: i64 = 1000;

/// A challenge is not valid for longer than this; see [`RunKey::challenge`].
const CHALLENGE_LIFETIME: Duration = Duration::from_secs(90);

/// What is remembered of one client.
#[derive(Clone, Debug, Default)]
struct History {
    /// Accepted by their time: time and nonce.
    by_time: BTreeSet<(u64, [u8; 8])>,
    /// Accepted by their challenge, oldest first: time, nonce, and when the challenge expires.
    by_challenge: VecDeque<(u64, [u8; 8], Moment)>,
    /// The current round. Challenges of earlier rounds are not valid.
    round: u64,
    low_water: u64,
    /// The client's low-water mark that is confirmed to be on disk. Below `low_water` while the disk has not
    /// answered, or fails.
    low_water_on_disk: u64,
}

impl History {
    fn has_seen(&self, time: u64, nonce: [u8; 8]) -> bool {
        let challenged = (bare(time), nonce);
        self.by_time.contains(&(time, nonce))
            || self.by_challenge.iter().any(|(time, nonce, _)| (*time, *nonce) == challenged)
    }

    fn note_time(&mut self, time: u64, nonce: [u8; 8]) {
        self.by_time.insert((time, nonce));
        // What is evicted must not be accepted again.
        while self.by_time.len() > KNOCKS_REMEMBERED
            && let Some((time, _)) = self.by_time.pop_first()
        {
            self.low_water = self.low_water.max(time);
        }
    }

    fn note_challenge(&mut self, time: u64, nonce: [u8; 8], now: Moment, expires: Moment) {
        self.by_challenge.push_back((bare(time), nonce, expires));
        while self.by_challenge.len() > CHALLENGES_REMEMBERED
            && let Some((_, _, expires)) = self.by_challenge.pop_front()
        {
            // What is evicted must not be accepted again.
            if expires > now {
                self.round = self.round.saturating_add(1);
                // The challenges of the others have ended as well: their eviction ends no further round.
                self.by_challenge.iter_mut().for_each(|(_, _, expires)| *expires = now);
            }
        }
    }
}

/// Decides whether a request is new, for all clients.
#[derive(Clone, Debug)]
pub struct ReplayGuard {
    window: Duration,
    histories: BTreeMap<ClientId, History>,
    /// The gateway's low-water mark in this run. It only rises.
    low_water: u64,
    /// The gateway's low-water mark that the next run will start with: this run's, or the latest time by
    /// which a request was accepted, if that is later.
    highest: u64,
    /// Whether `highest` has risen since the disk was last given it.
    unwritten: bool,
    /// The date at the start or, if later, at the latest jump.
    since: u64,
    /// The distance of the date from the monotonic clock, in milliseconds.
    ahead: i64,
}

impl ReplayGuard {
    /// Starts with the records of earlier runs.
    #[must_use]
    pub fn new(window: Duration, records: &[Record], now: Moment, wall: Wall) -> Self {
        let mut replay = Self {
            window,
            histories: BTreeMap::new(),
            low_water: 0,
            highest: 0,
            unwritten: false,
            since: wall.0,
            ahead: ahead(now, wall),
        };
        // The challenges in these records are of earlier runs, so they have expired.
        records.iter().for_each(|record| replay.remember(record, now, now));
        replay.low_water = replay.highest;
        replay.raise(end_of_window(wall.0, window));
        replay.histories.values_mut().for_each(|history| history.low_water_on_disk = history.low_water);
        replay
    }

    /// The record to start with after the disk has lost records: requests accepted before are not known, but
    /// none was dated later than this, however wide the window was.
    #[must_use]
    pub fn lost(wall: Wall) -> Record {
        Record::low_water(ALL_CLIENTS, end_of_window(wall.0, WIDEST_WINDOW))
    }

    /// Sets the window. If it becomes wider, the gateway's low-water mark rises to its end as of the start,
    /// so that a request from before the start is not accepted because of the wider window.
    pub fn set_window(&mut self, window: Duration) {
        self.window = window;
        self.raise(end_of_window(self.since, window));
    }

    /// Compares the date with the monotonic clock. If it has jumped, raises the gateway's low-water mark.
    pub fn observe_date(&mut self, now: Moment, wall: Wall) {
        let (before, after) = (self.ahead, ahead(now, wall));
        if before.abs_diff(after) <= JUMP_MILLISECONDS.unsigned_abs() {
            return;
        }
        self.ahead = after;
        // The date as it would be without the jump.
        let unmoved = u64::try_from(milliseconds(now).saturating_add(before)).unwrap_or(0);
        self.since = self.since.max(wall.0).max(unmoved);
        let moved = self.low_water.saturating_add(wall.0.saturating_sub(unmoved));
        self.raise(moved.min(end_of_window(wall.0, WIDEST_WINDOW)));
        self.raise(end_of_window(self.since, self.window));
    }

    /// The record that has to be on disk because the gateway's low-water mark has risen; `None` if it has
    /// not.
    pub fn poll_low_water(&mut self) -> Option<Record> {
        core::mem::take(&mut self.unwritten).then(|| Record::low_water(ALL_CLIENTS, self.highest))
    }

    /// Raises the gateway's low-water mark. It never falls: requests below it may have been evicted.
    fn raise(&mut self, to: u64) {
        let to = to.min(MAX_TIME);
        self.low_water = self.low_water.max(to);
        self.unwritten |= to > self.highest;
        self.highest = self.highest.max(to);
    }

    /// Judges a request with a verified signature. Returns the key that seals its receipt, and the record
    /// that has to be on disk before anything is done. Whatever the result, the same request is never
    /// accepted again in this run. The exception is a request whose challenge is for another source: it may
    /// still be accepted from there.
    ///
    /// # Errors
    /// [`Rejected`] says why the request must not be carried out.
    pub fn judge(
        &mut self,
        proven: Proven,
        source: IpAddr,
        key: &RunKey,
        now: Moment,
        wall: Wall,
    ) -> (ReceiptKey, Result<(Accepted, Record), Rejected>) {
        let (request, receipt_key) = proven.into_parts();
        let seen =
            self.histories.get(&request.client).map(|history| history.has_seen(request.time, request.nonce));
        let judged = match request.challenge {
            _ if seen == Some(true) => Err(Rejected::Replayed),
            [0, 0, 0, 0, 0, 0, 0, 0] => self.judge_time(&request, now, wall),
            _ => self.judge_challenge(&request, source, key, now),
        };
        (receipt_key, judged.map(|record| (Accepted { request }, record)))
    }

    /// The client's low-water mark that the disk will hold after it has taken all records so far.
    #[must_use]
    pub fn low_water(&self, client: ClientId) -> u64 {
        self.histories.get(&client).map_or(0, |history| history.low_water)
    }

    /// Confirms that the disk holds this low-water mark of a client.
    pub fn confirm_low_water(&mut self, client: ClientId, low_water: u64) {
        if let Some(history) = self.histories.get_mut(&client) {
            history.low_water_on_disk = history.low_water_on_disk.max(low_water);
        }
    }

    /// A challenge for this client at this address.
    #[must_use]
    pub fn challenge(&self, key: &RunKey, client: ClientId, source: IpAddr, now: Moment) -> [u8; 8] {
        key.challenge(client, source, self.round(client), now)
    }

    /// All records that have to stay on disk.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let low_water = |client, time: u64| (time > 0).then(|| Record::low_water(client, time));
        let of_one = move |(client, history): (&ClientId, &History)| {
            let client = *client;
            let record = |(time, nonce)| Record { client, time, nonce };
            let mut all: VecDeque<Record> = low_water(client, history.low_water).into_iter().collect();
            all.extend(history.by_time.iter().copied().map(record));
            // A later run accepts no challenge of this run. It needs the latest of these to recognise copies
            // and drop them.
            let skipped = history.by_challenge.len().saturating_sub(KNOCKS_REMEMBERED);
            let by_challenge = history.by_challenge.iter().skip(skipped);
            all.extend(by_challenge.map(|(time, nonce, _)| record((time | BY_CHALLENGE, *nonce))));
            all
        };
        low_water(ALL_CLIENTS, self.highest).into_iter().chain(self.histories.iter().flat_map(of_one))
    }

    fn judge_time(&mut self, request: &Request, now: Moment, wall: Wall) -> Result<Record, Rejected> {
        let Request { client, time, nonce, .. } = *request;
        let own_low_water = self.low_water(client);
        let low_water = own_low_water.max(self.low_water);
        let apart = u128::from(time.abs_diff(wall.0));
        if apart <= self.window.as_millis() && time > low_water && time <= MAX_TIME {
            let record = Record { client, time, nonce };
            self.remember(&record, now, now);
            return Ok(record);
        }
        // The client's own mark is raised even if the time is below the gateway's mark, which may not be on
        // disk yet. The answer waits for the disk. If an earlier write has failed, the record is given to the
        // disk again.
        let on_disk = self.histories.get(&client).map_or(0, |history| history.low_water_on_disk);
        let raised =
            (time.min(MAX_TIME) > on_disk).then(|| Record::low_water(client, time.max(own_low_water)));
        Err(Rejected::Stale(raised.inspect(|record| self.remember(record, now, now))))
    }

    fn judge_challenge(
        &mut self,
        request: &Request,
        source: IpAddr,
        key: &RunKey,
        now: Moment,
    ) -> Result<Record, Rejected> {
        let Request { client, nonce, challenge, .. } = *request;
        if !key.recognises(challenge, client, source, self.round(client), now) {
            return Err(Rejected::Stale(None));
        }
        // One challenge is valid for all requests of a client in its slot, each with its own nonce. The time
        // is whatever the client says, so its upper bits are cleared.
        let record = Record { client, time: bare(request.time) | BY_CHALLENGE, nonce };
        self.remember(&record, now, now.after(CHALLENGE_LIFETIME));
        Ok(record)
    }

    fn round(&self, client: ClientId) -> u64 {
        self.histories.get(&client).map_or(0, |history| history.round)
    }

    /// Remembers a record, and until when its challenge is valid, if it was accepted by one.
    fn remember(&mut self, record: &Record, now: Moment, expires: Moment) {
        let time = bare(record.time);
        let is_low_water = record.time & LOW_WATER != 0;
        if is_low_water && record.client == ALL_CLIENTS {
            self.highest = self.highest.max(time);
            return;
        }
        let history = self.histories.entry(record.client).or_default();
        match record.time & BY_CHALLENGE {
            _ if is_low_water => history.low_water = history.low_water.max(time),
            0 => {
                self.highest = self.highest.max(time);
                history.note_time(time, record.nonce);
            }
            _ => history.note_challenge(time, record.nonce, now, expires),
        }
    }
}

fn end_of_window(date: u64, window: Duration) -> u64 {
    date.saturating_add(u64::try_from(window.as_millis()).unwrap_or(u64::MAX))
}

/// The distance of the date from the monotonic clock, in milliseconds; positive if the date is ahead.
fn ahead(now: Moment, wall: Wall) -> i64 {
    i64::try_from(wall.0).unwrap_or(i64::MAX).saturating_sub(milliseconds(now))
}

fn milliseconds(now: Moment) -> i64 {
    i64::try_from(now.since_start().as_millis()).unwrap_or(i64::MAX)
}
