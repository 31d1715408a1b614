//! When to try to connect to which address, and which tries are under way: without a socket or a clock.
//!
//! ```text
//!   milliseconds   0  1   3       7               15                              31
//!                  ├──│───│───────│───────────────│───────────────────────────────│───►
//!                     ├───│───────│───────────────│───────────────────────────────│───►
//!                         ├───────│───────────────│───────────────────────────────│───►
//! ```
//!
//! A try that comes a moment before the door opens is swallowed, and the kernel repeats it after a second;
//! so there is soon another. None is given up for that: if the door was open for a single connection, it was
//! open for one of those that wait, and its answer may be on its way for longer than all the others have
//! been.

use std::{collections::VecDeque, time::Duration};

/// Between the first two tries; each next one comes after twice the time. So a door is noticed not much
/// later than twice the time that it took to open, and a server far away hears few tries too many.
const FIRST_STEP: Duration = Duration::from_millis(1);

/// Between any two tries at most.
const LONGEST_STEP: Duration = Duration::from_secs(3);

/// After a refusal, which comes at once from a server near by: it must not be asked without end.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// Tries under way to one address. The oldest makes room for one more; at this length it has waited for 16
/// seconds. A process on macOS may have 256 files, and there are 8 addresses at most.
const MOST_PENDING: usize = 16;

/// All tries at some addresses, each known by its place in the list.
#[derive(Debug)]
pub struct Attempts<T> {
    lines: Vec<Line<T>>,
}

/// One address.
#[derive(Debug)]
struct Line<T> {
    next: Duration,
    step: Duration,
    /// The oldest first.
    pending: VecDeque<T>,
}

/// How a try stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// There is no answer.
    Pending,
    /// The port accepts.
    Accepted,
    /// The port does not: a host has refused.
    Refused,
}

impl<T> Attempts<T> {
    /// Nothing is under way, and everything is due.
    #[must_use]
    pub fn new(addresses: usize) -> Self {
        let line = || Line { next: Duration::ZERO, step: FIRST_STEP, pending: VecDeque::new() };
        Self { lines: std::iter::repeat_with(line).take(addresses).collect() }
    }

    /// Begins what is due. What cannot begin counts as refused.
    pub fn begin<E>(&mut self, now: Duration, mut begin: impl FnMut(usize) -> Result<T, E>) {
        for (place, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| line.next <= now) {
            line.next = now.saturating_add(line.step);
            line.step = line.step.saturating_mul(2).min(LONGEST_STEP);
            match begin(place) {
                Ok(attempt) => line.add(attempt),
                Err(_) => line.refused(now),
            }
        }
    }

    /// Looks at every try. Gives the first that is accepted, and the place of its address.
    pub fn look(&mut self, now: Duration, mut standing: impl FnMut(&T) -> Standing) -> Option<(usize, T)> {
        for (place, line) in self.lines.iter_mut().enumerate() {
            let mut number = 0;
            while let Some(attempt) = line.pending.get(number) {
                match standing(attempt) {
                    Standing::Pending => number = number.saturating_add(1),
                    Standing::Accepted => return line.pending.remove(number).map(|attempt| (place, attempt)),
                    Standing::Refused => {
                        line.pending.remove(number);
                        line.refused(now);
                    }
                }
            }
        }
        None
    }

    /// When the next try is due, if there is an address at all.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.lines.iter().map(|line| line.next).min()
    }
}

impl<T> Line<T> {
    fn add(&mut self, attempt: T) {
        if self.pending.len() >= MOST_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(attempt);
    }

    fn refused(&mut self, now: Duration) {
        self.next = self.next.min(now.saturating_add(AFTER_REFUSAL));
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a test may panic")]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Tries for so many milliseconds at one address. A try is known by when it began; `standing` gets that
    /// and the time, in milliseconds. Gives when a try was accepted, and how many have begun.
    fn try_for(limit: u64, standing: impl Fn(u64, u64) -> Standing) -> (Option<u64>, usize) {
        let mut attempts = Attempts::new(1);
        let mut begun = 0_usize;
        for now in 0..limit {
            attempts.begin(ms(now), |_| {
                begun += 1;
                Ok::<_, ()>(now)
            });
            if attempts.look(ms(now), |began| standing(*began, now)).is_some() {
                return (Some(now), begun);
            }
        }
        (None, begun)
    }

    fn accepted_if(accepted: bool) -> Standing {
        if accepted { Standing::Accepted } else { Standing::Pending }
    }

    #[test]
    fn a_door_for_one_connection_is_passed_however_far_away_it_is() {
        for opens in [0, 1, 2, 5, 40, 300] {
            for round_trip in [1, 10, 100, 700, 3000] {
                // The first try after the door has opened uses the grant up; all others hear nothing.
                let first = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511].into_iter().find(|began| *began >= opens);
                let (accepted, _) = try_for(9000, |began, now| {
                    accepted_if(Some(began) == first && now >= began + round_trip)
                });
                assert_eq!(accepted, first.map(|first| first + round_trip), "{opens} {round_trip}");
            }
        }
    }

    #[test]
    fn a_door_is_noticed_in_not_much_more_than_twice_the_time_that_it_took_to_open() {
        for opens in 0..1000 {
            let (accepted, _) = try_for(9000, |began, _| accepted_if(began >= opens));
            assert!(accepted.unwrap() <= 2 * opens + 1, "{opens}: {accepted:?}");
        }
    }

    #[test]
    fn silence_costs_few_tries_and_a_refusal_fifty_in_a_second() {
        assert_eq!(try_for(10_000, |_, _| Standing::Pending), (None, 14));
        assert_eq!(try_for(60_000, |_, _| Standing::Pending).1, 31);
        let (_, begun) = try_for(10_000, |_, _| Standing::Refused);
        assert!((490..=510).contains(&begun), "{begun}");
    }

    #[test]
    fn what_is_under_way_to_an_address_is_bounded_and_the_newest_stay() {
        let mut attempts = Attempts::new(1);
        for now in 0..200_000 {
            attempts.begin(ms(now), |_| Ok::<_, ()>(now));
        }
        let mut under_way = Vec::new();
        attempts.look(ms(200_000), |began| {
            under_way.push(*began);
            Standing::Pending
        });
        assert_eq!(under_way.len(), MOST_PENDING);
        assert!(under_way.iter().all(|began| *began > 150_000), "{under_way:?}");
    }

    #[test]
    fn an_address_that_refuses_does_not_hold_up_another() {
        let mut attempts = Attempts::new(2);
        let mut begun = [0_usize, 0];
        for now in 0..100 {
            attempts.begin(ms(now), |place| {
                begun[place] += 1;
                if place == 0 { Err(()) } else { Ok(now) }
            });
        }
        // At 0, 1, 3, 7, 15, 31 and each 20 ms from there; at 0, 1, 3, 7, 15, 31 and 63.
        assert_eq!(begun, [9, 7]);
        let accepted = attempts.look(ms(100), |began| accepted_if(*began == 0));
        assert_eq!(accepted, Some((1, 0)), "the first is there to be accepted");
    }
}
