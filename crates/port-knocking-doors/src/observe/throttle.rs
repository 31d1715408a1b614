//! Keeps the log short, whatever strangers send.

use std::time::Duration;

use doors_core::{
    budget::{Budget, Rate},
    limits::ROUTE_QUERIES,
    time::Moment,
};

/// Lines about refused knocks. The kernel is asked about as many of them.
pub(crate) const REFUSALS: Rate = ROUTE_QUERIES;

/// Lines about doors that sequences open and close: more than a busy gateway needs in a minute. A stranger who
/// overhears a sequence and replays it from forged addresses causes one for each address. What a client with a key
/// does is always logged, and has bounds of its own.
pub(crate) const DOORS: Rate = Rate { at_once: 600, every: Duration::from_millis(100) };

/// The suppressed lines are summed up in one line this long after the first of them.
const SUMMARY_AFTER: Duration = Duration::from_secs(60);

/// Lets through a burst, then one line at a time at a fixed rate; counts the others.
///
/// It limits log lines only: no decision depends on it.
#[derive(Clone, Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    budget: Budget,
    suppressed: u64,
    sum_at: Option<Moment>,
}

impl Throttle {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, budget: Budget::default(), suppressed: 0, sum_at: None }
    }

    /// Whether one more line may be written at `now`; if not, it is counted.
    pub(crate) fn admit(&mut self, now: Moment) -> bool {
        let admitted = self.budget.spend(self.rate, now);
        if !admitted {
            self.count(now);
        }
        admitted
    }

    /// Counts one suppressed line.
    pub(crate) fn count(&mut self, now: Moment) {
        self.suppressed = self.suppressed.saturating_add(1);
        self.sum_at.get_or_insert(now.after(SUMMARY_AFTER));
    }

    /// The number of suppressed lines, once the summary is due.
    pub(crate) fn sum(&mut self, now: Moment) -> Option<u64> {
        self.sum_at.take_if(|at| *at <= now)?;
        Some(std::mem::take(&mut self.suppressed))
    }

    /// When [`sum`](Self::sum) is due.
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
        let mut admitted: u64 = 0;
        let mut summed: u64 = 0;
        for millis in 0..60_000 {
            let now = Moment::new(Duration::from_millis(millis));
            admitted += u64::from(throttle.admit(now));
            summed += throttle.sum(now).unwrap_or(0);
        }
        assert!(admitted <= 20 + 60 / 3, "{admitted}");
        assert_eq!(summed, 0);
        summed += throttle.sum(Moment::new(Duration::from_secs(61))).unwrap();
        assert_eq!(admitted + summed, 60_000);
        assert_eq!(throttle.next_sum(), None);
    }

    #[test]
    fn after_a_quiet_period_a_burst_is_admitted_again() {
        let mut throttle = Throttle::new(REFUSALS);
        while throttle.admit(Moment::default()) {}
        let later = Moment::new(Duration::from_secs(3600));
        let admitted = (0..1000).filter(|_| throttle.admit(later)).count();
        assert_eq!(admitted, 20);
    }
}
