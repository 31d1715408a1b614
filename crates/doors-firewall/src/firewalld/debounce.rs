//! What is done when it is asked for, but not more often than once a second.

use std::time::Duration;

use doors_core::time::Moment;

/// Between two times there is at least this much.
const APART: Duration = Duration::from_secs(1);

/// Something that others make us do, who may do so as often as they like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Debounce {
    due: Option<Moment>,
    free: Moment,
}

impl Debounce {
    /// It has to be done: at once, if it was not done only just now.
    pub(super) fn ask(&mut self, now: Moment) {
        let at = self.free.max(now);
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// When it is due.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }

    /// Whether it has to be done at `now`. If so, it counts as done.
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
