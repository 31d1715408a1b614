//! The kinds of values: how each is read, how it is written, and what the manual calls it.

use std::{ops::RangeInclusive, path::PathBuf, sync::Arc, time::Duration};

use doors_core::{
    door::{DoorName, Sequence},
    time::Wall,
};
use doors_firewall::{
    FirewallChoice,
    plan::{Mark, Ports, Refuse},
};
use doors_spa::identity::ClientKey;
use ipnet::IpNet;

use super::{
    Hearing, dates,
    origin::{ConfigError, Sourced},
    values::{MAX_SECONDS, Text, Value},
};

/// A kind of value.
pub(super) trait Kind {
    /// What it is in the program.
    type Value;
    /// What it is called in the manual, with its words or its range.
    fn shape(&self) -> String;
    /// Reads one.
    fn read<'a>(&self, text: &Text<'a>, value: &Value<'a>) -> Result<Sourced<Self::Value>, ConfigError>;
    /// Writes one as TOML.
    fn written(&self, value: &Self::Value) -> String;
}

/// A time in a range.
pub(super) struct Seconds(pub(super) RangeInclusive<u64>);

/// A time of at least a second.
pub(super) const SECONDS: Seconds = Seconds(1..=MAX_SECONDS);

/// One of some words, and what each means.
pub(super) struct Words<V: 'static>(pub(super) &'static [(&'static str, V)]);

pub(super) const FIREWALL: Words<FirewallChoice> = Words(&FirewallChoice::WORDS);
pub(super) const LISTEN: Words<Hearing> = Words(&Hearing::WORDS);
pub(super) const REFUSE: Words<Refuse> = Words(&[("drop", Refuse::Drop), ("reject", Refuse::Reject)]);
/// Whether the gate is removed.
pub(super) const ON_EXIT: Words<bool> = Words(&[("keep", false), ("remove", true)]);
/// Whether a grant is for one connection only.
pub(super) const GRANT: Words<bool> = Words(&[("address", false), ("once", true)]);

/// A kind without words or range.
pub(super) struct Plain<V> {
    shape: &'static str,
    read: for<'a> fn(&Text<'a>, &Value<'a>) -> Result<Sourced<V>, ConfigError>,
    written: fn(&V) -> String,
}

pub(super) const YES_OR_NO: Plain<bool> =
    Plain { shape: "true or false", read: |_, value| value.yes_or_no(), written: bool::to_string };

pub(super) const PORT: Plain<u16> =
    Plain { shape: "UDP port", read: |_, value| value.port(), written: u16::to_string };

pub(super) const PATH: Plain<PathBuf> = Plain {
    shape: "path",
    read: |_, value| value.path(),
    written: |path| format!("{:?}", path.display().to_string()),
};

pub(super) const MARK: Plain<Mark> =
    Plain { shape: "number, 0x1 to 0xffffffff", read: |_, value| value.mark(), written: Mark::to_string };

pub(super) const NETWORKS: Plain<Vec<IpNet>> = Plain {
    shape: "list of networks",
    read: |text, value| value.networks(text),
    written: |networks| quoted(networks),
};

/// A zone of firewalld; `None` is the one that the traffic arrives in.
pub(super) const ZONE: Plain<Option<String>> = Plain {
    shape: "\"auto\" or the name of a firewalld zone",
    read: |_, value| value.zone(),
    written: |zone| format!("{:?}", zone.as_deref().unwrap_or("auto")),
};

/// A group of users.
pub(super) const GROUP: Plain<String> = Plain {
    shape: "the name or number of a group",
    read: |_, value| value.group(),
    written: |group| format!("{group:?}"),
};

pub(super) const TCP_PORTS: Plain<Vec<Ports>> = Plain {
    shape: "list of TCP ports",
    read: |text, value| value.tcp_ports(text),
    written: |ports| format!("{:?}", ports.iter().map(|ports| ports.first).collect::<Vec<_>>()),
};

pub(super) const PORTS: Plain<Vec<Ports>> = Plain {
    shape: "list of texts like \"22/tcp\" and \"60000-60010/udp\"",
    read: |text, value| value.ports(text),
    written: |ports| quoted(ports),
};

pub(super) const SEQUENCE: Plain<Sequence> = Plain {
    shape: "list of 5 to 20 UDP ports",
    read: |text, value| value.sequence(text),
    written: |sequence| format!("{:?}", sequence.ports()),
};

pub(super) const DOOR_NAME: Plain<DoorName> = Plain {
    shape: "text like \"ssh\"",
    read: |_, value| value.door_name(),
    written: |name| format!("{:?}", name.as_str()),
};

/// The names of doors, and where each is written.
pub(super) type DoorNames = Arc<[Sourced<DoorName>]>;

pub(super) const DOOR_NAMES: Plain<DoorNames> = Plain {
    shape: "list of doors",
    read: |text, value| value.door_names(text),
    written: |names| quoted_names(names),
};

pub(super) const SOME_DOOR_NAMES: Plain<DoorNames> = Plain {
    shape: "list of doors like [\"ssh\"]",
    read: |text, value| value.some_door_names(text),
    written: |names| quoted_names(names),
};

pub(super) const CLIENT_NAME: Plain<Arc<str>> = Plain {
    shape: "text like \"laptop\"",
    read: |_, value| value.client_name(),
    written: |name| format!("{name:?}"),
};

pub(super) const CLIENT_KEY: Plain<ClientKey> = Plain {
    shape: "text like \"ssh-ed25519 AAAA… comment\"",
    read: |_, value| value.client_key(),
    written: |key| format!("{:?}", key.to_openssh()),
};

pub(super) const DATE: Plain<Wall> = Plain {
    shape: "date like 2026-12-31, or date and time with offset",
    read: |_, value| value.date(),
    written: |until| dates::written(*until),
};

impl Kind for Seconds {
    type Value = Duration;

    fn shape(&self) -> String {
        format!("seconds, {} to {}", self.0.start(), self.0.end())
    }

    fn read<'a>(&self, _: &Text<'a>, value: &Value<'a>) -> Result<Sourced<Duration>, ConfigError> {
        value.seconds(&self.0)
    }

    fn written(&self, time: &Duration) -> String {
        time.as_secs().to_string()
    }
}

impl<V: Copy + PartialEq> Kind for Words<V> {
    type Value = V;

    fn shape(&self) -> String {
        let words: Vec<String> = self.0.iter().map(|(word, _)| format!("{word:?}")).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    }

    fn read<'a>(&self, _: &Text<'a>, value: &Value<'a>) -> Result<Sourced<V>, ConfigError> {
        value.word(self.0)
    }

    fn written(&self, value: &V) -> String {
        let found = self.0.iter().find(|(_, other)| other == value);
        format!("{:?}", found.map_or("", |(word, _)| word))
    }
}

impl<V> Kind for Plain<V> {
    type Value = V;

    fn shape(&self) -> String {
        self.shape.to_owned()
    }

    fn read<'a>(&self, text: &Text<'a>, value: &Value<'a>) -> Result<Sourced<V>, ConfigError> {
        (self.read)(text, value)
    }

    fn written(&self, value: &V) -> String {
        (self.written)(value)
    }
}

fn quoted<T: ToString>(items: &[T]) -> String {
    format!("{:?}", items.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn quoted_names(names: &[Sourced<DoorName>]) -> String {
    format!("{:?}", names.iter().map(|name| name.value.as_str()).collect::<Vec<_>>())
}
