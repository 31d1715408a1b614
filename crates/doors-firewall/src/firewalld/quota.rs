//! How many grants firewalld is given at once.

use std::{fmt, time::Duration};

use doors_core::time::Moment;

/// Grants that sequences get.
///
/// firewalld takes some 15 ms for a rule, one after the other. An attacker who overhears a sequence can replay
/// it from any number of forged addresses: with this many, the next client waits four seconds, and not until tens of
/// thousands are worked off.
const ROOM: usize = 256;

/// Grants that keys get, beyond those. Requests with a key cannot be forged, and forged knocks must not take their room.
const ROOM_WITH_KEYS: usize = 512;

/// Refusals are reported once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Clients that are turned away.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Not reported yet.
    refused: usize,
    told: Option<Moment>,
}

/// How many were turned away since the last report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Refused(usize);

impl Quota {
    /// Whether there is room for one more grant while so many run.
    pub(super) fn is_there(running: usize, with_key: bool) -> bool {
        running < if with_key { ROOM_WITH_KEYS } else { ROOM }
    }

    /// A client is turned away at `now`. Returns what there is to report.
    pub(super) fn refuse(&mut self, now: Moment) -> Option<Refused> {
        self.refused = self.refused.saturating_add(1);
        if self.told.is_some_and(|told| now < told.after(TOLD_EVERY)) {
            return None;
        }
        self.told = Some(now);
        Some(Refused(std::mem::take(&mut self.refused)))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number) = self;
        let doors = if *number == 1 { "a door is" } else { "doors are" };
        write!(
            f,
            "{number} {doors} not opened, and more may follow: firewalld is slow, and is given no more than {ROOM} \
             open doors at once; if you do not have as many clients, an attacker has overheard a sequence: choose \
             another, or let clients have keys"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_is_told_once_a_minute() {
        let mut room = Quota::default();
        let told: Vec<(u64, Refused)> = (0..150)
            .filter_map(|second| {
                let told = room.refuse(Moment::new(Duration::from_secs(second)));
                told.map(|told| (second, told))
            })
            .collect();
        assert_eq!(told, [(0, Refused(1)), (60, Refused(60)), (120, Refused(60))]);
    }
}
