//! The whole decision logic as one state machine.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use core::{net::IpAddr, time::Duration};

use doors_spa::{
    receipt::{Answer, ToldDoor},
    request::Operation,
};

pub use crate::events::{Change, Event, Report};
use crate::{
    access::{Access, Grant, Refusal, Rules, Verdict},
    budget::Budget,
    counters::Counters,
    door::{DoorName, GrantKey},
    eligible::{Ineligible, Own},
    grants::{Grants, Left, LiveGrant, Opening, Outcome, State},
    lease::{GrantedTo, Lease, Note},
    limits::{CLOSED_AT_ONCE, ROUTE_QUERIES},
    packet::{Packet, Routes},
    sequence::{knock::Knock, trie::Conflict},
    spa::{
        client::{ClientLabel, Clients},
        replay::{Accepted, Record},
        server::{Heard, NextStep, Outgoing, Requester, ServerConfig, SpaServer, Ticket},
    },
    time::{Moment, Wall},
};

/// Takes packets, reports and time; says which doors the firewall has to open and close.
///
/// Call the `handle_*` methods. After each call, drain the `poll_*` methods, then sleep until `next_deadline`
/// or the next packet. Moments must never go backwards.
///
/// ```text
///   packet ──► handle_packet ──►┐        ┌──► poll_change ──► firewall
///   report ──► handle_report ──►│        ├──► poll_event ───► observers
///    clock ──► handle_timeout ─►│ engine ├──► poll_record ──► disk ──► handle_recorded
///      ▲                        │        └──► poll_receipt ─► network
///      └────────────────────── report ◄───────────────────────┘
/// ```
///
/// A wrong knock opens nothing; `examples/embed.rs` has the right ones.
///
/// ```
/// use std::time::Duration;
///
/// use doors_core::{
///     access::Rules,
///     door::{Door, DoorName, Sequence},
///     engine::{Engine, Event},
///     packet::{AllRoutes, Link, Packet},
///     time::{Moment, Wall},
/// };
///
/// let sequence = Sequence::new(&[7001, 9002, 8003, 7004, 9005])?;
/// let door = Door::with_sequence(DoorName::new("ssh")?, sequence, Duration::from_secs(30));
/// let (quiet_after_wrong, forget_after) = (Duration::from_secs(5), Duration::from_secs(10));
/// let clients = Default::default();
/// let mut engine = Engine::new(Rules { doors: vec![door], quiet_after_wrong, forget_after, clients })?;
///
/// let (source, destination) = ("192.0.2.7".parse()?, "192.0.2.1".parse()?);
/// let packet =
///     Packet { source, source_port: 40_000, destination, port: 4711, link: Link(2), payload: b"knock\n" };
/// engine.handle_packet(&packet, Moment::default(), Wall::default(), &mut AllRoutes);
///
/// assert!(engine.poll_change().is_none());
/// assert!(matches!(engine.poll_event(), Some(Event::Wrong { port: 4711, .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    access: Access,
    grants: Grants,
    server: Option<SpaServer>,
    /// Budget for asking the kernel whether it would accept a packet from the source of a wrong knock.
    route_queries: Budget,
    counters: Counters,
    changes: VecDeque<Change>,
    events: VecDeque<Event>,
}

impl Engine {
    /// Starts to judge by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        Ok(Self {
            access: Access::new(rules)?,
            grants: Grants::default(),
            server: None,
            route_queries: Budget::default(),
            counters: Counters::default(),
            changes: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Adds the server for single packet authorization. Without one, only sequences are handled.
    pub fn set_server(&mut self, server: SpaServer) {
        self.server = Some(server);
    }

    /// Takes one packet from the network. `routes` say whether the kernel accepts it as well.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, now: Moment, wall: Wall, routes: &mut dyn Routes) {
        let heard = self.server.as_mut().and_then(|server| server.hear(packet, now, wall));
        match heard {
            Some(heard) => self.note(heard, packet.source),
            None => self.handle_knock(packet, now, wall, routes),
        }
    }

    fn handle_knock(&mut self, packet: &Packet<'_>, now: Moment, wall: Wall, routes: &mut dyn Routes) {
        let Some(knock) = Knock::parse(packet) else { return };
        let source = knock.source;
        // A door whose time is over must be reported as closed before it opens again.
        self.handle_timeout(now, wall);
        let event = match self.access.judge(&knock, now, routes) {
            Ok(Verdict::Granted(grant)) => {
                count(&mut self.counters.knocks_right);
                return self.admit(grant, now);
            }
            Ok(Verdict::Further { right }) => {
                count(&mut self.counters.knocks_right);
                Event::Further { source, right }
            }
            Err(Refusal::Wrong { after }) => {
                count(&mut self.counters.knocks_wrong);
                self.wrong(&knock, after, now, routes)
            }
            Err(refusal) => {
                count(&mut self.counters.knocks_ignored);
                match refusal {
                    Refusal::Waiting => Event::Waiting { source },
                    Refusal::NotAccepted => not_accepted(&knock),
                    Refusal::Address(why) => Event::Ineligible { source, why },
                    // A knock names no door, so it is never refused with `NotAllowed`.
                    Refusal::Repeated | Refusal::NotAllowed | Refusal::Wrong { .. } => {
                        Event::Repeated { source }
                    }
                }
            }
        };
        self.events.push_back(event);
    }

    fn wrong(&mut self, knock: &Knock, after: u8, now: Moment, routes: &mut dyn Routes) -> Event {
        let checked = self.route_queries.spend(ROUTE_QUERIES, now);
        if checked && !routes.accept(knock.source, knock.arrival) {
            return not_accepted(knock);
        }
        let quiet = self.access.rules().quiet_after_wrong;
        Event::Wrong { source: knock.source, port: knock.port, after, quiet, checked }
    }

    /// Takes a report from the firewall.
    pub fn handle_report(&mut self, report: Report, now: Moment, wall: Wall) {
        match report {
            Report::Done(key) => self.confirmed(&key, now),
            Report::Closed(key) => {
                if let Some(server) = &mut self.server {
                    server.answer_deferred(&key, Answer::Closed, 0);
                }
            }
            Report::Found(lease) => self.found(lease, now, wall),
            Report::Used(lease) => self.ended(&lease, Event::Used, now, wall),
            Report::Lost(lease) => self.ended(&lease, Event::Lost, now, wall),
            Report::Withdrawn(lease) => {
                if let Some(running) = self.take(&lease) {
                    // Everything else that was opened for this grant is closed, too.
                    self.changes.push_back(Change::Close(lease.key));
                    // Also for those who share it or wait for it.
                    self.events.extend(running.leases().cloned().map(Event::Withdrawn));
                }
            }
        }
    }

    /// The firewall holds a lease from before the start.
    fn found(&mut self, found: Lease, now: Moment, wall: Wall) {
        let Some(lease) = self.access.rules().permit(found.clone(), now, wall) else {
            self.changes.push_back(Change::Close(found.key.clone()));
            return self.events.push_back(Event::NotAdopted(found));
        };
        let is_shorter = lease != found;
        let state = if is_shorter { State::Corrected } else { State::Open };
        if self.grants.adopt(lease.clone(), state, now) {
            match is_shorter {
                true => self.shorten(&lease),
                false => self.watch(&lease),
            }
            self.events.push_back(Event::Adopted(lease));
        }
    }

    /// A single-connection lease has ended in the firewall; what waits behind it begins.
    fn ended(&mut self, lease: &Lease, event: fn(Lease) -> Event, now: Moment, wall: Wall) {
        if let Some(running) = self.take(lease) {
            self.events.push_back(event(running.lease.clone()));
            self.begin_next(running, now, wall);
        }
    }

    /// Removes the grant that a report is about, unless a later lease is in force for it.
    fn take(&mut self, lease: &Lease) -> Option<LiveGrant> {
        let is_it = self.grants.get(&lease.key).is_some_and(|running| running.lease.until == lease.until);
        if is_it { self.grants.close(&lease.key) } else { None }
    }

    fn confirmed(&mut self, key: &GrantKey, now: Moment) {
        let Some(before) = self.grants.confirm(key) else { return };
        let Some(LiveGrant { lease, .. }) = self.grants.get(key) else { return };
        if let Some(server) = &mut self.server {
            server.answer_deferred(key, Answer::Granted, seconds(lease.until.remaining(now)));
        }
        match before {
            State::Asked => self.events.push_back(Event::Opened(lease.clone())),
            State::Open => self.events.push_back(Event::Extended(lease.clone())),
            State::Corrected => {}
        }
    }

    /// Ends the leases and the deferred replies whose time is over at `now`.
    pub fn handle_timeout(&mut self, now: Moment, wall: Wall) {
        while let Some(running) = self.grants.expire(now) {
            let lease = running.lease.clone();
            self.events.push_back(match running.is_open() {
                true => Event::Closed(lease),
                false => {
                    count(&mut self.counters.not_opened);
                    Event::NeverOpened(lease)
                }
            });
            self.begin_next(running, now, wall);
        }
        if let Some(server) = &mut self.server {
            for key in server.handle_timeout(now) {
                count(&mut self.counters.not_opened);
                self.events.push_back(Event::NotInTime(key));
            }
        }
    }

    /// Replaces the rules. Closes what they no longer permit: doors that are gone, and leases of clients that
    /// have lost their key or their permission. All other doors stay open until their time.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart. Then the old rules stay in force.
    pub fn change_rules(&mut self, rules: Rules, now: Moment, wall: Wall) -> Result<(), Conflict> {
        self.access.change_rules(rules)?;
        let rules = self.access.rules();
        let permitted = |lease: Lease| rules.permit(lease, now, wall);
        let is_concerned = |lease: &Lease| permitted(lease.clone()).as_ref() != Some(lease);
        let concerned = self.grants.with_lease(is_concerned, usize::MAX);
        for retracted in self.grants.retract(concerned, permitted) {
            match retracted.outcome {
                Outcome::Closed(running) => {
                    self.changes.push_back(Change::Close(running.lease.key.clone()));
                    if running.is_open() {
                        self.events.push_back(Event::Revoked(running.lease.clone()));
                    }
                    self.begin_next(running, now, wall);
                }
                Outcome::Kept(_) => {}
                Outcome::Changed { before, now } => {
                    self.shorten(&now);
                    self.events.push_back(match before.granted_to == now.granted_to {
                        true => Event::Shortened(now),
                        false => Event::Reduced { gone: before, now },
                    });
                }
            }
        }
        Ok(())
    }

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
                    closed.asked.push(rest.key.clone());
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

    /// Sets the addresses of this machine and its networks. No grant is made for them.
    pub fn set_own_addresses(&mut self, own: Own) {
        self.access.set_own_addresses(own);
    }

    /// Replaces the configuration of the server for single packet authorization. Returns the old one, so that
    /// the caller decides when to drop it: with many clients that takes time.
    pub fn set_server_config(&mut self, config: ServerConfig) -> Option<ServerConfig> {
        Some(self.server.as_mut()?.set_config(config))
    }

    /// Takes the result of writing the record of `ticket`: `held` if the disk holds it. Otherwise the request
    /// is refused.
    pub fn handle_recorded(&mut self, ticket: Ticket, held: bool, now: Moment, wall: Wall) {
        let Some(server) = &mut self.server else { return };
        let Some(waiting) = server.recorded(ticket, held) else { return };
        match (held, waiting.next) {
            (false, _) => self.refuse(&waiting.requester, Answer::NotRecorded, None),
            (true, NextStep::Refuse(why)) => self.refuse(&waiting.requester, why, None),
            (true, NextStep::Act(accepted)) => self.act(&waiting.requester, &accepted, now, wall),
        }
    }

    /// The next change that the firewall has to make.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next record that the disk has to hold, and the ticket by which to confirm it.
    pub fn poll_record(&mut self) -> Option<(Ticket, Record)> {
        self.server.as_mut()?.poll_record()
    }

    /// The next receipt to send.
    pub fn poll_receipt(&mut self, now: Moment, wall: Wall) -> Option<Outgoing> {
        self.server.as_mut()?.poll_receipt(now, wall)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next; `None` if nothing is pending.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let deferred = self.server.as_ref().and_then(SpaServer::next_deadline);
        [self.grants.next_end(), deferred].into_iter().flatten().min()
    }

    /// The server for single packet authorization, if there is one.
    #[must_use]
    pub fn server(&self) -> Option<&SpaServer> {
        self.server.as_ref()
    }

    /// The live grants.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The rules, and the progress of each source.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The counters since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Turns the result of a datagram to the port of single packet authorization into an event.
    fn note(&mut self, heard: Heard, source: IpAddr) {
        let event = match heard {
            Heard::Waits => return,
            Heard::Dropped(why, who) => {
                count(&mut self.counters.dropped);
                Event::Dropped { source, why, who }
            }
            Heard::Stale(who) => Event::Refused { who, source, why: Answer::Stale, address: None },
            Heard::Crowded(who) => {
                count(&mut self.counters.refused);
                Event::Refused { who, source, why: Answer::TooMany, address: None }
            }
        };
        self.events.push_back(event);
    }

    /// Carries out a client's request, which has been accepted and is on disk.
    fn act(&mut self, requester: &Requester, accepted: &Accepted, now: Moment, wall: Wall) {
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

    /// Opens a door for a completed sequence. No answer is sent.
    fn admit(&mut self, grant: Grant, now: Moment) {
        let opening = self.grants.open(grant, now);
        if matches!(opening, Opening::Changed(_)) {
            count(&mut self.counters.granted_by_sequence);
        }
        self.opened(opening);
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

    fn opened(&mut self, opening: Opening) {
        let event = match opening {
            Opening::Changed(lease) => return self.changed(lease),
            Opening::Joined(lease) | Opening::Waits(lease) => {
                // Its turn comes when the lease before it is used up, also if the door lets in one connection only since
                // a reload.
                self.watch(&lease);
                let before = self
                    .grants
                    .get(&lease.key)
                    .map_or(GrantedTo::Sequence, |running| running.lease.granted_to.clone());
                Event::AlsoOpen { lease, before }
            }
            Opening::Unchanged(lease) => Event::StillOpen(lease),
            Opening::Full(lease) => Event::NoRoom(lease),
        };
        self.events.push_back(event);
    }

    /// Starts the next waiting lease of a single-connection grant, after the lease before it has been used up
    /// or is over.
    fn begin_next(&mut self, over: LiveGrant, now: Moment, wall: Wall) {
        let rules = self.access.rules();
        if let Some(next) = self.grants.next_waiting(over, now, |lease| rules.permit(lease, now, wall)) {
            self.changed(next);
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

    fn refuse(&mut self, requester: &Requester, why: Answer, address: Option<Ineligible>) {
        let Some(server) = &mut self.server else { return };
        server.answer(requester, why, 0);
        if why != Answer::Stale {
            count(&mut self.counters.refused);
        }
        let Some(who) = server.client(requester.client).map(|client| client.who.clone()) else { return };
        self.events.push_back(Event::Refused { who, source: requester.way.to.ip(), why, address });
    }

    fn changed(&mut self, lease: Lease) {
        self.changes.push_back(Change::Open(lease.clone()));
        self.watch(&lease);
        self.events.push_back(Event::Granted(lease));
    }

    /// Replaces the firewall's lease by one that ends earlier or belongs to another client. The old lease is
    /// closed first, so that one that ends earlier can take its place.
    fn shorten(&mut self, lease: &Lease) {
        self.changes.push_back(Change::Close(lease.key.clone()));
        self.changes.push_back(Change::Open(lease.clone()));
        self.watch(lease);
    }

    /// Asks the firewall to watch a single-connection lease: the kernel does not report its use by itself.
    fn watch(&mut self, lease: &Lease) {
        if lease.once {
            self.changes.push_back(Change::Watch(lease.key.clone()));
        }
    }
}

/// A door that was opened by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ByHand {
    /// When it closes: later than asked for, if it is open for others behind the same address.
    pub until: Moment,
    /// Whether the firewall has done it already; otherwise it reports [`Report::Done`].
    pub is_done: bool,
}

/// Doors that were closed by hand.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClosedByHand {
    /// The doors and sources of which at least one lease has ended.
    pub ended: Vec<GrantKey>,
    /// Those that the firewall was asked to close or to change; it reports [`Report::Closed`] for each.
    pub asked: Vec<GrantKey>,
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

fn count(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}

fn not_accepted(knock: &Knock) -> Event {
    Event::NotAccepted { source: knock.source, link: knock.arrival.link }
}

/// Rounds to whole seconds.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.saturating_add(Duration::from_millis(500)).as_secs()).unwrap_or(u32::MAX)
}
