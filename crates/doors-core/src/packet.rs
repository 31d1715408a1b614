//! What the network brought.

use core::net::{IpAddr, SocketAddr};

/// The number of a network interface, as the kernel gives it; 0 when it is not known.
///
/// Nothing in here judges by it: it is passed on to the firewall, which may treat interfaces
/// differently.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Link(pub u32);

/// How a packet came in: on which interface, and to which of our addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The interface on which it came.
    pub link: Link,
    /// The address of this machine to which it was sent.
    pub destination: IpAddr,
}

/// What the kernel's routing says of a source.
pub trait Routes {
    /// Whether the kernel takes what comes from `source` like this. Where it is strict, it throws away what comes in on an
    /// interface that does not lead back to its source: that source is forged.
    fn accept(&mut self, source: IpAddr, arrival: Arrival) -> bool;
}

/// For packets that the kernel has taken already.
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
    /// Who claims to have sent it. UDP sources can be forged.
    pub source: IpAddr,
    /// The UDP port from which it was sent.
    pub source_port: u16,
    /// The address of this machine to which it was sent.
    pub destination: IpAddr,
    /// The UDP port to which it was sent.
    pub port: u16,
    /// The interface on which it came.
    pub link: Link,
    /// What the sender wrote.
    pub payload: &'a [u8],
}

impl Packet<'_> {
    /// Whether its source can be answered; if not, it is forged.
    pub(crate) fn is_answerable(&self) -> bool {
        can_be_answered(self.source) && self.port != 0
    }

    /// How it came in.
    pub(crate) fn arrival(&self) -> Arrival {
        Arrival { link: self.link, destination: self.destination }
    }

    /// Where an answer goes, and from where.
    pub(crate) fn way_back(&self) -> WayBack {
        WayBack {
            to: SocketAddr::new(self.source, self.source_port),
            from: SocketAddr::new(self.destination, self.port),
            link: self.link,
        }
    }
}

/// Whether an answer can be sent to an address. This machine's own can be: who knocks from here is told why
/// nothing opens.
///
/// No host has an IPv4 address that begins with 0 (RFC 1122, section 3.2.1.3), with 224 to 239, which are
/// groups, or with 240 to 255, which are reserved (RFC 1112, section 4; RFC 6890), broadcast among them.
/// Nor does an IPv4 address that is mapped into IPv6 send anything: no network carries it, and it would speak for
/// an IPv4 client past every protection against forged IPv4 addresses.
fn can_be_answered(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [1..=223, ..]),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast() || v6.to_ipv4_mapped().is_some()),
    }
}

/// How an answer gets to where a packet came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WayBack {
    /// The sender.
    pub to: SocketAddr,
    /// Our own address and port, to which it had sent.
    pub from: SocketAddr,
    /// The interface.
    pub link: Link,
}
