//! The doors, with everything they need.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, Sequence},
    limits,
    sequence::trie::SequenceTrie,
    spa::client::Clients,
};
use doors_firewall::FirewallChoice;
use doors_firewall::plan::{Mark, PlannedDoor, Ports, Protocol};

use super::{
    Hearing,
    file::FileDoor,
    origin::{ConfigError, Origin, Sourced},
};

/// The door that the two old keys make.
const DEFAULT_DOOR: &str = "default";

/// For how long a client with a key may have a door open, if nobody says otherwise.
const LONGEST: Duration = Duration::from_secs(3600);

/// What is said about the door `default`.
pub(super) struct DefaultDoor {
    pub(super) ports: Option<Sourced<Vec<Ports>>>,
    pub(super) sequence: Option<Sourced<Sequence>>,
}

/// A door with all its values.
pub(super) struct Resolved {
    pub(super) name: Sourced<DoorName>,
    pub(super) ports: Sourced<Vec<Ports>>,
    pub(super) sequence: Option<Sourced<Sequence>>,
    pub(super) open_for: Sourced<Duration>,
    pub(super) max_open_for: Sourced<Duration>,
    pub(super) once: Sourced<bool>,
    pub(super) require_address: Sourced<bool>,
}

impl Resolved {
    /// Whether the two old keys made it.
    pub(super) fn is_default(&self) -> bool {
        self.name.origin == Origin::Default
    }

    pub(super) fn for_core(&self) -> Door {
        Door {
            name: self.name.value.clone(),
            sequence: self.sequence.as_ref().map(|sequence| sequence.value.clone()),
            open_for: self.open_for.value,
            max_open_for: self.max_open_for.value,
            once: self.once.value,
            require_address: self.require_address.value,
        }
    }

    /// With clients who may have it open for longer, or without.
    pub(super) fn for_firewall(&self, of_clients: &HashSet<&DoorName>) -> PlannedDoor {
        let by_key = of_clients.contains(&self.name.value);
        PlannedDoor {
            name: self.name.value.clone(),
            ports: self.ports.value.clone(),
            open_for: self.open_for.value,
            max_open_for: if by_key { self.max_open_for.value } else { self.open_for.value },
            once: self.once.value,
        }
    }
}

/// The doors, with everything they need. The door `default` is there if anything is said of it, or if there is no
/// file: one that names no door has none, so that nothing opens to a sequence that everybody knows.
pub(super) fn resolve(
    default: DefaultDoor,
    others: Vec<FileDoor>,
    open_for: &Sourced<Duration>,
    is_file: bool,
) -> Result<Vec<Resolved>, ConfigError> {
    let mut doors: Vec<Resolved> = Vec::new();
    let wanted = default.ports.is_some() || default.sequence.is_some() || !is_file;
    if wanted
        && let (Ok(name), Ok(published)) = (DoorName::new(DEFAULT_DOOR), Sequence::new(&Sequence::PUBLISHED))
    {
        doors.push(Resolved {
            name: Sourced::default(name),
            ports: default.ports.unwrap_or(Sourced::default(vec![Ports::tcp(22)])),
            sequence: Some(default.sequence.unwrap_or(Sourced::default(published))),
            open_for: open_for.clone(),
            max_open_for: Sourced::default(longest(open_for.value)),
            once: Sourced::default(false),
            require_address: Sourced::default(false),
        });
    }
    let mut ports: usize = doors.iter().map(|door| door.ports.value.len()).sum();
    let mut names: HashSet<DoorName> = doors.iter().map(|door| door.name.value.clone()).collect();
    for door in others {
        if !names.insert(door.name.value.clone()) {
            let what = match door.name.value.as_str() {
                DEFAULT_DOOR => "`default` is the door of ports_to_controls and opening_sequence; \
                                 choose another name"
                    .to_owned(),
                name => format!("there is another door called `{name}`; choose another name"),
            };
            return Err(ConfigError::at(&door.name.origin, what));
        }
        if doors.len() >= limits::DOORS {
            let what = format!("this is one door too many; there may be {}", limits::DOORS);
            return Err(ConfigError::at(&door.name.origin, what));
        }
        ports = ports.saturating_add(door.ports.value.len());
        if ports > limits::PORTS {
            let what = format!(
                "these are too many ports: the doors have {ports} up to here, and all of them together may have {}, where \
                 a range counts as one; write ranges",
                limits::PORTS
            );
            return Err(ConfigError::at(&door.ports.origin, what));
        }
        let open_for = door.open_for.unwrap_or(open_for.clone());
        let max_open_for = door.max_open_for.unwrap_or(Sourced::default(longest(open_for.value)));
        if max_open_for.value < open_for.value {
            let what = format!(
                "`max_open_for` is {} and `open_for` is {}; make it at least as long",
                max_open_for.value.as_secs(),
                open_for.value.as_secs()
            );
            return Err(ConfigError::at(&max_open_for.origin, what));
        }
        doors.push(Resolved {
            name: door.name,
            ports: door.ports,
            sequence: door.sequence,
            open_for,
            max_open_for,
            once: door.once.unwrap_or(Sourced::default(false)),
            require_address: door.require_address.unwrap_or(Sourced::default(false)),
        });
    }
    Ok(doors)
}

/// The doors that some client may open.
pub(super) fn of_clients(clients: Option<&Clients>) -> HashSet<&DoorName> {
    let mut lists: Vec<&Arc<[DoorName]>> =
        clients.into_iter().flat_map(Clients::iter).map(|client| &client.doors).collect();
    // Many clients, and few lists.
    lists.dedup_by(|one, other| Arc::ptr_eq(one, other));
    lists.into_iter().flat_map(|doors| doors.iter()).collect()
}

/// The longest time for a door that is open for so long without being asked.
fn longest(open_for: Duration) -> Duration {
    open_for.max(LONGEST)
}

/// What no single value is to blame for.
pub(super) fn fit_together(
    rules: &Rules,
    doors: &[Resolved],
    listen: Hearing,
    firewall: FirewallChoice,
    spa_port: Option<u16>,
) -> Result<(), ConfigError> {
    if let Err(conflict) = SequenceTrie::new(&rules.doors) {
        let of = |name: &DoorName| doors.iter().find(|door| door.name.value == *name);
        let origin = of(&conflict.second).and_then(|door| door.sequence.as_ref());
        let origin = origin.map_or(Origin::Default, |sequence| sequence.origin.clone());
        return Err(ConfigError::at(&origin, conflict.to_string()));
    }
    if firewall == FirewallChoice::RichRules
        && let Some(door) = doors.iter().find(|door| door.once.value)
    {
        let what = format!(
            "the door `{}` has grant = \"once\", which rich rules alone cannot do; write \"address\", or set \
             firewall = \"auto\"",
            door.name.value
        );
        return Err(ConfigError::at(&door.once.origin, what));
    }
    if listen == Hearing::Capture {
        return Ok(());
    }
    let knocked = doors.iter().filter_map(|door| door.sequence.as_ref());
    if let Some(sequence) = knocked
        .into_iter()
        .find(|sequence| spa_port.is_some_and(|port| sequence.value.ports().contains(&port)))
    {
        let what =
            "a sequence knocks on spa_port; with listen = \"sockets\", choose another port for one of them";
        return Err(ConfigError::at(&sequence.origin, what.to_owned()));
    }
    let sequences = doors.iter().filter_map(|door| door.sequence.as_ref());
    let knocked: BTreeSet<u16> =
        sequences.flat_map(|sequence| sequence.value.ports()).chain(&spa_port).copied().collect();
    for door in doors {
        let guarded = door.ports.value.iter().filter(|ports| ports.protocol == Protocol::Udp);
        let mut deaf = guarded.filter_map(|ports| Some((ports, knocked.range(ports.range()).next()?)));
        if let Some((ports, port)) = deaf.next() {
            let what = format!(
                "the door `{}` closes {ports}, and knocks on {port} could then not be heard; choose another port to \
                 knock on, or set listen = \"capture\"",
                door.name.value
            );
            return Err(ConfigError::at(&door.ports.origin, what));
        }
    }
    Ok(())
}

/// Only a gate can mark what it lets in.
pub(super) fn can_mark(mark: Option<&Sourced<Mark>>, firewall: FirewallChoice) -> Result<(), ConfigError> {
    match mark {
        Some(mark) if firewall == FirewallChoice::RichRules => {
            let what = "`mark` needs the gate, which marks what it lets in, and with firewall = \"rich-rules\" there is \
                        none; leave `mark` out, or set firewall = \"auto\"";
            Err(ConfigError::at(&mark.origin, what.to_owned()))
        }
        _ => Ok(()),
    }
}
