//! Live grants: which doors are open for which addresses until when, and which clients asked for them.
//!
//! ```text
//!   one door, one address        the firewall holds one lease at a time
//!   ┌──────────────────────────────────────────────────────────────────┐
//!   │ lease    laptop, until 12:00      what the firewall holds        │
//!   │ others   phone, until 11:00       asked for the same: it stays   │
//!   │                                   open for them if laptop goes   │
//!   │ waiting  tablet, until 11:30      for one connection each: they  │
//!   │                                   start when the lease is over   │
//!   └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Behind an address translator, several clients share one address. Each keeps its own lease. When a client
//! is removed, only its own lease ends.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::{cmp::Reverse, mem, ops::Bound, time::Duration};

use crate::{
    access::Grant,
    door::GrantKey,
    lease::{GrantedTo, Lease},
    limits::{self, EXTEND_AFTER, SHARING_ONE_ADDRESS},
    spa::client::ClientLabel,
    time::Moment,
};

/// What the firewall has confirmed of a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Nothing yet: the firewall has been asked to open it.
    Asked,
    /// The door is open.
    Open,
    /// The door is open, and its lease was replaced without a knock. The firewall's confirmation of that is
    /// not an event.
    Corrected,
}

/// A live grant: one door for one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LiveGrant {
    /// The lease that the firewall holds or has been asked for.
    pub lease: Lease,
    /// What the firewall has confirmed of it.
    pub state: State,
    /// Since when the door is open for the address, or was asked for; if adopted, since when that is known.
    pub since: Moment,
    /// Whether it was adopted: the firewall held it before the daemon started, so who opened it may be
    /// unknown.
    pub adopted: bool,
    /// The leases of others who asked for it, one for each client. Each ends with `lease` or before it.
    others: Vec<Lease>,
    /// Single-connection leases of others, in order. The firewall holds one at a time, so each starts when
    /// the one before it is used up or over.
    waiting: VecDeque<Lease>,
}

/// The effect of a grant on a door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The firewall has to open or extend the door.
    Changed(Lease),
    /// The door is open for at least as long already, because of others. This is the new lease.
    Joined(Lease),
    /// The same client or sequence asked before, and the firewall's lease does not change.
    Unchanged(Lease),
    /// A single-connection lease that waits for its turn.
    Waits(Lease),
    /// Refused: one of the bounds is reached, [`limits::GRANTS`] in all, [`limits::GRANTS_BY_SEQUENCE`],
    /// [`limits::GRANTS_PER_CLIENT`], or [`SHARING_ONE_ADDRESS`] for this door and address.
    Full(Lease),
}

/// What happens to a door when a client closes its own lease.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Left {
    /// The client had no lease for it.
    Nothing,
    /// The client's lease was waiting for its turn.
    Waiting(Lease),
    /// The door stays open for others.
    Others {
        /// The client's lease.
        gone: Lease,
        /// The lease that replaces it in the firewall, if it was there.
        now: Option<Lease>,
    },
    /// The client's lease was the only one.
    Alone,
}

/// A grant of which at least one lease has ended, or ends earlier.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retracted {
    /// The leases that are over, those that waited included.
    pub ended: Vec<Lease>,
    /// What is left.
    pub outcome: Outcome,
}

/// What is left of a grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The grant has ended.
    Closed(LiveGrant),
    /// The grant stays, with another lease in the firewall.
    Changed {
        /// The lease that the firewall held.
        before: Lease,
        /// The lease that replaces it.
        now: Lease,
    },
    /// The firewall's lease stays as it is.
    Kept(Lease),
}

impl LiveGrant {
    fn new(lease: Lease, since: Moment) -> Self {
        let (others, waiting) = (Vec::new(), VecDeque::new());
        Self { lease, state: State::Asked, since, adopted: false, others, waiting }
    }

    /// Whether the firewall has confirmed that the door is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Asked
    }

    /// Whether it was open before the daemon started, and the client that opened it is unknown.
    #[must_use]
    pub fn is_unowned(&self) -> bool {
        self.adopted && self.lease.granted_to == GrantedTo::Sequence && self.others.is_empty()
    }

    /// All leases in it: the firewall's, those of others, and those that wait.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        [&self.lease].into_iter().chain(&self.others).chain(&self.waiting)
    }

    fn sharing(&self) -> usize {
        self.others.len().saturating_add(self.waiting.len())
    }

    /// Takes the lease of the others that ends last.
    fn take_next(&mut self) -> Option<Lease> {
        let (last, _) =
            self.others.iter().enumerate().max_by_key(|(at, lease)| (lease.until, Reverse(*at)))?;
        Some(self.others.swap_remove(last))
    }

    /// Replaces the lease without a knock. Returns the old one.
    fn correct(&mut self, lease: Lease) -> Lease {
        if self.state == State::Open {
            self.state = State::Corrected;
        }
        mem::replace(&mut self.lease, lease)
    }
}

/// All live grants.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    running: BTreeMap<GrantKey, LiveGrant>,
    by_end: BTreeSet<(Moment, GrantKey)>,
    /// The number of leases by each right, waiting ones included.
    shares: BTreeMap<GrantedTo, usize>,
}

impl Grants {
    /// Opens a door or extends it. Never shortens it.
    pub fn open(&mut self, grant: Grant, now: Moment) -> Opening {
        let lease = grant.redeem(now);
        let is_full = self.is_full_for(&lease.granted_to);
        let Some(mut running) = self.close(&lease.key) else {
            if is_full {
                return Opening::Full(lease);
            }
            self.put(LiveGrant::new(lease.clone(), now));
            return Opening::Changed(lease);
        };
        let opening = match lease.once {
            true => once_more(&mut running, lease, is_full),
            false => join(&mut running, lease, is_full),
        };
        self.put(running);
        opening
    }

    /// Adopts a lease that the firewall held before the daemon started. `state` is [`State::Open`], or
    /// [`State::Corrected`] if the lease is shorter than the firewall's. Returns whether there was room. If
    /// not, the firewall still ends the lease on time, and no event reports that.
    pub fn adopt(&mut self, lease: Lease, state: State, now: Moment) -> bool {
        // Shares do not count here: they were checked when the lease was granted. Only the total bound does.
        match self.close(&lease.key) {
            Some(mut known) => {
                known.lease = Lease { link: known.lease.link, ..lease };
                known.state = state;
                self.put(known);
            }
            None if self.running.len() >= room_for(&lease.granted_to) => return false,
            None => self.put(LiveGrant { state, adopted: true, ..LiveGrant::new(lease, now) }),
        }
        true
    }

    /// Records that the firewall has opened or extended the door. Returns the state before; `None` if there
    /// is no such grant.
    pub fn confirm(&mut self, key: &GrantKey) -> Option<State> {
        Some(mem::replace(&mut self.running.get_mut(key)?.state, State::Open))
    }

    /// Removes one grant whose lease is over at `now`. Leases of others that are over give their room back.
    pub fn expire(&mut self, now: Moment) -> Option<LiveGrant> {
        loop {
            let (_, key) = self.by_end.first().filter(|(until, _)| *until <= now)?;
            let mut running = self.close(&key.clone())?;
            if running.lease.until <= now {
                return Some(running);
            }
            running.others.retain(|other| other.until > now);
            running.waiting.retain(|waiting| waiting.until > now);
            self.put(running);
        }
    }

    /// The grants with a lease that one looks for, at most so many.
    pub fn with_lease(&self, wanted: impl Fn(&Lease) -> bool, most: usize) -> Vec<GrantKey> {
        let has_one = |running: &&LiveGrant| running.leases().any(&wanted);
        self.iter().filter(has_one).take(most).map(|running| running.lease.key.clone()).collect()
    }

    /// Replaces each lease of these grants by what is `permitted` of it, and ends those that are not.
    pub fn retract(
        &mut self,
        concerned: Vec<GrantKey>,
        permitted: impl Fn(Lease) -> Option<Lease>,
    ) -> Vec<Retracted> {
        let mut retracted = Vec::new();
        for key in concerned {
            let Some(before) = self.close(&key) else { continue };
            let ended =
                before.leases().filter(|lease| permitted((*lease).clone()).is_none()).cloned().collect();
            let mut left = before.clone();
            left.waiting = left.waiting.into_iter().filter_map(&permitted).collect();
            left.others =
                [left.lease.clone()].into_iter().chain(left.others).filter_map(&permitted).collect();
            let Some(now) = left.take_next() else {
                let outcome = Outcome::Closed(LiveGrant { lease: before.lease, ..left });
                retracted.push(Retracted { ended, outcome });
                continue;
            };
            let outcome = match now == before.lease {
                true => Outcome::Kept(now),
                false => Outcome::Changed { before: left.correct(now.clone()), now },
            };
            retracted.push(Retracted { ended, outcome });
            self.put(left);
        }
        retracted
    }

    /// Removes the grant for this door and source.
    pub fn close(&mut self, key: &GrantKey) -> Option<LiveGrant> {
        let running = self.running.remove(key)?;
        for lease in running.leases() {
            self.by_end.remove(&(lease.until, key.clone()));
            self.give_back(&lease.granted_to);
        }
        Some(running)
    }

    /// Removes a client's own lease from a grant, if others share the grant. A client that has the grant
    /// alone is only reported, as [`Left::Alone`].
    pub fn leave(&mut self, key: &GrantKey, who: &ClientLabel) -> Left {
        let Some(mut running) = self.close(key) else { return Left::Nothing };
        let its = |lease: &Lease| lease.granted_to.client() == Some(who);
        let left = if let Some(at) = running.waiting.iter().position(its)
            && let Some(lease) = running.waiting.remove(at)
        {
            Left::Waiting(lease)
        } else if let Some(at) = running.others.iter().position(its) {
            Left::Others { gone: running.others.swap_remove(at), now: None }
        } else if !its(&running.lease) {
            Left::Nothing
        } else if let Some(next) = running.take_next() {
            Left::Others { gone: running.correct(next.clone()), now: Some(next) }
        } else {
            Left::Alone
        };
        self.put(running);
        left
    }

    /// Starts the next lease that was waiting until this grant was over and that is still `permitted`.
    pub fn next_waiting(
        &mut self,
        over: LiveGrant,
        now: Moment,
        permitted: impl Fn(Lease) -> Option<Lease>,
    ) -> Option<Lease> {
        let waiting = over.waiting.into_iter().filter(|next| next.until > now);
        let mut waiting: VecDeque<Lease> = waiting.filter_map(permitted).collect();
        let next = waiting.pop_front()?;
        self.put(LiveGrant { waiting, ..LiveGrant::new(next.clone(), now) });
        Some(next)
    }

    /// When the next lease ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// The grant for this door and source, if there is one.
    #[must_use]
    pub fn get(&self, key: &GrantKey) -> Option<&LiveGrant> {
        self.running.get(key)
    }

    /// All live grants, by door and source.
    pub fn iter(&self) -> impl Iterator<Item = &LiveGrant> {
        self.running.values()
    }

    /// The number of live grants.
    #[must_use]
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is no live grant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// The live grants behind this door and source, in their order; all for `None`.
    pub fn after(&self, key: Option<GrantKey>) -> impl Iterator<Item = &LiveGrant> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.running.range((from, Bound::Unbounded)).map(|(_, running)| running)
    }

    fn is_full_for(&self, granted_to: &GrantedTo) -> bool {
        let taken = self.shares.get(granted_to).copied().unwrap_or_default();
        let share = match granted_to {
            GrantedTo::Administrator(_) => limits::GRANTS_BY_HAND,
            GrantedTo::Client(_) => limits::GRANTS_PER_CLIENT,
            GrantedTo::Sequence => limits::GRANTS_BY_SEQUENCE,
        };
        self.running.len() >= room_for(granted_to) || taken >= share
    }

    /// Inserts a grant. What changes one takes it out first, so there is none for its door and source.
    fn put(&mut self, running: LiveGrant) {
        for lease in running.leases() {
            let taken = self.shares.entry(lease.granted_to.clone()).or_default();
            *taken = taken.saturating_add(1);
        }
        self.by_end.extend(running.leases().map(|lease| (lease.until, lease.key.clone())));
        self.running.insert(running.lease.key.clone(), running);
    }

    fn give_back(&mut self, granted_to: &GrantedTo) {
        if let Some(taken) = self.shares.get_mut(granted_to) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.shares.remove(granted_to);
            }
        }
    }
}

/// How many grants there may be before one by this right is refused.
fn room_for(granted_to: &GrantedTo) -> usize {
    match granted_to {
        GrantedTo::Administrator(_) => limits::GRANTS.saturating_add(limits::GRANTS_BY_HAND),
        GrantedTo::Client(_) | GrantedTo::Sequence => limits::GRANTS,
    }
}

/// Adds a lease to a grant whose door is open.
fn join(running: &mut LiveGrant, lease: Lease, is_full: bool) -> Opening {
    let extends = lease.until >= running.lease.until.after(EXTEND_AFTER);
    if lease.granted_to == running.lease.granted_to {
        if !extends {
            return Opening::Unchanged(lease);
        }
        running.lease = lease.clone();
        return Opening::Changed(lease);
    }
    let known = running.others.iter().position(|other| other.granted_to == lease.granted_to);
    let is_known = known.is_some();
    match known {
        None if is_full || running.sharing() >= SHARING_ONE_ADDRESS => return Opening::Full(lease),
        // The new lease replaces the client's own, if that is not later.
        None => {}
        Some(at) if running.others.get(at).is_some_and(|other| other.until >= lease.until) => {
            return Opening::Unchanged(lease);
        }
        Some(at) => drop(running.others.swap_remove(at)),
    }
    if extends {
        let before = mem::replace(&mut running.lease, lease.clone());
        running.others.push(before);
        return Opening::Changed(lease);
    }
    // No lease ends later than the firewall's.
    running.others.push(Lease { until: lease.until.min(running.lease.until), ..lease.clone() });
    if is_known { Opening::Unchanged(lease) } else { Opening::Joined(lease) }
}

/// Adds a single-connection lease to a grant that exists already.
fn once_more(running: &mut LiveGrant, mut lease: Lease, is_full: bool) -> Opening {
    if lease.granted_to != running.lease.granted_to {
        if let Some(own) = running.waiting.iter_mut().find(|waiting| waiting.granted_to == lease.granted_to) {
            *own = lease.clone();
            return Opening::Unchanged(lease);
        }
        if is_full || running.sharing() >= SHARING_ONE_ADDRESS {
            return Opening::Full(lease);
        }
        running.waiting.push_back(lease.clone());
        return Opening::Waits(lease);
    }
    // A client gets a new lease at once, because the one before may be used up. A sequence does not:
    // strangers can replay it.
    if lease.granted_to == GrantedTo::Sequence && lease.until < running.lease.until.after(EXTEND_AFTER) {
        return Opening::Unchanged(lease);
    }
    // Its end must differ from that of the lease before, so that a late report about that one is not taken
    // for this one.
    if lease.until == running.lease.until {
        lease.until = lease.until.after(Duration::from_millis(1));
    }
    running.lease = lease.clone();
    Opening::Changed(lease)
}
