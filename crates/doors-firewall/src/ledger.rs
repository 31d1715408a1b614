//! What must be true in the firewall, so that it can be made true again.

use std::{collections::BTreeMap, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::Lease,
    limits,
    time::Moment,
};

/// Twice what can run at once: so looking through all of them is worth the time whenever it is done.
const ROOM: usize = limits::GRANTS.saturating_mul(2);

/// The grants that the firewall was told of and that still run. The core bounds their number, and what is
/// over is forgotten before there is as much of it again.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    leases: BTreeMap<GrantKey, Lease>,
}

impl Ledger {
    /// Notes a grant, at `now`.
    pub fn note(&mut self, lease: Lease, now: Moment) {
        if self.leases.len() >= ROOM {
            self.prune(now);
        }
        self.leases.insert(lease.key.clone(), lease);
    }

    /// Forgets a grant.
    pub fn strike(&mut self, key: &GrantKey) {
        self.leases.remove(key);
    }

    /// Forgets what is over at `now`.
    pub fn prune(&mut self, now: Moment) {
        self.leases.retain(|_, lease| lease.until > now);
    }

    /// Forgets the grants of doors that `keep` does not want.
    pub fn retain(&mut self, keep: impl Fn(&DoorName) -> bool) {
        self.leases.retain(|key, _| keep(&key.door));
    }

    /// The grant for this door and source, if it runs at `now`.
    pub fn get(&self, key: &GrantKey, now: Moment) -> Option<&Lease> {
        self.leases.get(key).filter(|lease| lease.until > now)
    }

    /// The grants that run at `now`, with the time that is left.
    pub fn running(&self, now: Moment) -> impl Iterator<Item = (&Lease, Duration)> {
        self.leases
            .values()
            .map(move |lease| (lease, lease.until.remaining(now)))
            .filter(|(_, left)| !left.is_zero())
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

    use doors_core::{lease::GrantedTo, packet::Link};

    use super::*;

    #[test]
    fn what_is_over_takes_no_more_room_than_what_can_run() {
        let mut ledger = Ledger::default();
        for number in 0..400_000_u32 {
            let now = Moment::new(Duration::from_millis(u64::from(number)));
            let source = IpAddr::V4(Ipv4Addr::from_bits(number));
            let key = GrantKey { door: DoorName::new("ssh").unwrap(), source };
            let until = now.after(Duration::from_secs(1));
            let link = Link::default();
            ledger.note(Lease { key, link, until, granted_to: GrantedTo::Sequence, once: false }, now);
            assert!(ledger.leases.len() <= ROOM);
        }
        assert!(ledger.leases.len() > 1000, "what runs is there");
    }
}
