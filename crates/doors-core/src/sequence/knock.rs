//! A packet that has the shape of a knock.

use core::net::IpAddr;

use crate::packet::{Arrival, Packet};

/// One knock of a sequence: a datagram with `knock\n` to one port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Knock {
    pub(crate) source: IpAddr,
    pub(crate) port: u16,
    pub(crate) arrival: Arrival,
}

impl Knock {
    /// What a datagram must contain, byte for byte, to be a knock.
    pub const PAYLOAD: &[u8; 6] = b"knock\n";

    /// Reads a knock from an untrusted packet; `None` if it is not one. A packet whose source cannot be
    /// answered is not a client's.
    #[must_use]
    pub fn parse(packet: &Packet<'_>) -> Option<Self> {
        let knock = packet.payload == Self::PAYLOAD && packet.is_answerable();
        knock.then_some(Self { source: packet.source, port: packet.port, arrival: packet.arrival() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Link;

    fn parse(source: &str, payload: &[u8]) -> Option<Knock> {
        Knock::parse(&Packet {
            source: source.parse().unwrap(),
            source_port: 40000,
            destination: "192.0.2.1".parse().unwrap(),
            port: 7,
            link: Link(2),
            payload,
        })
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
        let v4 = ["0.0.0.0", "0.0.0.7", "0.255.255.255", "224.0.0.1", "240.0.0.7", "255.255.255.255"];
        for forged in v4.into_iter().chain(["::", "ff02::1", "::ffff:192.0.2.7"]) {
            assert_eq!(parse(forged, b"knock\n"), None, "{forged}");
        }
        for real in ["1.0.0.0", "127.0.0.1", "223.255.255.255", "::1", "fe80::7", "2001:db8::7"] {
            assert!(parse(real, b"knock\n").is_some(), "{real}");
        }
    }
}
