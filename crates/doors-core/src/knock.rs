//! A packet that has the shape of a knock.

use core::net::IpAddr;

use crate::packet::{Link, Packet};

/// One knock of a sequence: somebody sent `knock\n` to a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Knock {
    pub(crate) source: IpAddr,
    pub(crate) port: u16,
    pub(crate) link: Link,
}

impl Knock {
    /// What a datagram must contain, byte for byte, to be a knock.
    pub const PAYLOAD: &[u8; 6] = b"knock\n";

    /// Reads a knock from an untrusted packet; `None` for everything that is not one.
    ///
    /// A source that cannot be answered cannot be a client: an unspecified, multicast or broadcast
    /// address is forged. So is an IPv4 address that is mapped into IPv6: no network carries it, and it
    /// would speak for an IPv4 client past every protection against forged IPv4 addresses.
    #[must_use]
    pub fn parse(packet: &Packet<'_>) -> Option<Self> {
        if packet.payload != Self::PAYLOAD || packet.port == 0 {
            return None;
        }
        let source = packet.source;
        let answerable = match source {
            IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
            IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
        };
        answerable.then_some(Self { source, port: packet.port, link: packet.link })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str, payload: &[u8]) -> Option<Knock> {
        Knock::parse(&Packet { source: source.parse().unwrap(), port: 7, link: Link(2), payload })
    }

    #[test]
    fn only_the_six_bytes_are_a_knock() {
        assert!(parse("192.0.2.7", b"knock\n").is_some());
        for not_a_knock in [&b""[..], b"knock", b"knock\r\n", b"knock\n\0", b"Knock\n", b"knock\n\n"] {
            assert_eq!(parse("192.0.2.7", not_a_knock), None, "{not_a_knock:?}");
        }
    }

    #[test]
    fn a_source_that_cannot_be_answered_cannot_knock() {
        for forged in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1", "::ffff:192.0.2.7"] {
            assert_eq!(parse(forged, b"knock\n"), None, "{forged}");
        }
    }
}
