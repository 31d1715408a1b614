//! What the firewall has to know of the configuration.

use std::{fmt, num::NonZeroU32, ops::RangeInclusive, time::Duration};

use doors_core::door::DoorName;
pub use doors_os::netlink::address::{address, octets};
use ipnet::IpNet;

/// A transport protocol that has ports.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports of one protocol, the first and the last included.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ports {
    /// The protocol.
    pub protocol: Protocol,
    /// The lowest port, at least 1.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl Ports {
    /// One TCP port.
    pub fn tcp(port: u16) -> Self {
        Self { protocol: Protocol::Tcp, first: port, last: port }
    }

    /// The port numbers.
    pub fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// The port numbers as text: `22` or `60000-60010`.
    pub fn numbers(self) -> String {
        match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        }
    }
}

/// Whether ranges together hold every port of `wanted`.
pub(crate) fn cover(ranges: impl Iterator<Item = RangeInclusive<u16>>, wanted: RangeInclusive<u16>) -> bool {
    let mut in_order: Vec<_> = ranges.collect();
    in_order.sort_unstable_by_key(|range| *range.start());
    // The first port that is not known to be held.
    let mut next = u32::from(*wanted.start());
    for range in in_order {
        if u32::from(*range.start()) <= next {
            next = next.max(u32::from(*range.end()).saturating_add(1));
        }
    }
    next > u32::from(*wanted.end())
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.numbers(), self.protocol)
    }
}

/// What happens to a connection to a closed door.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Refuse {
    /// No answer, as if the machine were not there.
    #[default]
    Drop,
    /// The answer of a closed port.
    Reject,
}

/// Bits of the packet mark that granted connections carry, so that a rule of another firewall can tell them.
///
/// They are set beside whatever else the mark holds, so a rule has to look at these bits only, with a mask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Mark(pub NonZeroU32);

impl Mark {
    /// The bits.
    pub fn bits(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits())
    }
}

/// One door and what is behind it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PlannedDoor {
    /// Its name.
    pub name: DoorName,
    /// The ports that it opens.
    pub ports: Vec<Ports>,
    /// How long it stays open.
    pub open_for: Duration,
    /// The longest time for which it may be open.
    pub max_open_for: Duration,
    /// Whether the first new connection uses a grant up.
    pub once: bool,
}

/// Everything that the firewall has to know of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Plan {
    /// The doors, by unique names.
    pub doors: Vec<PlannedDoor>,
    /// Who always passes the gate.
    pub trusted: Vec<IpNet>,
    /// What the gate does with the others.
    pub refuse: Refuse,
    /// What granted connections carry; `None` for nothing.
    pub mark: Option<Mark>,
    /// The firewalld zone; `None` for the zone that the client's traffic arrives in.
    pub zone: Option<String>,
    /// How often the firewall's rules are checked without being asked to.
    pub check_every: Duration,
    /// How often the open doors are checked without being asked to.
    pub clean_every: Duration,
    /// Whether the gate goes when the daemon stops in order.
    pub remove_on_exit: bool,
}

impl Plan {
    /// The door of this name.
    pub fn door(&self, name: &DoorName) -> Option<&PlannedDoor> {
        self.doors.iter().find(|door| door.name == *name)
    }
}
