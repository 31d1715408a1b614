//! A token bucket: a burst at once, then one more after each interval.

use core::time::Duration;

use crate::time::Moment;

/// The size of a bucket and the rate at which it refills.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The size of the burst.
    pub at_once: u32,
    /// The time after which one more is available.
    pub every: Duration,
}

/// What was spent, stored as the moment at which the bucket is full again. One number, because there is one
/// budget for each client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    full_at: Moment,
}

impl Budget {
    /// Spends one if one is left at `now`, and says whether it did.
    pub fn spend(&mut self, rate: Rate, now: Moment) -> bool {
        let from = self.full_at.max(now);
        let capacity = rate.every.saturating_mul(rate.at_once);
        let affordable = from.remaining(now).saturating_add(rate.every) <= capacity;
        if affordable {
            self.full_at = from.after(rate.every);
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_refills_over_time() {
        let rate = Rate { at_once: 256, every: Duration::from_millis(2) };
        let mut budget = Budget::default();
        let now = Moment::new(Duration::from_secs(100));
        assert_eq!((0..10_000).filter(|_| budget.spend(rate, now)).count(), 256);
        let later = now.after(rate.every);
        assert!(budget.spend(rate, later));
        assert!(!budget.spend(rate, later));
    }
}
