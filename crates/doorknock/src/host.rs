//! A host: a name, or an address.
//!
//! It comes from a command line or a stored file, and goes to a resolver, a terminal, and into ssh's
//! configuration. All of it is checked here, for all of them.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use doors_text::safe_text;
use serde::{Deserialize, Serialize};

/// RFC 1035, section 2.3.4: without the dot at its end, a name has no more.
const LONGEST: usize = 253;

/// A name like `door.example.org`, an IPv4 address, or an IPv6 address, perhaps in brackets and with a zone:
/// `fe80::1%eth0`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

impl Host {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text without brackets.
    #[must_use]
    pub fn bare(&self) -> &str {
        bare(&self.0)
    }

    /// As a `HostName` of ssh_config(5), where `%` begins a token. No character of a host needs quotes there.
    #[must_use]
    pub fn in_ssh_config(&self) -> String {
        self.bare().replace('%', "%%")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match is_name(text) || is_v6(bare(text)) {
            true => Ok(Self(text.to_owned())),
            false => Err("write a name like door.example.org, or an address".to_owned()),
        }
    }
}

impl TryFrom<String> for Host {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text)
}

/// Letters of every language: some systems translate such names. ssh would take a `-` at the beginning for an
/// option.
fn is_name(text: &str) -> bool {
    let fits = |c: char| (c.is_alphanumeric() && safe_text::is_seen(c)) || matches!(c, '.' | '-' | '_');
    !text.is_empty() && text.len() <= LONGEST && !text.starts_with('-') && text.chars().all(fits)
}

/// The zone (RFC 4007, section 11) is the name or number of an interface.
fn is_v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_zone = |zone: &str| !zone.is_empty() && zone.len() <= 32 && zone.chars().all(fits);
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_nothing_that_ssh_or_a_terminal_would_obey() {
        for good in [
            "door.example.org",
            "DOOR_1.example.org.",
            "münchen.example",
            "192.0.2.1",
            "2001:db8::1",
            "[2001:db8::1]",
            "::ffff:192.0.2.1",
            "fe80::1%eth0",
            "[fe80::1%br-lan.7]",
        ] {
            assert_eq!(good.parse::<Host>().map(String::from).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "-oProxyCommand=id",
            "a b",
            "a\tb",
            "x\n    ProxyCommand id",
            "x\u{1b}[2J",
            "x\u{202e}y",
            "x\u{200b}y",
            "x\u{3164}y",
            "x\u{a0}y",
            "a;id",
            "a%h",
            "a:22",
            "[a]",
            "[192.0.2.1]",
            "[fe80::1",
            "fe80::1%",
            "fe80::1%eth0%eth0",
            "fe80::1%eth 0",
            "\"x\"",
            &"a".repeat(254),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_zone_is_no_token_of_ssh() {
        let host: Host = "[fe80::1%eth0]".parse().unwrap();
        assert_eq!((host.bare(), host.in_ssh_config().as_str()), ("fe80::1%eth0", "fe80::1%%eth0"));
    }
}
