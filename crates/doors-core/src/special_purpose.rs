//! Addresses that no client has, whatever the gateway's network is.
//!
//! From the IANA registries of special-purpose addresses (RFC 6890, RFC 8190): the blocks that are not valid
//! as the source or not valid as the destination of a datagram, and those to which nothing is delivered, so
//! that no answer arrives. Also multicast, which has registries of its own. Private addresses (RFC 1918),
//! shared addresses (RFC 6598), unique local addresses (RFC 4193) and link-local addresses (RFC 3927, RFC
//! 4291) can be clients'. So can those for documentation (RFC 5737, RFC 3849, RFC 9637), although the
//! registries exclude them: laboratories use them, and so do this program's tests.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block of special-purpose addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Block {
    first: IpAddr,
    /// The prefix length in bits.
    length: u32,
    /// Its purpose.
    pub purpose: &'static str,
    /// The document that defines it.
    pub source: &'static str,
}

/// No client has an address in these blocks.
const NEVER: [Block; 13] = [
    v4([0, 0, 0, 0], 8, "\"this network\"", "RFC 791, section 3.2"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122, section 3.2.1.3"),
    v4([192, 0, 0, 0], 24, "IETF protocol assignments", "RFC 6890, section 2.1"),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 1112, section 4"),
    v4([255, 255, 255, 255], 32, "limited broadcast", "RFC 8190; RFC 919, section 7"),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112, section 4"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "RFC 4291, section 2.5.2"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "RFC 4291, section 2.5.3"),
    // These never appear on a network. A forged one would bypass every protection against forged IPv4
    // addresses.
    v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "IPv4-mapped", "RFC 4291, section 2.5.5.2"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard-only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "IETF protocol assignments", "RFC 2928"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "RFC 4291, section 2.7"),
];

/// Exceptions: these lie in one of the blocks above, and can be clients'.
const EXCEPTIONS: [Block; 13] = [
    v4([192, 0, 0, 0], 29, "IPv4 service continuity", "RFC 7335"),
    v4([192, 0, 0, 9], 32, "port control protocol anycast", "RFC 7723"),
    v4([192, 0, 0, 10], 32, "TURN anycast", "RFC 8155"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "Teredo", "RFC 4380, RFC 8190"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 1], 128, "port control protocol anycast", "RFC 7723"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 2], 128, "TURN anycast", "RFC 8155"),
    v6([0x2001, 1, 0, 0, 0, 0, 0, 3], 128, "service registration anycast", "RFC 9665"),
    v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "benchmarking", "RFC 5180, RFC 8190"),
    v6([0x2001, 3, 0, 0, 0, 0, 0, 0], 32, "automatic multicast tunnelling", "RFC 7450"),
    v6([0x2001, 4, 0x112, 0, 0, 0, 0, 0], 48, "AS112", "RFC 7535"),
    v6([0x2001, 0x10, 0, 0, 0, 0, 0, 0], 28, "ORCHID", "RFC 4843"),
    v6([0x2001, 0x20, 0, 0, 0, 0, 0, 0], 28, "ORCHIDv2", "RFC 7343"),
    v6([0x2001, 0x30, 0, 0, 0, 0, 0, 0], 28, "drone remote identification", "RFC 9374"),
];

/// The block because of which no client has this address; `None` if a client can have it.
#[must_use]
pub fn never_a_clients(address: IpAddr) -> Option<&'static Block> {
    let holds = |block: &&Block| block.contains(address);
    let never = NEVER.iter().find(holds)?;
    EXCEPTIONS.iter().find(holds).is_none().then_some(never)
}

impl Block {
    /// Whether the block contains an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // Shifts out all bits but the prefix. For an empty prefix both sides are `None`.
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                let behind = 32_u32.saturating_sub(self.length);
                first.to_bits().checked_shr(behind) == address.to_bits().checked_shr(behind)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                let behind = 128_u32.saturating_sub(self.length);
                first.to_bits().checked_shr(behind) == address.to_bits().checked_shr(behind)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn v4([a, b, c, d]: [u8; 4], length: u32, purpose: &'static str, source: &'static str) -> Block {
    Block { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length, purpose, source }
}

const fn v6(
    [a, b, c, d, e, f, g, h]: [u16; 8],
    length: u32,
    purpose: &'static str,
    source: &'static str,
) -> Block {
    Block { first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h)), length, purpose, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_has_an_address_that_is_never_a_source() {
        for (never, purpose) in [
            ("0.0.0.0", "\"this network\""),
            ("0.255.255.255", "\"this network\""),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("192.0.0.8", "IETF protocol assignments"),
            ("192.0.0.170", "IETF protocol assignments"),
            ("192.0.0.255", "IETF protocol assignments"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.0", "reserved"),
            ("255.255.255.254", "reserved"),
            ("255.255.255.255", "limited broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::ffff:192.0.2.7", "IPv4-mapped"),
            ("100::1", "discard-only"),
            ("100:0:0:1::1", "dummy prefix"),
            ("2001:1::", "IETF protocol assignments"),
            ("2001:1ff:ffff::1", "IETF protocol assignments"),
            ("ff02::1", "multicast"),
        ] {
            let block = never_a_clients(never.parse().unwrap());
            assert_eq!(block.map(|block| block.purpose), Some(purpose), "{never}");
        }
    }

    #[test]
    fn private_shared_link_local_and_documentation_addresses_can_be_clients() {
        for real in [
            "1.0.0.0",
            "10.0.0.7",
            "100.64.0.7",
            "169.254.7.7",
            "172.16.0.7",
            "192.0.0.7",
            "192.0.0.10",
            "192.0.1.0",
            "192.0.2.7",
            "192.31.196.7",
            "192.168.0.7",
            "198.18.0.7",
            "198.51.100.7",
            "203.0.113.7",
            "223.255.255.255",
            "::2",
            "64:ff9b::c000:207",
            "64:ff9b:1::7",
            "2001:0:1::7",
            "2001:1::1",
            "2001:2::7",
            "2001:20::7",
            "2001:200::7",
            "2001:db8::7",
            "2002::7",
            "2606:4700::7",
            "3fff::7",
            "5f00::7",
            "fc00::7",
            "fd00::7",
            "fe80::7",
        ] {
            assert_eq!(never_a_clients(real.parse().unwrap()), None, "{real}");
        }
    }
}
