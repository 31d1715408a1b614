//! The whole decision logic as one state machine.

mod by_hand;
mod requests;

use alloc::collections::VecDeque;
use core::{net::IpAddr, time::Duration};

use doors_spa::receipt::Answer;

pub use self::by_hand::{ByHand, ClosedByHand, NotOpened};
pub use crate::events::{Change, Event, Report};
use crate::{
    access::{Access, Grant, Refusal, Rules, Verdict},
    budget::Budget,
    counters::Counters,
    door::GrantKey,
    eligible::Own,
    grants::{Grants, LiveGrant, Opening, Outcome, State},
    lease::{GrantedTo, Lease},
    limits::ROUTE_QUERIES,
    packet::{Packet, Routes},
    sequence::{knock::Knock, trie::Conflict},
    spa::{
        replay::Record,
        server::{Heard, NextStep, Outgoing, ServerConfig, SpaServer, Ticket},
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

    /// Opens a door for a completed sequence. No answer is sent.
    fn admit(&mut self, grant: Grant, now: Moment) {
        let opening = self.grants.open(grant, now);
        if matches!(opening, Opening::Changed(_)) {
            count(&mut self.counters.granted_by_sequence);
        }
        self.opened(opening);
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
