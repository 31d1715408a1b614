//! Parses a UDP datagram from the bytes of an IP packet, and writes one.
//!
//! ```text
//!   IPv4   0  1  version 4, header length in words      IPv6   0  1  version 6, …
//!          2  2  total length                                  4  2  payload length
//!          6  2  flags and fragment offset                     6  1  next header: 17
//!          9  1  protocol: 17                                  8 16  source
//!         10  2  header checksum                              24 16  destination
//!         12  4  source                                       40  …  UDP
//!         16  4  destination
//!          …  …  options, then UDP      UDP    0  2  source port     4  2  length
//!                                              2  2  destination     6  2  checksum
//! ```
//!
//! Source: RFC 791, RFC 8200, RFC 768. Fragments, IPv6 extension headers, truncated packets and wrong checksums are
//! rejected: no client sends a knock like that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

/// Whether the checksum of the datagram has to be verified.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Checksum {
    /// It has to be verified here.
    Unverified,
    /// The kernel says that it is right, or the sender's kernel left it to hardware that the packet never passed.
    Vouched,
}

/// A complete datagram with a valid checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Datagram<'a> {
    pub(super) source: IpAddr,
    pub(super) source_port: u16,
    pub(super) destination: IpAddr,
    pub(super) port: u16,
    pub(super) payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Parses an untrusted IP packet.
    pub(super) fn parse(packet: &'a [u8], checksum: Checksum) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::parse_v4(packet, checksum),
            6 => Self::parse_v6(packet, checksum),
            _ => None,
        }
    }

    fn parse_v4(packet: &'a [u8], checksum: Checksum) -> Option<Self> {
        let header_length = usize::from(packet.first()? & 0x0f).checked_mul(4)?;
        let header = packet.get(..header_length)?;
        let total = usize::from(u16_at(header, 2)?);
        let fragment = u16_at(header, 6)? & 0x3fff;
        let protocol = *header.get(9)?;
        let source: [u8; 4] = *header.get(12..)?.first_chunk()?;
        let destination: [u8; 4] = *header.get(16..)?.first_chunk()?;
        if fragment != 0 || protocol != UDP || !sums_up([header]) {
            return None;
        }
        let udp = packet.get(header_length..total)?;
        let length = u16_at(udp, 4)?;
        let pseudo = [&source[..], &destination, &[0, UDP], &length.to_be_bytes()].concat();
        let unused = u16_at(udp, 6)? == 0;
        let (source_port, port, payload) = parse_udp(udp)?;
        if checksum == Checksum::Unverified && !unused && !sums_up([&pseudo, udp]) {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::from(source).into(),
            source_port,
            destination: Ipv4Addr::from(destination).into(),
            port,
            payload,
        })
    }

    fn parse_v6(packet: &'a [u8], checksum: Checksum) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(IPV6_HEADER)?;
        let length = u16_at(header, 4)?;
        let next_header = *header.get(6)?;
        let source: [u8; 16] = *header.get(8..)?.first_chunk()?;
        let destination: [u8; 16] = *header.get(24..)?.first_chunk()?;
        let udp = rest.get(..usize::from(length))?;
        let mapped = |address: [u8; 16]| Ipv6Addr::from(address).to_ipv4_mapped().is_some();
        // The IPv6 layer drops mapped addresses, but a packet socket sees the packet first.
        if next_header != UDP || mapped(source) || mapped(destination) {
            return None;
        }
        let pseudo = [&source[..], &destination, &[0, 0], &length.to_be_bytes(), &[0, 0, 0, UDP]].concat();
        // Over IPv6 a zero checksum is an error; it does not mean that there is none (RFC 8200, section 8.1).
        let unused = u16_at(udp, 6)? == 0;
        let (source_port, port, payload) = parse_udp(udp)?;
        if checksum == Checksum::Unverified && (unused || !sums_up([&pseudo, udp])) {
            return None;
        }
        Some(Self {
            source: Ipv6Addr::from(source).into(),
            source_port,
            destination: Ipv6Addr::from(destination).into(),
            port,
            payload,
        })
    }
}

/// The source port, the destination port and the payload; `None` if the datagram does not fill its packet exactly.
fn parse_udp(udp: &[u8]) -> Option<(u16, u16, &[u8])> {
    let length = usize::from(u16_at(udp, 4)?);
    let payload = udp.get(UDP_HEADER..)?;
    (length == udp.len()).then_some((u16_at(udp, 0)?, u16_at(udp, 2)?, payload))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|pair| u16::from_be_bytes(*pair))
}

/// Whether the ones' complement sum over the parts, checksum included, is right (RFC 1071). Every part
/// but the last has an even length.
fn sums_up<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> bool {
    sum(parts) == 0xffff
}

/// The ones' complement sum over the parts (RFC 1071). Every part but the last has an even length.
fn sum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            let word = match pair {
                [high, low] => u16::from_be_bytes([*high, *low]),
                [high] => u16::from_be_bytes([*high, 0]),
                _ => 0,
            };
            sum = sum.saturating_add(word.into());
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Writes a complete IP packet with a datagram from one of our addresses and ports to another address of the same
/// family. Returns `None` if the families differ or the payload is too long.
pub(super) fn write(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(payload.len()).ok()?.checked_add(8)?;
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    let without_sum = [&ports[..], &length.to_be_bytes(), &[0, 0]].concat();
    let (mut packet, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let total = length.checked_add(20)?.to_be_bytes();
            // Do not fragment, 64 hops; the kernel fills in the identification and the header checksum (raw(7)).
            let fixed = [&[0x45, 0][..], &total, &[0, 0, 0x40, 0, 64, UDP, 0, 0], &addresses].concat();
            (fixed, [&addresses[..], &[0, UDP], &length.to_be_bytes()].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let addresses = [from.octets(), to.octets()].concat();
            let fixed = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[UDP, 64], &addresses].concat();
            (fixed, [&addresses[..], &[0, 0], &length.to_be_bytes(), &[0, 0, 0, UDP]].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    // A checksum of zero is sent as all ones, because zero means that there is none (RFC 768).
    let checksum = match !sum([&pseudo[..], &without_sum, payload]) {
        0 => u16::MAX,
        checksum => checksum,
    };
    packet.extend(ports);
    packet.extend(length.to_be_bytes());
    packet.extend(checksum.to_be_bytes());
    packet.extend(payload);
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `knock\n` from 192.0.2.7:40000 to 198.51.100.1:16001, its checksums computed by another
    /// implementation of RFC 1071.
    const V4: &str = "450000220001000040118e8ec0000207c63364019c403e81000ef2f76b6e6f636b0a";
    /// The same from `2001:db8::7` to `2001:db8::1`.
    const V6: &str = "60000000000e114020010db800000000000000000000000720010db8000000000000000000000001\
                      9c403e81000e83ba6b6e6f636b0a";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<char> = hex.chars().collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
            .collect()
    }

    #[test]
    fn a_complete_datagram_is_parsed() {
        for (packet, source, destination) in
            [(V4, "192.0.2.7", "198.51.100.1"), (V6, "2001:db8::7", "2001:db8::1")]
        {
            let datagram = Datagram {
                source: source.parse().unwrap(),
                source_port: 40000,
                destination: destination.parse().unwrap(),
                port: 16001,
                payload: b"knock\n",
            };
            assert_eq!(Datagram::parse(&bytes(packet), Checksum::Unverified), Some(datagram));
        }
    }

    #[test]
    fn a_written_packet_is_parsed_again_and_its_checksum_is_valid() {
        for (from, to) in
            [("192.0.2.1:62201", "192.0.2.7:40000"), ("[2001:db8::1]:62201", "[2001:db8::7]:40000")]
        {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            for payload in [&b"receipt"[..], b"", &[0xff; 192]] {
                let mut packet = write(from, to, payload).unwrap();
                if from.is_ipv4() {
                    // As the kernel does.
                    let header = !sum([&packet[..20]]);
                    packet[10..12].copy_from_slice(&header.to_be_bytes());
                }
                let read = Datagram::parse(&packet, Checksum::Unverified).unwrap();
                assert_eq!((read.source, read.source_port), (from.ip(), from.port()));
                assert_eq!((read.destination, read.port), (to.ip(), to.port()));
                assert_eq!(read.payload, payload);
            }
        }
    }

    #[test]
    fn a_truncated_packet_is_rejected() {
        for packet in [V4, V6] {
            let packet = bytes(packet);
            for length in 0..packet.len() {
                assert_eq!(Datagram::parse(&packet[..length], Checksum::Vouched), None, "{length}");
            }
        }
    }

    #[test]
    fn link_layer_padding_is_not_part_of_the_datagram() {
        for packet in [V4, V6] {
            let mut padded = bytes(packet);
            padded.extend([0; 18]);
            assert_eq!(Datagram::parse(&padded, Checksum::Unverified).unwrap().payload, b"knock\n");
        }
    }

    #[test]
    fn a_packet_with_one_wrong_bit_is_rejected() {
        for (packet, unprotected) in [(V4, 0), (V6, 8)] {
            let packet = bytes(packet);
            // No checksum covers the first bytes of IPv6 (traffic class, flow label, hop limit).
            for bit in 0..packet.len() * 8 {
                if unprotected > 0 && ((4..32).contains(&bit) || bit / 8 == 7) {
                    continue;
                }
                let mut wrong = packet.clone();
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(Datagram::parse(&wrong, Checksum::Unverified), None, "bit {bit}");
            }
        }
    }

    #[test]
    fn an_absent_checksum_is_accepted_over_ipv4_only() {
        for (packet, at, accepted) in [(V4, 26, true), (V6, 46, false)] {
            let mut packet = bytes(packet);
            packet[at] = 0;
            packet[at + 1] = 0;
            assert_eq!(Datagram::parse(&packet, Checksum::Unverified).is_some(), accepted);
            assert!(Datagram::parse(&packet, Checksum::Vouched).is_some());
        }
    }

    #[test]
    fn a_checksum_that_the_kernel_vouches_for_is_not_verified() {
        for (packet, at) in [(V4, 26), (V6, 46)] {
            let mut packet = bytes(packet);
            packet[at] ^= 0xff;
            assert_eq!(Datagram::parse(&packet, Checksum::Unverified), None);
            assert!(Datagram::parse(&packet, Checksum::Vouched).is_some());
        }
    }

    #[test]
    fn fragments_and_extension_headers_are_rejected() {
        for (at, value) in [(6, 0x20), (7, 0x01)] {
            let mut fragment = bytes(V4);
            fragment[at] = value;
            // Correct the header's checksum again.
            let sum = u16_at(&fragment, 10).unwrap() - (u16::from(value) << if at == 6 { 8 } else { 0 });
            fragment[10..12].copy_from_slice(&sum.to_be_bytes());
            assert!(sums_up([&fragment[..20]]));
            assert_eq!(Datagram::parse(&fragment, Checksum::Unverified), None);
        }
        for next_header in [0, 43, 44, 60] {
            let mut packet = bytes(V6);
            packet[6] = next_header;
            assert_eq!(Datagram::parse(&packet, Checksum::Vouched), None);
        }
    }
}
