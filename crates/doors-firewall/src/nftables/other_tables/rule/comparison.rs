//! Reads what a rule loads from a packet, and what it compares that with, into tests.

use std::{net::IpAddr, ops::RangeInclusive};

use doors_os::netlink::message::Attributes;

use super::{Loaded, Test, What};
use crate::{nftables::abi, plan::address};

/// What names the loopback interface, by number and by name.
const LOOPBACK: (u32, &str) = (1, "lo");

/// Registers of four bytes each.
const REGISTERS: usize = 16;

/// What a rule has loaded so far.
pub(super) struct Registers {
    all: [(Loaded, Option<Vec<u8>>); REGISTERS],
    /// How many were loaded since the last test: several together are a concatenated key.
    loads: usize,
}

impl Registers {
    pub(super) fn new() -> Self {
        Self { all: std::array::from_fn(|_| (Loaded::Other, None)), loads: 0 }
    }

    /// The four bytes that a register begins with: 1 to 4 have sixteen each.
    fn place(number: u32) -> Option<usize> {
        let place = match number {
            1..=4 => number.checked_sub(1)?.checked_mul(4)?,
            _ => number.checked_sub(abi::NFT_REG32_00)?,
        };
        usize::try_from(place).ok().filter(|place| *place < REGISTERS)
    }

    pub(super) fn load(&mut self, number: Option<u32>, what: Loaded) {
        self.loads = self.loads.saturating_add(1);
        if let Some(place) = number.and_then(Self::place).and_then(|place| self.all.get_mut(place)) {
            *place = (what, None);
        }
    }

    pub(super) fn mask(&mut self, number: Option<u32>, mask: Vec<u8>) {
        if let Some(place) = number.and_then(Self::place).and_then(|place| self.all.get_mut(place)) {
            place.1 = Some(mask);
        }
    }

    pub(super) fn get(&mut self, number: Option<u32>) -> (Loaded, Option<&[u8]>) {
        if std::mem::take(&mut self.loads) > 1 {
            return (Loaded::Other, None);
        }
        let place = number.and_then(Self::place).and_then(|place| self.all.get(place));
        place.map_or((Loaded::Other, None), |(what, mask)| (*what, mask.as_deref()))
    }
}

/// What an expression loads, and where to; `None` if it sets something.
pub(super) fn loaded(name: &str, inner: Attributes<'_>, family: Option<u8>) -> Option<(Option<u32>, Loaded)> {
    Some(match name {
        "meta" => {
            let what = match inner.u32_be(abi::NFTA_META_KEY) {
                Some(abi::NFT_META_L4PROTO) => Loaded::Protocol,
                Some(abi::NFT_META_NFPROTO) => Loaded::Family,
                Some(abi::NFT_META_MARK) => Loaded::Mark,
                Some(abi::NFT_META_IIF) => Loaded::InterfaceIndex,
                Some(abi::NFT_META_IIFNAME) => Loaded::InterfaceName,
                Some(abi::NFT_META_OIF) => Loaded::OutInterfaceIndex,
                Some(abi::NFT_META_OIFNAME) => Loaded::OutInterfaceName,
                _ => Loaded::Other,
            };
            (Some(inner.u32_be(abi::NFTA_META_DREG)?), what)
        }
        "fib" => {
            let [result, flags] = [abi::NFTA_FIB_RESULT, abi::NFTA_FIB_FLAGS].map(|kind| inner.u32_be(kind));
            let what = match (result, flags) {
                (Some(abi::NFT_FIB_RESULT_ADDRTYPE), Some(abi::NFTA_FIB_F_DADDR)) => {
                    Loaded::KindOfDestination
                }
                (_, Some(flags)) if flags & abi::NFTA_FIB_F_SADDR != 0 => {
                    match flags & abi::NFTA_FIB_F_PRESENT {
                        0 => Loaded::WayBack,
                        _ => Loaded::IsWayBack,
                    }
                }
                _ => Loaded::Other,
            };
            (Some(inner.u32_be(abi::NFTA_FIB_DREG)?), what)
        }
        "ct" => {
            let what = match inner.u32_be(abi::NFTA_CT_KEY) {
                Some(abi::NFT_CT_STATE) => Loaded::State,
                _ => Loaded::Other,
            };
            (Some(inner.u32_be(abi::NFTA_CT_DREG)?), what)
        }
        _ => {
            let number = |kind| inner.u32_be(kind).unwrap_or(u32::MAX);
            let place = [abi::NFTA_PAYLOAD_BASE, abi::NFTA_PAYLOAD_OFFSET, abi::NFTA_PAYLOAD_LEN];
            let [base, offset, length] = place.map(number);
            let what = match (base, family, offset, length) {
                (abi::NFT_PAYLOAD_TRANSPORT_HEADER, _, 0, 2) => Loaded::SourcePort,
                (abi::NFT_PAYLOAD_TRANSPORT_HEADER, _, 2, 2) => Loaded::Port,
                (abi::NFT_PAYLOAD_TRANSPORT_HEADER, _, 13, 1) => Loaded::Flags,
                // A network whose length is whole bytes is loaded in part.
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV4), 12, 1..=4) => Loaded::Source,
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV4), 16, 1..=4) => Loaded::Destination,
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV4), 9, 1) => Loaded::Protocol,
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV6), 8, 1..=16) => Loaded::Source,
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV6), 24, 1..=16) => Loaded::Destination,
                // The next header.
                (abi::NFT_PAYLOAD_NETWORK_HEADER, Some(abi::NFPROTO_IPV6), 6, 1) => Loaded::Protocol,
                _ => Loaded::Other,
            };
            (Some(inner.u32_be(abi::NFTA_PAYLOAD_DREG)?), what)
        }
    })
}

/// What a comparison asks.
pub(super) fn compared(
    what: Loaded,
    mask: Option<&[u8]>,
    how: u32,
    value: &[u8],
    family: Option<u8>,
) -> Test {
    let not = how == abi::NFT_CMP_NEQ;
    let equals = [abi::NFT_CMP_EQ, abi::NFT_CMP_NEQ].contains(&how);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let known = match what {
        Loaded::Protocol if equals && mask.is_none() => value.first().copied().map(What::Protocol),
        Loaded::Family if equals => value.first().copied().map(What::Family),
        Loaded::Port if mask.is_none() => {
            port(value).and_then(|port| compared_port(how, port)).map(What::Port)
        }
        Loaded::SourcePort if mask.is_none() => {
            port(value).and_then(|port| compared_port(how, port)).map(What::SourcePort)
        }
        Loaded::Source => addresses(how, value, mask, family).map(What::Source),
        Loaded::Destination => addresses(how, value, mask, family).map(What::Destination),
        Loaded::Mark if equals => {
            word(value).map(|value| What::Mark { mask: mask.and_then(word).unwrap_or(u32::MAX), value })
        }
        Loaded::State if equals => return state(mask.and_then(word), word(value), not),
        Loaded::Flags if equals => {
            let mask = mask.map_or(Some(u8::MAX), |mask| mask.first().copied());
            mask.zip(value.first().copied()).map(|(mask, value)| What::Flags { mask, value })
        }
        Loaded::KindOfDestination if equals => {
            let is_local = word(value) == Some(abi::RTN_LOCAL);
            return Test { what: What::ToThisMachine { exact: is_local }, not: not == is_local };
        }
        Loaded::WayBack if equals && value.iter().all(|byte| *byte == 0) => Some(What::Unusual),
        Loaded::IsWayBack if equals => {
            let is_missing = value.iter().all(|byte| *byte == 0);
            return Test { what: What::Unusual, not: not == is_missing };
        }
        // The name of another interface is not known here.
        Loaded::InterfaceIndex if equals && word(value) == Some(LOOPBACK.0) => {
            Some(What::Interface { loopback: true, name: LOOPBACK.1.to_owned() })
        }
        Loaded::OutInterfaceIndex if equals && word(value) == Some(LOOPBACK.0) => {
            Some(What::OutInterface { loopback: true, name: LOOPBACK.1.to_owned() })
        }
        Loaded::InterfaceName if equals => {
            let name = interface(value);
            Some(What::Interface { loopback: name == LOOPBACK.1, name })
        }
        Loaded::OutInterfaceName if equals => {
            let name = interface(value);
            Some(What::OutInterface { loopback: name == LOOPBACK.1, name })
        }
        _ => None,
    };
    Test { what: known.unwrap_or_else(|| What::Unknown("cmp".to_owned())), not }
}

/// The name of an interface. Without the zero behind it, it is the beginning of several names.
fn interface(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    let name = String::from_utf8_lossy(value.get(..end.unwrap_or(value.len())).unwrap_or_default());
    format!("{}{}", name.escape_debug(), if end.is_some() { "" } else { "*" })
}

fn compared_port(how: u32, port: u16) -> Option<Vec<RangeInclusive<u16>>> {
    Some(vec![match how {
        abi::NFT_CMP_EQ | abi::NFT_CMP_NEQ => port..=port,
        abi::NFT_CMP_LT => 0..=port.checked_sub(1)?,
        abi::NFT_CMP_LTE => 0..=port,
        abi::NFT_CMP_GT => port.checked_add(1)?..=u16::MAX,
        abi::NFT_CMP_GTE => port..=u16::MAX,
        _ => return None,
    }])
}

/// `nft` asks whether any of the bits is there, or for one state.
fn state(mask: Option<u32>, value: Option<u32>, not: bool) -> Test {
    match (mask, value) {
        (Some(mask), Some(0)) => Test { what: What::State(mask), not: !not },
        (None, Some(value)) => Test { what: What::State(value), not },
        _ => Test { what: What::Unknown("ct state".to_owned()), not },
    }
}

/// An address or network, as far as it was loaded, or one end of a range; `None` if it is not an address.
fn addresses(how: u32, value: &[u8], mask: Option<&[u8]>, family: Option<u8>) -> Option<String> {
    let whole = if family? == abi::NFPROTO_IPV4 { 4 } else { 16 };
    let mut bytes = value.to_vec();
    bytes.resize(whole, 0);
    let source: IpAddr = address(&bytes).filter(|_| value.len() <= whole)?;
    let sign = match how {
        abi::NFT_CMP_EQ | abi::NFT_CMP_NEQ => {
            let ones = |mask: &[u8]| mask.iter().map(|byte| byte.count_ones() as usize).sum();
            let bits: usize = mask.map_or(value.len().saturating_mul(8), ones);
            return match bits == whole.saturating_mul(8) {
                true => Some(source.to_string()),
                false if mask.is_none_or(is_of_network) => Some(format!("{source}/{bits}")),
                false => Some(format!("in {source}, with a mask")),
            };
        }
        // The ends of a range are whole addresses.
        _ if mask.is_some() || value.len() != whole => return None,
        abi::NFT_CMP_LT => "<",
        abi::NFT_CMP_LTE => "<=",
        abi::NFT_CMP_GT => ">",
        abi::NFT_CMP_GTE => ">=",
        _ => return None,
    };
    Some(format!("{sign} {source}"))
}

/// Whether a mask is that of a network: ones, and then zeros.
fn is_of_network(mask: &[u8]) -> bool {
    let mut bits = mask.iter().flat_map(|byte| (0..8).map(move |bit| byte & (0x80 >> bit) != 0));
    bits.by_ref().find(|bit| !bit);
    !bits.any(|bit| bit)
}

pub(super) fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(<[u8; 2]>::try_from(bytes).ok()?))
}
