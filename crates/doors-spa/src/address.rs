//! An IP address in 16 bytes: IPv4 is mapped into IPv6 (RFC 4291, section 2.5.5.2), and all zeros mean that
//! there is no address.

use core::net::{IpAddr, Ipv6Addr};

/// Encodes an address in 16 bytes, network order; `None` as zeros.
#[must_use]
pub fn encode(address: Option<IpAddr>) -> [u8; 16] {
    match address {
        None => [0; 16],
        Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().octets(),
        Some(IpAddr::V6(v6)) => v6.octets(),
    }
}

/// Decodes an address; `None` if all bytes are zero.
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
    fn an_address_decodes_to_what_was_encoded() {
        assert_eq!(decode(encode(None)), None);
        for address in ["192.0.2.7", "2001:db8::7", "0.0.0.0"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(decode(encode(Some(address))), Some(address));
        }
    }
}
