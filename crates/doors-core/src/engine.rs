//! The whole system as one value.

use alloc::{collections::VecDeque, sync::Arc};
use core::{net::IpAddr, time::Duration};

use doors_spa::{
    receipt::{Answer, ToldDoor},
    request::Operation,
};

pub use crate::events::{Change, Event, Report};
use crate::{
    access::{Access, Grant, Refusal, Rules, Verdict},
    door::GrantKey,
    eligible::{Ineligible, Own},
    grants::{Grants, Opening, Running},
    packet::{Packet, Routes},
    sequence::knock::Knock,
    sequence::trie::Conflict,
    spa::client::ClientLabel,
    spa::replay::{Accepted, Record},
    spa::server::{Asker, DropReason, Heard, Outgoing, ServerConfig, SpaServer, Then},
    throttle::Throttle,
    time::{Moment, Wall},
};

/// Hears knocks, judges them, and says which doors to open and close.
///
/// Feed it with the `handle_*` methods. After each call, drain `poll_change` and `poll_event`, then
/// sleep until `next_deadline` or the next packet. Moments must never go backwards.
///
/// ```text
///   packet ──► handle_packet ──►┐            ┌──► poll_change ──► firewall
///   report ──► handle_report ──►│ engine ├──► poll_event ──► log │
///    clock ──► handle_timeout ─►│            ├──► poll_record ─► disk ─► handle_recorded
///      ▲                        │            └──► poll_receipt ─► network
///      └───────────────────── report ◄───────────────────────────────┘
/// ```
#[derive(Debug)]
pub struct Engine {
    access: Access,
    doors: Grants,
    server: Option<SpaServer>,
    throttle: Throttle,
    /// For what only somebody who looks for a fault wants to know.
    traces: Throttle,
    /// What becomes of doors that sequences open.
    lines: Throttle,
    /// What is found open at the start: it must not take the lines of what is opened next.
    found: Throttle,
    changes: VecDeque<Change>,
    events: VecDeque<Event>,
}

impl Engine {
    /// Judges by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        Ok(Self {
            access: Access::new(rules)?,
            doors: Grants::default(),
            server: None,
            throttle: Throttle::of_refusals(),
            traces: Throttle::of_refusals(),
            lines: Throttle::of_doors(),
            found: Throttle::of_doors(),
            changes: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Hears clients with keys from here on, too.
    pub fn receive_clients(&mut self, server: SpaServer) {
        self.server = Some(server);
    }

    /// Takes one packet from the network. `routes` say whether the kernel takes it, too.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, now: Moment, wall: Wall, routes: &mut dyn Routes) {
        let heard = self.server.as_mut().and_then(|server| server.hear(packet, now, wall));
        match heard {
            Some(heard) => self.note(heard, packet.source, now),
            None => self.handle_knock(packet, now, routes),
        }
    }

    fn handle_knock(&mut self, packet: &Packet<'_>, now: Moment, routes: &mut dyn Routes) {
        let Some(knock) = Knock::parse(packet) else { return };
        // A door whose time is over must be told as closed before it opens again.
        self.handle_timeout(now);
        match self.access.judge(&knock, now, routes) {
            Ok(Verdict::Granted(grant)) => self.admit(grant, now),
            Ok(Verdict::Further { right }) => {
                self.trace(Event::Further { source: knock.source, right }, now);
            }
            Err(Refusal::Waiting) => self.trace(Event::Waiting { source: knock.source }, now),
            Err(Refusal::NotAccepted) => self.trace(not_accepted(&knock), now),
            Err(Refusal::Address(why)) => self.tell(Event::Ineligible { source: knock.source, why }, now),
            Err(Refusal::Repeated | Refusal::NotAllowed) => {}
            Err(Refusal::Wrong { after }) => {
                if !self.throttle.admit(now) {
                    return;
                }
                // Only what is told is asked for: a flood of first knocks costs no questions.
                if routes.accept(knock.source, knock.arrival) {
                    let quiet = self.access.rules().quiet_after_wrong;
                    let event = Event::Wrong { source: knock.source, port: knock.port, after, quiet };
                    self.events.push_back(event);
                } else {
                    self.trace(not_accepted(&knock), now);
                }
            }
        }
    }

    /// Takes what the firewall says.
    pub fn handle_report(&mut self, report: Report, now: Moment) {
        match report {
            Report::Done { admission } => {
                let (news, running) = (self.doors.confirm(&admission), self.doors.get(&admission).cloned());
                let (Some(news), Some(Running { until, by, .. })) = (news, running) else { return };
                if let Some(server) = &mut self.server {
                    let left = seconds(until.remaining(now));
                    server.keep_promises(&admission, Answer::Granted, left);
                }
                let event = match news {
                    true => Event::Opened { admission, until, by },
                    false => Event::Extended { admission, until, by },
                };
                self.tell_of_door(event, now);
            }
            Report::Found { admission, until, by } => {
                if !self.door_exists(&admission) {
                    self.changes.push_back(Change::Close { admission });
                } else if self.doors.adopt(admission.clone(), until, by.clone()) {
                    let event = Event::Adopted { admission, until, by };
                    if event.client().is_some() || self.found.admit(now) {
                        self.events.push_back(event);
                    }
                }
            }
            Report::Closed { admission } => {
                if let Some(server) = &mut self.server {
                    server.keep_promises(&admission, Answer::Closed, 0);
                }
            }
            Report::Used { admission, until } => {
                if self.doors.get(&admission).is_some_and(|running| running.until == until)
                    && let Some(running) = self.doors.close(&admission)
                {
                    let event = Event::Used { admission: admission.clone(), by: running.by.clone() };
                    self.tell_of_door(event, now);
                    self.go_on_behind(admission, running, now);
                }
            }
            Report::Withdrawn { admission, until } => {
                if self.doors.get(&admission).is_some_and(|running| running.until == until)
                    && let Some(running) = self.doors.close(&admission)
                {
                    // What else was opened for it is closed, too.
                    self.changes.push_back(Change::Close { admission: admission.clone() });
                    self.tell_of_door(Event::Withdrawn { admission, by: running.by }, now);
                }
            }
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((admission, running)) = self.doors.expire(now) {
            let event = match running.confirmed {
                true => Event::Closed { admission: admission.clone(), by: running.by.clone() },
                false => Event::NeverOpened(admission.clone()),
            };
            self.tell_of_door(event, now);
            self.go_on_behind(admission, running, now);
        }
        if let Some(server) = &mut self.server {
            server.handle_timeout(now);
        }
        if let Some(untold) = self.throttle.sum(now) {
            self.events.push_back(Event::MoreWrong(untold));
        }
        for untold in [self.lines.sum(now), self.found.sum(now)].into_iter().flatten() {
            self.events.push_back(Event::MoreDoors(untold));
        }
    }

    /// Judges by other `rules` from here on. Doors that are gone close, the others stay.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart; then nothing has changed.
    pub fn change_rules(&mut self, rules: Rules, now: Moment) -> Result<(), Conflict> {
        self.access.change_rules(rules)?;
        let rules = self.access.rules();
        for (admission, running) in self.doors.evict(|admission, _| rules.door(&admission.door).is_some()) {
            self.changes.push_back(Change::Close { admission: admission.clone() });
            if running.confirmed {
                self.tell_of_door(Event::Closed { admission, by: running.by }, now);
            }
        }
        Ok(())
    }

    /// Lets in none of these addresses from here on: they are this machine's own.
    pub fn know_own(&mut self, own: Own) {
        self.access.know_own(own);
    }

    /// Listens to these clients from here on. What only a client that is none of them has opened is closed;
    /// all other doors stay open until their time. Gives the clients before: to let go of many takes time.
    pub fn change_audience(&mut self, config: ServerConfig, now: Moment) -> Option<ServerConfig> {
        let server = self.server.as_mut()?;
        let before = server.listen_to(config);
        let clients = Arc::clone(&server.config().clients);
        let is_known = |who: &ClientLabel| clients.knows(who);
        let stays = |running: &Running| running.shared || running.by.as_ref().is_none_or(is_known);
        for (admission, running) in self.doors.evict(|_, running| stays(running)) {
            self.changes.push_back(Change::Close { admission: admission.clone() });
            let event = Event::Revoked { admission: admission.clone(), by: running.by.clone() };
            self.tell_of_door(event, now);
            self.go_on_behind(admission, running, now);
        }
        Some(before)
    }

    /// The disk holds the oldest record that was polled; or could not take it, and then nothing happens.
    pub fn handle_recorded(&mut self, held: bool, now: Moment, wall: Wall) {
        let Some(server) = &mut self.server else { return };
        let Some(waiting) = server.recorded(held) else { return };
        match (held, waiting.then) {
            (false, _) => self.refuse(&waiting.asker, Answer::NotRecorded, now),
            (true, Then::Refuse(why)) => self.refuse(&waiting.asker, why, now),
            (true, Then::Act(fresh)) => self.act(&waiting.asker, &fresh, now, wall),
        }
    }

    /// The next thing that the firewall has to make true.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next thing that the disk has to hold.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.server.as_mut()?.poll_record()
    }

    /// The next receipt to send.
    pub fn poll_receipt(&mut self, now: Moment, wall: Wall) -> Option<Outgoing> {
        self.server.as_mut()?.poll_receipt(now, wall)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let promised = self.server.as_ref().and_then(SpaServer::next_deadline);
        let sums = [self.throttle.next_sum(), self.lines.next_sum(), self.found.next_sum()];
        [self.doors.next_end(), promised].into_iter().chain(sums).flatten().min()
    }

    /// The conversation with clients that have a key.
    #[must_use]
    pub fn server(&self) -> Option<&SpaServer> {
        self.server.as_ref()
    }

    /// Who is in.
    #[must_use]
    pub fn doors(&self) -> &Grants {
        &self.doors
    }

    /// The rules, and who has knocked.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    fn admit(&mut self, grant: Grant, now: Moment) {
        match self.doors.open(grant, now) {
            Opening::Changed(admission, running) => self.changed(admission, &running),
            // A sequence is nobody's, so there is nobody to tell of.
            Opening::Unchanged(..) | Opening::Behind(..) => {}
            Opening::Full(admission) => self.tell(Event::NoRoom(admission), now),
        }
    }

    /// Tells a detail, if not too many were told of late. What is left out is not counted.
    fn trace(&mut self, event: Event, now: Moment) {
        if self.traces.admit(now) {
            self.events.push_back(event);
        }
    }

    /// What is said of a datagram to the port of single packet authorization.
    fn note(&mut self, heard: Heard, source: IpAddr, now: Moment) {
        let event = match heard {
            Heard::Waits => return,
            // Costs whoever sends it nothing, so it is told as a detail only.
            Heard::Dropped(why @ (DropReason::Unknown | DropReason::Copied), who) => {
                return self.trace(Event::Dropped { source, why, who }, now);
            }
            Heard::Dropped(why, who) => Event::Dropped { source, why, who },
            Heard::Stale(who) => Event::Refused { who, source, why: Answer::Stale, address: None },
            Heard::Crowded(who) => Event::Refused { who, source, why: Answer::TooMany, address: None },
        };
        self.tell(event, now);
    }

    /// Does what a client asks, who is known, and whose request is fresh and on disk.
    fn act(&mut self, asker: &Asker, fresh: &Accepted, now: Moment, wall: Wall) {
        self.handle_timeout(now);
        let Some(client) = self.server.as_ref().and_then(|server| server.client(asker.client)) else {
            return;
        };
        match fresh.operation() {
            Operation::Ask { skip } => {
                let told = |(name, longest): (&crate::door::DoorName, Duration)| ToldDoor {
                    name: name.as_str().into(),
                    longest: seconds(longest),
                };
                let doors: alloc::vec::Vec<ToldDoor> = self.access.doors_of(client).map(told).collect();
                let in_all = u16::try_from(doors.len()).unwrap_or(u16::MAX);
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                if let Some(server) = &mut self.server {
                    server.tell(asker, in_all, doors.into_iter().skip(skip));
                }
            }
            Operation::Open { door, wanted } => {
                let wanted = Duration::from_secs(wanted.into());
                match self.access.judge_request(fresh, client, door, wanted, asker.way, wall) {
                    Ok(grant) => self.open_for(asker, grant, now),
                    Err(Refusal::Address(why)) => self.refuse_address(asker, why, now),
                    Err(
                        Refusal::NotAllowed
                        | Refusal::NotAccepted
                        | Refusal::Repeated
                        | Refusal::Waiting
                        | Refusal::Wrong { .. },
                    ) => self.refuse(asker, Answer::NotAllowed, now),
                }
            }
            Operation::Close { door } => {
                let Some(door) = self.access.door_of(client, door) else {
                    return self.refuse(asker, Answer::NotAllowed, now);
                };
                let source = fresh.address().unwrap_or(asker.way.to.ip());
                if !client.may_come_from(source) {
                    return self.refuse_address(asker, Ineligible::NotThisClients(source), now);
                }
                let admission = GrantKey { door: door.name.clone(), source };
                let who = client.who.clone();
                self.close_for(asker, admission, &who, now);
            }
        }
    }

    fn open_for(&mut self, asker: &Asker, grant: Grant, now: Moment) {
        match self.doors.open(grant, now) {
            Opening::Changed(admission, running) => {
                self.changed(admission.clone(), &running);
                if let Some(server) = &mut self.server {
                    server.promise(asker, admission, Answer::Granted, None, now);
                }
            }
            Opening::Unchanged(admission, also) => {
                let Some(running) = self.doors.get(&admission).cloned() else { return };
                if let Some(by) = also {
                    self.tell(
                        Event::AlsoOpen { admission: admission.clone(), until: running.until, by },
                        now,
                    );
                }
                self.promise_open(asker, admission, &running, None, now);
            }
            Opening::Behind(admission, by, until) => {
                let Some(running) = self.doors.get(&admission).cloned() else { return };
                self.tell(Event::AlsoOpen { admission: admission.clone(), until, by }, now);
                self.changes.push_back(Change::Watch { admission: admission.clone() });
                self.promise_open(asker, admission, &running, Some(until), now);
            }
            Opening::Full(_) => self.refuse(asker, Answer::TooMany, now),
        }
    }

    /// Tells a client that a door is open, as soon as it is: until the door closes, or until the client's own grant
    /// is over.
    fn promise_open(
        &mut self,
        asker: &Asker,
        admission: GrantKey,
        running: &Running,
        own: Option<Moment>,
        now: Moment,
    ) {
        let Some(server) = &mut self.server else { return };
        let left = |until: Moment| seconds(until.remaining(now));
        match running.confirmed {
            true => server.answer(asker, Answer::Granted, left(own.unwrap_or(running.until))),
            // The firewall is at it.
            false => server.promise(asker, admission, Answer::Granted, own.map(left), now),
        }
    }

    /// One connection has used a grant up, or its time is over. The next behind it begins.
    fn go_on_behind(&mut self, admission: GrantKey, over: Running, now: Moment) {
        let server = self.server.as_ref();
        let known = |who: &ClientLabel| server.is_some_and(|server| server.config().clients.knows(who));
        if self.door_exists(&admission)
            && let Some(next) = self.doors.next_behind(&admission, over, now, known)
        {
            self.changed(admission.clone(), &next);
            if !next.behind.is_empty() {
                self.changes.push_back(Change::Watch { admission });
            }
        }
    }

    /// Closes a door that nobody but the client itself has opened, or that was open before this program
    /// started, so that nobody knows whose it is.
    fn close_for(&mut self, asker: &Asker, admission: GrantKey, who: &ClientLabel, now: Moment) {
        if self.doors.leave(&admission, who) {
            self.events.push_back(Event::NotWaiting { admission, by: who.clone() });
            if let Some(server) = &mut self.server {
                server.answer(asker, Answer::Closed, 0);
            }
            return;
        }
        let anothers = |running: &Running| {
            running.shared || running.by.as_ref().map_or(!running.adopted, |by| by != who)
        };
        if self.doors.get(&admission).is_some_and(anothers) {
            return self.refuse(asker, Answer::NotAllowed, now);
        }
        let closed = self.doors.close(&admission);
        if closed.is_some() {
            self.events.push_back(Event::Closed { admission: admission.clone(), by: Some(who.clone()) });
        }
        // Asked of the firewall in any case: it may hold a grant that is not known here.
        self.changes.push_back(Change::Close { admission: admission.clone() });
        if let Some(server) = &mut self.server {
            server.promise(asker, admission.clone(), Answer::Closed, None, now);
        }
        if let Some(running) = closed {
            self.go_on_behind(admission, running, now);
        }
    }

    fn refuse(&mut self, asker: &Asker, why: Answer, now: Moment) {
        self.refuse_for(asker, why, None, now);
    }

    fn refuse_address(&mut self, asker: &Asker, address: Ineligible, now: Moment) {
        self.refuse_for(asker, Answer::Address, Some(address), now);
    }

    fn refuse_for(&mut self, asker: &Asker, why: Answer, address: Option<Ineligible>, now: Moment) {
        let Some(server) = &mut self.server else { return };
        server.answer(asker, why, 0);
        let Some(who) = server.client(asker.client).map(|client| client.who.clone()) else { return };
        self.tell(Event::Refused { who, source: asker.way.to.ip(), why, address }, now);
    }

    fn changed(&mut self, admission: GrantKey, running: &Running) {
        self.events.push_back(Event::Granted(admission.clone()));
        let Running { until, link, by, .. } = running.clone();
        self.changes.push_back(Change::Open { admission, link, until, by });
    }

    /// Tells something that somebody else can cause as often as they like.
    fn tell(&mut self, event: Event, now: Moment) {
        if self.throttle.admit(now) {
            self.events.push_back(event);
        }
    }

    /// Tells what became of a door: always if it was a client's, else if not too much was told of late.
    fn tell_of_door(&mut self, event: Event, now: Moment) {
        if event.client().is_some() || self.lines.admit(now) {
            self.events.push_back(event);
        }
    }

    fn door_exists(&self, admission: &GrantKey) -> bool {
        self.access.rules().door(&admission.door).is_some()
    }
}

fn not_accepted(knock: &Knock) -> Event {
    Event::NotAccepted { source: knock.source, link: knock.arrival.link }
}

/// Whole seconds, rounded.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.saturating_add(Duration::from_millis(500)).as_secs()).unwrap_or(u32::MAX)
}
