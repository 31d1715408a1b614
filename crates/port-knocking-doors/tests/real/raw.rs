//! Builds and sends complete IP packets, byte by byte, as an attacker may.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// An IP packet of a protocol.
pub(crate) fn packet(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = |header: usize| u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            // The kernel fills in the header's checksum.
            let fixed = [&[0x45, 0][..], &length(20), &[0, 1, 0, 0, 64, protocol, 0, 0]].concat();
            [&fixed[..], &source.octets(), &target.octets(), payload].concat()
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let fixed = [&[0x60, 0, 0, 0][..], &length(0), &[protocol, 64]].concat();
            [&fixed[..], &source.octets(), &target.octets(), payload].concat()
        }
        families => panic!("{families:?}"),
    }
}

/// Turns a packet into the first fragment of one.
pub(crate) fn fragment(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[6..8].copy_from_slice(&0x2000_u16.to_be_bytes());
    } else {
        let carried = std::mem::replace(&mut packet[6], 44);
        let length = u16::from_be_bytes([packet[4], packet[5]]) + 8;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        packet.splice(40..40, [carried, 0, 0, 1, 0, 0, 0, 1]);
    }
    packet
}

/// A UDP datagram, with this checksum or with the right one.
pub(crate) fn udp(source: SocketAddr, target: SocketAddr, payload: &[u8], sum: Option<u16>) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
    let mut udp = [&ports[..], &length, &[0, 0], payload].concat();
    let right = checksum(source.ip(), target.ip(), UDP, &udp);
    udp[6..8].copy_from_slice(&sum.unwrap_or(right).to_be_bytes());
    udp
}

/// An IP packet with a UDP datagram and the right checksum.
pub(crate) fn datagram(source: SocketAddr, target: SocketAddr, payload: &[u8]) -> Vec<u8> {
    packet(source.ip(), target.ip(), UDP, &udp(source, target, payload, None))
}

/// Flags of a TCP segment (RFC 9293, section 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// An IP packet with an empty TCP segment.
pub(crate) fn segment(source: SocketAddr, target: SocketAddr, sequence: u32, flags: u8) -> Vec<u8> {
    let ports = [source.port().to_be_bytes(), target.port().to_be_bytes()].concat();
    let numbers = [sequence.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    let mut segment = [&ports[..], &numbers, &[0x50, flags], &1024_u16.to_be_bytes(), &[0; 4]].concat();
    let sum = checksum(source.ip(), target.ip(), TCP, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    packet(source.ip(), target.ip(), TCP, &segment)
}

/// The checksum over addresses, protocol, length and payload of an IP packet (RFC 768, RFC 8200, RFC 9293).
pub(crate) fn checksum(source: IpAddr, target: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let all = [&octets(source)[..], &octets(target), &[0, protocol], &length, payload].concat();
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = all.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Sends a packet from this thread's network.
pub(crate) fn send(packet: &[u8]) {
    let (domain, target): (_, IpAddr) = match packet[0] >> 4 {
        4 => (Domain::IPV4, <[u8; 4]>::try_from(&packet[16..20]).unwrap().into()),
        _ => (Domain::IPV6, <[u8; 16]>::try_from(&packet[24..40]).unwrap().into()),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(packet, &SocketAddr::new(target, 0).into()).unwrap();
}
