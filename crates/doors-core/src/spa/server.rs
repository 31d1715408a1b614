//! Talks with clients that have a key: what was asked, and what is answered, and when.
//!
//! ```text
//!   datagram ─► hint, tag ─► expired? network? ─► copied? budget? ─► HPKE ─► signature ─► fresh? ─► Record ─► disk
//!               └──────── silence for everybody else ──────────────────┘                                       │
//!                                                                                                 recorded ◄───┘
//!   receipt ◄── Reply ◄────────────────────────────────── firewall ◄── grant ◄── policy ◄── fresh ◄──┤
//!                 └◄───────────────────────────────────────────────────── challenge ◄─────── stale ◄─┘
//! ```
//!
//! A request has no effect before the disk remembers it. One that could be good in a later run is not answered
//! before, with whatever. A receipt says "granted" only when the firewall has said so.

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
    limits::{PATIENCE_WITH_FIREWALL, WAITING_AT_MOST, WAITING_PER_CLIENT},
    packet::{Packet, WayBack},
    spa::challenge::RunKey,
    spa::client::{Client, ClientLabel, Clients},
    spa::prefilter::{Prefilter, Recognition},
    spa::replay::{Accepted, Record, ReplayGuard, Unfresh},
    time::{Moment, Wall},
};

/// What clients with keys need to be heard.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// The UDP port of single packet authorization.
    pub port: u16,
    /// Who has a key.
    pub clients: Arc<Clients>,
    /// What tells their datagrams from all others.
    pub recognition: Recognition,
    /// How far a client's clock may be from ours.
    pub window: Duration,
}

/// Why a datagram is nobody's. A value, never an error, and never answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DropReason {
    /// Made without the card, or in the name of nobody who has a key here, or changed on its way.
    Unknown,
    /// Made with the card in the name of a client that has not signed it.
    Forged,
    /// More is made in the name of this client than it could send.
    Flood,
    /// The very same bytes came before.
    Copied,
    /// The same request came before.
    Replayed,
    /// The client's time is over.
    Expired,
    /// The client may not come from there.
    Network,
}

/// What a datagram turned out to be.
#[derive(Debug)]
pub enum Heard {
    /// Nobody's.
    Dropped(DropReason, Option<ClientLabel>),
    /// A client's, and waiting for the disk.
    Waits,
    /// A client's whose time says nothing: it gets a challenge.
    Stale(ClientLabel),
    /// A client's that has too much on its way, and nothing has to be on disk before it is told.
    Crowded(ClientLabel),
}

/// A client that waits for an answer.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Who asks.
    pub client: ClientId,
    /// Where the answer goes.
    pub way: WayBack,
    key: ReceiptKey,
}

/// A request that waits for the disk.
#[derive(Debug)]
pub struct Waiting {
    /// Who asks.
    pub asker: Asker,
    /// What becomes of it when the disk has it.
    pub then: Then,
}

/// What becomes of a request that the disk has.
#[derive(Debug)]
pub enum Then {
    /// What it asks for.
    Act(Accepted),
    /// It is refused, for this reason.
    Refuse(Answer),
}

/// What a record and its confirmation are matched by.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// What the disk has been given.
#[derive(Debug)]
struct Given {
    /// Whose low-water mark it raises, and to what.
    low_water: (ClientId, u64),
    waiting: Option<Waiting>,
}

/// An answer that has yet to be sealed.
#[derive(Clone, Debug)]
pub struct Reply {
    /// What it says; its time and challenge are filled in when it is sealed.
    pub receipt: Receipt,
    asker: Asker,
}

/// A receipt on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outgoing {
    /// Where it goes.
    pub way: WayBack,
    /// Its bytes.
    pub bytes: [u8; KNOCK],
}

/// A reply that the firewall has to make true.
#[derive(Debug)]
struct Promise {
    reply: Reply,
    /// Its own, if they are not those of the door.
    seconds: Option<u32>,
    until: Moment,
}

/// The conversation with all clients.
#[derive(Debug)]
pub struct SpaServer {
    config: ServerConfig,
    prefilter: Prefilter,
    replay: ReplayGuard,
    key: RunKey,
    salts: u64,
    to_record: VecDeque<(Ticket, Record)>,
    tickets: u64,
    /// One for each record that the disk has not answered.
    given: BTreeMap<Ticket, Given>,
    promises: BTreeMap<GrantKey, Vec<Promise>>,
    replies: VecDeque<Reply>,
}

impl SpaServer {
    /// Begins to listen to nobody.
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
            given: BTreeMap::new(),
            promises: BTreeMap::new(),
            replies: VecDeque::new(),
        };
        server.write_floor();
        server
    }

    /// Listens to these from here on. Gives those before: to let go of many takes time.
    pub fn listen_to(&mut self, config: ServerConfig) -> ServerConfig {
        self.replay.set_window(config.window);
        self.write_floor();
        self.prefilter.keep(&config.clients);
        core::mem::replace(&mut self.config, config)
    }

    /// Whom it listens to.
    #[must_use]
    pub fn config(&self) -> &ServerConfig {
        &self.config
    }

    /// What was accepted so far.
    #[must_use]
    pub fn replay(&self) -> &ReplayGuard {
        &self.replay
    }

    /// Takes one datagram; `None` if it is not even addressed to this.
    ///
    /// Everything up to the signature is silent: neither a stranger nor somebody with a stolen key in the
    /// wrong place learns that anything is there.
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
        // Before copies are looked at: a copy that comes from elsewhere must not take the original's place.
        let restricted = match client {
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
        // In this order: what anybody can make must not have all that waits counted.
        if !self.prefilter.spend(id, now) || self.on_the_way(id) >= WAITING_AT_MOST {
            return Some(Heard::Dropped(DropReason::Flood, Some(who)));
        }
        let proven = gateway.open(tagged).ok().and_then(|unproven| unproven.prove(&client.key));
        let Some(proven) = proven else {
            return Some(Heard::Dropped(DropReason::Forged, Some(who)));
        };
        self.prefilter.remember(id, datagram);
        Some(self.admit(proven, id, who, packet.way_back(), now, wall))
    }

    /// The next thing that has to be on disk, synced, before [`recorded`](Self::recorded) is told.
    pub fn poll_record(&mut self) -> Option<(Ticket, Record)> {
        self.to_record.pop_front()
    }

    /// The disk has answered: it holds the record of this ticket, or could not take it. Gives the request that waited
    /// for it, if one did. A ticket counts once.
    pub fn recorded(&mut self, ticket: Ticket, held: bool) -> Option<Waiting> {
        let Given { low_water: (client, low_water), waiting } = self.given.remove(&ticket)?;
        if held {
            self.replay.confirm_floor(client, low_water);
        }
        waiting
    }

    /// The client of a request, if it has not gone in the meantime.
    #[must_use]
    pub fn client(&self, id: ClientId) -> Option<&Client> {
        self.config.clients.get(id)
    }

    /// Answers a request at once.
    pub fn answer(&mut self, asker: &Asker, answer: Answer, seconds: u32) {
        self.replies.push_back(Reply::new(asker.clone(), answer, seconds));
    }

    /// Answers what a client may open.
    pub fn tell(&mut self, asker: &Asker, in_all: u16, doors: impl IntoIterator<Item = ToldDoor>) {
        let mut reply = Reply::new(asker.clone(), Answer::Told, 0);
        reply.receipt.doors_in_all = in_all;
        reply.receipt = reply.receipt.with_doors(doors);
        self.replies.push_back(reply);
    }

    /// Answers a request when the firewall has made it true, or has not in time. With so many `seconds`, or those
    /// for which the door is open then.
    pub fn promise(
        &mut self,
        asker: &Asker,
        key: GrantKey,
        answer: Answer,
        seconds: Option<u32>,
        now: Moment,
    ) {
        let reply = Reply::new(asker.clone(), answer, 0);
        let promise = Promise { reply, seconds, until: now.after(PATIENCE_WITH_FIREWALL) };
        self.promises.entry(key).or_default().push(promise);
    }

    /// The firewall has made it true: the door is open for so many seconds more, or it is closed.
    pub fn keep_promises(&mut self, key: &GrantKey, kept: Answer, seconds: u32) {
        let Some(promises) = self.promises.get_mut(key) else { return };
        for mut promise in promises.extract_if(.., |promise| promise.reply.receipt.answer == kept) {
            promise.reply.receipt.seconds = promise.seconds.unwrap_or(seconds);
            self.replies.push_back(promise.reply);
        }
        if promises.is_empty() {
            self.promises.remove(key);
        }
    }

    /// A client that has waited too long for the firewall is told so. Gives what it waited for.
    pub fn handle_timeout(&mut self, now: Moment) -> Vec<GrantKey> {
        let (replies, mut in_vain) = (&mut self.replies, Vec::new());
        self.promises.retain(|key, promises| {
            for mut broken in promises.extract_if(.., |promise| promise.until <= now) {
                broken.reply.receipt.answer = Answer::Firewall;
                replies.push_back(broken.reply);
                in_vain.push(key.clone());
            }
            !promises.is_empty()
        });
        in_vain
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.promises.values().flatten().map(|promise| promise.until).min()
    }

    /// The next receipt to send, sealed.
    pub fn poll_receipt(&mut self, now: Moment, wall: Wall) -> Option<Outgoing> {
        let mut reply = self.replies.pop_front()?;
        reply.receipt.time = wall.0;
        let Asker { client, way, key } = reply.asker;
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
        let crowded = self.on_the_way(client) >= WAITING_PER_CLIENT;
        self.replay.watch_the_date(now, wall);
        self.write_floor();
        let (key, judged) = self.replay.judge(proven, way.to.ip(), &self.key, now, wall);
        let asker = Asker { client, way, key };
        let (then, record) = match judged {
            Err(Unfresh::Replayed) => return Heard::Dropped(DropReason::Replayed, Some(who)),
            Err(Unfresh::Stale(None)) if crowded => {
                self.answer(&asker, Answer::TooMany, 0);
                return Heard::Crowded(who);
            }
            Err(Unfresh::Stale(None)) => {
                self.answer(&asker, Answer::Stale, 0);
                return Heard::Stale(who);
            }
            // Judging has spent these: the disk has to know that before their client does.
            Err(Unfresh::Stale(Some(record))) | Ok((_, record)) if crowded => {
                (Then::Refuse(Answer::TooMany), record)
            }
            Err(Unfresh::Stale(Some(record))) => (Then::Refuse(Answer::Stale), record),
            Ok((fresh, record)) => (Then::Act(fresh), record),
        };
        self.write_down(record, Some(Waiting { asker, then }));
        Heard::Waits
    }

    /// Gives everybody's low-water mark to the disk if it has risen, before anything that is accepted above it.
    fn write_floor(&mut self) {
        if let Some(record) = self.replay.poll_floor() {
            self.write_down(record, None);
        }
    }

    fn write_down(&mut self, record: Record, waiting: Option<Waiting>) {
        let low_water = (record.client, self.replay.low_water(record.client));
        let ticket = Ticket(self.tickets);
        self.tickets = self.tickets.saturating_add(1);
        self.to_record.push_back((ticket, record));
        self.given.insert(ticket, Given { low_water, waiting });
    }

    fn on_the_way(&self, client: ClientId) -> usize {
        let waiting = self.given.values().filter_map(|given| given.waiting.as_ref());
        let waiting = waiting.filter(|waiting| waiting.asker.client == client).count();
        let promised = self.promises.values().flatten();
        let promised = promised.filter(|promise| promise.reply.asker.client == client).count();
        waiting.saturating_add(promised)
    }
}

impl Reply {
    fn new(asker: Asker, answer: Answer, seconds: u32) -> Self {
        let seen: SocketAddr = asker.way.to;
        let (challenge, doors) = ([0; 8], Vec::new());
        let receipt = Receipt { answer, seconds, time: 0, seen, challenge, doors_in_all: 0, doors };
        Self { receipt, asker }
    }
}
