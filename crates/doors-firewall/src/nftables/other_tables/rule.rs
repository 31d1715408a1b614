//! One rule of another table: what it asks of a packet, and what it does with it.
//!
//! nftables' own expressions are read, and the matches of iptables that look at ports and states. What is not
//! understood is kept as such, so that it does not pass for a test that is always true.

mod comparison;

use std::ops::RangeInclusive;

use doors_os::netlink::message::{Attributes, Message};

use self::comparison::{Registers, compared, loaded, port};
use super::super::abi;
use super::xt;
use crate::plan::address;

/// A rule, as the kernel holds it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in super::super) struct Rule {
    pub(in super::super) chain: String,
    pub(in super::super) handle: u64,
    /// The rule applies if all of them hold.
    pub(super) tests: Vec<Test>,
    pub(super) verdict: Verdict,
    /// Whether it keeps the packet from connection tracking, before its verdict.
    pub(super) untracks: bool,
    /// The family of the packets that it is for, as far as its table and its tests say. Without it, the meaning
    /// of an offset into the network header is not known.
    family: Option<u8>,
}

/// Something that a rule asks of a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Test {
    pub(super) what: What,
    /// Whether the test is negated.
    pub(super) not: bool,
}

/// What a test looks at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum What {
    /// Its number, as in [`crate::plan::Protocol::number`].
    Protocol(u8),
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    Family(u8),
    /// The destination port is one of these.
    Port(Vec<RangeInclusive<u16>>),
    /// The destination port is in a set.
    PortIn(String),
    /// The same of the source port.
    SourcePort(Vec<RangeInclusive<u16>>),
    SourcePortIn(String),
    /// It comes from some sources.
    Source(String),
    /// It goes to some addresses, which may be ours.
    Destination(String),
    /// The mark, with a mask.
    Mark {
        mask: u32,
        value: u32,
    },
    /// Its connection is in one of these states, `NF_CT_STATE_BIT`.
    State(u32),
    /// It asks for a connection, or has other flags of TCP.
    Flags {
        mask: u8,
        value: u8,
    },
    /// It comes over an interface: the loopback interface, or another.
    Interface {
        loopback: bool,
        name: String,
    },
    /// It leaves over one.
    OutInterface {
        loopback: bool,
        name: String,
    },
    /// It is for an address of this machine; or it is asked for another kind of address, which ours is not.
    ToThisMachine {
        exact: bool,
    },
    /// Nothing: a remark.
    Remark(String),
    /// Headers that no ordinary connection has, or a source to which no way leads back.
    Unusual,
    /// Something that is not understood.
    Unknown(String),
}

/// Whose packets a rule is for that asks for sources.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FromWhom {
    Some,
    AllButSome,
}

/// What becomes of a packet for which all tests hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// The next rule decides.
    Continue,
    Accept,
    Drop,
    Reject,
    /// To another destination.
    Translate,
    Return,
    Jump(String),
    Goto(String),
    /// What a map says: of destination ports, of states, or of something else.
    Map {
        map: String,
        by: Loaded,
    },
    Unknown(String),
}

/// What a register holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Loaded {
    Protocol,
    Family,
    Port,
    SourcePort,
    Source,
    Destination,
    Mark,
    State,
    Flags,
    InterfaceIndex,
    InterfaceName,
    OutInterfaceIndex,
    OutInterfaceName,
    /// Whose address the destination is, `RTN_LOCAL` and the like.
    KindOfDestination,
    /// The interface of the route back to the source; zero if there is no route.
    WayBack,
    /// Whether there is a route back to the source.
    IsWayBack,
    Other,
}

impl Rule {
    /// Reads a rule out of a list of rules.
    pub(in super::super) fn read(message: &Message<'_>) -> Option<Self> {
        let attributes = message.attributes(4);
        let mut read = Self {
            chain: attributes.text(abi::NFTA_RULE_CHAIN)?,
            handle: attributes.u64_be(abi::NFTA_RULE_HANDLE)?,
            tests: Vec::new(),
            verdict: Verdict::Continue,
            untracks: false,
            family: message
                .body
                .first()
                .copied()
                .filter(|family| [abi::NFPROTO_IPV4, abi::NFPROTO_IPV6].contains(family)),
        };
        let mut registers = Registers::new();
        for (_, one) in attributes.nested(abi::NFTA_RULE_EXPRESSIONS) {
            let one = Attributes(one);
            let name = one.text(abi::NFTA_EXPR_NAME)?;
            read.expression(&name, one.nested(abi::NFTA_EXPR_DATA), &mut registers);
        }
        Some(read)
    }

    fn expression(&mut self, name: &str, inner: Attributes<'_>, registers: &mut Registers) {
        match name {
            "meta" | "ct" | "payload" | "fib" => {
                // Or it sets something, which does not decide here.
                if let Some((register, what)) = loaded(name, inner, self.family) {
                    registers.load(register, what);
                }
            }
            "bitwise" => {
                let value = |kind| inner.nested(kind).find(abi::NFTA_DATA_VALUE).unwrap_or_default();
                let source = inner.u32_be(abi::NFTA_BITWISE_SREG);
                // It may shift, or set bits, and then it is not known what is compared.
                let only_masks = inner.u32_be(abi::NFTA_BITWISE_OP).unwrap_or(0) == 0
                    && value(abi::NFTA_BITWISE_XOR).iter().all(|byte| *byte == 0);
                match only_masks {
                    true => registers.mask(source, value(abi::NFTA_BITWISE_MASK).to_vec()),
                    false => registers.load(source, Loaded::Other),
                }
            }
            "cmp" => {
                let value = inner.nested(abi::NFTA_CMP_DATA).find(abi::NFTA_DATA_VALUE).unwrap_or_default();
                let how = inner.u32_be(abi::NFTA_CMP_OP).unwrap_or(u32::MAX);
                let (what, mask) = registers.get(inner.u32_be(abi::NFTA_CMP_SREG));
                let test = compared(what, mask, how, value, self.family);
                if let Test { what: What::Family(family), not: false } = test {
                    self.family = Some(family);
                }
                self.ask(test);
            }
            "range" => {
                let end = |kind| inner.nested(kind).find(abi::NFTA_DATA_VALUE).unwrap_or_default();
                let (from, to) = (end(abi::NFTA_RANGE_FROM_DATA), end(abi::NFTA_RANGE_TO_DATA));
                let (what, mask) = registers.get(inner.u32_be(abi::NFTA_CMP_SREG));
                let addresses = || Some(format!("{}-{}", address(from)?, address(to)?));
                let how = inner.u32_be(abi::NFTA_CMP_OP);
                let known = match (what, how) {
                    (_, None | Some(2..)) => None,
                    (_, _) if mask.is_some() => None,
                    (Loaded::Port, _) => {
                        port(from).zip(port(to)).map(|(from, to)| What::Port(vec![from..=to]))
                    }
                    (Loaded::SourcePort, _) => {
                        port(from).zip(port(to)).map(|(from, to)| What::SourcePort(vec![from..=to]))
                    }
                    (Loaded::Source, _) => addresses().map(What::Source),
                    (Loaded::Destination, _) => addresses().map(What::Destination),
                    _ => None,
                };
                let what = known.unwrap_or_else(|| What::Unknown("range".to_owned()));
                self.tests.push(Test { what, not: how == Some(abi::NFT_CMP_NEQ) });
            }
            "lookup" => self.lookup(inner, registers),
            "match" => self.tests.push(xt::test(inner)),
            "target" => {
                self.verdict = xt::verdict(inner);
                self.untracks |= xt::untracks(inner);
            }
            "notrack" => self.untracks = true,
            // The source may be translated at input, too, which leads nowhere else.
            "nat" if inner.u32_be(abi::NFTA_NAT_TYPE) == Some(abi::NFT_NAT_SNAT) => {}
            "nat" | "redir" => self.verdict = Verdict::Translate,
            "reject" => self.verdict = Verdict::Reject,
            "immediate" => {
                let data = inner.nested(abi::NFTA_IMMEDIATE_DATA);
                if let Some(verdict) = verdict(data) {
                    self.verdict = verdict;
                }
            }
            // They count, write or change something.
            "counter" | "log" | "last" | "dynset" | "objref" | "ct_set" => {}
            "queue" => self.verdict = Verdict::Unknown("queue".to_owned()),
            other => self.tests.push(Test { what: What::Unknown(other.to_owned()), not: false }),
        }
    }

    /// Adds a test. A range may come as two, not less than its first and not greater than its last.
    fn ask(&mut self, test: Test) {
        if let (Some(Test { what: before, not: false }), Test { what: now, not: false }) =
            (self.tests.last_mut(), &test)
            && let (What::Source(before), What::Source(now))
            | (What::Destination(before), What::Destination(now)) = (before, now)
            && let (Some(from), Some(to)) = (before.strip_prefix(">= "), now.strip_prefix("<= "))
        {
            *before = format!("{from}-{to}");
            return;
        }
        let pair = match (self.tests.last_mut(), &test) {
            (Some(Test { what: before, not: false }), Test { what: now, not: false }) => {
                match (before, now) {
                    (What::Port(before), What::Port(now))
                    | (What::SourcePort(before), What::SourcePort(now)) => Some((before, now)),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some((before, now)) = pair
            && let ([before], [now]) = (&mut before[..], &now[..])
        {
            *before = *before.start().max(now.start())..=*before.end().min(now.end());
        } else {
            self.tests.push(test);
        }
    }

    fn lookup(&mut self, inner: Attributes<'_>, registers: &mut Registers) {
        let set = inner.text(abi::NFTA_LOOKUP_SET).unwrap_or_default();
        let (what, _) = registers.get(inner.u32_be(abi::NFTA_LOOKUP_SREG));
        if inner.u32_be(abi::NFTA_LOOKUP_DREG) == Some(abi::NFT_REG_VERDICT) {
            self.verdict = Verdict::Map { map: set, by: what };
            return;
        }
        let not = inner.u32_be(abi::NFTA_LOOKUP_FLAGS).unwrap_or(0) & abi::NFT_LOOKUP_F_INV != 0;
        let what = match what {
            Loaded::Port => What::PortIn(set),
            Loaded::SourcePort => What::SourcePortIn(set),
            Loaded::Source | Loaded::Destination => {
                // An anonymous set belongs to the rule; its elements are not read.
                let of = if set.starts_with("__") { "{ … }".to_owned() } else { format!("@{set}") };
                if what == Loaded::Source { What::Source(of) } else { What::Destination(of) }
            }
            _ => What::Unknown(format!("@{set}")),
        };
        self.tests.push(Test { what, not });
    }

    /// Whether the rule treats all first packets of connections to these ports alike, or all those from one source.
    pub(super) fn looks_at_ports_and_sources_alone(&self) -> bool {
        self.tests.iter().all(|test| match test.what {
            What::Protocol(_)
            | What::Family(_)
            | What::Port(_)
            | What::PortIn(_)
            | What::Source(_)
            | What::Remark(_) => true,
            What::State(states) => (states & abi::CT_STATE_NEW != 0) != test.not,
            _ => false,
        })
    }

    /// Which sources the rule is for; `None` if it does not test the source.
    pub(super) fn whose(&self) -> Option<FromWhom> {
        let source = self.tests.iter().find(|test| matches!(test.what, What::Source(_)))?;
        Some(if source.not { FromWhom::AllButSome } else { FromWhom::Some })
    }

    /// The sets that are asked for a port.
    pub(super) fn sets_of_ports(&self) -> impl Iterator<Item = &str> {
        self.tests.iter().filter_map(|test| match &test.what {
            What::PortIn(set) | What::SourcePortIn(set) => Some(set.as_str()),
            _ => None,
        })
    }

    /// The map that says what becomes of a packet.
    pub(super) fn map(&self) -> Option<&str> {
        match &self.verdict {
            Verdict::Map { map, .. } => Some(map),
            _ => None,
        }
    }
}

/// Reads a verdict; `None` if the data is not a verdict.
pub(super) fn verdict(data: Attributes<'_>) -> Option<Verdict> {
    let verdict = data.nested(abi::NFTA_DATA_VERDICT);
    let code = i32::from_be_bytes(*verdict.find(abi::NFTA_VERDICT_CODE)?.first_chunk()?);
    let chain = || verdict.text(abi::NFTA_VERDICT_CHAIN).unwrap_or_default();
    Some(match code {
        abi::NF_ACCEPT => Verdict::Accept,
        abi::NF_DROP => Verdict::Drop,
        abi::NFT_JUMP => Verdict::Jump(chain()),
        abi::NFT_GOTO => Verdict::Goto(chain()),
        abi::NFT_RETURN => Verdict::Return,
        abi::NFT_CONTINUE => Verdict::Continue,
        _ => Verdict::Unknown("a verdict".to_owned()),
    })
}
