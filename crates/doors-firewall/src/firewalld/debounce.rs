//! Work that is done on demand, but at most once a second.

use std::time::Duration;

use doors_core::time::Moment;

/// The shortest time between two runs.
const APART: Duration = Duration::from_secs(1);

/// Work that others can ask for as often as they like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debounce {
    due: Option<Moment>,
    free: Moment,
}

impl Debounce {
    /// Asks for the work: it is due at once, unless it was done just now.
    pub(super) fn ask(&mut self, now: Moment) {
        let at = self.free.max(now);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When it is due.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Whether the work is due at `now`. If so, it counts as done.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
            self.free = now.after(APART);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_at_once_and_then_once_a_second() {
        let mut paced = Debounce::default();
        let mut done = Vec::new();
        for milliseconds in (0..3_500).step_by(10) {
            let now = Moment::new(Duration::from_millis(milliseconds));
            if milliseconds < 2_500 {
                paced.ask(now);
            }
            if paced.take(now) {
                done.push(milliseconds);
            }
        }
        assert_eq!(done, [0, 1_000, 2_000, 3_000]);
        assert_eq!(paced.due(), None);
    }
}
