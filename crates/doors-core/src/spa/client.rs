//! Who has a key, and what it is for.

use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::{fmt, net::IpAddr, time::Duration};

use doors_spa::identity::{ClientId, ClientKey};
use ipnet::IpNet;

use crate::{door::DoorName, time::Wall};

/// How a client is called in the log: by its name in the configuration, and its key's fingerprint.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ClientLabel {
    /// Its name.
    pub name: Arc<str>,
    /// The fingerprint of its key, as `ssh-keygen -l` prints it.
    pub fingerprint: Arc<str>,
}

impl ClientLabel {
    /// As a remark beside a grant in the firewall.
    #[must_use]
    pub fn remark(&self) -> String {
        [&*self.name, " ", &*self.fingerprint].concat()
    }

    /// Out of such a remark; `None` if it is another.
    #[must_use]
    pub fn from_remark(remark: &str) -> Option<Self> {
        let (name, fingerprint) = remark.split_once(' ')?;
        let ours = !name.is_empty() && fingerprint.starts_with("SHA256:") && fingerprint.is_ascii();
        ours.then(|| Self { name: Arc::from(name), fingerprint: Arc::from(fingerprint) })
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
    /// Its name and fingerprint.
    pub who: ClientLabel,
    /// Its public key.
    pub key: ClientKey,
    /// The doors that it may open. Clients that may open the same share the list.
    pub doors: Arc<[DoorName]>,
    /// The longest time for which it may have a door open; `None` for what each door allows.
    pub max_open_for: Option<Duration>,
    /// From where it may knock, and which addresses it may let in; empty for everywhere.
    pub from: Vec<IpNet>,
    /// From this date on its key is worth nothing.
    pub until: Option<Wall>,
}

impl Client {
    /// A client of this name and key that may open these doors.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, key: ClientKey, doors: Arc<[DoorName]>) -> Self {
        let who = ClientLabel { name: name.into(), fingerprint: Arc::from(key.fingerprint()) };
        Self { who, key, doors, max_open_for: None, from: Vec::new(), until: None }
    }

    /// Whether it may knock from this address, or let it in.
    #[must_use]
    pub fn may_come_from(&self, address: IpAddr) -> bool {
        self.from.is_empty() || self.from.iter().any(|network| network.contains(&address))
    }

    /// How long its key is still worth something.
    #[must_use]
    pub fn time_left(&self, wall: Wall) -> Duration {
        self.until.map_or(Duration::MAX, |until| Duration::from_millis(until.0.saturating_sub(wall.0)))
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, wall: Wall) -> bool {
        self.until.is_some_and(|until| until <= wall)
    }
}

/// All clients, by the name that a knock calls them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Clients {
    by_id: BTreeMap<ClientId, Client>,
}

impl Clients {
    /// Takes the clients of a configuration; of two with one key, the last.
    pub fn new(clients: impl IntoIterator<Item = Client>) -> Self {
        Self { by_id: clients.into_iter().map(|client| (client.key.id(), client)).collect() }
    }

    /// The client that a knock names.
    #[must_use]
    pub fn get(&self, id: ClientId) -> Option<&Client> {
        self.by_id.get(&id)
    }

    /// The one that has this key, whatever its name is now.
    #[must_use]
    pub fn find(&self, label: &ClientLabel) -> Option<&Client> {
        let client = self.get(ClientId::of_fingerprint(&label.fingerprint)?)?;
        (client.who.fingerprint == label.fingerprint).then_some(client)
    }

    /// Whether nobody has a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values()
    }

    /// All of them, each with the name that a knock calls it.
    pub fn with_ids(&self) -> impl Iterator<Item = (ClientId, &Client)> {
        self.by_id.iter().map(|(id, client)| (*id, client))
    }
}
