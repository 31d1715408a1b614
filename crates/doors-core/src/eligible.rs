//! Which addresses a grant can be for.

use alloc::vec::Vec;
use core::{fmt, net::IpAddr};

use ipnet::IpNet;

use crate::special_purpose::{Block, never_a_clients};

/// Why no grant is for an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ineligible {
    /// The door demands that it be named, and it is not.
    Missing,
    /// This client may not let it in.
    NotThisClients(IpAddr),
    /// No client has it anywhere.
    Special(IpAddr, &'static Block),
    /// This machine has it.
    Own(IpAddr),
    /// It means all machines of a network of ours.
    Broadcast(IpAddr),
}

impl fmt::Display for Ineligible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the request names no address, and the door demands one"),
            Self::NotThisClients(address) => write!(f, "this client may not let in {address}"),
            Self::Special(address, Block { purpose, source, .. }) => {
                write!(f, "{address} can be no client's: {purpose} ({source})")
            }
            Self::Own(address) => write!(f, "{address} is an address of this machine"),
            Self::Broadcast(address) => write!(f, "{address} is the broadcast address of a network here"),
        }
    }
}

/// What the kernel says of this machine's own networks at the moment.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// In order.
    addresses: Vec<IpNet>,
    /// In order.
    broadcast: Vec<IpAddr>,
}

impl Own {
    /// Packets to these addresses are for this machine, or for all machines of a network.
    #[must_use]
    pub fn new(mut addresses: Vec<IpNet>, mut broadcast: Vec<IpAddr>) -> Self {
        // The most are single addresses: those can be searched.
        addresses.sort_unstable();
        broadcast.sort_unstable();
        Self { addresses, broadcast }
    }

    /// Whether packets to this address are for this machine.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        let wide = |net: &&IpNet| net.prefix_len() < net.max_prefix_len();
        self.addresses.binary_search(&IpNet::from(address)).is_ok()
            || self.addresses.iter().filter(wide).any(|net| net.contains(&address))
    }

    /// Whether a client can have this address.
    ///
    /// # Errors
    /// [`Ineligible`] says why not.
    pub fn judge(&self, address: IpAddr) -> Result<(), Ineligible> {
        if let Some(block) = never_a_clients(address) {
            return Err(Ineligible::Special(address, block));
        }
        if self.contain(address) {
            return Err(Ineligible::Own(address));
        }
        match self.broadcast.binary_search(&address) {
            Ok(_) => Err(Ineligible::Broadcast(address)),
            Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_our_own_addresses_nor_those_of_whole_networks_are_a_clients() {
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
