//! What the daemon answers to requests of the control interface.

use std::time::Duration;

use doors_core::{
    engine::ByHand,
    lease::Lease,
    time::{Moment, Wall},
};
use doors_firewall::{Kind, Order};

use crate::{
    config::Hearing,
    control::{
        event_of,
        interface::{Count, Door, Status, Which},
        past,
        request::{GRANTS_AT_ONCE, Request, tell},
    },
    observe::facts::Counted,
    spa::service::KeyStatus,
    start::Daemon,
};

/// The status names so many doors at most, so that it fits into a message.
const DOORS_NAMED: usize = 200;

impl Daemon<'_> {
    /// Answers one request. A receiver that is gone has waited too long.
    pub(super) fn answer(&mut self, request: Request) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        match request {
            Request::Status(answer) => tell(answer, Box::new(self.status(now, wall))),
            Request::Grants(after, answer) => {
                let grants = self.engine.grants().after(after).take(GRANTS_AT_ONCE);
                tell(answer, grants.cloned().collect());
            }
            Request::Clients(answer) => tell(answer, self.engine.access().rules().clients.clone()),
            Request::Open { key, open_for, note, answer } => {
                match self.engine.open_by_hand(key.clone(), open_for, note, now, wall) {
                    Err(why) => tell(answer, Err(why)),
                    Ok(ByHand { until, is_done: true }) => tell(answer, Ok(until)),
                    Ok(ByHand { until, is_done: false }) => self.unconfirmed.opens(key, until, answer),
                }
            }
            Request::Close(which, answer) => {
                let closed = self.engine.close_by_hand(|lease| fits(&which, lease), now, wall);
                self.unconfirmed.closes(closed, answer);
            }
            // If the firewall's queue is full, the answer's sender goes, and the session says so.
            Request::Cut(keys, answer) => drop(self.firewall.orders.try_send(Order::Cut(keys, answer))),
            Request::Reload(answer) => self.reload(Some(answer)),
            Request::Watch(watched, queue, answer) => {
                self.observe.watch(watched, queue);
                tell(answer, ());
            }
        }
    }

    fn status(&mut self, now: Moment, wall: Wall) -> Status {
        let plan = self.force.plan();
        let config = self.force.at_the_start();
        let has_sequence =
            |name| self.engine.access().rules().door(name).is_some_and(|door| door.sequence.is_some());
        let doors = plan.doors.iter().take(DOORS_NAMED).map(|door| Door {
            name: door.name.to_string(),
            ports: door.ports.iter().map(ToString::to_string).collect(),
            sequence: has_sequence(&door.name),
            seconds: whole_seconds(door.open_for),
        });
        let facts = self.observe.facts();
        let repaired = facts.repairs.last.as_ref().map(|(_, at)| *at);
        let clients = self.engine.access().rules().clients.len();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: i64::from(std::process::id()),
            since: past(Moment::default(), now, wall),
            configuration: config.path.as_ref().map(|path| path.display().to_string()),
            in_force_since: past(self.force.since(), now, wall),
            last_good: self.force.instead_of().map(str::to_owned),
            not_reloaded: self.force.not_reloaded().map(str::to_owned),
            firewall: self.firewall.kind.to_string(),
            firewall_why: self.firewall_why.clone(),
            gate_since: (self.firewall.kind != Kind::RichRules)
                .then(|| past(repaired.unwrap_or_default(), now, wall)),
            listen: match config.hearing {
                Hearing::Capture => "capture",
                Hearing::Sockets => "sockets",
            }
            .to_owned(),
            doors_in_all: count(plan.doors.len()),
            doors: doors.collect(),
            clients: count(clients),
            clients_heard: clients == 0 || self.service.status() == KeyStatus::Heard,
            grants: count(self.engine.grants().len()),
            accepted: counted(&facts.accepted, now, wall),
            refused: counted(&facts.refused, now, wall),
            repairs: counted(&facts.repairs, now, wall),
            errors: counted(&facts.errors, now, wall),
        }
    }
}

/// Whether a lease is one of those to be closed.
fn fits(which: &Which, lease: &Lease) -> bool {
    let is_client = |wanted: &String| {
        let label = lease.granted_to.client();
        label.is_some_and(|label| **wanted == *label.name || **wanted == *label.fingerprint)
    };
    which.door.as_ref().is_none_or(|door| *door == lease.key.door.as_str())
        && which.address.is_none_or(|address| address == lease.key.source)
        && which.client.as_ref().is_none_or(is_client)
}

fn counted(counted: &Counted, now: Moment, wall: Wall) -> Count {
    let last = counted.last.as_ref().map(|(what, at)| {
        let then = u64::try_from(now.remaining(*at).as_millis()).unwrap_or(u64::MAX);
        event_of(what, *at, Wall(wall.0.saturating_sub(then)))
    });
    Count { count: i64::try_from(counted.count).unwrap_or(i64::MAX), last }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
