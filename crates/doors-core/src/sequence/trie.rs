//! All sequences as one trie, so that a source's progress in all of them is one node.
//!
//! ```text
//!            ┌─ 7001 ── 7002 ── … ── 7005  door "ssh"
//!   start ───┤
//!            └─ 8001 ── 8002 ─┬─ … ── 8005  door "web"
//!                             └─ … ── 9005  door "admin"
//! ```
//!
//! Sequences may share a beginning. But no sequence may begin with the whole of another: knocking the longer
//! one would open the door of the shorter.

use alloc::vec::Vec;

use crate::{
    door::{Door, DoorName, Sequence},
    limits,
};

/// The bound on nodes: the start, and for each door one node for each port of its sequence but the last,
/// which leads to no node.
const MAX_NODES: usize = 1 + limits::DOORS * (Sequence::MAX_LEN - 1);
const _: () = assert!(MAX_NODES <= u16::MAX as usize);

/// A node of the trie: a knocker's progress. The start is node 0.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct TrieNode(u16);

impl TrieNode {
    /// The node before the first knock.
    pub const START: Self = Self(0);
}

/// What a right knock leads to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Another node: the sequence goes on.
    On(TrieNode),
    /// The end: the sequence of this door is complete.
    Opens(DoorName),
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Node {
    depth: u8,
    /// A door whose sequence leads through this node; `None` at the start.
    door: Option<DoorName>,
    steps: Vec<(u16, Step)>,
}

/// The sequences of all doors.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SequenceTrie {
    nodes: Vec<Node>,
}

impl SequenceTrie {
    /// Builds the trie of the sequences of `doors`.
    ///
    /// # Errors
    /// [`Conflict`] names two doors of which one cannot be opened without completing the sequence of the
    /// other.
    pub fn new(doors: &[Door]) -> Result<Self, Conflict> {
        let mut trie = Self { nodes: alloc::vec![Node::default()] };
        for door in doors {
            if let Some(sequence) = &door.sequence {
                trie.insert(door, sequence)?;
            }
        }
        Ok(trie)
    }

    /// The step that a knock on `port` makes from `node`; `None` if it is wrong there.
    #[must_use]
    pub fn step(&self, node: TrieNode, port: u16) -> Option<&Step> {
        self.node(node)?.steps.iter().find_map(|(wanted, step)| (*wanted == port).then_some(step))
    }

    /// The number of knocks that lead to `node`: 0 to 19.
    #[must_use]
    pub fn depth(&self, node: TrieNode) -> u8 {
        self.node(node).map_or(0, |node| node.depth)
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
                self.add_step(at, last, Step::Opens(door.name.clone()));
                Ok(())
            }
        }
    }

    /// Adds a node after `port`, on the way to `door`.
    fn grow(&mut self, at: TrieNode, port: u16, door: &Door) -> TrieNode {
        // The number fits; see `MAX_NODES`.
        let new = TrieNode(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX));
        let depth = self.depth(at).saturating_add(1);
        self.nodes.push(Node { depth, door: Some(door.name.clone()), steps: Vec::new() });
        self.add_step(at, port, Step::On(new));
        new
    }

    fn add_step(&mut self, at: TrieNode, port: u16, step: Step) {
        if let Some(node) = self.nodes.get_mut(usize::from(at.0)) {
            node.steps.push((port, step));
        }
    }

    fn node(&self, node: TrieNode) -> Option<&Node> {
        self.nodes.get(usize::from(node.0))
    }
}

/// Two doors whose sequences cannot be told apart.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the sequences of the doors `{first}` and `{second}` are the same, or one begins with the other; \
     knocking for one would open both: give them different beginnings, or one door both ports"
)]
pub struct Conflict {
    /// The door that comes first in the configuration.
    pub first: DoorName,
    /// The door whose sequence conflicts with it.
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

    fn walk(trie: &SequenceTrie, ports: &[u16]) -> Option<DoorName> {
        let mut node = TrieNode::START;
        for (number, port) in (1..).zip(ports) {
            match trie.step(node, *port)? {
                Step::On(next) => node = *next,
                Step::Opens(door) => return Some(door.clone()),
            }
            assert_eq!(trie.depth(node), number);
        }
        None
    }

    #[test]
    fn sequences_may_share_a_beginning() {
        let doors = [door("ssh", &[1, 2, 3, 4, 5]), door("web", &[1, 2, 3, 9, 5, 6])];
        let trie = SequenceTrie::new(&doors).unwrap();
        assert_eq!(walk(&trie, &[1, 2, 3, 4, 5]), Some(doors[0].name.clone()));
        assert_eq!(walk(&trie, &[1, 2, 3, 9, 5, 6]), Some(doors[1].name.clone()));
        assert_eq!(walk(&trie, &[1, 2, 3, 9, 5]), None);
        assert_eq!(walk(&trie, &[1, 2, 4]), None);
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
