//! The requests of clients with keys, once they are accepted and on disk.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use doors_spa::{
    receipt::{Answer, ToldDoor},
    request::Operation,
};

use super::{Change, Engine, Event, count, seconds};
use crate::{
    access::{Grant, Refusal},
    door::{DoorName, GrantKey},
    eligible::Ineligible,
    grants::{Left, Opening},
    spa::{
        client::{ClientLabel, Clients},
        replay::Accepted,
        server::Requester,
    },
    time::{Moment, Wall},
};

impl Engine {
    /// Carries out a client's request, which has been accepted and is on disk.
    pub(super) fn act(&mut self, requester: &Requester, accepted: &Accepted, now: Moment, wall: Wall) {
        self.handle_timeout(now, wall);
        let clients: Option<Arc<Clients>> =
            self.server.as_ref().map(|server| Arc::clone(&server.config().clients));
        let Some(client) = clients.as_ref().and_then(|clients| clients.get(requester.client)) else { return };
        match accepted.operation() {
            Operation::Ask { skip } => {
                let told = |(name, longest): (&DoorName, Duration)| ToldDoor {
                    name: name.as_str().into(),
                    longest: seconds(longest),
                };
                let doors: Vec<ToldDoor> = self.access.doors_of(client).map(told).collect();
                let in_all = u16::try_from(doors.len()).unwrap_or(u16::MAX);
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                if let Some(server) = &mut self.server {
                    server.answer_doors(requester, in_all, doors.into_iter().skip(skip));
                }
            }
            Operation::Open { door, wanted } => {
                let wanted = Duration::from_secs(wanted.into());
                match self.access.judge_request(accepted, client, door, wanted, requester.way, wall) {
                    Ok(grant) => self.open_for(requester, grant, now),
                    Err(Refusal::Address(why)) => self.refuse(requester, Answer::Address, Some(why)),
                    Err(
                        Refusal::NotAllowed
                        | Refusal::NotAccepted
                        | Refusal::Repeated
                        | Refusal::Waiting
                        | Refusal::Wrong { .. },
                    ) => self.refuse(requester, Answer::NotAllowed, None),
                }
            }
            Operation::Close { door } => {
                let Some(door) = self.access.door_of(client, door) else {
                    return self.refuse(requester, Answer::NotAllowed, None);
                };
                let source = accepted.address().unwrap_or(requester.way.to.ip());
                if !client.may_come_from(source) {
                    let why = Ineligible::NotThisClients(source);
                    return self.refuse(requester, Answer::Address, Some(why));
                }
                let key = GrantKey { door: door.name.clone(), source };
                self.close_for(requester, key, &client.who, now, wall);
            }
        }
    }

    /// Opens a door for a client, and answers as soon as it is open. The receipt gives the time until the
    /// door closes; where clients take turns, the client's own time.
    fn open_for(&mut self, requester: &Requester, grant: Grant, now: Moment) {
        let opening = self.grants.open(grant, now);
        let (key, own) = match &opening {
            Opening::Full(_) => return self.refuse(requester, Answer::TooMany, None),
            Opening::Waits(lease) => (lease.key.clone(), Some(lease.until)),
            Opening::Unchanged(lease) if lease.once => (lease.key.clone(), Some(lease.until)),
            Opening::Changed(lease) => {
                count(&mut self.counters.granted_by_key);
                (lease.key.clone(), None)
            }
            Opening::Joined(lease) | Opening::Unchanged(lease) => (lease.key.clone(), None),
        };
        let is_changed = matches!(opening, Opening::Changed(_));
        self.opened(opening);
        let Some(running) = self.grants.get(&key) else { return };
        let Some(server) = &mut self.server else { return };
        let left = |until: Moment| seconds(until.remaining(now));
        match running.is_open() && !is_changed {
            true => server.answer(requester, Answer::Granted, left(own.unwrap_or(running.lease.until))),
            // The firewall has not opened it yet.
            false => server.defer_answer(requester, key, Answer::Granted, own.map(left), now),
        }
    }

    /// Ends a client's own lease. Closes the door if no other lease keeps it open, or if the door was open
    /// before the daemon started, so that its owner is unknown.
    fn close_for(
        &mut self,
        requester: &Requester,
        key: GrantKey,
        who: &ClientLabel,
        now: Moment,
        wall: Wall,
    ) {
        match self.grants.leave(&key, who) {
            Left::Waiting(lease) => {
                self.events.push_back(Event::GivenUp(lease));
                if let Some(server) = &mut self.server {
                    server.answer(requester, Answer::Closed, 0);
                }
            }
            Left::Others { gone, now } => {
                if let Some(now) = now {
                    self.shorten(&now);
                }
                self.events.push_back(Event::GivenUp(gone));
                // The door stays open for others behind the same address, and therefore for this client, too.
                if let Some(server) = &mut self.server {
                    server.answer(requester, Answer::NotAllowed, 0);
                }
            }
            Left::Nothing if self.grants.get(&key).is_some_and(|running| !running.is_unowned()) => {
                self.refuse(requester, Answer::NotAllowed, None);
            }
            Left::Alone | Left::Nothing => self.close_now(requester, key, now, wall),
        }
    }

    fn close_now(&mut self, requester: &Requester, key: GrantKey, now: Moment, wall: Wall) {
        let closed = self.grants.close(&key);
        // The firewall is asked in any case: it may hold a lease that is not known here.
        self.changes.push_back(Change::Close(key.clone()));
        if let Some(server) = &mut self.server {
            server.defer_answer(requester, key, Answer::Closed, None, now);
        }
        if let Some(running) = closed {
            self.events.push_back(Event::Closed(running.lease.clone()));
            self.begin_next(running, now, wall);
        }
    }

    pub(super) fn refuse(&mut self, requester: &Requester, why: Answer, address: Option<Ineligible>) {
        let Some(server) = &mut self.server else { return };
        server.answer(requester, why, 0);
        if why != Answer::Stale {
            count(&mut self.counters.refused);
        }
        let Some(who) = server.client(requester.client).map(|client| client.who.clone()) else { return };
        self.events.push_back(Event::Refused { who, source: requester.way.to.ip(), why, address });
    }
}
