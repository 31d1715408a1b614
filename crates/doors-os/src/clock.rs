//! Reads the monotonic clock and the wall clock. Nothing else does.

use std::time::{Instant, SystemTime};

use doors_core::time::{Moment, Wall};

/// The time since the start of the program. Copies agree with each other.
///
/// ```
/// use doors_os::clock::Clock;
///
/// let clock = Clock::start();
/// let copy = clock;
/// let before = clock.now();
/// assert!(copy.now() >= before);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts counting.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The current moment.
    pub fn now(self) -> Moment {
        Moment::new(self.start.elapsed())
    }

    /// The machine's wall clock. It may be wrong, and may be set at any time.
    pub fn wall(self) -> Wall {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// Converts a moment to an instant of tokio's timers.
    pub fn instant(self, moment: Moment) -> tokio::time::Instant {
        let since_start = moment.remaining(Moment::default());
        tokio::time::Instant::from_std(self.start.checked_add(since_start).unwrap_or(self.start))
    }
}
