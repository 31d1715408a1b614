//! What is needed for clients with keys.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::DoorName,
    limits,
    spa::client::{self, Clients},
};
use doors_os::trusted_file::{self, Demands, Untrusted};
use doors_spa::identity::ClientKey;
use doors_text::error_chain::in_one_line;

use super::{
    authorized_keys,
    faults::Faults,
    file::{File, FileClient},
    keys::{self, LARGEST_FILE},
    kinds::DoorNames,
    origin::{ConfigError, Origin, Sourced},
    warnings::Warning,
};

/// What is needed to hear clients with keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyAccess {
    /// The UDP port to which they send.
    pub port: u16,
    /// How far their clocks may be from ours.
    pub window: Duration,
    /// The file of the gateway's key.
    pub gateway_key: PathBuf,
    /// Where it is kept which knocks were seen.
    pub state_dir: PathBuf,
    /// Who has a key.
    pub clients: Arc<Clients>,
}

/// The path of a file of public keys, and its text.
pub(super) type Keys = Option<(PathBuf, String)>;

/// Reads the file of public keys that a configuration names.
pub(super) fn read_authorized_keys(config: &mut File) -> Keys {
    let Sourced { value: path, origin } = config.authorized_keys.clone()?;
    let text = trusted_file::read(&path, &Demands::public(LARGEST_FILE))
        .map_err(|untrusted| why_not(&path, untrusted))
        .and_then(|mut file| {
            let text = String::from_utf8(std::mem::take(&mut *file.bytes));
            text.map_err(|_| format!("{} is not UTF-8 text", path.display()))
        })
        .map_err(|what| ConfigError::at(&origin, format!("`authorized_keys`: {what}")));
    config.faults.note(text).map(|text| (path, text))
}

/// Adds the clients of a file of public keys. Gives what was left out.
pub(super) fn add(config: &mut File, keys: &Keys) -> Vec<Warning> {
    let Some((path, text)) = keys else { return Vec::new() };
    let doors = config.authorized_keys_doors.clone().unwrap_or_default();
    let (clients, warnings) = authorized_keys::parse(path, text, &doors.value, &mut config.faults);
    config.clients.extend(clients);
    warnings
}

/// Why a file of public keys is not read.
fn why_not(path: &Path, untrusted: Untrusted) -> String {
    let path = path.display();
    match untrusted {
        Untrusted::Missing => format!("there is no file {path}"),
        Untrusted::Dangling => {
            format!("{path} is a link to nothing; put back what it names, or name another file")
        }
        Untrusted::Unreadable(error) => format!("cannot read {path}: {}", in_one_line(&error)),
        Untrusted::Kind => format!("{path} is no regular file"),
        Untrusted::Owner { owner, we } => {
            format!("{path} says who gets in, and belongs to another user ({owner}); try: chown {we} {path}")
        }
        Untrusted::Mode(mode) => {
            format!(
                "{path} says who gets in, and can be changed by others (mode {mode:03o}); try: chmod go-w {path}"
            )
        }
        Untrusted::Long => {
            format!("{path} is larger than 32 megabytes, which is more than the most clients need")
        }
    }
}

/// A client that has what it must have.
struct Client {
    name: Sourced<Arc<str>>,
    key: Sourced<ClientKey>,
    doors: DoorNames,
    values: FileClient,
}

impl Client {
    fn new(values: FileClient) -> Option<Self> {
        let doors = Arc::clone(&values.doors.as_ref()?.value);
        Some(Self { name: values.name.clone()?, key: values.key.clone()?, doors, values })
    }

    fn for_core(self, doors: Arc<[DoorName]>) -> client::Client {
        let mut resolved = client::Client::new(self.name.value, self.key.value, doors);
        resolved.max_open_for = self.values.max_open_for.map(|given| given.value);
        resolved.from = self.values.from.map_or(Vec::new(), |given| given.value);
        resolved.until = self.values.until.map(|given| given.value);
        resolved.disabled = self.values.disabled.is_some_and(|given| given.value);
        resolved
    }
}

/// A client without a look at the others, and at the doors.
pub(super) fn alone(values: FileClient) -> Option<client::Client> {
    let client = Client::new(values)?;
    let doors = client.doors.iter().map(|door| door.value.clone()).collect();
    Some(client.for_core(doors))
}

/// Puts everything together; `None` without clients. What of each client is in force goes to `note`.
pub(super) fn resolve(
    file: &mut File,
    rules: &Rules,
    mut note: impl FnMut(String, String, Origin),
) -> Option<KeyAccess> {
    let clients: Vec<Client> =
        std::mem::take(&mut file.clients).into_iter().filter_map(Client::new).collect();
    if clients.is_empty() && file.authorized_keys.is_none() {
        return None;
    }
    check_unique(&clients, &mut file.faults);
    let mut all = Vec::with_capacity(clients.len().min(limits::CLIENTS));
    let known: HashSet<&DoorName> = rules.doors.iter().map(|door| &door.name).collect();
    // Those of lines in authorized_keys that name none are said once, for all.
    let for_all = file.authorized_keys_doors.as_ref().map(|doors| Arc::clone(&doors.value));
    // Of many clients in authorized_keys all may open the same.
    let mut last: Option<(DoorNames, Arc<[DoorName]>)> = None;
    for mut client in clients {
        let shared = last.take().filter(|(given, _)| Arc::ptr_eq(given, &client.doors));
        let list = match shared {
            Some((_, list)) => list,
            None => {
                check_doors(&client.doors, &known, rules, file);
                client.doors.iter().map(|door| door.value.clone()).collect()
            }
        };
        last = Some((Arc::clone(&client.doors), Arc::clone(&list)));
        let is_shared = for_all.as_ref().is_some_and(|doors| Arc::ptr_eq(doors, &client.doors));
        let keys = keys::CLIENT.iter().filter(|key| !["name", "key"].contains(&key.name));
        for (key, value, origin) in keys::shown(keys, &mut client.values) {
            if !(is_shared && key == "doors") {
                note(format!("clients.{}.{key}", client.name.value), value, origin);
            }
        }
        all.push(client.for_core(list));
    }
    Some(KeyAccess {
        port: file.spa_port.value,
        window: file.spa_window.value,
        gateway_key: file.gateway_key.value.clone(),
        state_dir: file.state_dir.value.clone(),
        clients: Arc::new(Clients::new(all)),
    })
}

/// No two clients have one name or one key, and there are not too many.
fn check_unique(clients: &[Client], faults: &mut Faults) {
    let mut names: HashSet<&str> = HashSet::with_capacity(clients.len());
    let mut by_key: HashMap<&[u8; 32], &str> = HashMap::with_capacity(clients.len());
    for (number, client) in clients.iter().enumerate() {
        let name = &client.name;
        if number >= limits::CLIENTS {
            let what = format!("this is one client too many; there may be {}", limits::CLIENTS);
            faults.push(ConfigError::at(&name.origin, what));
            return;
        }
        if !names.insert(&name.value) {
            let what = format!("there is another client called `{}`; choose another name", name.value);
            faults.push(ConfigError::at(&name.origin, what));
        }
        if let Some(other) = by_key.insert(client.key.value.bytes(), &name.value) {
            let what = format!(
                "the clients `{other}` and `{}` have the same key; make one for each device, or take one away",
                name.value
            );
            faults.push(ConfigError::at(&client.key.origin, what));
        }
    }
}

/// A client may open doors that are there, and names each once.
fn check_doors(given: &[Sourced<DoorName>], known: &HashSet<&DoorName>, rules: &Rules, file: &mut File) {
    let mut named = HashSet::new();
    for door in given {
        if !known.contains(&door.value) {
            // It may be one of those that have a fault, which is told.
            if file.lacks_doors {
                continue;
            }
            let known: Vec<&str> = rules.doors.iter().map(|door| door.name.as_str()).collect();
            let there = match &known[..] {
                [] => "there is none; write a [[doors]] with this name".to_owned(),
                known => format!("there are: {}", known.join(", ")),
            };
            let what = format!("there is no door `{}`; {there}", door.value);
            file.faults.push(ConfigError::at(&door.origin, what));
        } else if !named.insert(&door.value) {
            let what = format!("the door `{}` is there twice; write it once", door.value);
            file.faults.push(ConfigError::at(&door.origin, what));
        }
    }
}
