//! The bound of everything that a stranger can grow, each with its reason.

use core::time::Duration;

/// Knockers that are remembered at once.
///
/// Some six megabytes when full. A flood of forged first knocks at 200,000 a second leaves a client a
/// third of a second for its second knock; from then on the flood cannot reach it, because those who
/// have come the least far are forgotten first.
pub const KNOCKERS: usize = 65_536;

/// Grants that run at once, over all doors.
///
/// The kernel holds ten times as many without effort. The bound is for somebody who overhears a
/// sequence and replays it from forged addresses.
pub const GRANTS: usize = 65_536;

/// Doors in one configuration: far more than anybody has, and few enough that the tree of their
/// sequences is numbered with 16 bits.
pub const DOORS: usize = 256;

/// A door that was opened or extended this short a time ago is not extended again.
///
/// Whoever repeats a sequence as fast as the network carries it costs the firewall one change a second.
pub const EXTEND_AFTER: Duration = Duration::from_secs(1);

/// Lines about refused knocks that may be told in one go.
pub const REFUSALS_AT_ONCE: u32 = 20;

/// After this long, one more refused knock may be told.
pub const REFUSAL_EVERY: Duration = Duration::from_secs(3);

/// What was left untold is told as one number this long after the first of it.
pub const REFUSALS_SUMMED_AFTER: Duration = Duration::from_secs(60);
