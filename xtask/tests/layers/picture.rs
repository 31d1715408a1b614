//! The blocks of ARCHITECTURE.md that say who may use whom.
//!
//! A block is known by its first line. A line that begins with spaces goes on with the one before.

use std::collections::{BTreeMap, BTreeSet};

use crate::Use;

const CRATES: &str = "crate: uses, of ours";
const ORDER: &str = "crate: its modules, each using only what stands before it";
const EXCEPTIONS: &str = "crate or folder: who uses what it should not";

/// What ARCHITECTURE.md says.
#[derive(Debug)]
pub(crate) struct Picture {
    /// From the ground up: each crate, and which it uses.
    pub(crate) crates: Vec<(String, BTreeSet<String>)>,
    /// The modules of each crate, from the ground up.
    orders: BTreeMap<String, Vec<String>>,
    /// What is known to be against the order, by crate, or by folder of a crate.
    pub(crate) exceptions: BTreeMap<String, BTreeSet<Use>>,
}

impl Picture {
    /// Reads it out of the document.
    pub(crate) fn read(document: &str) -> Self {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let crates = block(document, CRATES).unwrap_or_else(|| panic!("there is no block `{CRATES}`"));
        let orders = block(document, ORDER).unwrap_or_else(|| panic!("there is no block `{ORDER}`"));
        // Without exceptions there is no block.
        let exceptions = block(document, EXCEPTIONS).unwrap_or_default();
        let set = |line: String| words(&line).into_iter().filter(|word| word != "nothing").collect();
        Self {
            crates: crates.into_iter().map(|(name, line)| (name, set(line))).collect(),
            orders: orders.into_iter().map(|(name, line)| (name, words(&line))).collect(),
            exceptions: exceptions
                .into_iter()
                .map(|(place, line)| (place, line.split(',').map(exception).collect()))
                .collect(),
        }
    }

    /// The modules of a crate, from the ground up.
    pub(crate) fn order(&self, name: &str) -> &[String] {
        self.orders.get(name).unwrap_or_else(|| panic!("ARCHITECTURE.md has no order for `{name}`"))
    }
}

/// `user → used`
fn exception(text: &str) -> Use {
    let (user, used) = text.split_once('→').unwrap_or_else(|| panic!("`{text}` is no exception"));
    (user.trim().to_owned(), used.trim().to_owned())
}

/// The lines of the block under this title, each as what stands before and after its colon.
fn block(document: &str, title: &str) -> Option<Vec<(String, String)>> {
    let mut lines: Vec<String> = Vec::new();
    let begins = |line: &&str| line.trim() == title;
    for line in document.lines().skip_while(|line| !begins(line)).skip(1).take_while(|line| *line != "```") {
        match lines.last_mut() {
            Some(before) if line.starts_with(' ') => *before += line,
            _ => lines.push(line.to_owned()),
        }
    }
    let split = |line: String| {
        let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("`{line}` has no colon"));
        (name.to_owned(), rest.to_owned())
    };
    (!lines.is_empty()).then(|| lines.into_iter().map(split).collect())
}

#[test]
fn a_line_goes_on_where_the_next_is_indented() {
    let document = format!("```text\n{ORDER}\na: b\n   c d\ne: f\n```\ng: h\n");
    let lines = [("a", " b   c d"), ("e", " f")].map(|(name, rest)| (name.to_owned(), rest.to_owned()));
    assert_eq!(block(&document, ORDER).unwrap(), lines);
    assert_eq!(block(&document, CRATES), None);
}
