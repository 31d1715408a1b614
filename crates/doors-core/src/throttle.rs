//! Keeps the log short, whatever strangers send.

use core::time::Duration;

use crate::{
    limits::{DOOR_LINE_EVERY, DOOR_LINES_AT_ONCE, REFUSAL_EVERY, REFUSALS_AT_ONCE, SUMMED_AFTER},
    time::Moment,
};

/// Lets through a few at once and then one now and again; counts the others.
///
/// It has a budget of lines, and only lines: what is judged and opened never depends on it.
#[derive(Clone, Debug)]
pub struct Throttle {
    at_once: u32,
    every: Duration,
    budget: u32,
    refilled: Moment,
    untold: u64,
    sum_at: Option<Moment>,
}

impl Throttle {
    /// For what is refused.
    #[must_use]
    pub const fn of_refusals() -> Self {
        Self::new(REFUSALS_AT_ONCE, REFUSAL_EVERY)
    }

    /// For what becomes of doors.
    #[must_use]
    pub const fn of_doors() -> Self {
        Self::new(DOOR_LINES_AT_ONCE, DOOR_LINE_EVERY)
    }

    const fn new(at_once: u32, every: Duration) -> Self {
        let refilled = Moment::new(Duration::ZERO);
        Self { at_once, every, budget: at_once, refilled, untold: 0, sum_at: None }
    }

    /// Whether one more may be told at `now`; if not, it is counted.
    pub fn admit(&mut self, now: Moment) -> bool {
        while self.budget < self.at_once && self.refilled.after(self.every) <= now {
            self.budget = self.budget.saturating_add(1);
            self.refilled = self.refilled.after(self.every);
        }
        if self.budget == self.at_once {
            self.refilled = now;
        }
        if let Some(left) = self.budget.checked_sub(1) {
            self.budget = left;
            return true;
        }
        self.untold = self.untold.saturating_add(1);
        self.sum_at.get_or_insert(now.after(SUMMED_AFTER));
        false
    }

    /// How many were left untold, once it is time to say so.
    pub fn sum(&mut self, now: Moment) -> Option<u64> {
        self.sum_at.take_if(|at| *at <= now)?;
        Some(core::mem::take(&mut self.untold))
    }

    /// When [`sum`](Self::sum) has something to say.
    #[must_use]
    pub fn next_sum(&self) -> Option<Moment> {
        self.sum_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_makes_few_lines_and_one_sum() {
        let mut throttle = Throttle::of_refusals();
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
        let mut throttle = Throttle::of_refusals();
        while throttle.admit(Moment::default()) {}
        let later = Moment::new(Duration::from_secs(3600));
        let told = (0..1000).filter(|_| throttle.admit(later)).count();
        assert_eq!(told, 20);
    }
}
