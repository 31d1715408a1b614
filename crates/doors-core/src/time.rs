//! Points in time, which come in as arguments.

use core::time::Duration;

/// A point on the daemon's monotonic clock.
///
/// Counted from an arbitrary start, so only differences mean anything. Never a date: a door that trusts the
/// wall clock stays open when the clock is set back.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Moment(Duration);

impl Moment {
    /// The moment `since_start` after the clock's start.
    #[must_use]
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment `wait` after this one; the latest moment if that overflows.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// The time since the clock's start.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time from `now` until this moment; zero if it has passed.
    #[must_use]
    pub const fn remaining(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

/// A date in milliseconds since 1970 (UTC), by the machine's own clock, which may be wrong and may be set.
///
/// Only for comparison with another machine's clock, or with a date that a person wrote.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Wall(pub u64);
