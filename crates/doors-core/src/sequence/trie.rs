//! All sequences as one tree, so that a knocker's progress in all of them is one number.
//!
//! ```text
//!            ┌─ 7001 ── 7002 ── … ── 7005  door "ssh"
//!   start ───┤
//!            └─ 8001 ── 8002 ─┬─ … ── 8005  door "web"
//!                             └─ … ── 9005  door "admin"
//! ```
//!
//! Sequences may share a beginning. None may begin with the whole of another: knocking for the one
//! would open the other.

use alloc::vec::Vec;

use crate::{
    door::{Door, DoorName, Sequence},
    limits,
};

/// The start, and for each door as many places as its sequence has ports; the last port leads to none.
const MOST_PLACES: usize = 1 + limits::DOORS * (Sequence::MAX_LEN - 1);
const _: () = assert!(MOST_PLACES <= u16::MAX as usize);

/// A place in the tree: how far a knocker has come. The start is place 0.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct TrieNode(u16);

impl TrieNode {
    /// Where everybody begins.
    pub const START: Self = Self(0);
}

/// Where a port leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// One knock further.
    On(TrieNode),
    /// To the end: this door's sequence is complete.
    Opens(DoorName),
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Node {
    depth: u8,
    /// A door beyond; at the start there are many, and none is named.
    door: Option<DoorName>,
    steps: Vec<(u16, Step)>,
}

/// The sequences of all doors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SequenceTrie {
    nodes: Vec<Node>,
}

impl SequenceTrie {
    /// Joins the sequences of `doors`.
    ///
    /// # Errors
    /// [`Conflict`] names two doors of which no knocker could open one without the other.
    pub fn new(doors: &[Door]) -> Result<Self, Conflict> {
        let mut tree = Self { nodes: alloc::vec![Node::default()] };
        for door in doors {
            if let Some(sequence) = &door.sequence {
                tree.insert(door, sequence)?;
            }
        }
        Ok(tree)
    }

    /// Where a knock on `port` leads from `place`; `None` if it is wrong there.
    #[must_use]
    pub fn step(&self, place: TrieNode, port: u16) -> Option<&Step> {
        self.node(place)?.steps.iter().find_map(|(wanted, step)| (*wanted == port).then_some(step))
    }

    /// How many knocks lead to `place`: 0 to 19.
    #[must_use]
    pub fn depth(&self, place: TrieNode) -> u8 {
        self.node(place).map_or(0, |node| node.depth)
    }

    fn insert(&mut self, door: &Door, sequence: &Sequence) -> Result<(), Conflict> {
        let Some((&last, way)) = sequence.ports().split_last() else { return Ok(()) };
        let mut at = TrieNode::START;
        for &port in way {
            at = match self.step(at, port) {
                Some(Step::On(next)) => *next,
                Some(Step::Opens(other)) => return Err(Conflict::new(other, door)),
                None => self.grow(at, port, door),
            };
        }
        match self.step(at, last) {
            Some(Step::Opens(other)) => Err(Conflict::new(other, door)),
            Some(Step::On(further)) => {
                let other = self.node(*further).and_then(|node| node.door.as_ref());
                Err(Conflict::new(other.unwrap_or(&door.name), door))
            }
            None => {
                self.join(at, last, Step::Opens(door.name.clone()));
                Ok(())
            }
        }
    }

    /// Adds a node behind `port`, on the way to `door`.
    fn grow(&mut self, at: TrieNode, port: u16, door: &Door) -> TrieNode {
        // The number fits, see `MOST_PLACES`.
        let new = TrieNode(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX));
        let depth = self.depth(at).saturating_add(1);
        self.nodes.push(Node { depth, door: Some(door.name.clone()), steps: Vec::new() });
        self.join(at, port, Step::On(new));
        new
    }

    fn join(&mut self, at: TrieNode, port: u16, step: Step) {
        if let Some(node) = self.nodes.get_mut(usize::from(at.0)) {
            node.steps.push((port, step));
        }
    }

    fn node(&self, place: TrieNode) -> Option<&Node> {
        self.nodes.get(usize::from(place.0))
    }
}

/// Two doors whose sequences cannot be told apart.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the sequences of the doors `{first}` and `{second}` are the same, or one begins with the other; \
     knocking for one would open both: give them different beginnings, or one door both ports"
)]
pub struct Conflict {
    /// The door that was there before.
    pub first: DoorName,
    /// The door that came into its way.
    pub second: DoorName,
}

impl Conflict {
    fn new(first: &DoorName, second: &Door) -> Self {
        Self { first: first.clone(), second: second.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    fn door(name: &str, ports: &[u16]) -> Door {
        let sequence = Sequence::new(ports).unwrap();
        Door::with_sequence(DoorName::new(name).unwrap(), sequence, Duration::from_secs(10))
    }

    fn walk(tree: &SequenceTrie, ports: &[u16]) -> Option<DoorName> {
        let mut place = TrieNode::START;
        for (number, port) in (1..).zip(ports) {
            match tree.step(place, *port)? {
                Step::On(next) => place = *next,
                Step::Opens(door) => return Some(door.clone()),
            }
            assert_eq!(tree.depth(place), number);
        }
        None
    }

    #[test]
    fn sequences_may_share_a_beginning() {
        let doors = [door("ssh", &[1, 2, 3, 4, 5]), door("web", &[1, 2, 3, 9, 5, 6])];
        let tree = SequenceTrie::new(&doors).unwrap();
        assert_eq!(walk(&tree, &[1, 2, 3, 4, 5]), Some(doors[0].name.clone()));
        assert_eq!(walk(&tree, &[1, 2, 3, 9, 5, 6]), Some(doors[1].name.clone()));
        assert_eq!(walk(&tree, &[1, 2, 3, 9, 5]), None);
        assert_eq!(walk(&tree, &[1, 2, 4]), None);
    }

    #[test]
    fn no_sequence_may_begin_with_another() {
        let short = door("short", &[1, 2, 3, 4, 5]);
        let long = door("long", &[1, 2, 3, 4, 5, 6]);
        for pair in [[short.clone(), long.clone()], [long, short.clone()], [short.clone(), short]] {
            let conflict = SequenceTrie::new(&pair).unwrap_err();
            assert_eq!([conflict.first, conflict.second], pair.map(|door| door.name));
        }
    }
}
