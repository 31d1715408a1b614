//! Rules of ours in firewalld that belong to no grant of this run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use doors_core::time::Moment;

use super::{
    installed::Place,
    rule::{Rule, Text},
};

/// What an earlier run has left gets as long as the longest door and this.
const GRACE: Duration = Duration::from_secs(5);

/// A rule, and where it is.
pub(super) type Leftover = (String, Rule, Text);

/// Rules of ours that belong to no grant of this run, and when they were first seen.
#[derive(Debug, Default)]
pub(super) struct StaleRules {
    since: BTreeMap<Leftover, Moment>,
    forgotten: bool,
}

impl StaleRules {
    /// firewalld has forgotten everything that is not permanent. From then on a rule that we have not added
    /// ourselves is permanent, and belongs to no grant: it need not grow old first. Waiting would even keep it
    /// for ever, if every reload began the time anew.
    pub(super) fn forget(&mut self) {
        self.forgotten = true;
    }

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

    /// Those that cannot belong to a grant, if the longest door is open for so long.
    pub(super) fn overdue(&self, longest: Duration, now: Moment) -> Vec<Leftover> {
        let too_old = |since: &Moment| self.forgotten || since.after(longest).after(GRACE) <= now;
        self.since.iter().filter(|(_, since)| too_old(since)).map(|(leftover, _)| leftover.clone()).collect()
    }

    /// Whether there are no such rules.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{firewalld::rule::Texts, plan::Ports};

    fn leftover() -> Leftover {
        let rule = Rule { source: [192, 0, 2, 7].into(), ports: Ports::tcp(22) };
        ("public".to_owned(), rule, Texts::from(7).next())
    }

    #[test]
    fn what_an_earlier_run_left_gets_as_long_as_the_longest_door() {
        let at = |seconds| Moment::new(Duration::from_secs(seconds));
        let mut leftovers = StaleRules::default();
        for seconds in 0..65 {
            leftovers.note(BTreeSet::from([leftover()]), at(seconds));
            assert_eq!(leftovers.overdue(Duration::from_secs(60), at(seconds)), []);
        }
        assert_eq!(leftovers.overdue(Duration::from_secs(60), at(65)), [leftover()]);
    }

    #[test]
    fn what_a_reload_brings_goes_at_the_first_look() {
        let mut leftovers = StaleRules::default();
        leftovers.forget();
        leftovers.note(BTreeSet::from([leftover()]), Moment::default());
        assert_eq!(leftovers.overdue(Duration::from_secs(60), Moment::default()), [leftover()]);
    }
}
