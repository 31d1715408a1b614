//! The table of knockers: fixed in size, and hard to push anybody out of.
//!
//! ```text
//!   rank 0   waiting, or just let in   oldest ◄─► … ◄─► newest
//!   rank 1   one knock right           oldest ◄─► … ◄─► newest
//!   rank 2   two knocks right          …
//! ```
//!
//! When the table is full, the place goes to the newcomer from whoever may be forgotten anyway, else
//! from the oldest of the lowest rank. A newcomer has a low rank itself, so a flood of newcomers
//! pushes out only the flood.

use alloc::{collections::BTreeMap, vec::Vec};
use core::net::IpAddr;

use crate::{door::Sequence, packet::Arrival, sequence::trie::TrieNode, time::Moment};

/// Ranks: one for those who wait or were just let in, and one for each number of right knocks that opens
/// nothing yet.
const RANKS: usize = Sequence::MAX_LEN;

/// No entry; ends a list.
const NONE: u32 = u32::MAX;

/// What is remembered of a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Knocker {
    /// How far it has come; the start for one that waits or was just let in.
    pub place: TrieNode,
    /// The port of its latest right knock, 0 for none: the network may deliver that datagram twice.
    pub last_port: u16,
    /// Whether it knocked wrong, so that nothing it knocks counts.
    pub waiting: bool,
    /// How its latest knock came in. If the kernel does not take what comes from this source like that, somebody else
    /// has knocked in its name.
    pub arrival: Arrival,
    /// When it is forgotten.
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
    room: usize,
    index: BTreeMap<IpAddr, u32>,
    entries: Vec<Entry>,
    ranks: [Rank; RANKS],
}

impl KnockerTable {
    /// A table for `room` knockers, at least one. It takes memory only as it fills.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self {
            room: room.max(1),
            index: BTreeMap::new(),
            entries: Vec::new(),
            ranks: [Rank { oldest: NONE, newest: NONE }; RANKS],
        }
    }

    /// Remembers `knocker`, who has `depth` right knocks, and forgets somebody if there is no room.
    pub fn put(&mut self, source: IpAddr, knocker: Knocker, depth: u8, now: Moment) {
        let number = match self.index.get(&source) {
            Some(&number) => {
                self.unlink(number);
                number
            }
            None => self.place_for(source, knocker, now),
        };
        let rank = if knocker.waiting { 0 } else { depth };
        if let Some(entry) = self.entry_mut(number) {
            entry.source = source;
            entry.knocker = knocker;
            entry.rank = rank;
        }
        self.link(number, rank);
    }

    /// Who `source` is, if it is remembered at `now`.
    #[must_use]
    pub fn get(&self, source: IpAddr, now: Moment) -> Option<Knocker> {
        let number = self.index.get(&source)?;
        let entry = self.entries.get(usize::try_from(*number).ok()?)?;
        (entry.knocker.until > now).then_some(entry.knocker)
    }

    /// How many entries the table holds; never more than its room.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether nobody has knocked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// An entry for a newcomer, which belongs to no list.
    fn place_for(&mut self, source: IpAddr, knocker: Knocker, now: Moment) -> u32 {
        let number = if self.entries.len() < self.room {
            let number = u32::try_from(self.entries.len()).unwrap_or(NONE);
            self.entries.push(Entry { source, knocker, rank: 0, older: NONE, newer: NONE });
            number
        } else {
            let number = self.least(now);
            self.unlink(number);
            if let Some(entry) = self.entry(number) {
                let forgotten = entry.source;
                self.index.remove(&forgotten);
            }
            number
        };
        self.index.insert(source, number);
        number
    }

    /// Whom to forget. All of a rank are remembered for equally long, so the oldest is the first whose time is
    /// over, and looking at the oldest of each is enough.
    ///
    /// Only nearly so: rank 0 holds those who wait beside those just let in, and a new configuration brings new
    /// times. Somebody may then be forgotten while another's time is over. That happens in a full table alone,
    /// where the oldest of the lowest rank is never safe.
    fn least(&self, now: Moment) -> u32 {
        let oldest = || self.ranks.iter().map(|rank| rank.oldest).filter(|number| *number != NONE);
        let over = |number: &u32| self.entry(*number).is_some_and(|entry| entry.knocker.until <= now);
        oldest().find(over).or_else(|| oldest().next()).unwrap_or(0)
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
        Knocker { place: TrieNode::START, last_port: 1, waiting: false, arrival, until: at(until) }
    }

    fn present(table: &KnockerTable, numbers: core::ops::Range<u32>) -> Vec<u32> {
        numbers.filter(|number| table.get(source(*number), at(0)).is_some()).collect()
    }

    #[test]
    fn the_table_never_outgrows_its_room() {
        let mut table = KnockerTable::new(4);
        for number in 0..100 {
            table.put(source(number), knocker(30), 1, at(0));
            assert!(table.len() <= 4);
        }
        assert_eq!(present(&table, 0..100), [96, 97, 98, 99]);
    }

    #[test]
    fn a_flood_of_first_knocks_cannot_push_out_somebody_half_way() {
        let mut table = KnockerTable::new(4);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(1), knocker(30), 2, at(0));
        for number in 10..1000 {
            table.put(source(number), knocker(30), 1, at(0));
        }
        assert_eq!(present(&table, 0..10), [1]);
    }

    #[test]
    fn those_who_wait_are_forgotten_before_those_who_knock() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(2), Knocker { waiting: true, ..knocker(30) }, 4, at(0));
        table.put(source(3), knocker(30), 1, at(0));
        assert_eq!(present(&table, 0..4), [1, 3]);
    }

    #[test]
    fn whoever_may_be_forgotten_anyway_goes_first() {
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
    fn nobody_is_remembered_longer_than_said() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(5), 1, at(0));
        assert!(table.get(source(1), at(4)).is_some());
        assert_eq!(table.get(source(1), at(5)), None);
    }

    #[test]
    fn somebody_with_nineteen_right_knocks_can_be_forgotten() {
        let mut table = KnockerTable::new(2);
        table.put(source(1), knocker(30), 1, at(0));
        table.put(source(2), knocker(5), 19, at(0));
        table.put(source(3), knocker(36), 1, at(6));
        assert_eq!(table.get(source(2), at(0)), None);
        assert!(table.get(source(1), at(6)).is_some());
    }
}
