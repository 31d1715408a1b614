//! Packets as the network delivered them, and how they came in.

use core::net::{IpAddr, SocketAddr};

/// The index of a network interface, as the kernel gives it; 0 if unknown.
///
/// No rule of the core depends on it. It is passed to the firewall, which may treat interfaces differently.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Link(pub u32);

/// How a packet came in: on which interface, and to which of our addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The interface that received it.
    pub link: Link,
    /// The address of this machine to which it was sent.
    pub destination: IpAddr,
}

/// What the kernel's routing says about sources.
pub trait Routes {
    /// Whether the kernel accepts packets from `source` that come in like this. Where reverse-path filtering
    /// is strict, it drops packets from an interface that does not lead back to their source (RFC 3704,
    /// section 2.2): such a source is forged.
    fn accept(&mut self, source: IpAddr, arrival: Arrival) -> bool;
}

/// Accepts all: for packets that the kernel has accepted already.
#[derive(Clone, Copy, Debug)]
pub struct AllRoutes;

impl Routes for AllRoutes {
    fn accept(&mut self, _: IpAddr, _: Arrival) -> bool {
        true
    }
}

/// One UDP datagram that was addressed to this machine.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The source address. It can be forged in UDP.
    pub source: IpAddr,
    /// The UDP port from which it was sent.
    pub source_port: u16,
    /// The address of this machine to which it was sent.
    pub destination: IpAddr,
    /// The UDP port to which it was sent.
    pub port: u16,
    /// The interface that received it.
    pub link: Link,
    /// The payload.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// Whether its source can be answered. If not, the source is forged.
    pub(crate) fn is_answerable(&self) -> bool {
        can_be_answered(self.source) && self.port != 0
    }

    /// How it came in.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival { link: self.link, destination: self.destination }
    }

    /// Where an answer goes to, and from which address.
    pub(crate) fn way_back(&self) -> WayBack {
        WayBack {
            to: SocketAddr::new(self.source, self.source_port),
            from: SocketAddr::new(self.destination, self.port),
            link: self.link,
        }
    }
}

/// Whether an answer can be sent to an address. It can be sent to this machine's own: a knock from here is
/// told why no door opens.
///
/// No host has an IPv4 address that begins with 0 (RFC 1122, section 3.2.1.3), with 224 to 239, which are
/// multicast groups, or with 240 to 255, which are reserved (RFC 1112, section 4; RFC 6890), with broadcast
/// among them. An IPv4-mapped IPv6 address is never a source on a network either: a forged one would bypass
/// every protection against forged IPv4 addresses.
fn can_be_answered(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [1..=223, ..]),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    }
}

/// The addresses and the interface for an answer to a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WayBack {
    /// The sender.
    pub to: SocketAddr,
    /// Our own address and port, which the packet was sent to.
    pub from: SocketAddr,
    /// The interface that received the packet.
    pub link: Link,
}
