//! Knocks in a secret order of ports.

pub mod knock;
pub mod table;
pub mod trie;
