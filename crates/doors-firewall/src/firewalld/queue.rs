//! What is left to do with firewalld, in which order, and how often it was tried.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use doors_core::{door::GrantKey, time::Moment};

/// After a failure, the next try comes this much later, and then twice as much.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// No later than this.
const LAST_RETRY: Duration = Duration::from_secs(5);

/// Grants that have to be made true. Each is there once, so their number is bounded as grants are.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Grants that clients wait for, and behind them grants that are put back.
    queue: VecDeque<GrantKey>,
    waiting: BTreeMap<GrantKey, Waiting>,
    /// What failed and comes again.
    later: BTreeMap<Moment, Vec<GrantKey>>,
}

/// What is known of a grant that waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// How often it was tried.
    pub(super) tries: u32,
    /// Whether a client has just knocked for it, and waits for the answer.
    pub(super) fresh: bool,
    /// Whether the source of the knock cannot be forged.
    pub(super) known: bool,
    /// Whether it is only to set right what a slow call made of its time.
    pub(super) corrected: bool,
}

impl Queue {
    /// A client has knocked: its grant goes before all that are only put back. A client that is `known`, by a key or
    /// because the door is open already, goes before those that may forge their addresses.
    pub(super) fn add_fresh(&mut self, admission: GrantKey, known: bool) {
        let new = Waiting { fresh: true, known, ..Waiting::default() };
        let old = self.waiting.insert(admission.clone(), new);
        // It keeps its place, unless it waits for a retry.
        if old.is_some_and(|old| old.rank() == new.rank()) && self.queue.contains(&admission) {
            return;
        }
        self.queue.retain(|other| *other != admission);
        let rank = |other| self.waiting.get(other).copied().unwrap_or_default().rank();
        let place = self.queue.iter().position(|other| rank(other) < new.rank());
        self.queue.insert(place.unwrap_or(self.queue.len()), admission);
    }

    /// It was true and has to be made true again.
    pub(super) fn add_again(&mut self, admission: GrantKey) {
        // What waits for a retry need not: everything is different.
        let of_retries = self.later.values_mut().any(|due| {
            let before = due.len();
            due.retain(|other| *other != admission);
            due.len() < before
        });
        self.later.retain(|_, due| !due.is_empty());
        match self.waiting.get_mut(&admission) {
            Some(_) if !of_retries => return,
            Some(waiting) => waiting.tries = 0,
            None => drop(self.waiting.insert(admission.clone(), Waiting::default())),
        }
        self.queue.push_back(admission);
    }

    /// It is true, but for its time.
    pub(super) fn correct(&mut self, admission: GrantKey) {
        if !self.waiting.contains_key(&admission) {
            self.waiting.insert(admission.clone(), Waiting { corrected: true, ..Waiting::default() });
            self.queue.push_back(admission);
        }
    }

    /// It did not work: once more, later.
    pub(super) fn retry(&mut self, admission: GrantKey, waiting: Waiting, now: Moment) {
        let factor = 2_u32.saturating_pow(waiting.tries.min(16));
        let at = now.after(FIRST_RETRY.saturating_mul(factor).min(LAST_RETRY));
        let tries = waiting.tries.saturating_add(1);
        if !self.waiting.contains_key(&admission) {
            self.waiting.insert(admission.clone(), Waiting { tries, ..waiting });
            self.later.entry(at).or_default().push(admission);
        }
    }

    /// The next to do at `now`.
    pub(super) fn next(&mut self, now: Moment) -> Option<(GrantKey, Waiting)> {
        while let Some((at, _)) = self.later.first_key_value()
            && *at <= now
            && let Some((_, due)) = self.later.pop_first()
        {
            for admission in due {
                if self.waiting.contains_key(&admission) && !self.queue.contains(&admission) {
                    self.queue.push_back(admission);
                }
            }
        }
        while let Some(admission) = self.queue.pop_front() {
            if let Some(waiting) = self.waiting.remove(&admission) {
                return Some((admission, waiting));
            }
        }
        None
    }

    /// Everything that is left to do.
    pub(super) fn take_all(&mut self) -> BTreeMap<GrantKey, Waiting> {
        self.queue.clear();
        self.later.clear();
        std::mem::take(&mut self.waiting)
    }

    /// When a retry is due.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.later.first_key_value().map(|(at, _)| *at)
    }

    /// Whether nothing is left to do.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Waiting {
    /// The higher rank comes first.
    fn rank(self) -> (bool, bool) {
        (self.fresh, self.known)
    }
}

#[cfg(test)]
mod tests {
    use doors_core::door::DoorName;

    use super::*;

    fn admission(number: u8) -> GrantKey {
        GrantKey { door: DoorName::new("ssh").unwrap(), source: [192, 0, 2, number].into() }
    }

    fn order(jobs: &mut Queue, now: Moment) -> Vec<GrantKey> {
        std::iter::from_fn(|| jobs.next(now)).map(|(admission, _)| admission).collect()
    }

    #[test]
    fn who_knocks_goes_before_what_is_put_back() {
        let mut jobs = Queue::default();
        for number in 1..4 {
            jobs.add_again(admission(number));
        }
        jobs.add_fresh(admission(7), false);
        jobs.add_fresh(admission(8), false);
        jobs.add_fresh(admission(2), false);
        assert_eq!(order(&mut jobs, Moment::default()), [7, 8, 2, 1, 3].map(admission));
        assert!(jobs.is_empty());
    }

    #[test]
    fn who_is_known_goes_before_those_who_may_forge_their_address() {
        let mut jobs = Queue::default();
        jobs.add_again(admission(1));
        for number in 2..5 {
            jobs.add_fresh(admission(number), false);
        }
        jobs.add_fresh(admission(7), true);
        jobs.add_fresh(admission(8), true);
        jobs.add_fresh(admission(4), true);
        assert_eq!(order(&mut jobs, Moment::default()), [7, 8, 4, 2, 3, 1].map(admission));
    }

    #[test]
    fn a_grant_is_in_the_queue_once() {
        let mut jobs = Queue::default();
        for _ in 0..3 {
            jobs.add_fresh(admission(7), false);
            jobs.add_again(admission(7));
        }
        assert_eq!(order(&mut jobs, Moment::default()), [admission(7)]);
    }

    #[test]
    fn a_retry_comes_later_and_later() {
        let mut jobs = Queue::default();
        let mut now = Moment::default();
        let mut waits = Vec::new();
        jobs.add_fresh(admission(7), false);
        for _ in 0..8 {
            let (admission, waiting) = jobs.next(now).unwrap();
            jobs.retry(admission, waiting, now);
            assert!(jobs.next(now).is_none());
            let due = jobs.next_retry().unwrap();
            waits.push(due.remaining(now).as_millis());
            now = due;
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn what_is_put_back_does_not_wait_for_the_retry() {
        let mut jobs = Queue::default();
        jobs.add_again(admission(7));
        let (failed, waiting) = jobs.next(Moment::default()).unwrap();
        jobs.retry(failed, waiting, Moment::default());
        jobs.add_again(admission(7));
        assert_eq!(order(&mut jobs, Moment::default()), [admission(7)]);
        assert_eq!(jobs.next_retry(), None);
    }

    #[test]
    fn a_knock_does_not_wait_for_the_retry() {
        let mut jobs = Queue::default();
        jobs.add_fresh(admission(7), false);
        let (failed, waiting) = jobs.next(Moment::default()).unwrap();
        jobs.retry(failed, waiting, Moment::default());
        jobs.add_fresh(admission(7), false);
        assert_eq!(order(&mut jobs, Moment::default()), [admission(7)]);
        assert!(jobs.next(Moment::new(Duration::from_secs(9))).is_none(), "it is done");
    }
}
