//! The whole system as one value.

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
    grants::{Grants, Left, Opening, Retracted, Running, State},
    lease::Lease,
    limits::QUESTIONS,
    packet::{Packet, Routes},
    sequence::{knock::Knock, trie::Conflict},
    spa::{
        client::{ClientLabel, Clients},
        replay::{Accepted, Record},
        server::{Asker, Heard, Outgoing, ServerConfig, SpaServer, Then, Ticket},
    },
    time::{Moment, Wall},
};

/// Hears knocks, judges them, and says which doors to open and close.
///
/// Feed it with the `handle_*` methods. After each call, drain the `poll_*` methods, then sleep until
/// `next_deadline` or the next packet. Moments must never go backwards.
///
/// ```text
///   packet ──► handle_packet ──►┐        ┌──► poll_change ──► firewall
///   report ──► handle_report ──►│        ├──► poll_event ───► observers
///    clock ──► handle_timeout ─►│ engine ├──► poll_record ──► disk ──► handle_recorded
///      ▲                        │        └──► poll_receipt ─► network
///      └────────────────────── report ◄───────────────────────┘
/// ```
#[derive(Debug)]
pub struct Engine {
    access: Access,
    grants: Grants,
    server: Option<SpaServer>,
    /// Questions to the kernel of whether it would take a packet from the source of a wrong knock.
    questions: Budget,
    counters: Counters,
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
            grants: Grants::default(),
            server: None,
            questions: Budget::default(),
            counters: Counters::default(),
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
            Some(heard) => self.note(heard, packet.source),
            None => self.handle_knock(packet, now, wall, routes),
        }
    }

    fn handle_knock(&mut self, packet: &Packet<'_>, now: Moment, wall: Wall, routes: &mut dyn Routes) {
        let Some(knock) = Knock::parse(packet) else { return };
        let source = knock.source;
        // A door whose time is over must be told as closed before it opens again.
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
                    // A knock names no door, so `NotAllowed` cannot come of one.
                    Refusal::Repeated | Refusal::NotAllowed | Refusal::Wrong { .. } => {
                        Event::Repeated { source }
                    }
                }
            }
        };
        self.events.push_back(event);
    }

    fn wrong(&mut self, knock: &Knock, after: u8, now: Moment, routes: &mut dyn Routes) -> Event {
        let checked = self.questions.spend(QUESTIONS, now);
        if checked && !routes.accept(knock.source, knock.arrival) {
            return not_accepted(knock);
        }
        let quiet = self.access.rules().quiet_after_wrong;
        Event::Wrong { source: knock.source, port: knock.port, after, quiet, checked }
    }

    /// Takes what the firewall reports.
    pub fn handle_report(&mut self, report: Report, now: Moment, wall: Wall) {
        match report {
            Report::Done(key) => self.confirmed(&key, now),
            Report::Closed(key) => {
                if let Some(server) = &mut self.server {
                    server.keep_promises(&key, Answer::Closed, 0);
                }
            }
            Report::Found(lease) => {
                if !self.access.rules().permit(&lease, wall) {
                    self.changes.push_back(Change::Close(lease.key.clone()));
                    self.events.push_back(Event::NotAdopted(lease));
                } else if self.grants.adopt(lease.clone()) {
                    self.watch(&lease);
                    self.events.push_back(Event::Adopted(lease));
                }
            }
            Report::Used(lease) => {
                if let Some(running) = self.take(&lease) {
                    self.events.push_back(Event::Used(running.lease.clone()));
                    self.begin_next(running, now, wall);
                }
            }
            Report::Withdrawn(lease) => {
                if let Some(running) = self.take(&lease) {
                    // What else was opened for it is closed, too.
                    self.changes.push_back(Change::Close(lease.key));
                    self.events.push_back(Event::Withdrawn(running.lease));
                }
            }
        }
    }

    /// Takes out the grant of a report, unless a later lease runs for the same.
    fn take(&mut self, lease: &Lease) -> Option<Running> {
        let is_it = self.grants.get(&lease.key).is_some_and(|running| running.lease.until == lease.until);
        if is_it { self.grants.close(&lease.key) } else { None }
    }

    fn confirmed(&mut self, key: &GrantKey, now: Moment) {
        let Some(before) = self.grants.confirm(key) else { return };
        let Some(Running { lease, .. }) = self.grants.get(key) else { return };
        if let Some(server) = &mut self.server {
            server.keep_promises(key, Answer::Granted, seconds(lease.until.remaining(now)));
        }
        match before {
            State::Asked => self.events.push_back(Event::Opened(lease.clone())),
            State::Open => self.events.push_back(Event::Extended(lease.clone())),
            State::Corrected => {}
        }
    }

    /// Lets time pass.
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

    /// Judges by other `rules` from here on. What could not be opened by them is closed: doors that are gone, and what
    /// clients have open that have lost their key or their permission. All other doors stay open until their time.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart; then nothing has changed.
    pub fn change_rules(&mut self, rules: Rules, now: Moment, wall: Wall) -> Result<(), Conflict> {
        self.access.change_rules(rules)?;
        let rules = self.access.rules();
        for retracted in self.grants.retract(now, |lease| rules.permit(lease, wall)) {
            match retracted {
                Retracted::Closed(running) => {
                    self.changes.push_back(Change::Close(running.lease.key.clone()));
                    self.events.push_back(Event::Revoked(running.lease.clone()));
                    self.begin_next(running, now, wall);
                }
                Retracted::Changed { before, now } => {
                    self.shorten(&now);
                    self.events.push_back(Event::Reduced { gone: before, now });
                }
            }
        }
        Ok(())
    }

    /// Lets in none of these addresses from here on: they are this machine's own.
    pub fn know_own(&mut self, own: Own) {
        self.access.know_own(own);
    }

    /// Listens to these clients from here on. Gives what was before: to let go of many clients takes time.
    pub fn change_audience(&mut self, config: ServerConfig) -> Option<ServerConfig> {
        Some(self.server.as_mut()?.listen_to(config))
    }

    /// The disk holds the record of this ticket; or could not take it, and then nothing happens.
    pub fn handle_recorded(&mut self, ticket: Ticket, held: bool, now: Moment, wall: Wall) {
        let Some(server) = &mut self.server else { return };
        let Some(waiting) = server.recorded(ticket, held) else { return };
        match (held, waiting.then) {
            (false, _) => self.refuse(&waiting.asker, Answer::NotRecorded, None),
            (true, Then::Refuse(why)) => self.refuse(&waiting.asker, why, None),
            (true, Then::Act(accepted)) => self.act(&waiting.asker, &accepted, now, wall),
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

    /// The next thing that the disk has to hold, and the ticket by which to confirm it.
    pub fn poll_record(&mut self) -> Option<(Ticket, Record)> {
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
        [self.grants.next_end(), promised].into_iter().flatten().min()
    }

    /// The conversation with clients that have a key.
    #[must_use]
    pub fn server(&self) -> Option<&SpaServer> {
        self.server.as_ref()
    }

    /// Who is in.
    #[must_use]
    pub fn grants(&self) -> &Grants {
        &self.grants
    }

    /// The rules, and who has knocked.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is noted of a datagram to the port of single packet authorization.
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

    /// Does what a client asks, whose request is accepted and on disk.
    fn act(&mut self, asker: &Asker, accepted: &Accepted, now: Moment, wall: Wall) {
        self.handle_timeout(now, wall);
        let clients: Option<Arc<Clients>> =
            self.server.as_ref().map(|server| Arc::clone(&server.config().clients));
        let Some(client) = clients.as_ref().and_then(|clients| clients.get(asker.client)) else { return };
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
                    server.tell(asker, in_all, doors.into_iter().skip(skip));
                }
            }
            Operation::Open { door, wanted } => {
                let wanted = Duration::from_secs(wanted.into());
                match self.access.judge_request(accepted, client, door, wanted, asker.way, wall) {
                    Ok(grant) => self.open_for(asker, grant, now),
                    Err(Refusal::Address(why)) => self.refuse(asker, Answer::Address, Some(why)),
                    Err(
                        Refusal::NotAllowed
                        | Refusal::NotAccepted
                        | Refusal::Repeated
                        | Refusal::Waiting
                        | Refusal::Wrong { .. },
                    ) => self.refuse(asker, Answer::NotAllowed, None),
                }
            }
            Operation::Close { door } => {
                let Some(door) = self.access.door_of(client, door) else {
                    return self.refuse(asker, Answer::NotAllowed, None);
                };
                let source = accepted.address().unwrap_or(asker.way.to.ip());
                if !client.may_come_from(source) {
                    let why = Ineligible::NotThisClients(source);
                    return self.refuse(asker, Answer::Address, Some(why));
                }
                let key = GrantKey { door: door.name.clone(), source };
                self.close_for(asker, key, &client.who, now, wall);
            }
        }
    }

    /// Opens a door for a sequence. It is not answered.
    fn admit(&mut self, grant: Grant, now: Moment) {
        let opening = self.grants.open(grant, now);
        if matches!(opening, Opening::Changed(_)) {
            count(&mut self.counters.granted_by_sequence);
        }
        self.opened(opening);
    }

    /// Opens a door for a client, and answers it as soon as it is open: with the time until it closes, or, where each
    /// has its turn, with the client's own.
    fn open_for(&mut self, asker: &Asker, grant: Grant, now: Moment) {
        let opening = self.grants.open(grant, now);
        let (key, own) = match &opening {
            Opening::Full(_) => return self.refuse(asker, Answer::TooMany, None),
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
            true => server.answer(asker, Answer::Granted, left(own.unwrap_or(running.lease.until))),
            // The firewall is at it.
            false => server.promise(asker, key, Answer::Granted, own.map(left), now),
        }
    }

    fn opened(&mut self, opening: Opening) {
        let event = match opening {
            Opening::Changed(lease) => return self.changed(lease),
            Opening::Joined(lease) | Opening::Waits(lease) => {
                let before = self.grants.get(&lease.key).and_then(|running| running.lease.by.clone());
                Event::AlsoOpen { lease, before }
            }
            Opening::Unchanged(lease) => Event::StillOpen(lease),
            Opening::Full(lease) => Event::NoRoom(lease),
        };
        self.events.push_back(event);
    }

    /// One connection has used a grant up, or its time is over. The next that waits begins.
    fn begin_next(&mut self, over: Running, now: Moment, wall: Wall) {
        let rules = self.access.rules();
        if let Some(next) = self.grants.next_waiting(over, now, |lease| rules.permit(lease, wall)) {
            self.changed(next.lease);
        }
    }

    /// Gives up what a client has of a door. It is closed if nobody else has it open, or if it was open before this
    /// program started, so that it is not known whose it is.
    fn close_for(&mut self, asker: &Asker, key: GrantKey, who: &ClientLabel, now: Moment, wall: Wall) {
        match self.grants.leave(&key, who, now) {
            Left::Waiting(lease) => {
                self.events.push_back(Event::GivenUp(lease));
                if let Some(server) = &mut self.server {
                    server.answer(asker, Answer::Closed, 0);
                }
            }
            Left::Others(lease, is_changed) => {
                if is_changed && let Some(running) = self.grants.get(&key) {
                    let now = running.lease.clone();
                    self.shorten(&now);
                }
                self.events.push_back(Event::GivenUp(lease));
                // Behind one address it is not the client's alone, and stays open for it, too.
                if let Some(server) = &mut self.server {
                    server.answer(asker, Answer::NotAllowed, 0);
                }
            }
            Left::Nothing if self.grants.get(&key).is_some_and(|running| !running.is_unowned()) => {
                self.refuse(asker, Answer::NotAllowed, None);
            }
            Left::Alone | Left::Nothing => self.close_now(asker, key, now, wall),
        }
    }

    fn close_now(&mut self, asker: &Asker, key: GrantKey, now: Moment, wall: Wall) {
        let closed = self.grants.close(&key);
        // Asked of the firewall in any case: it may hold a grant that is not known here.
        self.changes.push_back(Change::Close(key.clone()));
        if let Some(server) = &mut self.server {
            server.promise(asker, key, Answer::Closed, None, now);
        }
        if let Some(running) = closed {
            self.events.push_back(Event::Closed(running.lease.clone()));
            self.begin_next(running, now, wall);
        }
    }

    fn refuse(&mut self, asker: &Asker, why: Answer, address: Option<Ineligible>) {
        let Some(server) = &mut self.server else { return };
        server.answer(asker, why, 0);
        if why != Answer::Stale {
            count(&mut self.counters.refused);
        }
        let Some(who) = server.client(asker.client).map(|client| client.who.clone()) else { return };
        self.events.push_back(Event::Refused { who, source: asker.way.to.ip(), why, address });
    }

    fn changed(&mut self, lease: Lease) {
        self.changes.push_back(Change::Open(lease.clone()));
        self.watch(&lease);
        self.events.push_back(Event::Granted(lease));
    }

    /// A door is open for a shorter time than before, or by another client's key. A lease that ends earlier takes the
    /// place of one that is not there any more.
    fn shorten(&mut self, lease: &Lease) {
        self.changes.push_back(Change::Close(lease.key.clone()));
        self.changes.push_back(Change::Open(lease.clone()));
    }

    /// The kernel does not tell of itself that a packet has used up a grant.
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

/// Whole seconds, rounded.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.saturating_add(Duration::from_millis(500)).as_secs()).unwrap_or(u32::MAX)
}
