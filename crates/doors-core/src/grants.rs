//! Live grants: who is in, until when, and who has asked for it.
//!
//! ```text
//!   one door, one address        the firewall holds one lease at a time
//!   ┌──────────────────────────────────────────────────────────────────┐
//!   │ lease    laptop, until 12:00      what the firewall holds        │
//!   │ others   phone, until 11:00       asked for the same: it stays   │
//!   │                                   open for them if laptop goes   │
//!   │ waiting  tablet, until 11:30      for one connection each: they  │
//!   │                                   begin when the lease is over   │
//!   └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Behind an address translator several clients are one address. Each keeps its own time, so that what a client had
//! goes with it, and nothing else does.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::{mem, time::Duration};

use crate::{
    access::Grant,
    door::GrantKey,
    lease::Lease,
    limits::{self, EXTEND_AFTER, SHARING_ONE_ADDRESS},
    spa::client::ClientLabel,
    time::Moment,
};

/// What the firewall has said of a lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Nothing yet.
    Asked,
    /// It is open.
    Open,
    /// It was open and has been changed without a knock; that this is done is no news.
    Corrected,
}

/// A grant that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Running {
    /// What the firewall holds, or has been asked for.
    pub lease: Lease,
    /// What the firewall has said of it.
    pub state: State,
    /// Whether it was there before this program started, so that it is not known who opened it.
    pub adopted: bool,
    /// Of the others who asked for it, each their own, which ends before the lease.
    others: Vec<Lease>,
    /// Grants for one connection of others: the firewall holds one at a time, so each begins when the one before it
    /// is used up or over.
    waiting: VecDeque<Lease>,
}

/// What a grant changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The firewall has to know.
    Changed(Lease),
    /// The door is open for as long already, and one more has asked for it: this is the new one's own.
    Joined(Lease),
    /// The door is open for as long already, and it has been asked for by the same before.
    Unchanged(Lease),
    /// It is for one connection, and another's comes first.
    Waits(Lease),
    /// [`limits::GRANTS`] run, or [`limits::GRANTS_BY_SEQUENCE`], or [`limits::GRANTS_PER_CLIENT`] for this
    /// client, or [`SHARING_ONE_ADDRESS`] share this one.
    Full(Lease),
}

/// What becomes of a door when a client gives up what it had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Left {
    /// It had nothing.
    Nothing,
    /// It was waiting.
    Waiting(Lease),
    /// Others have the door open, too. This is what the client had, and whether the lease has changed.
    Others(Lease, bool),
    /// It was the only one.
    Alone,
}

/// A grant that is not permitted any more, or not to all who asked for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Retracted {
    /// It is over; what it was.
    Closed(Running),
    /// It goes on for others, by another lease than this.
    Changed {
        /// What it was.
        before: Lease,
        /// What it is.
        now: Lease,
    },
}

impl Running {
    fn new(lease: Lease) -> Self {
        let (others, waiting) = (Vec::new(), VecDeque::new());
        Self { lease, state: State::Asked, adopted: false, others, waiting }
    }

    /// Whether the firewall has said that it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state != State::Asked
    }

    /// Whether it was open before this program started, and it is not known by whom.
    #[must_use]
    pub fn is_unowned(&self) -> bool {
        self.adopted && self.lease.by.is_none() && self.others.is_empty()
    }

    /// Whether others wait until this one is over.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The time that a client has of its own.
    #[must_use]
    pub fn own(&self, by: Option<&ClientLabel>) -> Option<&Lease> {
        let leases = [&self.lease].into_iter().chain(&self.others).chain(&self.waiting);
        leases.into_iter().find(|lease| lease.by.as_ref() == by)
    }

    /// All who are in it, one entry each.
    fn shares(&self) -> Vec<Option<ClientLabel>> {
        let leases = [&self.lease].into_iter().chain(&self.others).chain(&self.waiting);
        leases.map(|lease| lease.by.clone()).collect()
    }

    fn sharing(&self) -> usize {
        self.others.len().saturating_add(self.waiting.len())
    }

    /// The next lease, of the others who asked for it: the one that ends last.
    fn take_next(&mut self) -> Option<Lease> {
        let (last, _) = self.others.iter().enumerate().max_by_key(|(_, lease)| lease.until)?;
        Some(self.others.swap_remove(last))
    }

    /// Replaces the lease, without a knock.
    fn correct(&mut self, lease: Lease) -> Lease {
        if self.state == State::Open {
            self.state = State::Corrected;
        }
        mem::replace(&mut self.lease, lease)
    }
}

/// All grants that run.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    running: BTreeMap<GrantKey, Running>,
    by_end: BTreeSet<(Moment, GrantKey)>,
    /// How many each client has or waits for, and how many sequences have.
    shares: BTreeMap<Option<ClientLabel>, usize>,
}

impl Grants {
    /// Opens a door, or keeps it open for longer; never for shorter.
    pub fn open(&mut self, grant: Grant, now: Moment) -> Opening {
        let lease = grant.redeem(now);
        let is_full = self.is_full_for(lease.by.as_ref());
        let Some(mut running) = self.running.get(&lease.key).cloned() else {
            if is_full {
                return Opening::Full(lease);
            }
            self.put(Running::new(lease.clone()));
            return Opening::Changed(lease);
        };
        let opening = match lease.once {
            true => once_more(&mut running, lease, is_full),
            false => join(&mut running, lease, is_full),
        };
        self.put(running);
        opening
    }

    /// Takes over a grant that the firewall already holds, from before this program started. Says whether
    /// there was room; if not, the firewall ends it all the same, and no event tells of it.
    pub fn adopt(&mut self, lease: Lease) -> bool {
        // Whose grants these are was settled before, so that only the room for all of them counts.
        match self.running.get(&lease.key).cloned() {
            Some(mut known) => {
                known.lease = Lease { link: known.lease.link, ..lease };
                known.state = State::Open;
                self.put(known);
            }
            None if self.running.len() >= limits::GRANTS => return false,
            None => self.put(Running { state: State::Open, adopted: true, ..Running::new(lease) }),
        }
        true
    }

    /// Notes that the firewall has made the grant true. Gives what it said before; `None` if no such grant runs.
    pub fn confirm(&mut self, key: &GrantKey) -> Option<State> {
        Some(mem::replace(&mut self.running.get_mut(key)?.state, State::Open))
    }

    /// Takes out one grant whose time is over at `now`.
    pub fn expire(&mut self, now: Moment) -> Option<Running> {
        let (_, key) = self.by_end.first().filter(|(until, _)| *until <= now)?;
        self.close(&key.clone())
    }

    /// Takes back what is not `permitted` any more.
    pub fn retract(&mut self, now: Moment, permitted: impl Fn(&Lease) -> bool) -> Vec<Retracted> {
        let all_permitted = |running: &Running| {
            [&running.lease].into_iter().chain(&running.others).chain(&running.waiting).all(&permitted)
        };
        let concerned: Vec<GrantKey> = self
            .iter()
            .filter(|running| !all_permitted(running))
            .map(|running| running.lease.key.clone())
            .collect();
        let mut retracted = Vec::new();
        for key in concerned {
            let Some(mut running) = self.running.get(&key).cloned() else { continue };
            running.others.retain(|other| other.until > now && permitted(other));
            running.waiting.retain(&permitted);
            if permitted(&running.lease) {
                self.put(running);
                continue;
            }
            match running.take_next() {
                Some(now) => {
                    let before = running.correct(now.clone());
                    retracted.push(Retracted::Changed { before, now });
                    self.put(running);
                }
                None => {
                    self.close(&key);
                    retracted.push(Retracted::Closed(running));
                }
            }
        }
        retracted
    }

    /// Takes out the grant for this door and source.
    pub fn close(&mut self, key: &GrantKey) -> Option<Running> {
        let running = self.running.remove(key)?;
        self.by_end.remove(&(running.lease.until, key.clone()));
        running.shares().iter().for_each(|by| self.give_back(by));
        Some(running)
    }

    /// Takes out what a client has of a grant that others have, too.
    pub fn leave(&mut self, key: &GrantKey, who: &ClientLabel, now: Moment) -> Left {
        let Some(mut running) = self.running.get(key).cloned() else { return Left::Nothing };
        running.others.retain(|other| other.until > now);
        let its = |lease: &Lease| lease.by.as_ref() == Some(who);
        let left = if let Some(at) = running.waiting.iter().position(its)
            && let Some(lease) = running.waiting.remove(at)
        {
            Left::Waiting(lease)
        } else if let Some(at) = running.others.iter().position(its) {
            Left::Others(running.others.swap_remove(at), false)
        } else if !its(&running.lease) {
            return Left::Nothing;
        } else if let Some(next) = running.take_next() {
            Left::Others(running.correct(next), true)
        } else {
            return Left::Alone;
        };
        self.put(running);
        left
    }

    /// Begins the next grant for one connection that was waiting until this one was over, if it is still
    /// `permitted`.
    pub fn next_waiting(
        &mut self,
        over: Running,
        now: Moment,
        permitted: impl Fn(&Lease) -> bool,
    ) -> Option<Running> {
        let mut waiting = over.waiting;
        waiting.retain(|next| next.until > now && permitted(next));
        let running = Running { waiting: VecDeque::new(), ..Running::new(waiting.pop_front()?) };
        let running = Running { waiting, ..running };
        self.put(running.clone());
        Some(running)
    }

    /// When the next grant ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// The grant that runs for this door and source, if one does.
    #[must_use]
    pub fn get(&self, key: &GrantKey) -> Option<&Running> {
        self.running.get(key)
    }

    /// The grants that run.
    pub fn iter(&self) -> impl Iterator<Item = &Running> {
        self.running.values()
    }

    fn is_full_for(&self, by: Option<&ClientLabel>) -> bool {
        let share = match by {
            Some(_) => limits::GRANTS_PER_CLIENT,
            None => limits::GRANTS_BY_SEQUENCE,
        };
        let taken = self.shares.get(&by.cloned()).copied().unwrap_or_default();
        self.running.len() >= limits::GRANTS || taken >= share
    }

    /// Puts a grant in the place of what was there for its door and source.
    fn put(&mut self, running: Running) {
        self.close(&running.lease.key);
        for by in running.shares() {
            let taken = self.shares.entry(by).or_default();
            *taken = taken.saturating_add(1);
        }
        self.by_end.insert((running.lease.until, running.lease.key.clone()));
        self.running.insert(running.lease.key.clone(), running);
    }

    fn give_back(&mut self, by: &Option<ClientLabel>) {
        if let Some(taken) = self.shares.get_mut(by) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.shares.remove(by);
            }
        }
    }
}

/// One more asks for a door that is open.
fn join(running: &mut Running, lease: Lease, is_full: bool) -> Opening {
    let extends = lease.until >= running.lease.until.after(EXTEND_AFTER);
    if lease.by == running.lease.by {
        if !extends {
            return Opening::Unchanged(lease);
        }
        running.lease = lease.clone();
        return Opening::Changed(lease);
    }
    let known = running.others.iter().position(|other| other.by == lease.by);
    let is_known = known.is_some();
    match known {
        None if is_full || running.sharing() >= SHARING_ONE_ADDRESS => return Opening::Full(lease),
        // Either way its own is replaced; it never ends earlier than it did.
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
    // The lease is the one that ends last.
    running.others.push(Lease { until: lease.until.min(running.lease.until), ..lease.clone() });
    if is_known { Opening::Unchanged(lease) } else { Opening::Joined(lease) }
}

/// A grant for one connection, where one runs already.
fn once_more(running: &mut Running, mut lease: Lease, is_full: bool) -> Opening {
    if lease.by != running.lease.by {
        if let Some(own) = running.waiting.iter_mut().find(|waiting| waiting.by == lease.by) {
            *own = lease.clone();
            return Opening::Unchanged(lease);
        }
        if is_full || running.sharing() >= SHARING_ONE_ADDRESS {
            return Opening::Full(lease);
        }
        running.waiting.push_back(lease.clone());
        return Opening::Waits(lease);
    }
    // The one before may be used up, so a client gets a new one at once. A sequence may be repeated by strangers.
    if lease.by.is_none() && lease.until < running.lease.until.after(EXTEND_AFTER) {
        return Opening::Unchanged(lease);
    }
    // Never the same as the one before, so that news of that one are not taken for this one's.
    if lease.until == running.lease.until {
        lease.until = lease.until.after(Duration::from_millis(1));
    }
    running.lease = lease.clone();
    Opening::Changed(lease)
}
