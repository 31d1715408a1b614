//! Sequences: knocks on ports in a secret order.

pub mod knock;
pub mod table;
pub mod trie;
