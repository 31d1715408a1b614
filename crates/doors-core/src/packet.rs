//! What the network brought.

use core::net::IpAddr;

/// The number of a network interface, as the kernel gives it; 0 when it is not known.
///
/// Nothing in here judges by it: it is passed on to the firewall, which may treat interfaces
/// differently.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Link(pub u32);

/// One UDP datagram that was addressed to this machine.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Who claims to have sent it. UDP sources can be forged.
    pub source: IpAddr,
    /// The UDP port to which it was sent.
    pub port: u16,
    /// The interface on which it came.
    pub link: Link,
    /// What the sender wrote.
    pub payload: &'a [u8],
}
