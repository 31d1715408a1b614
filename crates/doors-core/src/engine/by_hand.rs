//! Doors that an administrator opens and closes by command.

use alloc::vec::Vec;
use core::time::Duration;

use super::{Change, Engine, Event};
use crate::{
    access::Refusal,
    door::GrantKey,
    eligible::Ineligible,
    grants::{LiveGrant, Opening, Outcome},
    lease::{Lease, Note},
    limits::CLOSED_AT_ONCE,
    time::{Moment, Wall},
};

/// A door that was opened by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByHand {
    /// When it closes: later than asked for, if it is open for others behind the same address.
    pub until: Moment,
    /// Whether the firewall has done it already; otherwise it reports [`Report::Done`](crate::engine::Report::Done).
    pub is_done: bool,
}

/// Doors that were closed by hand.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClosedByHand {
    /// The doors and sources of which at least one lease has ended.
    pub ended: Vec<GrantKey>,
    /// Those that the firewall was asked to close; it reports [`Report::Closed`](crate::engine::Report::Closed) for each.
    pub asked: Vec<GrantKey>,
    /// Those whose lease it was asked to replace; it reports that, or only
    /// [`Report::Done`](crate::engine::Report::Done) of the new one.
    pub replaced: Vec<GrantKey>,
    /// There may be more to close.
    pub more: bool,
}

/// Why a door was not opened by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NotOpened {
    /// There is no such door.
    NoSuchDoor,
    /// No grant can be made for the address.
    Address(Ineligible),
    /// [`GRANTS_BY_HAND`](crate::limits::GRANTS_BY_HAND) doors are open by hand already, or too many share this door and
    /// address.
    TooMany,
}

impl Engine {
    /// Opens or extends a door by the command of an administrator, by default for the door's own time.
    ///
    /// # Errors
    /// [`NotOpened`] says why not.
    pub fn open_by_hand(
        &mut self,
        key: GrantKey,
        open_for: Option<Duration>,
        note: Note,
        now: Moment,
        wall: Wall,
    ) -> Result<ByHand, NotOpened> {
        // A door whose time is over must be reported as closed before it opens again.
        self.handle_timeout(now, wall);
        let grant = self.access.judge_by_hand(key, open_for, note).map_err(|refusal| match refusal {
            Refusal::Address(why) => NotOpened::Address(why),
            Refusal::NotAllowed
            | Refusal::NotAccepted
            | Refusal::Repeated
            | Refusal::Waiting
            | Refusal::Wrong { .. } => NotOpened::NoSuchDoor,
        })?;
        let opening = self.grants.open(grant, now);
        let (lease, is_changed) = match &opening {
            Opening::Full(_) => return Err(NotOpened::TooMany),
            Opening::Changed(lease) => (lease, true),
            Opening::Joined(lease) | Opening::Unchanged(lease) | Opening::Waits(lease) => (lease, false),
        };
        let running = self.grants.get(&lease.key);
        let until = running.map_or(lease.until, |running| running.lease.until);
        let is_open = running.is_some_and(LiveGrant::is_open);
        self.opened(opening);
        Ok(ByHand { until, is_done: is_open && !is_changed })
    }

    /// Ends the leases that `which` picks, by the command of an administrator. A door stays open for others behind the
    /// same address. If one door and source are `named`, only those are looked at, and the firewall is asked to close them in
    /// any case: it may hold a lease that is not known here.
    /// Handles [`CLOSED_AT_ONCE`] grants; call it again while there are `more`.
    pub fn close_by_hand(
        &mut self,
        which: impl Fn(&Lease) -> bool,
        named: Option<&GrantKey>,
        now: Moment,
        wall: Wall,
    ) -> ClosedByHand {
        self.handle_timeout(now, wall);
        let mut closed = ClosedByHand::default();
        let concerned = match named {
            Some(named) => self.grants.get(named).map(|_| named.clone()).into_iter().collect(),
            None => self.grants.with_lease(&which, CLOSED_AT_ONCE),
        };
        closed.more = concerned.len() >= CLOSED_AT_ONCE;
        for retracted in self.grants.retract(concerned, |lease| (!which(&lease)).then_some(lease)) {
            closed.ended.extend(retracted.ended.first().map(|lease| lease.key.clone()));
            let (rest, over) = match retracted.outcome {
                Outcome::Closed(running) => {
                    self.changes.push_back(Change::Close(running.lease.key.clone()));
                    closed.asked.push(running.lease.key.clone());
                    (None, Some(running))
                }
                Outcome::Changed { now: rest, .. } => {
                    self.shorten(&rest);
                    closed.replaced.push(rest.key.clone());
                    (Some(rest), None)
                }
                Outcome::Kept(rest) => (Some(rest), None),
            };
            for lease in retracted.ended {
                self.events.push_back(Event::ClosedByHand { lease, rest: rest.clone() });
            }
            if let Some(running) = over {
                self.begin_next(running, now, wall);
            }
        }
        if let Some(named) =
            named.filter(|named| self.grants.get(named).is_none() && !closed.asked.contains(named))
        {
            self.changes.push_back(Change::Close(named.clone()));
            closed.asked.push(named.clone());
        }
        closed
    }
}
