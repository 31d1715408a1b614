//! The matches and targets of iptables, whose contents are structures of their own.
//!
//! Source: `linux/netfilter/xt_tcpudp.h`, `xt_multiport.h`, `xt_conntrack.h`, `xt_state.h`, `xt_mark.h`, `xt_comment.h`.

use std::ops::RangeInclusive;

use super::super::abi::expression;
use super::rule::{Test, Verdict, What};
use crate::netlink::message::Attributes;

/// What a match asks.
pub(super) fn test(inner: Attributes<'_>) -> Test {
    let name = inner.text(expression::MATCH_NAME).unwrap_or_default();
    let info = inner.find(expression::MATCH_INFO).unwrap_or_default();
    let revision = inner.u32_be(expression::MATCH_REVISION).unwrap_or(0);
    let known = match name.as_str() {
        "tcp" => tcp(info),
        "udp" => udp(info),
        "multiport" if revision == 1 => multiport(info),
        "conntrack" if revision >= 2 => conntrack(info),
        "state" => word(info, 0).map(|states| Test { what: What::State(states), not: false }),
        "mark" if revision == 1 => mark(info),
        "comment" => Some(Test { what: What::Remark(text(info)), not: false }),
        _ => None,
    };
    known.unwrap_or(Test { what: What::Unknown(name), not: false })
}

/// What a target does.
pub(super) fn verdict(inner: Attributes<'_>) -> Verdict {
    let name = inner.text(expression::MATCH_NAME).unwrap_or_default();
    match name.as_str() {
        "REJECT" => Verdict::Reject,
        // They write or change something, and the next rule is asked.
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "TCPMSS" | "CT" | "DSCP" | "TOS" | "CLASSIFY"
        | "CHECKSUM" | "AUDIT" | "SECMARK" | "CONNSECMARK" | "SET" | "RATEEST" | "TCPOPTSTRIP" | "HL"
        | "TTL" => Verdict::Continue,
        _ => Verdict::Unknown(name),
    }
}

/// `struct xt_tcp`: source ports, destination ports, option, mask and value of the flags, what is inverted.
fn tcp(info: &[u8]) -> Option<Test> {
    const OF_DESTINATION: u8 = 0x02;
    const OF_FLAGS: u8 = 0x04;
    let [sources, ports] = [pair(info, 0)?, pair(info, 4)?];
    let [option, mask, value, inverted] = *info.get(8..)?.first_chunk()?;
    let flags =
        (mask != 0).then_some(Test { what: What::Flags { mask, value }, not: inverted & OF_FLAGS != 0 });
    let port =
        (ports != ALL).then(|| Test { what: What::Port(vec![ports]), not: inverted & OF_DESTINATION != 0 });
    match (sources == ALL && option == 0, port, flags) {
        (true, Some(port), None) => Some(port),
        (true, None, Some(flags)) => Some(flags),
        (true, None, None) => Some(nothing()),
        _ => None,
    }
}

/// `struct xt_udp`: source ports, destination ports, what is inverted.
fn udp(info: &[u8]) -> Option<Test> {
    let [sources, ports] = [pair(info, 0)?, pair(info, 4)?];
    let not = info.get(8)? & 0x02 != 0;
    match (sources == ALL, ports == ALL) {
        (true, true) => Some(nothing()),
        (true, false) => Some(Test { what: What::Port(vec![ports]), not }),
        (false, _) => None,
    }
}

/// `struct xt_multiport_v1`: which side, how many, fifteen ports, whether each begins a range, inverted.
fn multiport(info: &[u8]) -> Option<Test> {
    const OF_DESTINATION: u8 = 1;
    let [side, count] = *info.first_chunk()?;
    let ports = |at: usize| half(info, at.checked_mul(2)?.checked_add(2)?);
    let begins = |at: usize| info.get(at.checked_add(32)?).map(|flag| *flag != 0);
    if side != OF_DESTINATION || count > 15 {
        return None;
    }
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < usize::from(count) {
        let first = ports(at)?;
        let last = match begins(at)? {
            true => {
                at = at.checked_add(1)?;
                ports(at)?
            }
            false => first,
        };
        ranges.push(first..=last);
        at = at.checked_add(1)?;
    }
    Some(Test { what: What::Port(ranges), not: *info.get(47)? != 0 })
}

/// `struct xt_conntrack_mtinfo3` and the one before it, if they ask for the state alone.
fn conntrack(info: &[u8]) -> Option<Test> {
    const STATE: u16 = 1;
    /// It was written as `-m state`.
    const ALIAS: u16 = 1 << 13;
    let [flags, inverted, states] = [half(info, 146)?, half(info, 148)?, half(info, 150)?];
    (flags & !ALIAS == STATE)
        .then(|| Test { what: What::State(u32::from(states)), not: inverted & STATE != 0 })
}

/// `struct xt_mark_mtinfo1`: mark, mask, inverted.
fn mark(info: &[u8]) -> Option<Test> {
    let [value, mask] = [word(info, 0)?, word(info, 4)?];
    Some(Test { what: What::Mark { mask, value }, not: *info.get(8)? != 0 })
}

const ALL: RangeInclusive<u16> = 0..=u16::MAX;

/// A match that every packet of its protocol meets.
fn nothing() -> Test {
    Test { what: What::Port(vec![ALL]), not: false }
}

fn pair(info: &[u8], at: usize) -> Option<RangeInclusive<u16>> {
    Some(half(info, at)?..=half(info, at.checked_add(2)?)?)
}

fn half(info: &[u8], at: usize) -> Option<u16> {
    info.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(info: &[u8], at: usize) -> Option<u32> {
    info.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn text(info: &[u8]) -> String {
    let end = info.iter().position(|byte| *byte == 0).unwrap_or(info.len());
    String::from_utf8_lossy(info.get(..end).unwrap_or_default()).into_owned()
}
