//! Points in time that are only compared with each other.

use core::time::Duration;

/// A point on the daemon's monotonic clock.
///
/// Counted from an arbitrary start, so only differences mean anything. Never a date: a door that
/// trusts the wall clock stays open when somebody moves it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(Duration);

impl Moment {
    /// The moment that lies `since_start` after the clock's start.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment `wait` after this one; the end of time if that overflows.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long from `now` until this moment; zero if it has passed.
    #[must_use]
    pub const fn remaining(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}
