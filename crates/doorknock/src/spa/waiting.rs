//! How long to wait for the answers of several addresses, without a clock.
//!
//! ```text
//!   IPv6   knock ────────────────── (goes nowhere)          ╳ not waited for
//!   IPv4   knock ──── receipt ├──────── grace ──────────────┤ the end
//! ```
//!
//! A name often has an address that this network does not reach, and a door is open for a short time. So one
//! answer is enough, and the other addresses have a moment to give theirs, as in RFC 8305.

use std::time::Duration;

/// For the other addresses, after an answer. Longer than it takes until a knock is repeated, so that one lost
/// datagram does not matter, and short against the time of any door.
pub const GRACE: Duration = Duration::from_millis(400);

/// How the addresses stand, each known by its place in the list.
///
/// Moments are durations since any start, and never go backwards.
#[derive(Debug)]
pub struct Waiting {
    lines: Vec<Line>,
    answered: Option<Duration>,
}

/// One address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Line {
    /// Nothing has left: an agent may ask its user first.
    Signing,
    /// The first knock left at this moment.
    Knocked(Duration),
    /// There is an outcome.
    Over,
}

impl Waiting {
    /// Nothing has left.
    #[must_use]
    pub fn new(addresses: usize) -> Self {
        Self { lines: vec![Line::Signing; addresses], answered: None }
    }

    /// A knock leaves.
    pub fn knocked(&mut self, place: usize, now: Duration) {
        if let Some(line @ Line::Signing) = self.lines.get_mut(place) {
            *line = Line::Knocked(now);
        }
    }

    /// Whether a knock has left.
    #[must_use]
    pub fn has_knocked(&self) -> bool {
        self.lines.iter().any(|line| *line != Line::Signing)
    }

    /// There is an outcome, which is an answer or not.
    pub fn over(&mut self, place: usize, is_answer: bool, now: Duration) {
        if let Some(line) = self.lines.get_mut(place) {
            *line = Line::Over;
        }
        if is_answer {
            self.answered.get_or_insert(now);
        }
    }

    /// When not to wait any longer. None while each address may take its time: before the first answer, and
    /// while a user has a knock to confirm.
    #[must_use]
    pub fn until(&self) -> Option<Duration> {
        let answered = self.answered?;
        self.lines.iter().try_fold(answered, |until, line| match line {
            Line::Signing => None,
            Line::Knocked(left) => Some(until.max(answered.max(*left).saturating_add(GRACE))),
            Line::Over => Some(until),
        })
    }

    /// The addresses that have no outcome.
    pub fn left(&self) -> impl Iterator<Item = usize> {
        let lines = self.lines.iter().enumerate();
        lines.filter(|(_, line)| **line != Line::Over).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn both_knocked() -> Waiting {
        let mut waiting = Waiting::new(2);
        waiting.knocked(0, ms(1));
        waiting.knocked(1, ms(2));
        waiting
    }

    #[test]
    fn after_an_answer_the_other_addresses_have_a_short_grace() {
        let mut waiting = both_knocked();
        assert_eq!(waiting.until(), None, "nothing is answered");
        waiting.over(0, true, ms(30));
        assert_eq!(waiting.until(), Some(ms(430)));
        assert_eq!(waiting.left().collect::<Vec<_>>(), [1]);
        // A repeated knock does not lengthen it.
        waiting.knocked(1, ms(302));
        assert_eq!(waiting.until(), Some(ms(430)));
        waiting.over(1, true, ms(330));
        assert_eq!((waiting.until(), waiting.left().count()), (Some(ms(30)), 0));
    }

    #[test]
    fn what_is_no_answer_cuts_no_wait_short() {
        let mut waiting = both_knocked();
        waiting.over(1, false, ms(3));
        assert_eq!(waiting.until(), None);
    }

    #[test]
    fn a_knock_that_its_user_has_to_confirm_has_its_grace_from_when_it_leaves() {
        let mut waiting = Waiting::new(2);
        waiting.knocked(0, ms(0));
        waiting.over(0, true, ms(30));
        assert_eq!(waiting.until(), None);
        waiting.knocked(1, ms(9_000));
        assert_eq!(waiting.until(), Some(ms(9_400)));
    }
}
