//! The server side of single packet authorization: which requests are accepted, and when each is answered.
//!
//! ```text
//!   datagram ─► hint, tag ─► expired? network? ─► copy? budget? ─► HPKE ─► signature ─► replay guard ─► Record
//!               └────────── if one fails, it is dropped without an answer ─────────┘                      │ disk
//!                                                                                                         ▼
//!   receipt ◄─ Reply ◄─ firewall ◄─ grant ◄─ access ◄────────────────────── accepted ◄───────────── recorded
//!                └◄───────────────────────────────────────── challenge ◄─── stale ◄───────────────────────┘
//! ```
//!
//! A request has no effect before the disk holds its record. A request that a later run could accept is not
//! answered before that either, whatever the answer is. A receipt says "granted" only after the firewall has
//! confirmed it.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::{net::SocketAddr, time::Duration};

use doors_spa::{
    KNOCK,
    gateway::Proven,
    identity::ClientId,
    receipt::{Answer, Receipt, ReceiptKey, ToldDoor},
};

use crate::{
    door::GrantKey,
    limits::{FIREWALL_TIMEOUT, WAITING_AT_MOST, WAITING_PER_CLIENT},
    packet::{Packet, WayBack},
    spa::challenge::RunKey,
    spa::client::{Client, ClientLabel, Clients},
    spa::prefilter::{Prefilter, Recognition},
    spa::replay::{Accepted, Record, Rejected, ReplayGuard},
    time::{Moment, Wall},
};

/// The configuration of the server.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// The UDP port of single packet authorization.
    pub port: u16,
    /// The clients with a key.
    pub clients: Arc<Clients>,
    /// The table that maps datagrams to these clients.
    pub recognition: Recognition,
    /// How far a client's clock may be from ours.
    pub window: Duration,
}

/// Why a datagram was dropped. A value, never an error, and never answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// Made without the card, or in the name of a client that is not configured, or altered on its way.
    Unknown,
    /// Made with the card in a client's name, but not signed by that client.
    Forged,
    /// More datagrams come in this client's name than its budget allows, or too many of its requests wait.
    Flood,
    /// The same bytes came before.
    Copied,
    /// The same request came before.
    Replayed,
    /// The client's key has expired.
    Expired,
    /// The client is disabled.
    Disabled,
    /// The client may not knock from this address.
    Network,
}

/// The result of one datagram.
#[derive(Debug)]
pub enum Heard {
    /// Dropped, for this reason; with the client whose tag it carries, if the log is to name it.
    Dropped(DropReason, Option<ClientLabel>),
    /// A client's request, which waits for the disk.
    Waits,
    /// A client's request that is refused for its time. The client gets a challenge.
    Stale(ClientLabel),
    /// A client's request that is refused as too many. Nothing has to be on disk before the client is told.
    Crowded(ClientLabel),
}

/// The client that an answer goes to.
#[derive(Clone, Debug)]
pub struct Requester {
    /// The client.
    pub client: ClientId,
    /// The addresses for the answer.
    pub way: WayBack,
    key: ReceiptKey,
}

/// A request that waits for the disk.
#[derive(Debug)]
pub struct Waiting {
    /// The client that asks.
    pub requester: Requester,
    /// The next step, once the disk holds the record.
    pub next: NextStep,
}

/// The next step for a request whose record is on disk.
#[derive(Debug)]
pub enum NextStep {
    /// Carry it out.
    Act(Accepted),
    /// Refuse it with this answer.
    Refuse(Answer),
}

/// Identifies a record, so that the disk's confirmation can be matched with it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// A record that the disk has not confirmed yet.
#[derive(Debug)]
struct Unconfirmed {
    /// The client's low-water mark that is on disk after it.
    low_water: (ClientId, u64),
    waiting: Option<Waiting>,
}

/// An answer that has not been sealed yet.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its content. Time and challenge are filled in when it is sealed.
    pub receipt: Receipt,
    requester: Requester,
}

/// A sealed receipt, ready to be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outgoing {
    /// The addresses and the interface to send it with.
    pub way: WayBack,
    /// The datagram's payload.
    pub bytes: [u8; KNOCK],
}

/// A reply that waits until the firewall has made the change.
#[derive(Debug)]
struct DeferredReply {
    reply: Reply,
    /// The seconds that it reports, if not those that the door stays open.
    seconds: Option<u32>,
    until: Moment,
}

/// The server side of single packet authorization, for all clients.
#[derive(Debug)]
pub struct SpaServer {
    config: ServerConfig,
    prefilter: Prefilter,
    replay: ReplayGuard,
    key: RunKey,
    salts: u64,
    to_record: VecDeque<(Ticket, Record)>,
    tickets: u64,
    /// The records that the disk has not confirmed.
    unconfirmed: BTreeMap<Ticket, Unconfirmed>,
    deferred: BTreeMap<GrantKey, Vec<DeferredReply>>,
    replies: VecDeque<Reply>,
}

impl SpaServer {
    /// Starts without clients.
    #[must_use]
    pub fn new(key: RunKey, replay: ReplayGuard) -> Self {
        let mut server = Self {
            config: ServerConfig::default(),
            prefilter: Prefilter::default(),
            replay,
            key,
            salts: 0,
            to_record: VecDeque::new(),
            tickets: 0,
            unconfirmed: BTreeMap::new(),
            deferred: BTreeMap::new(),
            replies: VecDeque::new(),
        };
        server.write_low_water();
        server
    }

    /// Replaces the configuration. Returns the old one, so that the caller decides when to drop it: with many
    /// clients that takes time.
    pub fn set_config(&mut self, config: ServerConfig) -> ServerConfig {
        self.replay.set_window(config.window);
        self.write_low_water();
        self.prefilter.keep(&config.clients);
        core::mem::replace(&mut self.config, config)
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// The replay guard, with the requests accepted so far.
    #[must_use]
    pub fn replay(&self) -> &ReplayGuard {
        &self.replay
    }

    /// Takes one datagram; `None` if it is not for this server: another port or length, or a source that
    /// cannot be answered.
    ///
    /// Everything up to the signature is silent: neither a stranger nor the holder of a stolen key in the
    /// wrong network learns that anything is listening.
    pub fn hear(&mut self, packet: &Packet<'_>, now: Moment, wall: Wall) -> Option<Heard> {
        if packet.port != self.config.port || packet.payload.len() != KNOCK || !packet.is_answerable() {
            return None;
        }
        let Ok(datagram) = packet.payload.try_into() else { return None };
        let Some((gateway, id, tagged)) = self.config.recognition.recognise(datagram, wall) else {
            return Some(Heard::Dropped(DropReason::Unknown, None));
        };
        let Some(client) = self.config.clients.get(id) else {
            return Some(Heard::Dropped(DropReason::Unknown, None));
        };
        let who = client.who.clone();
        // Checked before datagrams are remembered: a copy that comes first, from elsewhere, must not make the
        // original look like the copy.
        let restricted = match client {
            client if client.disabled => Some(DropReason::Disabled),
            client if client.has_expired(wall) => Some(DropReason::Expired),
            client if !client.may_come_from(packet.source) => Some(DropReason::Network),
            _ => None,
        };
        if let Some(why) = restricted {
            return Some(Heard::Dropped(why, Some(who)));
        }
        if self.prefilter.is_copied(id, datagram) {
            return Some(Heard::Dropped(DropReason::Copied, None));
        }
        // In this order: counting what waits takes a pass over all of it, which a forged datagram must not
        // cause.
        if !self.prefilter.spend(id, now) || self.in_progress(id) >= WAITING_AT_MOST {
            return Some(Heard::Dropped(DropReason::Flood, Some(who)));
        }
        let proven = gateway.open(tagged).ok().and_then(|unproven| unproven.prove(&client.key));
        let Some(proven) = proven else {
            return Some(Heard::Dropped(DropReason::Forged, Some(who)));
        };
        self.prefilter.remember(id, datagram);
        Some(self.admit(proven, id, who, packet.way_back(), now, wall))
    }

    /// The next record that has to be on disk, synced, before [`recorded`](Self::recorded) is called with its
    /// ticket.
    pub fn poll_record(&mut self) -> Option<(Ticket, Record)> {
        self.to_record.pop_front()
    }

    /// Takes the disk's answer for a ticket: `held` if it holds the record, else it could not take it.
    /// Returns the request that waited for it, if there is one. Each ticket counts once.
    pub fn recorded(&mut self, ticket: Ticket, held: bool) -> Option<Waiting> {
        let Unconfirmed { low_water: (client, low_water), waiting } = self.unconfirmed.remove(&ticket)?;
        if held {
            self.replay.confirm_low_water(client, low_water);
        }
        waiting
    }

    /// The client with this ID, if it is still configured.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.config.clients.get(id)
    }

    /// Answers a request without waiting for the firewall.
    pub fn answer(&mut self, requester: &Requester, answer: Answer, seconds: u32) {
        self.replies.push_back(Reply::new(requester.clone(), answer, seconds));
    }

    /// Answers which doors a client may open: `in_all` is their number, `doors` those of this page and later.
    pub fn answer_doors(
        &mut self,
        requester: &Requester,
        in_all: u16,
        doors: impl IntoIterator<Item = ToldDoor>,
    ) {
        let mut reply = Reply::new(requester.clone(), Answer::Told, 0);
        reply.receipt.doors_in_all = in_all;
        reply.receipt = reply.receipt.with_doors(doors);
        self.replies.push_back(reply);
    }

    /// Answers a request when the firewall has made the change or its time to do so is over. The receipt
    /// gives `seconds`, or those for which the door is then open.
    pub fn defer_answer(
        &mut self,
        requester: &Requester,
        key: GrantKey,
        answer: Answer,
        seconds: Option<u32>,
        now: Moment,
    ) {
        let reply = Reply::new(requester.clone(), answer, 0);
        let entry = DeferredReply { reply, seconds, until: now.after(FIREWALL_TIMEOUT) };
        self.deferred.entry(key).or_default().push(entry);
    }

    /// The firewall has opened the door for `seconds` more, or closed it: sends the deferred replies with
    /// this `answer`.
    pub fn answer_deferred(&mut self, key: &GrantKey, answer: Answer, seconds: u32) {
        let Some(deferred) = self.deferred.get_mut(key) else { return };
        for mut entry in deferred.extract_if(.., |entry| entry.reply.receipt.answer == answer) {
            entry.reply.receipt.seconds = entry.seconds.unwrap_or(seconds);
            self.replies.push_back(entry.reply);
        }
        if deferred.is_empty() {
            self.deferred.remove(key);
        }
    }

    /// Tells clients that have waited too long for the firewall. Returns the grants that they waited for, one
    /// for each client.
    pub fn handle_timeout(&mut self, now: Moment) -> Vec<GrantKey> {
        let (replies, mut timed_out) = (&mut self.replies, Vec::new());
        self.deferred.retain(|key, deferred| {
            for mut entry in deferred.extract_if(.., |entry| entry.until <= now) {
                entry.reply.receipt.answer = Answer::Firewall;
                replies.push_back(entry.reply);
                timed_out.push(key.clone());
            }
            !deferred.is_empty()
        });
        timed_out
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next; `None` if nothing is pending.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deferred.values().flatten().map(|entry| entry.until).min()
    }

    /// The next receipt to send, sealed.
    pub fn poll_receipt(&mut self, now: Moment, wall: Wall) -> Option<Outgoing> {
        let mut reply = self.replies.pop_front()?;
        reply.receipt.time = wall.0;
        let Requester { client, way, key } = reply.requester;
        if reply.receipt.answer == Answer::Stale {
            reply.receipt.challenge = self.replay.challenge(&self.key, client, way.to.ip(), now);
        }
        self.salts = self.salts.wrapping_add(1);
        let bytes = key.seal(&reply.receipt, self.key.salt(self.salts));
        Some(Outgoing { way, bytes })
    }

    fn admit(
        &mut self,
        proven: Proven,
        client: ClientId,
        who: ClientLabel,
        way: WayBack,
        now: Moment,
        wall: Wall,
    ) -> Heard {
        let crowded = self.in_progress(client) >= WAITING_PER_CLIENT;
        self.replay.observe_date(now, wall);
        self.write_low_water();
        let (key, judged) = self.replay.judge(proven, way.to.ip(), &self.key, now, wall);
        let requester = Requester { client, way, key };
        let (next, record) = match judged {
            Err(Rejected::Replayed) => return Heard::Dropped(DropReason::Replayed, Some(who)),
            Err(Rejected::Stale(None)) if crowded => {
                self.answer(&requester, Answer::TooMany, 0);
                return Heard::Crowded(who);
            }
            Err(Rejected::Stale(None)) => {
                self.answer(&requester, Answer::Stale, 0);
                return Heard::Stale(who);
            }
            // Judging has spent these requests. The disk has to hold that before the client is told.
            Err(Rejected::Stale(Some(record))) | Ok((_, record)) if crowded => {
                (NextStep::Refuse(Answer::TooMany), record)
            }
            Err(Rejected::Stale(Some(record))) => (NextStep::Refuse(Answer::Stale), record),
            Ok((accepted, record)) => (NextStep::Act(accepted), record),
        };
        self.queue_record(record, Some(Waiting { requester, next }));
        Heard::Waits
    }

    /// Gives the gateway's low-water mark to the disk if it has risen, before any record of a request that is
    /// accepted above it.
    fn write_low_water(&mut self) {
        if let Some(record) = self.replay.poll_low_water() {
            self.queue_record(record, None);
        }
    }

    fn queue_record(&mut self, record: Record, waiting: Option<Waiting>) {
        let low_water = (record.client, self.replay.low_water(record.client));
        let ticket = Ticket(self.tickets);
        self.tickets = self.tickets.saturating_add(1);
        self.to_record.push_back((ticket, record));
        self.unconfirmed.insert(ticket, Unconfirmed { low_water, waiting });
    }

    fn in_progress(&self, client: ClientId) -> usize {
        let waiting = self.unconfirmed.values().filter_map(|record| record.waiting.as_ref());
        let waiting = waiting.filter(|waiting| waiting.requester.client == client).count();
        let deferred = self.deferred.values().flatten();
        let deferred = deferred.filter(|entry| entry.reply.requester.client == client).count();
        waiting.saturating_add(deferred)
    }
}

impl Reply {
    fn new(requester: Requester, answer: Answer, seconds: u32) -> Self {
        let seen: SocketAddr = requester.way.to;
        let (challenge, doors) = ([0; 8], Vec::new());
        let receipt = Receipt { answer, seconds, time: 0, seen, challenge, doors_in_all: 0, doors };
        Self { receipt, requester }
    }
}
