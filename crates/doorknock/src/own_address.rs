//! Whether the address that a datagram leaves from is the one that the server sees.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address to name in a knock, if this is the one that it leaves from.
///
/// A global address arrives as it left, so naming it binds the knock to it: whoever holds the datagram back
/// and sends it from elsewhere admits nobody else. Any other is translated on its way, so what the server
/// sees is not known here, and nothing is named.
#[must_use]
pub fn to_name(outgoing: IpAddr) -> Option<IpAddr> {
    let global = match outgoing {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_global_v4(v4),
            None => is_global_v6(v6),
        },
    };
    global.then(|| outgoing.to_canonical())
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    // RFC 6598: carriers translate these, as homes do with private ones.
    let carrier = first == 100 && (64..128).contains(&second);
    !(carrier
        || first == 0
        || first >= 240
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast())
}

/// RFC 4291, section 2.5.4, and the registry of IANA: all global addresses lie in 2000::/3.
fn is_global_v6(address: Ipv6Addr) -> bool {
    address.octets().first().is_some_and(|first| first >> 5 == 0b001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_arrives_as_it_left_is_named() {
        for text in ["203.0.113.7", "100.63.255.255", "100.128.0.1", "172.32.0.1", "2001:db8::7", "2a00::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(to_name(address), Some(address));
        }
        let own = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "192.168.1.2",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "64:ff9b::1",
        ];
        for text in own {
            assert_eq!(to_name(text.parse().unwrap()), None, "{text}");
        }
    }
}
