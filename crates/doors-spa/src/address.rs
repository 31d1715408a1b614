//! An IP address in sixteen bytes: IPv4 is mapped into IPv6 (RFC 4291, section 2.5.5.2), and all zeroes
//! are no address.

use core::net::{IpAddr, Ipv6Addr};

/// Writes an address, or that there is none.
#[must_use]
pub fn encode(address: Option<IpAddr>) -> [u8; 16] {
    match address {
        None => [0; 16],
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(v6)) => v6.octets(),
    }
}

/// Reads an address; `None` if there is none.
#[must_use]
pub fn decode(bytes: [u8; 16]) -> Option<IpAddr> {
    let v6 = Ipv6Addr::from(bytes);
    match v6.to_ipv4_mapped() {
        Some(v4) => Some(IpAddr::V4(v4)),
        None if v6.is_unspecified() => None,
        None => Some(IpAddr::V6(v6)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        assert_eq!(decode(encode(None)), None);
        for address in ["192.0.2.7", "2001:db8::7", "0.0.0.0"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(decode(encode(Some(address))), Some(address));
        }
    }
}
