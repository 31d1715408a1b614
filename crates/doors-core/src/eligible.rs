//! Decides for which addresses a grant can be made.

use alloc::vec::Vec;
use core::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use crate::special_purpose::{Block, never_a_clients};

/// Why no grant can be made for an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ineligible {
    /// The door requires the request to name an address, and it names none.
    Missing,
    /// The client's configuration does not allow this address.
    NotThisClients(IpAddr),
    /// A special-purpose address, which no client can have.
    Special(IpAddr, &'static Block),
    /// An address of this machine.
    Own(IpAddr),
    /// An IPv6 address that contains an IPv4 address of this machine: the kernel's tunnel delivers packets
    /// for it here.
    Holds(Ipv6Addr, Ipv4Addr),
    /// The broadcast address of a network that this machine is connected to.
    Broadcast(IpAddr),
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the request names no address, and the door requires one"),
            Self::NotThisClients(address) => write!(f, "this client may not let in {address}"),
            Self::Special(address, Block { purpose, source, .. }) => {
                write!(f, "{address} can be no client's: {purpose} ({source})")
            }
            Self::Own(address) => write!(f, "{address} is an address of this machine"),
            Self::Holds(address, own) => {
                write!(f, "{address} stands for {own}, which is an address of this machine")
            }
            Self::Broadcast(address) => write!(f, "{address} is the broadcast address of a network here"),
        }
    }
}

/// The addresses of this machine and its networks, as the kernel reports them.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Sorted.
    addresses: Vec<IpNet>,
    /// Anycast addresses of this machine, which other machines may have as well.
    anycast: Vec<IpNet>,
    /// Sorted.
    broadcast: Vec<IpAddr>,
}

impl Own {
    /// Takes the networks whose packets are delivered to this machine, and the broadcast addresses.
    #[must_use]
    pub fn new(mut addresses: Vec<IpNet>, mut broadcast: Vec<IpAddr>) -> Self {
        // Most are single addresses, which a binary search finds.
        addresses.sort_unstable();
        broadcast.sort_unstable();
        Self { addresses, anycast: Vec::new(), broadcast }
    }

    /// Adds anycast addresses. No client can have one. Knocks to one are not heard, because no receipt can be
    /// sent from it.
    #[must_use]
    pub fn with_anycast(mut self, mut anycast: Vec<IpNet>) -> Self {
        anycast.sort_unstable();
        self.anycast = anycast;
        self
    }

    /// Whether packets to this address are delivered to this machine and no other.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        holds(&self.addresses, address)
    }

    /// Checks whether a client can have this address.
    ///
    /// # Errors
    /// [`Ineligible`] says why it cannot.
    pub fn judge(&self, address: IpAddr) -> Result<(), Ineligible> {
        if let Some(block) = never_a_clients(address) {
            return Err(Ineligible::Special(address, block));
        }
        let is_own = |address| self.contain(address) || holds(&self.anycast, address);
        if is_own(address) {
            return Err(Ineligible::Own(address));
        }
        if let IpAddr::V6(holder) = address
            && let Some(held) = tunnelled(holder)
            && is_own(held.into())
        {
            return Err(Ineligible::Holds(holder, held));
        }
        match self.broadcast.binary_search(&address) {
            Ok(_) => Err(Ineligible::Broadcast(address)),
            Err(_) => Ok(()),
        }
    }
}

/// Whether an address is in one of these sorted networks.
fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    let wide = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
    networks.binary_search(&IpNet::from(address)).is_ok()
        || networks.iter().filter(wide).any(|net| net.contains(&address))
}

/// The IPv4 address to which the kernel's tunnel device (`sit`) forwards packets for this one: 6to4 (RFC
/// 3056) and IPv4-compatible addresses (RFC 4291, section 2.5.5.1). Addresses that a translator makes for
/// IPv4 clients (RFC 6052) are not included: those packets go to the client.
fn tunnelled(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = match address.segments() {
        [0x2002, high, low, ..] | [0, 0, 0, 0, 0, 0, high, low] => [high, low],
        _ => return None,
    };
    let [[a, b], [c, d]] = bits.map(u16::to_be_bytes);
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anycast_address_of_this_machine_cannot_be_a_clients_and_receives_no_knocks() {
        let net = |net: &str| net.parse().unwrap();
        let own = Own::new([net("2001:db8::1/128")].into(), Vec::new())
            .with_anycast([net("2001:db8:7::/64"), net("2001:db8::/128")].into());
        for ours in ["2001:db8::", "2001:db8:7::9"] {
            let ours = ours.parse().unwrap();
            assert_eq!(own.judge(ours), Err(Ineligible::Own(ours)));
            assert!(!own.contain(ours));
        }
        assert_eq!(own.judge("2001:db8::2".parse().unwrap()), Ok(()));
    }

    #[test]
    fn an_address_that_a_tunnel_leads_to_this_machine_cannot_be_a_clients() {
        let own = ["127.0.0.0/8", "192.0.2.7/32"].map(|net| net.parse().unwrap());
        let own = Own::new(own.into(), Vec::new()).with_anycast(["192.0.2.8/32".parse().unwrap()].into());
        for (ours, held) in [
            ("2002:c000:207::1", "192.0.2.7"),
            ("2002:c000:207:1:2:3:4:5", "192.0.2.7"),
            ("2002:c000:208::1", "192.0.2.8"),
            ("2002:7f00:1::", "127.0.0.1"),
            ("::192.0.2.7", "192.0.2.7"),
            ("::127.0.0.1", "127.0.0.1"),
        ] {
            let expected = Ineligible::Holds(ours.parse().unwrap(), held.parse().unwrap());
            assert_eq!(own.judge(ours.parse().unwrap()), Err(expected), "{ours}");
        }
        for theirs in [
            // From a translator.
            "64:ff9b::c000:207",
            "64:ff9b:1::c000:207",
            // Another machine, through a tunnel.
            "2002:c000:209::1",
            "2002::7",
            "::192.0.2.9",
            "::2",
            // The same bytes elsewhere in the address.
            "2001:db8:c000:207::1",
            "2001:db8::c000:207",
            "::1:c000:207",
        ] {
            assert_eq!(own.judge(theirs.parse().unwrap()), Ok(()), "{theirs}");
        }
    }

    #[test]
    fn own_and_broadcast_addresses_cannot_be_a_clients() {
        let addresses = ["127.0.0.0/8", "192.0.2.1/32", "2001:db8::1/128", "203.0.113.0/28"];
        let own = Own::new(
            addresses.map(|net| net.parse().unwrap()).into(),
            ["192.0.2.255".parse().unwrap()].into(),
        );
        let judge = |address: &str| own.judge(address.parse().unwrap());
        for ours in ["192.0.2.1", "2001:db8::1", "203.0.113.9"] {
            assert_eq!(judge(ours), Err(Ineligible::Own(ours.parse().unwrap())));
        }
        assert!(matches!(judge("192.0.2.255"), Err(Ineligible::Broadcast(_))));
        assert!(matches!(judge("127.0.0.1"), Err(Ineligible::Special(..))));
        for theirs in ["192.0.2.7", "192.0.2.0", "198.51.100.255", "203.0.113.16", "2001:db8::7"] {
            assert_eq!(judge(theirs), Ok(()));
        }
    }
}
