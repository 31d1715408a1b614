//! Doors, their names and their sequences, as the configuration defines them.

use alloc::{borrow::ToOwned, sync::Arc, vec::Vec};
use core::{fmt, net::IpAddr, time::Duration};

pub use doors_spa::door::BadName;
use doors_spa::door::check_name;

/// The name of a door: 1 to 32 letters, digits, `_` and `-`, the first a letter.
///
/// Checked by [`check_name`], which clients apply to receipts as well. Cheap to clone. After a reload, a door
/// is the same door if its name is the same.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DoorName(Arc<str>);

impl DoorName {
    /// Checks a name from a configuration.
    ///
    /// # Errors
    /// [`BadName`] says which rule the name breaks.
    pub fn new(name: &str) -> Result<Self, BadName> {
        check_name(name).map(|()| Self(Arc::from(name)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DoorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The UDP ports to knock on, in order: 5 to 20 of them, none zero.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sequence(Vec<u16>);

impl Sequence {
    /// The shortest sequence.
    pub const MIN_LEN: usize = 5;
    /// The longest sequence.
    pub const MAX_LEN: usize = 20;
    /// The sequence in the documentation. Everyone knows it, so it is not a secret.
    pub const PUBLISHED: [u16; 5] = [16001, 16002, 16003, 16004, 16005];

    /// Checks the ports, which are in the order of the knocks.
    ///
    /// # Errors
    /// [`BadSequence`] says what is wrong with them.
    pub fn new(ports: &[u16]) -> Result<Self, BadSequence> {
        if !(Self::MIN_LEN..=Self::MAX_LEN).contains(&ports.len()) {
            return Err(BadSequence::Length(ports.len()));
        }
        if ports.contains(&0) {
            return Err(BadSequence::Zero);
        }
        if ports.windows(2).all(|pair| pair.first() == pair.last()) {
            return Err(BadSequence::OnePort);
        }
        Ok(Self(ports.to_owned()))
    }

    /// The ports in order.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        &self.0
    }
}

/// Why a list of ports is not a valid sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSequence {
    /// Too few or too many ports; the value is their number.
    #[error("{0} ports are no sequence; write 5 to 20 of them")]
    Length(usize),
    /// Port 0 is reserved (RFC 6335, section 6): no datagram can be sent to it.
    #[error("port 0 cannot be used; ports go from 1 to 65535")]
    Zero,
    /// All ports are the same: any sender that repeats a datagram would open the door.
    #[error("a sequence with only one port is not a secret; use different ports")]
    OnePort,
}

/// What the core knows of a door. The ports that it opens are known to the firewall only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Door {
    /// Its name.
    pub name: DoorName,
    /// The sequence that opens it; `None` if only clients with a key can open it.
    pub sequence: Option<Sequence>,
    /// How long it stays open, unless a client asks for another time.
    pub open_for: Duration,
    /// The longest time for which a client may ask.
    pub max_open_for: Duration,
    /// Whether a grant is used up by the first new connection.
    pub once: bool,
    /// Whether a client's request must name the address to let in.
    pub require_address: bool,
}

impl Door {
    /// A door with a sequence and default settings.
    #[must_use]
    pub fn with_sequence(name: DoorName, sequence: Sequence, open_for: Duration) -> Self {
        let (max_open_for, once, require_address) = (open_for, false, false);
        Self { name, sequence: Some(sequence), open_for, max_open_for, once, require_address }
    }
}

/// Identifies a grant: one door for one source address.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GrantKey {
    /// The door.
    pub door: DoorName,
    /// The only address that may use the door.
    pub source: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_has_five_to_twenty_ports() {
        let ports: Vec<u16> = (1..=21).collect();
        for len in 0..=21 {
            let answer = Sequence::new(&ports[..len]);
            if (5..=20).contains(&len) {
                assert_eq!(answer.unwrap().ports(), &ports[..len]);
            } else {
                assert_eq!(answer, Err(BadSequence::Length(len)));
            }
        }
        assert_eq!(Sequence::new(&[1, 2, 0, 4, 5]), Err(BadSequence::Zero));
        assert_eq!(Sequence::new(&[9; 5]), Err(BadSequence::OnePort));
        assert!(Sequence::new(&[9, 9, 9, 9, 8]).is_ok());
    }
}
