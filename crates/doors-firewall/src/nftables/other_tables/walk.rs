//! Walks a new connection through the chains of another table, as far as that can be done without a packet.
//!
//! Only chains that are reached from a hook count. If it cannot be said whether a rule applies, the walk remembers the rule
//! if it would have decided something. If a rule is for some addresses only, the walk follows both ways.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::super::abi;
use super::elements::Verdicts;
use super::rule::{FromWhom, Loaded, Rule, Test, Verdict, What};
use crate::plan::{Protocol, cover};

/// The kernel allows no more jumps behind each other (`net/netfilter/nf_tables.h`).
pub(super) const NFT_JUMP_STACK_SIZE: usize = 16;
/// The walk visits at most so many rules for one port. A longer ruleset is not judged.
pub(super) const LONGEST: usize = 100_000;
/// `SYN` and `ACK` of the flags of TCP.
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// The ports that a client chooses from.
const OF_CLIENTS: RangeInclusive<u16> = 1024..=u16::MAX;

/// Which packet of a connection is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Packet {
    /// The first, as connection tracking has seen it.
    First,
    /// A later one, before connection tracking sees it.
    Later,
    /// An answer to a later one, before connection tracking sees it.
    Answer,
}

/// A connection through a grant, as far as we know it before it comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection<'a> {
    pub(super) packet: Packet,
    pub(super) family: u8,
    pub(super) protocol: Protocol,
    pub(super) port: u16,
    pub(super) mark: u32,
    /// The interfaces over which it may come.
    pub(super) links: &'a [String],
}

/// The rules of a table by their chain, and what its sets hold.
#[derive(Debug, Default)]
pub(super) struct Ruleset {
    pub(super) rules: BTreeMap<String, Vec<Rule>>,
    /// The ports in a set; `None` if that cannot be read.
    pub(super) sets: BTreeMap<String, Option<Vec<RangeInclusive<u16>>>>,
    /// From keys, the first and the last, to verdicts; `None` if that cannot be read.
    pub(super) maps: BTreeMap<String, Option<Verdicts>>,
}

/// A rule or, without a handle, a policy.
pub(super) type Decides = (String, Option<Rule>);

/// What becomes of a connection at a hook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Fate {
    Passes,
    /// It is dropped here; some addresses are let in before that, or none.
    Closed {
        by: Decides,
        some: bool,
    },
    /// It is dropped here from some sources only, or from all but some.
    ClosedToSome {
        by: Decides,
        from: FromWhom,
    },
    /// Its destination becomes another, here.
    Translated {
        by: Decides,
    },
    /// Whether it passes depends on this.
    Unclear {
        by: Decides,
    },
}

/// How a walk through a chain ends.
enum End {
    Accepted,
    Dropped(Decides),
    Translated(Decides),
    /// The chain is over, and the one that jumped here goes on.
    Returned,
}

/// Whether a rule is for a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Applies {
    Yes,
    Unclear,
    /// Depending on where it comes from, or goes to.
    ToSome,
    No,
}

/// What was met on the way.
#[derive(Debug, Default)]
struct Seen {
    /// Some addresses are let in.
    some: bool,
    /// It may be let in, or dropped, here.
    may_accept: Option<Decides>,
    may_drop: Option<Decides>,
    /// It is dropped here from some sources. All but some are told of before some.
    drops_some: Option<(Decides, FromWhom)>,
    rules: usize,
    too_long: bool,
}

impl Ruleset {
    /// What becomes of a connection that comes in by a chain with this policy.
    pub(super) fn fate(&self, chain: &str, drops_by_policy: bool, connection: &Connection<'_>) -> Fate {
        let mut seen = Seen::default();
        let end = match self.walk(chain, connection, 0, &mut seen) {
            End::Returned if drops_by_policy => End::Dropped((chain.to_owned(), None)),
            End::Returned => End::Accepted,
            end => end,
        };
        if seen.too_long {
            return Fate::Unclear { by: (chain.to_owned(), None) };
        }
        match (end, seen) {
            (End::Dropped(_), Seen { may_accept: Some(by), .. }) => Fate::Unclear { by },
            (End::Translated(by), _) => Fate::Translated { by },
            (End::Dropped(by), Seen { some, .. }) => Fate::Closed { by, some },
            (_, Seen { may_drop: Some(by), .. }) => Fate::Unclear { by },
            (_, Seen { drops_some: Some((by, from)), .. }) => Fate::ClosedToSome { by, from },
            _ => Fate::Passes,
        }
    }

    fn walk(&self, chain: &str, connection: &Connection<'_>, depth: usize, seen: &mut Seen) -> End {
        for rule in self.rules.get(chain).into_iter().flatten() {
            seen.rules = seen.rules.saturating_add(1);
            if seen.rules > LONGEST || depth > NFT_JUMP_STACK_SIZE {
                seen.too_long = true;
                return End::Accepted;
            }
            let applies = self.applies(rule, connection);
            if applies == Applies::No {
                continue;
            }
            let decides = || (chain.to_owned(), Some(rule.clone()));
            let Some(verdict) = self.verdict(rule, connection) else {
                seen.may_accept.get_or_insert_with(decides);
                seen.may_drop.get_or_insert_with(decides);
                continue;
            };
            let (end, goes_on) = match verdict {
                Verdict::Accept => (End::Accepted, false),
                Verdict::Drop | Verdict::Reject => (End::Dropped(decides()), false),
                Verdict::Translate => (End::Translated(decides()), false),
                Verdict::Return => (End::Returned, false),
                Verdict::Jump(to) => (self.walk(to, connection, depth.saturating_add(1), seen), true),
                Verdict::Goto(to) => (self.walk(to, connection, depth.saturating_add(1), seen), false),
                Verdict::Continue | Verdict::Map { .. } | Verdict::Unknown(_) => continue,
            };
            match (applies, end) {
                (Applies::Yes, End::Returned) if goes_on => {}
                (Applies::Yes, end) => return end,
                // If the connection may be translated, nothing can be said of the chains behind.
                (Applies::Unclear, end @ End::Translated(_)) => return end,
                (Applies::ToSome, End::Accepted) => seen.some = true,
                (Applies::Unclear, End::Accepted) => drop(seen.may_accept.get_or_insert_with(decides)),
                (Applies::Unclear, End::Dropped(_)) => drop(seen.may_drop.get_or_insert_with(decides)),
                (Applies::ToSome, End::Dropped(by)) => {
                    let inner = by.1.as_ref().and_then(Rule::whose);
                    let (before, whom) = (seen.drops_some.as_ref(), rule.whose().or(inner));
                    let is_more = |whom: FromWhom| match before {
                        Some((_, before)) => whom == FromWhom::AllButSome && *before != whom,
                        None => true,
                    };
                    // A rule for some destinations may be for addresses that are not ours: it is not reported.
                    if let Some(whom) = whom.filter(|whom| is_more(*whom)) {
                        seen.drops_some = Some((by, whom));
                    }
                }
                (Applies::ToSome, End::Translated(_)) | (_, End::Returned) | (Applies::No, _) => {}
            }
        }
        End::Returned
    }

    /// What a rule does with a connection of which all is so; `None` if that cannot be told.
    pub(super) fn verdict<'a>(&'a self, rule: &'a Rule, connection: &Connection<'_>) -> Option<&'a Verdict> {
        const NOTHING: Verdict = Verdict::Continue;
        match &rule.verdict {
            Verdict::Unknown(_) => None,
            Verdict::Map { map, by } => {
                let key = match by {
                    Loaded::Port => u32::from(connection.port),
                    Loaded::State => connection.state(),
                    Loaded::Protocol => u32::from(connection.protocol.number()),
                    _ => return None,
                };
                let entries = self.maps.get(map)?.as_ref()?;
                let found = entries.iter().find(|(keys, _)| keys.contains(&key));
                Some(found.map_or(&NOTHING, |(_, verdict)| verdict))
            }
            known => Some(known),
        }
    }

    fn applies(&self, rule: &Rule, connection: &Connection<'_>) -> Applies {
        rule.tests.iter().map(|test| self.test(test, connection)).max().unwrap_or(Applies::Yes)
    }

    pub(super) fn test(&self, Test { what, not }: &Test, connection: &Connection<'_>) -> Applies {
        let is = |so: bool| if so != *not { Applies::Yes } else { Applies::No };
        let is_ours =
            |ranges: &[RangeInclusive<u16>]| is(ranges.iter().any(|range| range.contains(&connection.port)));
        // A client chooses its own port.
        let is_clients = |ranges: &[RangeInclusive<u16>]| {
            let below = ranges.iter().all(|range| range.end() < OF_CLIENTS.start());
            match below || cover(ranges.iter().cloned(), OF_CLIENTS) {
                true => is(!below),
                false => Applies::Unclear,
            }
        };
        let is_answer = connection.packet == Packet::Answer;
        let to_port = |ranges| if is_answer { is_clients(ranges) } else { is_ours(ranges) };
        let from_port = |ranges| if is_answer { is_ours(ranges) } else { is_clients(ranges) };
        match what {
            What::Protocol(number) => is(*number == connection.protocol.number()),
            What::Family(number) => is(*number == connection.family),
            What::Port(ranges) => to_port(ranges),
            What::SourcePort(ranges) => from_port(ranges),
            What::PortIn(set) | What::SourcePortIn(set) => match self.sets.get(set) {
                Some(Some(ranges)) if matches!(what, What::PortIn(_)) => to_port(ranges),
                Some(Some(ranges)) => from_port(ranges),
                _ => Applies::Unclear,
            },
            What::Mark { mask, value } => is(connection.mark & mask == *value),
            What::State(states) => is(states & connection.state() != 0),
            What::Flags { mask, value } => {
                is(connection.protocol == Protocol::Tcp && connection.flags() & mask == *value)
            }
            What::ToThisMachine { .. } if is_answer => Applies::Unclear,
            What::ToThisMachine { .. } => is(true),
            What::Interface { loopback: true, .. } | What::OutInterface { loopback: true, .. } => is(false),
            // At prerouting and input a packet has no outgoing interface; an answer has no incoming one.
            What::Interface { .. } if is_answer => is(false),
            What::OutInterface { .. } if !is_answer => is(false),
            What::Remark(_) => Applies::Yes,
            What::Source(_) | What::Destination(_) => Applies::ToSome,
            What::Interface { name, .. } | What::OutInterface { name, .. } => {
                let fits = |link: &&String| match name.strip_suffix('*') {
                    Some(beginning) => link.starts_with(beginning),
                    None => *link == name,
                };
                match connection.links.iter().filter(fits).count() {
                    0 => is(false),
                    all if all == connection.links.len() => is(true),
                    _ => Applies::Unclear,
                }
            }
            What::Unusual => is(false),
            What::Unknown(_) => Applies::Unclear,
        }
    }
}

impl Connection<'_> {
    /// As `NF_CT_STATE_BIT`.
    fn state(&self) -> u32 {
        if self.packet == Packet::First { abi::CT_STATE_NEW } else { abi::NF_CT_STATE_INVALID_BIT }
    }

    fn flags(&self) -> u8 {
        if self.packet == Packet::First { SYN } else { ACK }
    }
}

/// The families whose connections meet a table.
pub(super) fn families(table: u8) -> &'static [u8] {
    match table {
        abi::NFPROTO_IPV4 => &[abi::NFPROTO_IPV4],
        abi::NFPROTO_IPV6 => &[abi::NFPROTO_IPV6],
        _ => &[abi::NFPROTO_IPV4, abi::NFPROTO_IPV6],
    }
}
