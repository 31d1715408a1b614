//! The only clock.

use std::time::Instant;

use doors_core::time::Moment;

/// Counts from the start of the program. Copies of it agree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// How late it is.
    pub(crate) fn now(self) -> Moment {
        Moment::new(self.start.elapsed())
    }

    /// A moment as the timers of tokio want it.
    pub(crate) fn instant(self, moment: Moment) -> tokio::time::Instant {
        let since_start = moment.remaining(Moment::default());
        tokio::time::Instant::from_std(self.start.checked_add(since_start).unwrap_or(self.start))
    }
}
