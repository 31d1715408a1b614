//! A few at once, and then one now and again.

use core::time::Duration;

use crate::time::Moment;

/// How much may be spent.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// So many in one go.
    pub at_once: u32,
    /// After this long, one more.
    pub every: Duration,
}

/// What was spent, as the moment at which the last of it is paid for. Each is one number, since there is one for each
/// client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    paid_until: Moment,
}

impl Budget {
    /// Spends one, if there is one left at `now`.
    pub fn spend(&mut self, rate: Rate, now: Moment) -> bool {
        let from = self.paid_until.max(now);
        let all = rate.every.saturating_mul(rate.at_once);
        let affordable = from.remaining(now).saturating_add(rate.every) <= all;
        if affordable {
            self.paid_until = from.after(rate.every);
        }
        affordable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_refilled_by_time() {
        let rate = Rate { at_once: 256, every: Duration::from_millis(2) };
        let mut budget = Budget::default();
        let now = Moment::new(Duration::from_secs(100));
        assert_eq!((0..10_000).filter(|_| budget.spend(rate, now)).count(), 256);
        let later = now.after(rate.every);
        assert!(budget.spend(rate, later));
        assert!(!budget.spend(rate, later));
    }
}
