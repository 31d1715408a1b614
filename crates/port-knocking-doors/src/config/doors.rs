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
    faults::Faults,
    file::{File, FileDoor},
    keys,
    origin::{ConfigError, Origin, Sourced},
};

/// The door that the two old keys make.
const DEFAULT_DOOR: &str = "default";

/// For how long a client with a key may have a door open by default.
const LONGEST: Duration = Duration::from_secs(3600);

/// A door with all its values.
pub(super) struct Resolved {
    pub(super) name: Sourced<DoorName>,
    pub(super) ports: Sourced<Vec<Ports>>,
    open_for: Duration,
    max_open_for: Duration,
    /// Every value with its origin.
    pub(super) values: FileDoor,
}

impl Resolved {
    /// Whether the two old keys made it.
    pub(super) fn is_default(&self) -> bool {
        self.name.origin == Origin::Default
    }

    pub(super) fn for_core(&self) -> Door {
        Door {
            name: self.name.value.clone(),
            sequence: self.values.sequence.as_ref().map(|sequence| sequence.value.clone()),
            open_for: self.open_for,
            max_open_for: self.max_open_for,
            once: self.values.once.value,
            require_address: self.values.require_address.value,
        }
    }

    /// With clients who may have it open for longer, or without.
    pub(super) fn for_firewall(&self, of_clients: &HashSet<&DoorName>) -> PlannedDoor {
        let by_key = of_clients.contains(&self.name.value);
        PlannedDoor {
            name: self.name.value.clone(),
            ports: self.ports.value.clone(),
            open_for: self.open_for,
            max_open_for: if by_key { self.max_open_for } else { self.open_for },
            once: self.values.once.value,
        }
    }
}

/// The doors, with everything they need. The door `default` is there if anything is said of it, or if there is no
/// file: one that names no door has none, so that nothing opens to a sequence that everybody knows.
pub(super) fn resolve(file: &mut File, is_file: bool) -> Vec<Resolved> {
    let mut doors: Vec<Resolved> = Vec::new();
    let wanted = file.ports_to_controls.is_some() || file.opening_sequence.is_some() || !is_file;
    if wanted
        && let (Ok(name), Ok(published)) = (DoorName::new(DEFAULT_DOOR), Sequence::new(&Sequence::PUBLISHED))
    {
        let ports = file.ports_to_controls.get_or_insert(Sourced::by_default(vec![Ports::tcp(22)]));
        let sequence = file.opening_sequence.get_or_insert(Sourced::by_default(published));
        let values = FileDoor { sequence: Some(sequence.clone()), ..keys::defaults(keys::DOOR) };
        doors.push(whole(Sourced::by_default(name), ports.clone(), values, &file.open_for));
    }
    let mut total: usize = doors.iter().map(|door| door.ports.value.len()).sum();
    let mut names: HashSet<DoorName> = doors.iter().map(|door| door.name.value.clone()).collect();
    for door in std::mem::take(&mut file.doors) {
        let (Some(name), Some(ports)) = (door.name.clone(), door.ports.clone()) else { continue };
        if !names.insert(name.value.clone()) {
            let what = match name.value.as_str() {
                DEFAULT_DOOR => "`default` is the door of ports_to_controls and opening_sequence; \
                                 choose another name"
                    .to_owned(),
                name => format!("there is another door called `{name}`; choose another name"),
            };
            file.faults.push(ConfigError::at(&name.origin, what));
            continue;
        }
        if doors.len() >= limits::DOORS {
            let what = format!("this is one door too many; there may be {}", limits::DOORS);
            file.faults.push(ConfigError::at(&name.origin, what));
            break;
        }
        total = total.saturating_add(ports.value.len());
        if total > limits::PORTS {
            let what = format!(
                "these are too many ports: the doors have {total} up to here, and all of them together may have {}, where \
                 a range counts as one; write ranges",
                limits::PORTS
            );
            file.faults.push(ConfigError::at(&ports.origin, what));
            break;
        }
        let longest = door.max_open_for.as_ref().map(|longest| longest.origin.clone());
        let door = whole(name, ports, door, &file.open_for);
        if door.max_open_for < door.open_for {
            let what = format!(
                "`max_open_for` is {} and `open_for` is {}; make it at least as long",
                door.max_open_for.as_secs(),
                door.open_for.as_secs()
            );
            file.faults.push(ConfigError::at(&longest.unwrap_or_default(), what));
        }
        doors.push(door);
    }
    doors
}

/// A door with the times for which it is open.
fn whole(
    name: Sourced<DoorName>,
    ports: Sourced<Vec<Ports>>,
    mut values: FileDoor,
    usual: &Sourced<Duration>,
) -> Resolved {
    let open_for = values.open_for.get_or_insert(usual.clone()).value;
    let longest = Sourced::by_default(longest(open_for));
    let max_open_for = values.max_open_for.get_or_insert(longest).value;
    Resolved { name, ports, open_for, max_open_for, values }
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
    faults: &mut Faults,
) {
    if let Err(conflict) = SequenceTrie::new(&rules.doors) {
        let of = |name: &DoorName| doors.iter().find(|door| door.name.value == *name);
        let origin = of(&conflict.second).and_then(|door| door.values.sequence.as_ref());
        let origin = origin.map_or(Origin::Default, |sequence| sequence.origin.clone());
        faults.push(ConfigError::at(&origin, conflict.to_string()));
    }
    if firewall == FirewallChoice::RichRules {
        for door in doors.iter().filter(|door| door.values.once.value) {
            let what = format!(
                "the door `{}` has grant = \"once\", which rich rules alone cannot do; write \"address\", or set \
                 firewall = \"auto\"",
                door.name.value
            );
            faults.push(ConfigError::at(&door.values.once.origin, what));
        }
    }
    if listen == Hearing::Sockets {
        can_be_heard(doors, spa_port, faults);
    }
}

/// Bound sockets hear what the gate lets through, each on its own port.
fn can_be_heard(doors: &[Resolved], spa_port: Option<u16>, faults: &mut Faults) {
    let sequences = || doors.iter().filter_map(|door| door.values.sequence.as_ref());
    let has_spa_port = |sequence: &Sequence| spa_port.is_some_and(|port| sequence.ports().contains(&port));
    for sequence in sequences().filter(|sequence| has_spa_port(&sequence.value)) {
        let what =
            "a sequence knocks on spa_port; with listen = \"sockets\", choose another port for one of them";
        faults.push(ConfigError::at(&sequence.origin, what.to_owned()));
    }
    let knocked: BTreeSet<u16> =
        sequences().flat_map(|sequence| sequence.value.ports()).chain(&spa_port).copied().collect();
    for door in doors {
        let guarded = door.ports.value.iter().filter(|ports| ports.protocol == Protocol::Udp);
        let mut deaf = guarded.filter_map(|ports| Some((ports, knocked.range(ports.range()).next()?)));
        if let Some((ports, port)) = deaf.next() {
            let what = format!(
                "the door `{}` closes {ports}, and knocks on {port} could then not be heard; choose another port to \
                 knock on, or set listen = \"capture\"",
                door.name.value
            );
            faults.push(ConfigError::at(&door.ports.origin, what));
        }
    }
}

/// Only a gate can mark what it lets in.
pub(super) fn can_mark(mark: Option<&Sourced<Mark>>, firewall: FirewallChoice, faults: &mut Faults) {
    if let Some(mark) = mark.filter(|_| firewall == FirewallChoice::RichRules) {
        let what = "`mark` needs the gate, which marks what it lets in, and with firewall = \"rich-rules\" there is \
                    none; leave `mark` out, or set firewall = \"auto\"";
        faults.push(ConfigError::at(&mark.origin, what.to_owned()));
    }
}
