//! What firewalld holds of ours, as far as we know.

use std::{collections::BTreeMap, time::Duration};

use doors_core::time::Moment;

use super::rule::{Rule, Text};

/// A rule may live this much longer than its grant: firewalld counts in seconds, and may be slow.
const TOO_LONG: Duration = Duration::from_secs(2);

/// The zone, and the text in it.
pub(super) type Place = (String, Text);

/// What firewalld holds, by rule: two doors that open the same port for the same client have one rule.
pub(super) type Holdings = BTreeMap<Rule, Installed>;

/// What firewalld holds of one rule.
#[derive(Clone, Debug, Default)]
pub(super) struct Installed {
    /// Where it is.
    pub(super) place: Option<Place>,
    /// Where it may be, too, and has to go: the text before, and texts of calls whose answer never came.
    pub(super) stale: Vec<Place>,
    /// firewalld removes it no earlier than this.
    pub(super) earliest: Moment,
    /// And no later.
    pub(super) latest: Moment,
}

impl Installed {
    /// Whether it is where and for as long as it has to be.
    pub(super) fn is_right(&self, zone: &str, until: Moment) -> bool {
        self.place.as_ref().is_some_and(|(place, _)| place == zone)
            && self.earliest >= until
            && !self.outlives(until)
    }

    /// Whether it is there for much longer than until then.
    pub(super) fn outlives(&self, until: Moment) -> bool {
        self.place.is_some() && self.latest > until.after(TOO_LONG)
    }

    /// Whether firewalld has removed it by itself at `now`, even if it is slow.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.stale.is_empty() && self.latest.after(TOO_LONG) <= now
    }

    /// Whether firewalld can hold nothing of it.
    pub(super) fn is_nothing(&self) -> bool {
        self.place.is_none() && self.stale.is_empty()
    }
}
