//! Rules of ours in firewalld that nobody granted in this run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use doors_core::time::Moment;

use super::{
    held::Place,
    rule::{Rule, Text},
};

/// What an earlier run has left gets as long as the longest door and this.
const GRACE: Duration = Duration::from_secs(5);

/// A rule, and where it is.
pub(super) type Leftover = (String, Rule, Text);

/// Rules of ours that nobody granted in this run, and when they were first seen.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    since: BTreeMap<Leftover, Moment>,
}

impl Leftovers {
    /// Notes all that there are at `now`.
    pub(super) fn note(&mut self, found: BTreeSet<Leftover>, now: Moment) {
        self.since.retain(|leftover, _| found.contains(leftover));
        for leftover in found {
            self.since.entry(leftover).or_insert(now);
        }
    }

    /// Those of a rule that is being taken care of.
    pub(super) fn take(&mut self, rule: Rule) -> Vec<Place> {
        let of_rule = self.since.keys().filter(|(_, other, _)| *other == rule);
        let places = of_rule.map(|(zone, _, text)| (zone.clone(), *text)).collect();
        self.since.retain(|(_, other, _), _| *other != rule);
        places
    }

    /// Those that are older than any grant can be, if the longest door is open for so long.
    pub(super) fn overdue(&self, longest: Duration, now: Moment) -> Vec<Leftover> {
        let too_old = |since: &Moment| since.after(longest).after(GRACE) <= now;
        self.since.iter().filter(|(_, since)| too_old(since)).map(|(leftover, _)| leftover.clone()).collect()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}
