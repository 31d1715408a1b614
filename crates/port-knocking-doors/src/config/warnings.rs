//! What is allowed and unwise.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use doors_core::{
    access::Rules,
    door::{DoorName, Sequence},
    spa::client::Clients,
    time::Wall,
};
use doors_firewall::{
    Kind,
    plan::{Plan, Refuse},
};
use doors_os::trusted_file::{self, Replaceable};
use ipnet::IpNet;

use super::{Hearing, keys::EXAMPLE_SEQUENCE};

/// Something that an administrator should know.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Warning {
    /// The sequence stands in the documentation.
    #[error(
        "the door `{0}` opens to a sequence that the documentation publishes, so everybody knows it; choose \
         your own with opening_sequence, KNOCKER_SEQ or --magic-seq, or take the sequence out if clients have keys"
    )]
    Published(DoorName),
    /// Arguments stand in the list of processes.
    #[error(
        "the sequence is given with --magic-seq, so every user of this machine can read it in the list of processes; \
         write it into the configuration file (opening_sequence), or set the variable KNOCKER_SEQ"
    )]
    InProcessList,
    /// Every user of the machine can read the file.
    #[error(
        "{path} holds a sequence, and every user of this machine can read it (mode {mode:03o}); try: chmod o-r {path}",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user can put another file in the place of one that we believe.
    #[error(
        "another user can put another file in the place of {file}: the directory {there} {how}",
        file = path.display(), there = directory.display(), how = replaced(*owner, *mode, directory)
    )]
    Replaceable {
        /// The file.
        path: PathBuf,
        /// The directory on the way to it.
        directory: PathBuf,
        /// The user that this belongs to, if that is another.
        owner: Option<u32>,
        /// Its permission bits.
        mode: u32,
    },
    /// The ports are neighbours.
    #[error("the door `{0}` opens to ports that count up or down, which is what a scan looks like; mix them")]
    Neighbours(DoorName),
    /// Sockets hear only the knock ports, so that only their order is secret.
    #[error(
        "with listen = \"sockets\" only the order of the {len} ports of the door `{door}` is secret, and it \
         can be guessed; use 15 ports or more, or listen = \"capture\""
    )]
    Short {
        /// The door.
        door: DoorName,
        /// How many different ports its sequence has.
        len: usize,
    },
    /// There is another file, which is not read.
    #[error("{} exists too and is not read", .0.display())]
    Shadowed(PathBuf),
    /// A key of a type that no client of ours can have.
    #[error(
        "{}:{line}: this line is left out; only whole keys of the type ssh-ed25519 work, and no authorities",
        path.display()
    )]
    OtherKey {
        /// The file.
        path: Arc<Path>,
        /// The line.
        line: usize,
    },
    /// A file among those of clients that is none.
    #[error(
        "{}{} not read as a client, whose file is called NAME.toml; move it elsewhere",
        path.display(), more(*others)
    )]
    NoClient {
        /// The file.
        path: PathBuf,
        /// How many there are besides.
        others: usize,
    },
    /// Its members cannot use the control socket.
    #[error(
        "{key}: there is no group \"{group}\" in /etc/group, so only root can use the control socket in its place; write the \
         group's number if it is elsewhere"
    )]
    NoGroup {
        /// The key that names it.
        key: &'static str,
        /// What it says.
        group: String,
    },
    /// A file that was installed, and not edited yet.
    #[error(
        "there is no door, so nothing is guarded and nothing opens; write one into the configuration file, a [[doors]] \
         for clients with a key, or ports_to_controls and opening_sequence, and reload"
    )]
    NoDoor,
    /// Neither a sequence nor a client can open it.
    #[error(
        "the door `{0}` cannot be opened: it has no sequence, and no client may open it; give it a `sequence`, or let a \
         client open it: port-knocking-doors client add NAME --door {0}"
    )]
    Useless(DoorName),
    /// Only clients whose time is over could open it.
    #[error(
        "the door `{0}` cannot be opened: it has no sequence, and the time of each client that may open it is over; give one \
         a later `until`, or add another: port-knocking-doors client add NAME --door {0}"
    )]
    OnlyExpired(DoorName),
    /// Clients that were let in once.
    #[error(
        "the time of {count} {clients} is over, so that no knock of theirs opens anything: {names}; write a later `until`, \
         or take them out: port-knocking-doors client remove NAME",
        clients = if *count == 1 { "client" } else { "clients" }
    )]
    Expired {
        /// How many.
        count: usize,
        /// The first of them.
        names: String,
    },
    /// A network that holds every address.
    #[error(
        "`trusted` holds {0}, which is everybody with {family}: nobody of those has to knock; name your own networks",
        family = family(.0)
    )]
    Everybody(IpNet),
    /// Bound sockets hear what firewalld lets through.
    #[error(
        "with listen = \"sockets\" knocks arrive only if firewalld lets the UDP ports {0} through: open them in it, \
         for example with firewall-cmd --add-port=PORT/udp, or set listen = \"capture\""
    )]
    Walled(String),
    /// A key that the chosen firewall does not know.
    #[error("`{key}` has no effect, because doors are opened by {kind} here")]
    NoEffect {
        /// The key.
        key: &'static str,
        /// The firewall.
        kind: Kind,
    },
}

/// Doors that neither a sequence nor a client can open.
pub(super) fn useless(rules: &Rules, of_clients: &HashSet<&DoorName>) -> impl Iterator<Item = Warning> {
    let useless =
        rules.doors.iter().filter(|door| door.sequence.is_none() && !of_clients.contains(&door.name));
    useless.map(|door| Warning::Useless(door.name.clone()))
}

/// As many expired clients are named; of the others it is said how many they are.
const NAMED: usize = 5;

/// What was right when it was written, and is not at this time.
pub(super) fn expired(rules: &Rules, clients: &Clients, now: Wall) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let over = || clients.iter().filter(|client| client.has_expired(now));
    let count = over().count();
    if count == 0 {
        return warnings;
    }
    let mut names: Vec<String> = over().take(NAMED).map(|client| client.who.name.to_string()).collect();
    if let Some(more @ 1..) = count.checked_sub(NAMED) {
        names.push(format!("and {more} more"));
    }
    warnings.push(Warning::Expired { count, names: names.join(", ") });
    let once: HashSet<&DoorName> = over().flat_map(|client| client.doors.iter()).collect();
    let still: HashSet<&DoorName> =
        clients.iter().filter(|client| client.is_valid(now)).flat_map(|client| client.doors.iter()).collect();
    let shut = rules
        .doors
        .iter()
        .filter(|door| door.sequence.is_none() && once.contains(&door.name) && !still.contains(&door.name));
    warnings.extend(shut.map(|door| Warning::OnlyExpired(door.name.clone())));
    warnings
}

/// With fewer different ports than this, their order has less than 40 bits (15! is above 2⁴⁰).
const HARD_TO_GUESS: usize = 15;

pub(super) fn of(rules: &Rules, hearing: Hearing) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for door in &rules.doors {
        let Some(sequence) = &door.sequence else { continue };
        let ports = sequence.ports();
        let mut different = ports.to_vec();
        different.sort_unstable();
        different.dedup();
        let steps = |up: i32| {
            ports.windows(2).all(|pair| match pair {
                [a, b] => i32::from(*b).wrapping_sub(i32::from(*a)) == up,
                _ => false,
            })
        };
        if ports == Sequence::PUBLISHED || EXAMPLE_SEQUENCE.starts_with(ports) {
            warnings.push(Warning::Published(door.name.clone()));
        } else if steps(1) || steps(-1) {
            warnings.push(Warning::Neighbours(door.name.clone()));
        }
        if hearing == Hearing::Sockets && different.len() < HARD_TO_GUESS {
            warnings.push(Warning::Short { door: door.name.clone(), len: different.len() });
        }
    }
    warnings
}

/// Networks that pass the gate and hold everybody. Two halves of everything are not looked for: nobody writes
/// them by accident.
pub(super) fn everybody(trusted: &[IpNet]) -> impl Iterator<Item = Warning> {
    trusted.iter().filter(|network| network.prefix_len() == 0).copied().map(Warning::Everybody)
}

/// Whether a file that is believed stands where another user can put another.
pub(super) fn replaceable(path: PathBuf) -> Option<Warning> {
    let Replaceable { directory, owner, mode } = trusted_file::replaceable(&path)?;
    Some(Warning::Replaceable { path, directory, owner, mode })
}

fn more(others: usize) -> String {
    match others {
        0 => " is".to_owned(),
        others => format!(" and {others} more beside it are"),
    }
}

/// What is wrong with a directory, and what mends it.
fn replaced(owner: Option<u32>, mode: u32, directory: &Path) -> String {
    let directory = directory.display();
    match owner {
        Some(owner) => {
            format!("belongs to user {owner}; put the file elsewhere, or try: chown root {directory}")
        }
        None => format!("can be written by others (mode {mode:03o}); try: chmod go-w {directory}"),
    }
}

fn family(network: &IpNet) -> &'static str {
    match network {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

/// What stands before bound sockets.
pub(super) fn walled(hearing: Hearing, kind: Kind, ports: &[u16]) -> Option<Warning> {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let is_walled = hearing == Hearing::Sockets && kind != Kind::Nftables && !ports.is_empty();
    is_walled.then(|| Warning::Walled(ports.join(", ")))
}

/// Keys that say something to which this firewall does not listen. Which firewall it is, is known only when it
/// has been looked for: the configuration may leave it open.
pub(crate) fn without_effect(plan: &Plan, kind: Kind) -> Vec<Warning> {
    let keys = match kind {
        Kind::Firewalld => Vec::new(),
        Kind::RichRules => vec![
            ("refuse", plan.refuse != Refuse::default()),
            ("trusted", !plan.trusted.is_empty()),
            ("on_exit", plan.remove_on_exit),
        ],
        Kind::Nftables => vec![("zone", plan.zone.is_some())],
    };
    let said = keys.into_iter().filter(|(_, said)| *said);
    said.map(|(key, _)| Warning::NoEffect { key, kind }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_sockets_are_warned_of_behind_firewalld_only() {
        let all = [Hearing::Capture, Hearing::Sockets].map(|hearing| {
            [Kind::Nftables, Kind::Firewalld, Kind::RichRules]
                .map(|kind| walled(hearing, kind, &[7000, 8000]).is_some())
        });
        assert_eq!(all, [[false, false, false], [false, true, true]]);
        assert_eq!(walled(Hearing::Sockets, Kind::Firewalld, &[]), None);
    }
}
