//! What must be true in the firewall, so that it can be made true again.

use std::{collections::BTreeMap, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::Lease,
    limits,
    packet::Link,
    spa::client::ClientLabel,
    time::Moment,
};

/// Twice what can run at once: so looking through all of them is worth the time whenever it is done.
const ROOM: usize = limits::GRANTS.saturating_mul(2);

/// One grant that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// When the door closes.
    pub until: Moment,
    /// The interface on which the knocks came.
    pub link: Link,
    /// Whose key it was; `None` for a sequence, or if nobody knows.
    pub by: Option<ClientLabel>,
}

impl Standing {
    /// Takes a lease apart.
    pub fn of(lease: Lease) -> (GrantKey, Self) {
        let Lease { key, link, until, granted_to: by, once: _ } = lease;
        (key, Self { until, link, by })
    }

    /// Puts a lease together.
    pub fn lease(self, key: GrantKey, once: bool) -> Lease {
        let Self { until, link, by } = self;
        Lease { key, link, until, granted_to: by, once }
    }
}

/// What is known of a grant that is over: the core knows whose it was.
pub fn over(key: GrantKey, until: Moment) -> Lease {
    Standing { until, link: Link::default(), by: None }.lease(key, false)
}

/// The grants that the firewall was told of and that still run. The core bounds their number, and what is
/// over is forgotten before there is as much of it again.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    standing: BTreeMap<GrantKey, Standing>,
}

impl Ledger {
    /// Notes a grant, at `now`.
    pub fn note(&mut self, admission: GrantKey, standing: Standing, now: Moment) {
        if self.standing.len() >= ROOM {
            self.prune(now);
        }
        self.standing.insert(admission, standing);
    }

    /// Forgets a grant.
    pub fn strike(&mut self, admission: &GrantKey) {
        self.standing.remove(admission);
    }

    /// Forgets what is over at `now`.
    pub fn prune(&mut self, now: Moment) {
        self.standing.retain(|_, standing| standing.until > now);
    }

    /// Forgets the grants of doors that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&DoorName) -> bool) {
        self.standing.retain(|admission, _| keep(&admission.door));
    }

    /// The grant for this door and source, if it runs at `now`.
    pub fn get(&self, admission: &GrantKey, now: Moment) -> Option<Standing> {
        self.standing.get(admission).cloned().filter(|standing| standing.until > now)
    }

    /// The grants that run at `now`, with the time that is left.
    pub fn running(&self, now: Moment) -> impl Iterator<Item = (&GrantKey, &Standing, Duration)> {
        self.standing
            .iter()
            .map(move |(admission, standing)| (admission, standing, standing.until.remaining(now)))
            .filter(|(_, _, left)| !left.is_zero())
    }
}

/// How the log says that so many open doors were missing from the firewall; `None` for none.
pub fn missing(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("an open door was missing".to_owned()),
        _ => Some(format!("{count} open doors were missing")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn what_is_over_takes_no_more_room_than_what_can_run() {
        let mut ledger = Ledger::default();
        for number in 0..400_000_u32 {
            let now = Moment::new(Duration::from_millis(u64::from(number)));
            let source = IpAddr::V4(Ipv4Addr::from_bits(number));
            let admission = GrantKey { door: DoorName::new("ssh").unwrap(), source };
            let until = now.after(Duration::from_secs(1));
            ledger.note(admission, Standing { until, link: Link::default(), by: None }, now);
            assert!(ledger.standing.len() <= ROOM);
        }
        assert!(ledger.standing.len() > 1000, "what runs is there");
    }
}
