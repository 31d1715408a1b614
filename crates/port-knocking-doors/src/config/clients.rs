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
    spa::client::{Client, Clients},
};
use doors_os::trusted_file::{self, Demands, Untrusted};
use doors_text::error_chain::in_one_line;

use super::{
    authorized_keys, dates,
    file::{File, FileClient},
    keys::LARGEST_FILE,
    origin::{self, ConfigError, Origin},
    warnings::Warning,
};

const GATEWAY_KEY: &str = "/etc/port-knocking-doors/gateway.key";
/// Where the state is, if the file does not say.
pub(crate) const STATE_DIR: &str = "/var/lib/port-knocking-doors";
const WINDOW: Duration = Duration::from_secs(60);

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

/// What the file says.
pub(super) struct Sourced {
    pub(super) port: Option<origin::Sourced<u16>>,
    pub(super) window: Option<origin::Sourced<Duration>>,
    pub(super) gateway_key: Option<origin::Sourced<PathBuf>>,
    pub(super) state_dir: Option<origin::Sourced<PathBuf>>,
    pub(super) authorized_keys: Option<origin::Sourced<PathBuf>>,
    pub(super) authorized_keys_doors: Vec<origin::Sourced<DoorName>>,
}

/// The path of a file of public keys, and its text.
pub(super) type Keys = Option<(PathBuf, String)>;

/// Reads the file of public keys that a configuration names.
pub(super) fn read_authorized_keys(config: &File) -> Result<Keys, ConfigError> {
    let Some(path) = &config.authorized_keys else { return Ok(None) };
    let wrong = |what| ConfigError::at(&path.origin, format!("`authorized_keys`: {what}"));
    let read = trusted_file::read(&path.value, &Demands::public(LARGEST_FILE));
    let mut bytes = read.map_err(|untrusted| wrong(why_not(&path.value, untrusted)))?.bytes;
    let text = String::from_utf8(std::mem::take(&mut *bytes));
    let text = text.map_err(|_| wrong(format!("{} is not UTF-8 text", path.value.display())))?;
    Ok(Some((path.value.clone(), text)))
}

/// Adds the clients of a file of public keys. Gives what was left out.
pub(super) fn add(config: &mut File, keys: &Keys) -> Result<Vec<Warning>, ConfigError> {
    let Some((path, text)) = keys else { return Ok(Vec::new()) };
    let (clients, warnings) = authorized_keys::parse(path, text, &config.authorized_keys_doors)?;
    config.clients.extend(clients);
    Ok(warnings)
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

/// Where the gateway's key is, or will be.
pub(super) fn gateway_key(given: Option<&origin::Sourced<PathBuf>>) -> PathBuf {
    given.map_or_else(|| PathBuf::from(GATEWAY_KEY), |given| given.value.clone())
}

/// Where it is kept which knocks were seen.
pub(super) fn state_dir(given: Option<&origin::Sourced<PathBuf>>) -> PathBuf {
    given.map_or_else(|| PathBuf::from(STATE_DIR), |given| given.value.clone())
}

/// The doors of a client, as they were written.
type GivenDoors = Arc<[origin::Sourced<DoorName>]>;

/// Puts everything together; `None` if nobody has a key.
pub(super) fn resolve(
    clients: Vec<FileClient>,
    given: Sourced,
    rules: &Rules,
    mut note: impl FnMut(&str, String, Origin),
) -> Result<Option<KeyAccess>, ConfigError> {
    let port = given.port.unwrap_or(origin::Sourced::default(doors_spa::PORT));
    let window = given.window.unwrap_or(origin::Sourced::default(WINDOW));
    let gateway_key = given.gateway_key.unwrap_or(origin::Sourced::default(PathBuf::from(GATEWAY_KEY)));
    let state_dir = given.state_dir.unwrap_or(origin::Sourced::default(PathBuf::from(STATE_DIR)));
    let nobody = clients.is_empty() && given.authorized_keys.is_none();
    // Without clients these matter to nobody but to whoever has written them.
    let mut note_used = |key: &str, value: String, origin: Origin| {
        if !nobody || origin != Origin::Default {
            note(key, value, origin);
        }
    };
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    note_used("spa_port", port.value.to_string(), port.origin);
    note_used("spa_window", window.value.as_secs().to_string(), window.origin);
    note_used("gateway_key", quoted(&gateway_key.value), gateway_key.origin);
    note_used("state_dir", quoted(&state_dir.value), state_dir.origin);
    if let Some(path) = given.authorized_keys {
        note("authorized_keys", quoted(&path.value), path.origin);
    }
    let for_all = given.authorized_keys_doors.first().map(|first| first.origin.clone());
    if let Some(origin) = &for_all {
        note("authorized_keys_doors", names(&given.authorized_keys_doors), origin.clone());
    }
    if nobody {
        return Ok(None);
    }
    check_unique(&clients)?;
    let mut all = Vec::with_capacity(clients.len());
    let doors: HashSet<&DoorName> = rules.doors.iter().map(|door| &door.name).collect();
    // Of many clients in authorized_keys all may open the same.
    let mut last: Option<(GivenDoors, Arc<[DoorName]>)> = None;
    for client in clients {
        let shared = last.take().filter(|(given, _)| Arc::ptr_eq(given, &client.doors));
        let list = match shared {
            Some((_, list)) => list,
            None => resolve_doors(&client.doors, &doors, rules)?,
        };
        last = Some((Arc::clone(&client.doors), Arc::clone(&list)));
        note_client(&client, for_all.as_ref(), &mut note);
        all.push(resolve_one(client, list));
    }
    Ok(Some(KeyAccess {
        port: port.value,
        window: window.value,
        gateway_key: gateway_key.value,
        state_dir: state_dir.value,
        clients: Arc::new(Clients::new(all)),
    }))
}

/// No two clients have one name or one key, and there are not too many.
fn check_unique(clients: &[FileClient]) -> Result<(), ConfigError> {
    let mut names: HashSet<&str> = HashSet::with_capacity(clients.len());
    let mut by_key: HashMap<&[u8; 32], &str> = HashMap::with_capacity(clients.len());
    for (number, client) in clients.iter().enumerate() {
        let name = &client.name;
        if !names.insert(&name.value) {
            let what = format!("there is another client called `{}`; choose another name", name.value);
            return Err(ConfigError::at(&name.origin, what));
        }
        if let Some(other) = by_key.insert(client.key.value.bytes(), &name.value) {
            let what = format!(
                "the clients `{other}` and `{}` have the same key; make one for each device, or take one away",
                name.value
            );
            return Err(ConfigError::at(&client.key.origin, what));
        }
        if number >= limits::CLIENTS {
            let what = format!("this is one client too many; there may be {}", limits::CLIENTS);
            return Err(ConfigError::at(&name.origin, what));
        }
    }
    Ok(())
}

/// What is said of one client; of its doors, unless they are those `for_all`.
fn note_client(client: &FileClient, for_all: Option<&Origin>, note: &mut impl FnMut(&str, String, Origin)) {
    let key = |key: &str| format!("clients.{}.{key}", client.name.value);
    if client.doors.first().map(|door| &door.origin) != for_all {
        note(&key("doors"), names(&client.doors), client.name.origin.clone());
    }
    if let Some(longest) = &client.max_open_for {
        note(&key("max_open_for"), longest.value.as_secs().to_string(), longest.origin.clone());
    }
    if let Some(from) = &client.from {
        let networks: Vec<String> = from.value.iter().map(ToString::to_string).collect();
        note(&key("from"), format!("{networks:?}"), from.origin.clone());
    }
    if let Some(until) = &client.until {
        note(&key("until"), dates::written(until.value), until.origin.clone());
    }
}

fn names(doors: &[origin::Sourced<DoorName>]) -> String {
    let names: Vec<&str> = doors.iter().map(|door| door.value.as_str()).collect();
    format!("{names:?}")
}

/// The names of doors that are there, each once.
fn resolve_doors(
    given: &[origin::Sourced<DoorName>],
    known: &HashSet<&DoorName>,
    rules: &Rules,
) -> Result<Arc<[DoorName]>, ConfigError> {
    let mut there = HashSet::new();
    for door in given {
        if !known.contains(&door.value) {
            let known: Vec<&str> = rules.doors.iter().map(|door| door.name.as_str()).collect();
            let there = match &known[..] {
                [] => "there is none; write a [[doors]] with this name".to_owned(),
                known => format!("there are: {}", known.join(", ")),
            };
            let what = format!("there is no door `{}`; {there}", door.value);
            return Err(ConfigError::at(&door.origin, what));
        }
        if !there.insert(&door.value) {
            let what = format!("the door `{}` is there twice; write it once", door.value);
            return Err(ConfigError::at(&door.origin, what));
        }
    }
    Ok(given.iter().map(|door| door.value.clone()).collect())
}

fn resolve_one(client: FileClient, doors: Arc<[DoorName]>) -> Client {
    let mut resolved = Client::new(client.name.value, client.key.value, doors);
    resolved.max_open_for = client.max_open_for.map(|given| given.value);
    resolved.from = client.from.map_or(Vec::new(), |given| given.value);
    resolved.until = client.until.map(|given| given.value);
    resolved
}
