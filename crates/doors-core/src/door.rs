//! Doors, their names and their sequences, as the configuration gives them.

use alloc::{borrow::ToOwned, sync::Arc, vec::Vec};
use core::{fmt, net::IpAddr, time::Duration};

pub use doors_spa::door::BadName;
use doors_spa::door::check_name;

/// The name of a door: 1 to 32 letters, digits, `_` and `-`, the first a letter.
///
/// The rule is [`check_name`], which clients hold an answer to as well. Cheap to clone. A door keeps its
/// identity by its name when the configuration is read again.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DoorName(Arc<str>);

impl DoorName {
    /// Takes a name that somebody wrote.
    ///
    /// # Errors
    /// [`BadName`] tells which rule it breaks.
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
    /// The sequence that the documentation publishes, so that everybody knows it.
    pub const PUBLISHED: [u16; 5] = [16001, 16002, 16003, 16004, 16005];

    /// Takes the ports in the order in which they are knocked on.
    ///
    /// # Errors
    /// [`BadSequence`] tells what is wrong with them.
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

/// Why some ports are no sequence.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadSequence {
    /// Too few or too many; the value is how many there were.
    #[error("{0} ports are no sequence; write 5 to 20 of them")]
    Length(usize),
    /// Nobody can send to port 0.
    #[error("0 is no port; ports go from 1 to 65535")]
    Zero,
    /// Always the same port: any sender that repeats itself would open the door.
    #[error("a sequence on one single port is no secret; use different ports")]
    OnePort,
}

/// What the core needs to know of a door. Which ports it opens is the firewall's affair.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Door {
    /// Its name.
    pub name: DoorName,
    /// The sequence that opens it; `None` if only a client's key does.
    pub sequence: Option<Sequence>,
    /// How long it stays open.
    pub open_for: Duration,
    /// For how long a client may ask at most.
    pub max_open_for: Duration,
    /// Whether the first new connection uses a grant up.
    pub once: bool,
    /// Whether a client has to name the address that is let in.
    pub require_address: bool,
}

impl Door {
    /// A door that a sequence opens, and nothing more.
    #[must_use]
    pub fn with_sequence(name: DoorName, sequence: Sequence, open_for: Duration) -> Self {
        let (max_open_for, once, require_address) = (open_for, false, false);
        Self { name, sequence: Some(sequence), open_for, max_open_for, once, require_address }
    }
}

/// Which door for whom: what a grant is known by.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct GrantKey {
    /// The door.
    pub door: DoorName,
    /// The only address that may use it.
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
