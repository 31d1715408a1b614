//! The matches and targets of iptables, whose contents are structures of their own.
//!
//! Source: `linux/netfilter/xt_tcpudp.h`, `xt_multiport.h`, `xt_conntrack.h`, `xt_state.h`, `xt_mark.h`,
//! `xt_addrtype.h`, `xt_comment.h`, `xt_CT.h`.

use std::ops::RangeInclusive;

use doors_os::netlink::message::Attributes;

use super::super::abi;
use super::rule::{Test, Verdict, What};

/// What a match asks.
pub(super) fn test(inner: Attributes<'_>) -> Test {
    let name = inner.text(abi::NFTA_MATCH_NAME).unwrap_or_default();
    let info = inner.find(abi::NFTA_MATCH_INFO).unwrap_or_default();
    let revision = inner.u32_be(abi::NFTA_MATCH_REV).unwrap_or(0);
    let known = match name.as_str() {
        "tcp" => tcp(info),
        "udp" => udp(info),
        "multiport" if revision == 1 => multiport(info),
        "conntrack" if revision >= 2 => conntrack(info),
        "state" => word(info, 0).map(|states| Test { what: What::State(states), not: false }),
        "mark" if revision == 1 => mark(info),
        "addrtype" if revision == 1 => addrtype(info),
        "rt" | "frag" | "ah" | "esp" | "hbh" | "dst" | "mh" => Some(Test { what: What::Unusual, not: false }),
        // What has no way back is dropped.
        "rpfilter" => {
            const XT_RPFILTER_INVERT: u8 = 1 << 3;
            info.first().map(|flags| Test { what: What::Unusual, not: flags & XT_RPFILTER_INVERT == 0 })
        }
        "comment" => Some(Test { what: What::Remark(text(info)), not: false }),
        _ => None,
    };
    known.unwrap_or(Test { what: What::Unknown(name), not: false })
}

/// What a target does.
pub(super) fn verdict(inner: Attributes<'_>) -> Verdict {
    let name = inner.text(abi::NFTA_MATCH_NAME).unwrap_or_default();
    match name.as_str() {
        "REJECT" => Verdict::Reject,
        "DNAT" | "REDIRECT" | "NETMAP" => Verdict::Translate,
        // They write or change something, and the next rule is asked.
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TRACE" | "TCPMSS" | "CT" | "DSCP" | "TOS" | "CLASSIFY"
        | "CHECKSUM" | "AUDIT" | "SECMARK" | "CONNSECMARK" | "SET" | "RATEEST" | "TCPOPTSTRIP" | "HL"
        | "TTL" => Verdict::Continue,
        _ => Verdict::Unknown(name),
    }
}

/// Whether a target keeps packets from connection tracking: `CT` with `XT_CT_NOTRACK`, the first bit of
/// `struct xt_ct_target_info`, or the older `NOTRACK`.
pub(super) fn untracks(inner: Attributes<'_>) -> bool {
    const XT_CT_NOTRACK: u16 = 1;
    let flags = inner.find(abi::NFTA_MATCH_INFO).and_then(|info| half(info, 0));
    match inner.text(abi::NFTA_MATCH_NAME).as_deref() {
        Some("NOTRACK") => true,
        Some("CT") => flags.is_some_and(|flags| flags & XT_CT_NOTRACK != 0),
        _ => false,
    }
}

/// `struct xt_tcp`: source ports, destination ports, option, mask and value of the flags, what is inverted.
fn tcp(info: &[u8]) -> Option<Test> {
    const XT_TCP_INV_SRCPT: u8 = 0x01;
    const XT_TCP_INV_DSTPT: u8 = 0x02;
    const XT_TCP_INV_FLAGS: u8 = 0x04;
    let [sources, ports] = [pair(info, 0)?, pair(info, 4)?];
    let [option, mask, value, inverted] = *info.get(8..)?.first_chunk()?;
    let flags = (mask != 0)
        .then_some(Test { what: What::Flags { mask, value }, not: inverted & XT_TCP_INV_FLAGS != 0 });
    let port =
        (ports != ALL).then(|| Test { what: What::Port(vec![ports]), not: inverted & XT_TCP_INV_DSTPT != 0 });
    let source = (sources != ALL)
        .then(|| Test { what: What::SourcePort(vec![sources]), not: inverted & XT_TCP_INV_SRCPT != 0 });
    let mut asked = [source, port, flags].into_iter().flatten();
    match (option, asked.next(), asked.next()) {
        (0, test, None) => Some(test.unwrap_or_else(nothing)),
        _ => None,
    }
}

/// `struct xt_udp`: source ports, destination ports, what is inverted.
fn udp(info: &[u8]) -> Option<Test> {
    const XT_UDP_INV_SRCPT: u8 = 0x01;
    const XT_UDP_INV_DSTPT: u8 = 0x02;
    let [sources, ports] = [pair(info, 0)?, pair(info, 4)?];
    let inverted = info.get(8)?;
    match (sources == ALL, ports == ALL) {
        (true, true) => Some(nothing()),
        (true, false) => Some(Test { what: What::Port(vec![ports]), not: inverted & XT_UDP_INV_DSTPT != 0 }),
        (false, true) => {
            Some(Test { what: What::SourcePort(vec![sources]), not: inverted & XT_UDP_INV_SRCPT != 0 })
        }
        (false, false) => None,
    }
}

/// `struct xt_multiport_v1`: which side, how many, fifteen ports, whether each begins a range, inverted.
fn multiport(info: &[u8]) -> Option<Test> {
    const XT_MULTIPORT_SOURCE: u8 = 0;
    const XT_MULTIPORT_DESTINATION: u8 = 1;
    let [side, count] = *info.first_chunk()?;
    let ports = |at: usize| half(info, at.checked_mul(2)?.checked_add(2)?);
    let begins = |at: usize| info.get(at.checked_add(32)?).map(|flag| *flag != 0);
    if ![XT_MULTIPORT_SOURCE, XT_MULTIPORT_DESTINATION].contains(&side) || count > 15 {
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
    let what = if side == XT_MULTIPORT_SOURCE { What::SourcePort(ranges) } else { What::Port(ranges) };
    Some(Test { what, not: *info.get(47)? != 0 })
}

/// `struct xt_conntrack_mtinfo3` and the one before it, if they ask for the state alone.
fn conntrack(info: &[u8]) -> Option<Test> {
    const XT_CONNTRACK_STATE: u16 = 1;
    /// It was written as `-m state`.
    const XT_CONNTRACK_STATE_ALIAS: u16 = 1 << 13;
    let [flags, inverted, states] = [half(info, 146)?, half(info, 148)?, half(info, 150)?];
    (flags & !XT_CONNTRACK_STATE_ALIAS == XT_CONNTRACK_STATE)
        .then(|| Test { what: What::State(u32::from(states)), not: inverted & XT_CONNTRACK_STATE != 0 })
}

/// `struct xt_addrtype_info_v1`: kinds of source, kinds of destination, flags. Only the destination is understood, if it
/// is asked for without an interface.
fn addrtype(info: &[u8]) -> Option<Test> {
    const XT_ADDRTYPE_LOCAL: u16 = 1 << 2;
    const XT_ADDRTYPE_INVERT_DEST: u32 = 2;
    let (source, destination, flags) = (half(info, 0)?, half(info, 2)?, word(info, 4)?);
    let not = flags & XT_ADDRTYPE_INVERT_DEST != 0;
    (source == 0 && flags & !XT_ADDRTYPE_INVERT_DEST == 0).then(|| {
        let is_local = destination & XT_ADDRTYPE_LOCAL != 0;
        Test { what: What::ToThisMachine { exact: destination == XT_ADDRTYPE_LOCAL }, not: not == is_local }
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports in the byte order of this machine, and bytes.
    fn info(ports: &[u16], bytes: &[u8]) -> Vec<u8> {
        [&ports.iter().flat_map(|port| port.to_ne_bytes()).collect::<Vec<_>>()[..], bytes].concat()
    }

    fn port(range: RangeInclusive<u16>, not: bool) -> Option<Test> {
        Some(Test { what: What::Port(vec![range]), not })
    }

    #[test]
    fn what_older_iptables_say_of_ports_is_read() {
        assert_eq!(tcp(&info(&[0, 65535, 22, 22], &[0, 0, 0, 0])), port(22..=22, false));
        assert_eq!(tcp(&info(&[0, 65535, 20, 30], &[0, 0, 0, 2])), port(20..=30, true));
        assert_eq!(tcp(&info(&[0, 65535, 0, 65535], &[0, 0, 0, 0])), port(ALL, false));
        let syn = Test { what: What::Flags { mask: 0x17, value: 2 }, not: false };
        assert_eq!(tcp(&info(&[0, 65535, 0, 65535], &[0, 0x17, 2, 0])), Some(syn));
        let source = |not| Some(Test { what: What::SourcePort(vec![22..=22]), not });
        assert_eq!(tcp(&info(&[22, 22, 0, 65535], &[0, 0, 0, 0])), source(false));
        assert_eq!(tcp(&info(&[22, 22, 0, 65535], &[0, 0, 0, 1])), source(true));
        assert_eq!(udp(&info(&[22, 22, 0, 65535], &[1])), source(true));
        // Options, and two things at once.
        assert_eq!(tcp(&info(&[22, 22, 80, 80], &[0, 0, 0, 0])), None);
        assert_eq!(tcp(&info(&[0, 65535, 22, 22], &[2, 0, 0, 0])), None);
        assert_eq!(tcp(&info(&[0, 65535, 22, 22], &[0, 0x17, 2, 0])), None);
        assert_eq!(udp(&info(&[0, 65535, 53, 53], &[0])), port(53..=53, false));
        assert_eq!(udp(&info(&[0, 65535, 53, 53], &[2])), port(53..=53, true));
        assert_eq!(udp(&info(&[53, 53, 80, 80], &[0])), None);
    }

    #[test]
    fn what_is_torn_is_not_understood() {
        for length in 0..12 {
            assert_eq!(tcp(&[0; 12][..length]), None, "{length}");
        }
        for length in 0..48 {
            assert_eq!(multiport(&[1; 48][..length]), None, "{length}");
        }
        for length in 0..152 {
            assert_eq!(conntrack(&[1; 152][..length]), None, "{length}");
        }
        // More ports than there is room for.
        assert_eq!(multiport(&[[1, 16].as_slice(), &[0; 46]].concat()), None);
    }
}
