//! The table of knockers: the progress of each source, in a fixed size, and who is evicted when it is full.
//!
//! ```text
//!   rank 0   in its quiet period, or just let in   oldest ◄─► … ◄─► newest
//!   rank 1   one right knock                       oldest ◄─► … ◄─► newest
//!   rank 2   two right knocks                      …
//! ```
//!
//! When the table is full, a newcomer evicts an expired entry, else the oldest entry of the lowest rank. A
//! newcomer has a low rank itself, so a flood of newcomers evicts only entries of the flood.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::IpAddr;

use crate::{door::Sequence, packet::Arrival, sequence::trie::TrieNode, time::Moment};

/// The number of ranks: one for sources in their quiet period or just let in, and one for each number of
/// right knocks that does not complete the longest sequence.
const RANKS: usize = Sequence::MAX_LEN;

/// Not an entry: the end of a list.
const NONE: u32 = u32::MAX;

/// What is recorded of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Knocker {
    /// Its progress. The start, if it is in its quiet period or was just let in.
    pub node: TrieNode,
    /// The port of its latest right knock, 0 for none: the network may deliver that datagram twice.
    pub last_port: u16,
    /// Whether it is in its quiet period: its knocks do not count.
    pub waiting: bool,
    /// How its latest knock came in. If the kernel would not accept packets from this source this way, the
    /// knock was forged.
    pub arrival: Arrival,
    /// When the entry expires.
    pub until: Moment,
}

#[derive(Clone, Debug)]
struct Entry {
    source: IpAddr,
    knocker: Knocker,
    rank: u8,
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Rank {
    oldest: u32,
    newest: u32,
}

/// Knockers by source address.
#[derive(Clone, Debug)]
pub struct KnockerTable {
    capacity: usize,
    index: BTreeMap<IpAddr, u32>,
    entries: Vec<Entry>,
    ranks: [Rank; RANKS],
}

impl KnockerTable {
    /// A table for up to `capacity` knockers, at least one. It takes memory only as it fills.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            index: BTreeMap::new(),
            entries: Vec::new(),
            ranks: [Rank { oldest: NONE, newest: NONE }; RANKS],
        }
    }

    /// Records `knocker`, which has `depth` right knocks. Evicts an entry if the table is full.
    pub fn put(&mut self, source: IpAddr, knocker: Knocker, depth: u8, now: Moment) {
        let number = match self.index.get(&source) {
            Some(&number) => {
                self.unlink(number);
                number
            }
            None => self.new_entry(source, knocker, now),
        };
        let rank = if knocker.waiting { 0 } else { depth };
        if let Some(entry) = self.entry_mut(number) {
            entry.source = source;
            entry.knocker = knocker;
            entry.rank = rank;
        }
        self.link(number, rank);
    }

    /// The entry of `source`, if it has not expired at `now`.
    #[must_use]
    pub fn get(&self, source: IpAddr, now: Moment) -> Option<Knocker> {
        let number = self.index.get(&source)?;
        let entry = self.entries.get(usize::try_from(*number).ok()?)?;
        (entry.knocker.until > now).then_some(entry.knocker)
    }

    /// The number of entries, expired ones included. Never more than the capacity.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether the table has no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Makes an entry for a newcomer. It is not linked into a list yet.
    fn new_entry(&mut self, source: IpAddr, knocker: Knocker, now: Moment) -> u32 {
        let number = if self.entries.len() < self.capacity {
            let number = u32::try_from(self.entries.len()).unwrap_or(NONE);
            self.entries.push(Entry { source, knocker, rank: 0, older: NONE, newer: NONE });
            number
        } else {
            let number = self.to_evict(now);
            self.unlink(number);
            if let Some(entry) = self.entry(number) {
                let evicted = entry.source;
                self.index.remove(&evicted);
            }
            number
        };
        self.index.insert(source, number);
        number
    }

    /// Picks the entry to evict. Entries of one rank share a timeout, so the oldest expires first and the
    /// head of each list is enough.
    ///
    /// There are two exceptions: rank 0 mixes two timeouts, for the quiet period and for progress, and a
    /// reload changes them. Then an entry may be evicted while another has expired. That happens only in a
    /// full table, where the oldest entry of the lowest rank is never safe.
    fn to_evict(&self, now: Moment) -> u32 {
        let oldest = || self.ranks.iter().map(|rank| rank.oldest).filter(|number| *number != NONE);
        let has_expired = |number: &u32| self.entry(*number).is_some_and(|entry| entry.knocker.until <= now);
        oldest().find(has_expired).or_else(|| oldest().next()).unwrap_or(0)
    }

    fn unlink(&mut self, number: u32) {
        let Some(&Entry { rank, older, newer, .. }) = self.entry(number) else { return };
        match self.entry_mut(older) {
            Some(entry) => entry.newer = newer,
            None => self.rank_mut(rank, |rank| rank.oldest = newer),
        }
        match self.entry_mut(newer) {
            Some(entry) => entry.older = older,
            None => self.rank_mut(rank, |rank| rank.newest = older),
        }
    }

    fn link(&mut self, number: u32, rank: u8) {
        let newest = self.ranks.get(usize::from(rank)).map_or(NONE, |rank| rank.newest);
        if let Some(entry) = self.entry_mut(number) {
            entry.older = newest;
            entry.newer = NONE;
        }
        match self.entry_mut(newest) {
            Some(entry) => entry.newer = number,
            None => self.rank_mut(rank, |rank| rank.oldest = number),
        }
        self.rank_mut(rank, |rank| rank.newest = number);
    }

    fn rank_mut(&mut self, rank: u8, change: impl FnOnce(&mut Rank)) {
        if let Some(rank) = self.ranks.get_mut(usize::from(rank)) {
            change(rank);
        }
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        self.entries.get(usize::try_from(number).ok()?)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use core::{net::Ipv4Addr, time::Duration};

    use super::*;
    use crate::packet::Link;

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    fn knocker(until: u64) -> Knocker {
        let arrival = Arrival { link: Link(1), destination: source(0) };
        Knocker { node: TrieNode::START, last_port: 1, waiting: false, arrival, until: at(until) }
    }

    fn present(table: &KnockerTable, numbers: core::ops::Range<u32>) -> Vec<u32> {
        numbers.filter(|number| table.get(source(*number), at(0)).is_some()).collect()
    }

    #[test]
    fn the_table_never_exceeds_its_capacity() {
        let mut table = KnockerTable::new(4);
        for number in 0..100 {
            table.put(source(number), knocker(30), 1, at(0));
            assert!(table.len() <= 4);
        }
        assert_eq!(present(&table, 0..100), [96, 97, 98, 99]);
    }

    #[test]
    fn a_flood_of_first_knocks_cannot_evict_a_source_that_is_half_way() {
        let mut table = KnockerTable::new(4);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(1), knocker(30), 2, at(0));
        for number in 10..1000 {
            table.put(source(number), knocker(30), 1, at(0));
        }
        assert_eq!(present(&table, 0..10), [1]);
    }

    #[test]
    fn sources_in_their_quiet_period_are_evicted_before_sources_with_progress() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(2), Knocker { waiting: true, ..knocker(30) }, 4, at(0));
        table.put(source(3), knocker(30), 1, at(0));
        assert_eq!(present(&table, 0..4), [1, 3]);
    }

    #[test]
    fn expired_entries_are_evicted_first() {
        let mut table = KnockerTable::new(2);
        let almost_in = u8::try_from(Sequence::MAX_LEN - 1).unwrap();
        table.put(source(1), knocker(5), almost_in, at(0));
        table.put(source(2), knocker(30), 1, at(0));
        table.put(source(3), knocker(36), 1, at(6));
        assert_eq!(table.get(source(1), at(6)), None);
        assert!(table.get(source(2), at(6)).is_some());
        assert!(table.get(source(3), at(6)).is_some());
    }

    #[test]
    fn an_entry_expires_at_its_timeout() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(5), 1, at(0));
        assert!(table.get(source(1), at(4)).is_some());
        assert_eq!(table.get(source(1), at(5)), None);
    }

    #[test]
    fn an_expired_entry_is_evicted_whatever_its_progress() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(2), knocker(5), 19, at(0));
        table.put(source(3), knocker(36), 1, at(6));
        assert_eq!(table.get(source(2), at(0)), None);
        assert!(table.get(source(1), at(6)).is_some());
    }
}
