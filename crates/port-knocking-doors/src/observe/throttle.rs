//! Keeps the log short, whatever strangers send.

use std::time::Duration;

use doors_core::{
    budget::{Budget, Rate},
    time::Moment,
};

/// Lines about refused knocks.
pub(crate) const REFUSALS: Rate = Rate { at_once: 20, every: Duration::from_secs(3) };

/// Lines about doors that sequences open and close: more than come and go at a busy gateway in a minute. A stranger who
/// overhears a sequence and replays it from forged addresses makes one for each. What a client with a key does is told
/// in any case, and has bounds of its own.
pub(crate) const DOORS: Rate = Rate { at_once: 600, every: Duration::from_millis(100) };

/// What was left untold is told as one number this long after the first of it.
const SUMMED_AFTER: Duration = Duration::from_secs(60);

/// Lets through a few at once and then one now and again; counts the others.
///
/// It has a budget of lines, and only lines: what is judged and opened never depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    budget: Budget,
    untold: u64,
    sum_at: Option<Moment>,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, budget: Budget::default(), untold: 0, sum_at: None }
    }

    /// Whether one more may be told at `now`; if not, it is counted.
    pub(crate) fn admit(&mut self, now: Moment) -> bool {
        let may_tell = self.budget.spend(self.rate, now);
        if !may_tell {
            self.count(now);
        }
        may_tell
    }

    /// Counts one that is not told.
    pub(crate) fn count(&mut self, now: Moment) {
        self.untold = self.untold.saturating_add(1);
        self.sum_at.get_or_insert(now.after(SUMMED_AFTER));
    }

    /// How many were left untold, once it is time to say so.
    pub(crate) fn sum(&mut self, now: Moment) -> Option<u64> {
        self.sum_at.take_if(|at| *at <= now)?;
        Some(std::mem::take(&mut self.untold))
    }

    /// When [`sum`](Self::sum) has something to say.
    pub(crate) fn next_sum(&self) -> Option<Moment> {
        self.sum_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_few_lines_and_one_sum() {
        let mut throttle = Throttle::new(REFUSALS);
        let mut told: u64 = 0;
        let mut summed: u64 = 0;
        for millis in 0..60_000 {
            let now = Moment::new(Duration::from_millis(millis));
            told += u64::from(throttle.admit(now));
            summed += throttle.sum(now).unwrap_or(0);
        }
        assert!(told <= 20 + 60 / 3, "{told}");
        assert_eq!(summed, 0);
        summed += throttle.sum(Moment::new(Duration::from_secs(61))).unwrap();
        assert_eq!(told + summed, 60_000);
        assert_eq!(throttle.next_sum(), None);
    }

    #[test]
    fn after_a_quiet_time_everything_is_told_again() {
        let mut throttle = Throttle::new(REFUSALS);
        while throttle.admit(Moment::default()) {}
        let later = Moment::new(Duration::from_secs(3600));
        let told = (0..1000).filter(|_| throttle.admit(later)).count();
        assert_eq!(told, 20);
    }
}
