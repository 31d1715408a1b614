//! The only clocks.

use std::time::{Instant, SystemTime};

use doors_core::time::{Moment, Wall};

/// Counts from the start of the program. Copies of it agree.
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

    /// How late it is.
    pub fn now(self) -> Moment {
        Moment::new(self.start.elapsed())
    }

    /// What date the machine believes it is. It may be wrong, and may be set at any time.
    pub fn wall(self) -> Wall {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Wall(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// A moment as the timers of tokio want it.
    pub fn instant(self, moment: Moment) -> tokio::time::Instant {
        let since_start = moment.remaining(Moment::default());
        tokio::time::Instant::from_std(self.start.checked_add(since_start).unwrap_or(self.start))
    }
}
