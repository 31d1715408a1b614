//! What the daemon answers to requests of the control interface.

use doors_core::{
    access::Rules,
    door::{DoorName, GrantKey},
    engine::{ByHand, Event, NotOpened},
    lease::Lease,
    time::{Moment, Wall},
};
use doors_firewall::Kind;

use crate::{
    control::{
        interface::{Count, Door, Failure, Status, Which},
        request::{Close, GRANTS_AT_ONCE, Request, tell},
        shown::{event_of, number as count, past, seconds},
    },
    observe::{facts::Counted, log, watch::What},
    spa::service::KeyStatus,
    start::Daemon,
};

/// The status shows so many doors at most, and so many ports of each, so that it fits into a message.
const MAX_DOORS_SHOWN: usize = 100;
const MAX_PORTS_SHOWN: usize = 16;

impl Daemon<'_> {
    /// Answers one request. Without room in the firewall's queue, it is asked for nothing more.
    pub(super) fn answer(&mut self, request: Request, has_room: bool) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        match request {
            Request::Status(answer) => tell(answer, Box::new(self.status(now, wall))),
            Request::Grants(after, answer) => {
                let grants = self.engine.grants().after(after).take(GRANTS_AT_ONCE);
                tell(answer, grants.cloned().collect());
            }
            Request::Clients(answer) => tell(answer, self.engine.access().rules().clients.clone()),
            Request::Open { answer, .. } if !has_room => tell(answer, Err(Failure::FirewallFull)),
            Request::Close { answer, .. } if !has_room => tell(answer, Err(Failure::FirewallFull)),
            Request::Open { user, key, open_for, note, answer } => {
                let (door, source) = (key.door.clone(), key.source);
                self.observe.line(move || log::asked(user, &format!("open the door {door} for {source}")));
                match self.engine.open_by_hand(key.clone(), open_for, note, now, wall) {
                    Err(why) => tell(answer, Err(not_opened(why, &key))),
                    Ok(ByHand { until, is_done: true }) => tell(answer, Ok(until)),
                    Ok(ByHand { until, is_done: false }) => self.unconfirmed.opens(key, until, answer),
                }
            }
            Request::Close { user, which, cut, answer } => {
                let what =
                    format!("close {which}{}", if cut.is_some() { ", and end connections" } else { "" });
                self.observe.line(move || log::asked(user, &what));
                self.unconfirmed.closes(Close::new(which, cut, answer));
                self.close_next();
            }
            Request::SetLevel { user, level, back_after, answer } => {
                self.observe.set_level(level, back_after.map(|time| now.after(time)), user);
                tell(answer, ());
            }
            Request::Reload(user, answer) => {
                self.observe.line(move || log::asked(user, "read the configuration again"));
                self.reload(Some(answer));
            }
            Request::Watch { is_root, watched, queue, answer } => {
                tell(answer, self.observe.watch(watched, queue, is_root));
            }
        }
    }

    /// Closes the next part of what is to be closed.
    pub(super) fn close_next(&mut self) {
        let Some(mut close) = self.unconfirmed.take_unfinished() else { return };
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let named = named(&close.which);
        let closed = self.engine.close_by_hand(|lease| fits(&close.which, lease), named.as_ref(), now, wall);
        close.ended.extend(closed.ended);
        close.left.extend(closed.asked.into_iter().map(|key| (key, false)));
        close.left.extend(closed.replaced.into_iter().map(|key| (key, true)));
        close.is_whole = !closed.more;
        if close.is_whole {
            if close.ended.is_empty()
                && let Some(failure) = unknown(&close.which, self.engine.access().rules())
            {
                return tell(close.answer, Err(failure));
            }
            // What is being closed already is waited for, too.
            if close.which.client.is_none() {
                let fitting = self.unconfirmed.closing().filter(|key| fits_key(&close.which, key));
                close.left.extend(fitting.map(|key| (key.clone(), false)));
            }
            if let Some(cut) = close.cut.take() {
                self.cuts.push_back((close.ended.iter().cloned().chain(named).collect(), cut));
            }
        }
        self.unconfirmed.closes(close);
    }

    fn status(&mut self, now: Moment, wall: Wall) -> Status {
        let plan = self.force.plan();
        let config = self.force.at_the_start();
        let has_sequence =
            |name| self.engine.access().rules().door(name).is_some_and(|door| door.sequence.is_some());
        let doors = plan.doors.iter().take(MAX_DOORS_SHOWN).map(|door| Door {
            name: door.name.to_string(),
            ports: door.ports.iter().take(MAX_PORTS_SHOWN).map(ToString::to_string).collect(),
            ports_in_all: count(door.ports.len()),
            sequence: has_sequence(&door.name),
            seconds: seconds(door.open_for.as_secs()),
        });
        let facts = self.observe.facts();
        let event = |event: &Event| What::Event(Box::new(event.clone()));
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
            gate_since: (self.firewall.kind != Kind::RichRules).then(|| past(facts.gate.since, now, wall)),
            gate_broken_since: facts.gate.broken.map(|since| past(since, now, wall)),
            listen: config.hearing.to_string(),
            doors_in_all: count(plan.doors.len()),
            doors: doors.collect(),
            clients: count(clients),
            clients_heard: clients == 0 || self.service.status() == KeyStatus::Heard,
            grants: count(self.engine.grants().len()),
            accepted: counted(&facts.accepted, event, now, wall),
            refused: counted(&facts.refused, event, now, wall),
            repairs: counted(&facts.repairs, What::clone, now, wall),
            errors: counted(&facts.errors, What::clone, now, wall),
            log_level: self.observe.level().map(|level| level.to_string()),
        }
    }
}

/// What of a command to close is not there.
fn unknown(which: &Which, rules: &Rules) -> Option<Failure> {
    let is_door = |name: &String| rules.doors.iter().any(|door| door.name.as_str() == name);
    let is_client = |wanted: &String| rules.clients.iter().any(|client| client.who.is_called(wanted));
    match (&which.door, &which.client) {
        (Some(door), _) if !is_door(door) => Some(Failure::NoSuchDoor(door.clone())),
        (_, Some(client)) if !is_client(client) => Some(Failure::NoSuchClient(client.clone())),
        _ => None,
    }
}

fn not_opened(why: NotOpened, key: &GrantKey) -> Failure {
    match why {
        NotOpened::NoSuchDoor => Failure::NoSuchDoor(key.door.to_string()),
        NotOpened::Address(why) => {
            Failure::NotEligible { address: key.source.to_string(), why: why.to_string() }
        }
        NotOpened::TooMany => Failure::TooMany,
    }
}

/// Whether a lease is one of those to be closed.
fn fits(which: &Which, lease: &Lease) -> bool {
    let is_client = |wanted: &String| lease.granted_to.client().is_some_and(|label| label.is_called(wanted));
    fits_key(which, &lease.key) && which.client.as_ref().is_none_or(is_client)
}

fn fits_key(which: &Which, key: &GrantKey) -> bool {
    which.door.as_ref().is_none_or(|door| *door == key.door.as_str())
        && which.address.is_none_or(|address| address == key.source)
}

/// The one door and address that are named, if both are, and no client is.
fn named(which: &Which) -> Option<GrantKey> {
    let door = DoorName::new(which.door.as_deref()?).ok()?;
    which.client.is_none().then_some(GrantKey { door, source: which.address? })
}

/// How often something happened, and the last time. `what` says how it is told.
fn counted<T>(counted: &Counted<T>, what: impl Fn(&T) -> What, now: Moment, wall: Wall) -> Count {
    let last = counted.last.as_ref().map(|(last, at)| {
        let then = u64::try_from(now.remaining(*at).as_millis()).unwrap_or(u64::MAX);
        event_of(&what(last), *at, Wall(wall.0.saturating_sub(then)))
    });
    Count { count: i64::try_from(counted.count).unwrap_or(i64::MAX), last }
}
