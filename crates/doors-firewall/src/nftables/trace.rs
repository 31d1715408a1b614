//! Follows the first new connection through each grant, and tells if another table drops it.
//!
//! ```text
//!   a door opens ──► the grant, and beside it an element that is good for one packet: a trace is owed
//!                         │
//!   the first SYN ──► gate: finds the grant, finds that element, takes it away, `meta nftrace set 1`
//!                         │
//!   every rule that the packet meets from there on ──► one message of the kernel ──► here
//! ```
//!
//! **What it costs is bounded, whatever a client sends.** One packet for each grant is traced: finding the element spends
//! it, under a lock of its own. A source has one element for all its grants; it gets the next when a packet has spent
//! the one that was owed. The number of grants that are owed a trace at once is bounded, and a trace is owed for some
//! minutes at most. A stranger has no grant, and so no trace. The socket is open while a trace is owed, and a minute more.
//! Messages that the socket cannot hold are lost; such a loss costs a hint, nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use doors_core::{door::GrantKey, time::Moment};
use doors_os::{
    async_fd::watch,
    netlink::{
        message::Message,
        socket::{Family, NetlinkError, Socket},
    },
};
use tokio::io::unix::AsyncFd;

use super::{abi, ruleset::TABLE};
use crate::plan::{Plan, Ports, Protocol, address};

/// At most so many grants are owed a trace at once.
const OWED_AT_ONCE: usize = 64;
/// A trace is owed for so long. About a client that connects later there is no hint.
pub(super) const OWED_FOR: Duration = Duration::from_secs(600);
/// When rules of other tables change without a pause, all is traced again at most this often.
const AGAIN_EVERY: Duration = Duration::from_secs(10);
/// A packet is forgotten after this time.
const ON_ITS_WAY: Duration = Duration::from_secs(2);
/// At most so many packets are followed at once.
const WAYS: usize = 128;
/// The socket stays open for so long when no trace is owed: to open one for each grant would hold up each door.
const OPEN_FOR: Duration = Duration::from_secs(60);
/// At most so many different rules are reported until the rules change.
const TOLD: usize = 32;
/// At most so many messages are read in one go.
const AT_ONCE: usize = 64;
/// What the socket holds: some hundred messages.
const BUFFER: i32 = 256 << 10;

/// A packet, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Packet {
    pub(super) source: IpAddr,
    /// Where it goes to, as it was when the gate saw it.
    pub(super) ports: Ports,
}

/// A place in a table.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    pub(super) family: u8,
    pub(super) table: String,
    pub(super) chain: String,
    /// The rule's handle; `None` for the policy.
    pub(super) rule: Option<u64>,
}

/// A packet that the gate has let in, and another table has dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Dropped {
    pub(super) packet: Packet,
    /// The chain at which the packet came into that table.
    pub(super) entry: String,
    pub(super) place: Place,
}

/// What the kernel tells of one packet and one rule.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Step {
    id: u32,
    place: Place,
    verdict: i32,
    packet: Option<Packet>,
}

/// A packet that is followed.
#[derive(Clone, Debug)]
struct Way {
    packet: Packet,
    /// The table that it is in, and where it came in.
    entry: Option<(u8, String, String)>,
    began: Moment,
}

/// The traces that are owed, and the packets that are followed.
#[derive(Debug, Default)]
pub(super) struct Traces {
    /// Why packets cannot be traced, for the log.
    pub(super) cannot: Option<String>,
    /// Open as long as there is something to hear, and for some time more.
    socket: Option<AsyncFd<Socket>>,
    /// Since when there is nothing to hear.
    quiet_since: Option<Moment>,
    story: Story,
    /// When all that runs is to be traced again.
    again: Option<Moment>,
    last_again: Option<Moment>,
}

impl Traces {
    /// Chooses of some grants those that are traced, until when, and listens. Must be called within a runtime.
    pub(super) fn owe(
        &mut self,
        plan: &Plan,
        grants: impl Iterator<Item = (GrantKey, Moment)>,
        now: Moment,
    ) -> Vec<(GrantKey, Duration)> {
        self.story.tidy(now);
        let owed = self.story.owe(plan, grants, now);
        if !owed.is_empty() && self.socket.is_none() {
            // Without it there is a hint less.
            match listen() {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => {
                    self.cannot = Some(error.to_string());
                    return Vec::new();
                }
            }
        }
        owed
    }

    /// Lets reports be repeated, because the plan or rules of other tables have changed.
    pub(super) fn forget_told(&mut self) {
        self.story.told.clear();
    }

    /// Rules of other tables have changed. Running grants are traced again soon; not after each change, since some
    /// programs change their rules without a pause.
    pub(super) fn rules_changed(&mut self, now: Moment) {
        let next = self.last_again.map_or(now, |last| last.after(AGAIN_EVERY).max(now));
        self.again.get_or_insert(next);
    }

    /// When [`Self::is_due_again`] is worth asking.
    pub(super) fn again_at(&self) -> Option<Moment> {
        self.again
    }

    /// Whether all that runs is to be traced again. Says so once.
    pub(super) fn is_due_again(&mut self, now: Moment) -> bool {
        let due = self.again.is_some_and(|again| again <= now);
        if due {
            self.again = None;
            self.last_again = Some(now);
        }
        due
    }

    /// Closes the socket when there has been nothing to hear for a while.
    pub(super) fn tidy(&mut self, now: Moment) {
        self.story.tidy(now);
        if !self.story.is_over() {
            self.quiet_since = None;
        } else if self.quiet_since.get_or_insert(now).after(OPEN_FOR) <= now {
            self.socket = None;
        }
    }

    /// The traces that are still owed to a source whose packet has spent one: it has one at a time for all its grants,
    /// and each packet that spends one is the first through its grant, so that this ends.
    pub(super) fn owed_still(&mut self, now: Moment) -> Vec<(GrantKey, Duration)> {
        let spent = std::mem::take(&mut self.story.spent);
        spent.into_iter().map(|(admission, until)| (admission, until.remaining(now))).collect()
    }

    /// Waits for messages of the kernel, and reads some. Never returns as long as no trace is owed.
    pub(super) async fn hear(&mut self, now: impl Fn() -> Moment) -> Vec<Dropped> {
        let Self { socket, story, .. } = self;
        let Some(socket) = socket else { return std::future::pending().await };
        let mut dropped = Vec::new();
        let Ok(mut ready) = socket.readable_mut().await else { return std::future::pending().await };
        let now = now();
        for _ in 0..AT_ONCE {
            let mut each = |message: &Message<'_>| {
                dropped.extend(step(message).and_then(|step| story.follow(step, now)))
            };
            match ready.get_inner_mut().notifications(&mut each) {
                // More came than the socket could hold.
                Err(error) if error.number() == Some(libc::ENOBUFS) => {}
                Ok(Some(())) => {}
                Ok(None) | Err(_) => {
                    ready.clear_ready();
                    break;
                }
            }
        }
        dropped
    }
}

fn listen() -> Result<AsyncFd<Socket>, NetlinkError> {
    let socket = Socket::open_in_groups(Family::Netfilter, abi::NFTRACE_GROUP)?;
    socket.hold_at_most(BUFFER);
    watch(socket).map_err(NetlinkError::Socket)
}

/// What was heard so far. It knows no socket and no clock.
#[derive(Debug, Default)]
struct Story {
    /// Grants of which the next packet is traced, until when, and the ports that it may go to.
    owed: BTreeMap<GrantKey, (Moment, Vec<Ports>)>,
    /// Grants whose trace the first packet through another grant of the same source has spent.
    spent: Vec<(GrantKey, Moment)>,
    ways: BTreeMap<u32, Way>,
    told: BTreeSet<Place>,
}

impl Story {
    fn owe(
        &mut self,
        plan: &Plan,
        grants: impl Iterator<Item = (GrantKey, Moment)>,
        now: Moment,
    ) -> Vec<(GrantKey, Duration)> {
        let mut chosen = Vec::new();
        for (admission, until) in grants {
            let Some(door) = plan.door(&admission.door) else { continue };
            let until = until.min(now.after(OWED_FOR));
            if until <= now || (self.owed.len() >= OWED_AT_ONCE && !self.owed.contains_key(&admission)) {
                continue;
            }
            self.owed.insert(admission.clone(), (until, door.ports.clone()));
            chosen.push((admission, until.remaining(now)));
        }
        chosen
    }

    fn tidy(&mut self, now: Moment) {
        self.owed.retain(|_, (until, _)| *until > now);
        self.ways.retain(|_, way| way.began.after(ON_ITS_WAY) > now);
    }

    fn is_over(&self) -> bool {
        self.owed.is_empty() && self.ways.is_empty()
    }

    /// Takes one message. Reports a packet that we let in and another table dropped, once for each rule.
    fn follow(&mut self, Step { id, place, verdict, packet }: Step, now: Moment) -> Option<Dropped> {
        let is_ours = place.family == abi::NFPROTO_INET && place.table == TABLE;
        if is_ours {
            match (verdict, packet) {
                // A drop by our own gate is no news.
                (abi::NF_DROP, _) => drop(self.ways.remove(&id)),
                (_, Some(packet))
                    if !self.ways.contains_key(&id) && self.is_owed(&packet) && self.has_room(now) =>
                {
                    self.ways.insert(id, Way { packet, entry: None, began: now });
                }
                _ => {}
            }
            return None;
        }
        let way = self.ways.get_mut(&id)?;
        let is_elsewhere =
            |(family, table, _): &(u8, String, String)| *family != place.family || *table != place.table;
        if way.entry.as_ref().is_none_or(is_elsewhere) {
            way.entry = Some((place.family, place.table.clone(), place.chain.clone()));
        }
        match verdict {
            abi::NF_ACCEPT => {
                way.entry = None;
                None
            }
            abi::NF_DROP => {
                let Way { packet, entry, .. } = self.ways.remove(&id)?;
                let is_news = self.told.len() < TOLD && self.told.insert(place.clone());
                let entry = entry.map_or_else(|| place.chain.clone(), |(_, _, chain)| chain);
                is_news.then_some(Dropped { packet, entry, place })
            }
            _ => None,
        }
    }

    /// Whether this packet has a trace, which it has used up.
    fn is_owed(&mut self, packet: &Packet) -> bool {
        let before = self.owed.len();
        self.owed.retain(|admission, (_, ports)| {
            let is_for = |ports: &Ports| {
                ports.protocol == packet.ports.protocol && ports.range().contains(&packet.ports.first)
            };
            admission.source != packet.source || !ports.iter().any(is_for)
        });
        let was_owed = self.owed.len() < before;
        if was_owed {
            let mut others = self.owed.iter().filter(|(admission, _)| admission.source == packet.source);
            self.spent.extend(others.next().map(|(admission, (until, _))| (admission.clone(), *until)));
        }
        was_owed
    }

    fn has_room(&mut self, now: Moment) -> bool {
        if self.ways.len() >= WAYS {
            self.ways.retain(|_, way| way.began.after(ON_ITS_WAY) > now);
        }
        self.ways.len() < WAYS
    }
}

/// Reads a message of the kernel about one step of a packet.
fn step(message: &Message<'_>) -> Option<Step> {
    if message.kind != abi::NFT_MSG_TRACE {
        return None;
    }
    let attributes = message.attributes(4);
    let place = |rule| {
        Some(Place {
            family: *message.body.first()?,
            table: attributes.text(abi::NFTA_TRACE_TABLE)?,
            chain: attributes.text(abi::NFTA_TRACE_CHAIN)?,
            rule,
        })
    };
    let (place, verdict) = match attributes.u32_be(abi::NFTA_TRACE_TYPE)? {
        abi::NFT_TRACETYPE_POLICY => (place(None)?, attributes.u32_be(abi::NFTA_TRACE_POLICY)?.cast_signed()),
        _ => {
            let code =
                attributes.nested(abi::NFTA_TRACE_VERDICT).find(abi::NFTA_VERDICT_CODE)?.first_chunk()?;
            (place(attributes.u64_be(abi::NFTA_TRACE_RULE_HANDLE))?, i32::from_be_bytes(*code))
        }
    };
    let packet = attributes
        .find(abi::NFTA_TRACE_NETWORK_HEADER)
        .zip(attributes.find(abi::NFTA_TRACE_TRANSPORT_HEADER))
        .and_then(|(network, transport)| packet(network, transport));
    Some(Step { id: attributes.u32_be(abi::NFTA_TRACE_ID)?, place, verdict, packet })
}

/// Source and port out of the headers, as far as the kernel gives them: behind headers of extension the protocol of
/// IPv6 is not in the first one, and such a packet is not followed.
fn packet(network: &[u8], transport: &[u8]) -> Option<Packet> {
    let (source, number) = match network.first()? >> 4 {
        4 => (network.get(12..16)?, *network.get(9)?),
        6 => (network.get(8..24)?, *network.get(6)?),
        _ => return None,
    };
    let protocol = [Protocol::Tcp, Protocol::Udp].into_iter().find(|protocol| protocol.number() == number)?;
    let port = u16::from_be_bytes(*transport.get(2..)?.first_chunk()?);
    Some(Packet { source: address(source)?, ports: Ports { protocol, first: port, last: port } })
}

#[cfg(test)]
mod tests;
