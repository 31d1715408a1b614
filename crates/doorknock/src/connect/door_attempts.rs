//! When to try the port of a door that a knock may have opened: without a socket or a clock.
//!
//! ```text
//!   knock ─────────── receipt ┬                                   the usual case: one try, behind an open door
//!                             └── try
//!   knock ─────────────── 150 ms ┬                ╳ lost          the door is open all the same
//!                                └── try
//! ```
//!
//! Receipts get lost where a firewall drops what its own machine answers. So a knock that has no answer for a
//! while may have opened its door, and each such knock is worth one try. No more, and no two at a time: each try
//! that passes uses a door for one connection up, and what listens there may hear of it.

use std::time::Duration;

/// So long a knock waits for its answer alone. Half the time until it is repeated: a connection that takes no longer
/// than that keeps the next knock from leaving, which would open a door for one connection again.
pub const UNANSWERED: Duration = Duration::from_millis(150);

/// Between two tries at least, as in RFC 8305. In most networks the answer to the first is there by then; if it
/// comes later, the second is given up before it becomes a connection.
pub const BETWEEN: Duration = Duration::from_millis(250);

/// The tries to come at some addresses, each known by its place in the list.
///
/// Moments are durations since any start, and never go backwards.
#[derive(Debug)]
pub struct Approach {
    due: Vec<Option<Duration>>,
    /// When the next try may begin.
    free: Duration,
}

impl Approach {
    /// Nothing is due.
    #[must_use]
    pub fn new(addresses: usize) -> Self {
        Self { due: vec![None; addresses], free: Duration::ZERO }
    }

    /// A knock leaves that may open the door of these addresses. What is due stays.
    pub fn knocked(&mut self, places: &[usize], now: Duration) {
        self.set(places, |due| match due {
            Some(due) if due <= now => due,
            Some(_) | None => now.saturating_add(UNANSWERED),
        });
    }

    /// The door of these addresses is open.
    pub fn opened(&mut self, places: &[usize], now: Duration) {
        self.set(places, |due| due.map_or(now, |due| due.min(now)));
    }

    fn set(&mut self, places: &[usize], when: impl Fn(Option<Duration>) -> Duration) {
        for place in places {
            if let Some(due) = self.due.get_mut(*place) {
                *due = Some(when(*due));
            }
        }
    }

    /// Takes the address that is to be tried at this moment, if there is one: of several the one that has waited
    /// longest.
    pub fn take(&mut self, now: Duration) -> Option<usize> {
        let next = self.due.iter().enumerate().filter_map(|(place, due)| due.map(|due| (due, place))).min();
        let (due, place) = next?;
        if now < due.max(self.free) {
            return None;
        }
        self.free = now.saturating_add(BETWEEN);
        self.due.get_mut(place)?.take();
        Some(place)
    }

    /// When the next try is due, if there is one.
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        self.due.iter().flatten().min().map(|due| self.free.max(*due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Knocks or opens at these milliseconds, and gives all tries until five seconds are over.
    fn tries(addresses: usize, events: &[(u64, bool, &[usize])]) -> Vec<(u64, usize)> {
        let mut approach = Approach::new(addresses);
        let mut tries = Vec::new();
        for now in 0..5000 {
            for (_, opens, places) in events.iter().filter(|(at, ..)| *at == now) {
                match opens {
                    true => approach.opened(places, ms(now)),
                    false => approach.knocked(places, ms(now)),
                }
            }
            let next = approach.next();
            let taken = approach.take(ms(now));
            assert_eq!(taken.is_some(), next.is_some_and(|next| next <= ms(now)), "{now}: {next:?}");
            tries.extend(taken.map(|place| (now, place)));
        }
        tries
    }

    #[test]
    fn an_answer_in_time_makes_one_try_behind_the_open_door() {
        assert_eq!(tries(1, &[(0, false, &[0]), (40, true, &[0])]), [(40, 0)]);
        // The second knock answers a challenge, and has all its time.
        assert_eq!(tries(1, &[(0, false, &[0]), (140, false, &[0]), (280, true, &[0])]), [(280, 0)]);
    }

    #[test]
    fn each_knock_without_an_answer_is_worth_one_try() {
        let knocks = [0, 300, 900, 2100, 4500].map(|at| (at, false, &[0][..]));
        assert_eq!(tries(1, &knocks), [150, 450, 1050, 2250, 4650].map(|at| (at, 0)));
    }

    #[test]
    fn no_two_tries_begin_together_and_no_address_is_forgotten() {
        // The receipt comes after a try has begun, which may be the one that passes.
        assert_eq!(tries(1, &[(0, false, &[0]), (200, true, &[0])]), [(150, 0), (400, 0)]);
        assert_eq!(tries(3, &[(0, false, &[0, 1, 2])]), [(150, 0), (400, 1), (650, 2)]);
        let again = [(0, false, &[0, 1, 2][..]), (300, false, &[0, 1, 2])];
        assert_eq!(tries(3, &again), [(150, 0), (400, 1), (650, 2), (900, 0)]);
    }
}
