//! The addresses behind a name.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
};

/// Addresses that are knocked on at most: a name with more is no single server.
const MAX_ADDRESSES: usize = 8;

/// Which address families count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Family {
    /// IPv4 and IPv6, whatever the name has.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Why there is no address to knock at.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The name does not resolve.
    #[error("cannot find the address of {host}")]
    Unknown {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name has no address of the family that was asked for.
    #[error("{host} has no {} address", match .family { Family::V4 => "IPv4", Family::V6 => "IPv6", Family::Both => "IP" })]
    NoAddress {
        /// The name.
        host: String,
        /// The family.
        family: Family,
    },
}

/// Finds the addresses of a host: a name, or an address itself. An IPv6 address may carry a scope.
///
/// # Errors
/// [`TargetError`] if there are none.
pub fn resolve(host: &str, family: Family) -> Result<Vec<std::net::SocketAddr>, TargetError> {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let found = (bare, 0)
        .to_socket_addrs()
        .map_err(|source| TargetError::Unknown { host: host.to_owned(), source })?;
    let mut addresses: Vec<std::net::SocketAddr> = Vec::new();
    for address in found {
        let wanted = match (family, address.ip()) {
            (Family::Both, _) | (Family::V4, IpAddr::V4(_)) | (Family::V6, IpAddr::V6(_)) => true,
            (Family::V4, IpAddr::V6(_)) | (Family::V6, IpAddr::V4(_)) => false,
        };
        if wanted && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    match addresses.is_empty() {
        true => Err(TargetError::NoAddress { host: host.to_owned(), family }),
        false => Ok(addresses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_own_target() {
        for host in ["192.0.2.1", "2001:db8::1", "[2001:db8::1]"] {
            let found = resolve(host, Family::Both).unwrap();
            let expected: IpAddr = host.trim_matches(['[', ']']).parse().unwrap();
            assert_eq!(found.iter().map(|address| address.ip()).collect::<Vec<_>>(), [expected]);
        }
    }

    #[test]
    fn a_family_that_the_host_does_not_have_is_an_error() {
        let error = resolve("192.0.2.1", Family::V6).unwrap_err();
        assert_eq!(error.to_string(), "192.0.2.1 has no IPv6 address");
        assert!(resolve("2001:db8::1", Family::V4).is_err());
    }
}
