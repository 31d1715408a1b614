//! The clients with a key, and what each key is for.

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::{cmp::Ordering, fmt, net::IpAddr, time::Duration};

use doors_spa::identity::{ClientId, ClientKey};
use ipnet::IpNet;

use crate::{door::DoorName, time::Wall};

/// The label of a client in the log: its name in the configuration, and the fingerprint of its key. Two labels are equal
/// if the key is the same: a client that gets another name is the same client.
#[derive(Clone, Debug)]
pub struct ClientLabel {
    /// Its name.
    pub name: Arc<str>,
    /// The fingerprint of its key, as `ssh-keygen -l` prints it.
    pub fingerprint: Arc<str>,
}

impl ClientLabel {
    /// Whether this is its name or its fingerprint.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        *self.name == *text || *self.fingerprint == *text
    }

    /// The label as a comment on a rule or set element in the firewall.
    #[must_use]
    pub fn remark(&self) -> String {
        [&*self.name, " ", &*self.fingerprint].concat()
    }

    /// Reads such a comment; `None` if it is not one of ours.
    #[must_use]
    pub fn from_remark(remark: &str) -> Option<Self> {
        let (name, fingerprint) = remark.split_once(' ')?;
        let ours = !name.is_empty() && fingerprint.starts_with("SHA256:") && fingerprint.is_ascii();
        ours.then(|| Self { name: Arc::from(name), fingerprint: Arc::from(fingerprint) })
    }
}

impl PartialEq for ClientLabel {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for ClientLabel {}

impl PartialOrd for ClientLabel {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ClientLabel {
    fn cmp(&self, other: &Self) -> Ordering {
        self.fingerprint.cmp(&other.fingerprint)
    }
}

impl fmt::Display for ClientLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.fingerprint)
    }
}

/// A device with a key, and the doors that it may open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Client {
    /// Its label: name and fingerprint.
    pub who: ClientLabel,
    /// Its public key.
    pub key: ClientKey,
    /// The doors that it may open. Clients with the same doors share the list.
    pub doors: Arc<[DoorName]>,
    /// The longest time for which it may have a door open; `None` for the door's own maximum.
    pub max_open_for: Option<Duration>,
    /// The networks from which it may knock, and whose addresses it may let in; empty for all.
    pub from: Vec<IpNet>,
    /// The date from which its key is no longer valid; `None` for no expiry.
    pub until: Option<Wall>,
    /// Whether an administrator has suspended it: it may open nothing.
    pub disabled: bool,
}

impl Client {
    /// A client with this name and key that may open these doors, without further limits.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, key: ClientKey, doors: Arc<[DoorName]>) -> Self {
        let who = ClientLabel { name: name.into(), fingerprint: Arc::from(key.fingerprint()) };
        Self { who, key, doors, max_open_for: None, from: Vec::new(), until: None, disabled: false }
    }

    /// Whether it may knock from this address, or let this address in.
    #[must_use]
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|network| network.contains(&address))
    }

    /// How long its key is still valid; `Duration::MAX` for no expiry.
    #[must_use]
    pub fn time_left(&self, wall: Wall) -> Duration {
        self.until.map_or(Duration::MAX, |until| Duration::from_millis(until.0.saturating_sub(wall.0)))
    }

    /// Whether it may open a door now: it is not disabled, and its key has not expired.
    #[must_use]
    pub fn is_valid(&self, wall: Wall) -> bool {
        !self.disabled && !self.has_expired(wall)
    }

    /// Whether its key has expired.
    #[must_use]
    pub fn has_expired(&self, wall: Wall) -> bool {
        self.until.is_some_and(|until| until <= wall)
    }
}

/// All clients, by ID.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Clients {
    by_id: BTreeMap<ClientId, Client>,
}

impl Clients {
    /// Takes the clients of a configuration. If two have the same key, the last one counts.
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Self {
        Self { by_id: clients.into_iter().map(|client| (client.key.id(), client)).collect() }
    }

    /// The client with this ID.
    #[must_use]
    pub fn get(&self, id: ClientId) -> Option<&Client> {
        self.by_id.get(&id)
    }

    /// The client with the key of this label, whatever its name is now.
    #[must_use]
    pub fn find(&self, label: &ClientLabel) -> Option<&Client> {
        let client = self.get(ClientId::of_fingerprint(&label.fingerprint)?)?;
        (client.who.fingerprint == label.fingerprint).then_some(client)
    }

    /// Whether there are no clients.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All clients.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values()
    }

    /// All clients with their IDs.
    pub fn with_ids(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.by_id.iter().map(|(id, client)| (*id, client))
    }
}
