//! Whom to let in, and whether the address that a datagram leaves from is the one that the server sees.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// Whom to let in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Whom {
    /// This machine, by the address that it sends from, if that is a global one.
    ///
    /// A global address arrives as it left, so naming it binds the knock to it: an attacker who holds it back
    /// and sends it from elsewhere lets in no other address. Any other is translated on its way, so what the server
    /// sees is not known here, and nothing is named. Some networks translate global ones, too.
    #[default]
    Sender,
    /// This machine, by the address that the server sees: nothing is named.
    Seen,
    /// This address.
    Address(IpAddr),
}

impl Whom {
    /// The address to name in a knock that leaves from this one.
    #[must_use]
    pub fn to_name(self, outgoing: IpAddr) -> Option<IpAddr> {
        match self {
            Self::Sender => Some(outgoing.to_canonical()).filter(|outgoing| is_global(*outgoing)),
            Self::Seen => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl FromStr for Whom {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            _ if text == "seen" => Ok(Self::Seen),
            // In a request, the unspecified address says that none is named.
            Ok(address) if !address.to_canonical().is_unspecified() => Ok(Self::Address(address)),
            _ => Err("write an address, like 203.0.113.7 or 2001:db8::7, or seen"),
        }
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // RFC 6598: carriers translate these, as homes do with private ones.
    let carrier = first == 100 && (64..128).contains(&second);
    !(carrier
        || first == 0
        || first >= 240
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast())
}

/// RFC 4291, section 2.5.4, and the registry of IANA: all global addresses lie in 2000::/3.
fn is_global_v6(address: Ipv6Addr) -> bool {
    address.octets().first().is_some_and(|first| first >> 5 == 0b001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_arrives_as_it_left_is_named() {
        for text in ["203.0.113.7", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2001:db8::7", "2a00::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Whom::Sender.to_name(address), Some(address));
            assert_eq!(Whom::Seen.to_name(address), None);
        }
        let own = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "192.168.1.2",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::1",
        ];
        for text in own {
            assert_eq!(Whom::Sender.to_name(text.parse().unwrap()), None, "{text}");
        }
    }
}
