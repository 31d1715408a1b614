//! The interface `org.port-knocking-doors`: what its methods take and give. The definition file says the same, for people
//! and for programs in other languages; a test compares the two.

use std::{fmt, net::IpAddr, time::Duration};

use doors_text::safe_text::escaped;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::protocol::Refused;
use crate::observe::watch::Watched;

/// The name of the interface.
pub(crate) const NAME: &str = "org.port-knocking-doors";

/// Its definition.
pub(crate) const DEFINITION: &str = include_str!("../../../../dist/org.port-knocking-doors.varlink");

/// The longest time for which a door can be opened by hand, in seconds: a year.
pub(crate) const LONGEST: u64 = 365 * 24 * 60 * 60;

/// What a peer may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Right {
    /// See.
    Read,
    /// See and change.
    Change,
}

/// A method of the interface, with its parameters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    /// What runs, since when, and how it is.
    Status,
    /// The open doors.
    ListGrants,
    /// The clients with a key.
    ListClients,
    /// Open a door for an address.
    Open {
        /// Its name.
        door: String,
        /// The address to let in.
        address: IpAddr,
        /// For how long; by default the door's own time.
        open_for: Option<Duration>,
        /// Why, for those who list the open doors.
        note: String,
    },
    /// Close open doors.
    Close {
        /// Which.
        which: Which,
        /// Also end the connections that were made through them.
        cut: bool,
    },
    /// Read the configuration again.
    Reload,
    /// Log more or less.
    SetLogLevel {
        /// The new level.
        level: String,
        /// After which time the level of the start is back; never for `None`.
        back_after: Option<Duration>,
    },
    /// Tell what happens, as it happens.
    Watch(Watched),
}

/// Which open doors to close: those that fit all that is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Which {
    /// Of this door.
    pub(crate) door: Option<String>,
    /// For this address.
    pub(crate) address: Option<IpAddr>,
    /// Of the client with this name or fingerprint.
    pub(crate) client: Option<String>,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.door {
            Some(door) => write!(f, "the door {}", escaped(door))?,
            None => f.write_str("every door")?,
        }
        if let Some(address) = self.address {
            write!(f, " for {address}")?;
        }
        self.client.as_ref().map_or(Ok(()), |client| write!(f, " of the client {}", escaped(client)))
    }
}

/// Parameters of a call, which are taken out one by one.
struct Parameters(Map<String, Value>);

impl Parameters {
    fn maybe<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Refused> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value).map(Some).map_err(|_| Refused::parameter(name)),
        }
    }

    fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Refused> {
        self.maybe(name)?.ok_or_else(|| Refused::parameter(name))
    }

    /// A time in whole seconds, at least one.
    fn time(&mut self, name: &str) -> Result<Option<Duration>, Refused> {
        let fits = |seconds: &u64| (1..=LONGEST).contains(seconds);
        match self.maybe::<u64>(name)? {
            None => Ok(None),
            Some(seconds) if fits(&seconds) => Ok(Some(Duration::from_secs(seconds))),
            Some(_) => Err(Refused::parameter(name)),
        }
    }

    /// An address; one that is IPv4 inside IPv6 is the IPv4 address.
    fn address(&mut self) -> Result<Option<IpAddr>, Refused> {
        Ok(self.maybe::<IpAddr>("address")?.map(|address| address.to_canonical()))
    }

    /// Every parameter has been taken: one that is left is unknown.
    fn end(self) -> Result<(), Refused> {
        self.0.keys().next().map_or(Ok(()), |name| Err(Refused::parameter(name)))
    }
}

impl Method {
    /// Reads a call. `name` is what stands behind the interface.
    ///
    /// # Errors
    /// `MethodNotFound`, or `InvalidParameter` with the name of the parameter.
    pub(crate) fn read(name: &str, parameters: Option<Map<String, Value>>) -> Result<Self, Refused> {
        let mut given = Parameters(parameters.unwrap_or_default());
        let method = match name {
            "Status" => Self::Status,
            "ListGrants" => Self::ListGrants,
            "ListClients" => Self::ListClients,
            "Open" => Self::Open {
                door: given.required("door")?,
                address: given.address()?.ok_or_else(|| Refused::parameter("address"))?,
                open_for: given.time("seconds")?,
                note: given.maybe("note")?.unwrap_or_default(),
            },
            "Close" => {
                let all = given.maybe("all")?.unwrap_or(false);
                let which = Which {
                    door: given.maybe("door")?,
                    address: given.address()?,
                    client: given.maybe("client")?,
                };
                // "All" is said, and not what is left when everything else is forgotten.
                match which == Which::default() {
                    nothing if nothing != all => return Err(Refused::parameter("all")),
                    _ => Self::Close { which, cut: given.maybe("cut")?.unwrap_or(false) },
                }
            }
            "Reload" => Self::Reload,
            "SetLogLevel" => {
                Self::SetLogLevel { level: given.required("level")?, back_after: given.time("seconds")? }
            }
            "Watch" => Self::Watch(Watched { address: given.address()?, client: given.maybe("client")? }),
            _ => {
                let method = format!("{NAME}.{name}");
                return Err(Refused::of_service("MethodNotFound", "method", &method));
            }
        };
        given.end()?;
        Ok(method)
    }

    /// Whether it changes something.
    pub(crate) fn changes(&self) -> bool {
        match self {
            Self::Status | Self::ListGrants | Self::ListClients | Self::Watch(_) => false,
            Self::Open { .. } | Self::Close { .. } | Self::Reload | Self::SetLogLevel { .. } => true,
        }
    }

    /// Whether it has several replies, and is of no use to a client that takes one.
    pub(crate) fn needs_more(&self) -> bool {
        matches!(self, Self::ListGrants | Self::ListClients | Self::Watch(_))
    }
}

/// By what right a door is open.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum By {
    /// A sequence, or it is not known.
    Sequence,
    /// A client's key.
    Client,
    /// An administrator, by hand.
    Administrator,
}

/// One who has a door open. Dates are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Holder {
    /// By what right.
    pub(crate) by: By,
    /// The client's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The fingerprint of the client's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// What the administrator has noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// When it ends.
    pub(crate) until: i64,
    /// In how many seconds that is.
    pub(crate) seconds_left: i64,
}

/// One open door. Dates are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Grant {
    /// Its name.
    pub(crate) door: String,
    /// The address that is let in.
    pub(crate) address: String,
    /// Whose lease the firewall holds.
    pub(crate) holder: Holder,
    /// Who else has it open, or waits for a turn.
    pub(crate) others: Vec<Holder>,
    /// Since when.
    pub(crate) since: i64,
    /// It was open when the daemon started, so `since` is that.
    pub(crate) found: bool,
    /// The firewall has confirmed it.
    pub(crate) confirmed: bool,
    /// The first connection uses it up.
    pub(crate) one_connection: bool,
}

/// One client with a key. Dates are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Client {
    /// Its name.
    pub(crate) name: String,
    /// The fingerprint of its key.
    pub(crate) fingerprint: String,
    /// The doors that it may open.
    pub(crate) doors: Vec<String>,
    /// The first networks that it may come from; empty for all.
    pub(crate) from: Vec<String>,
    /// How many networks it may come from.
    pub(crate) from_in_all: i64,
    /// The longest time that it may have a door open, if that is less than the door's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) longest: Option<i64>,
    /// When its key expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<i64>,
    /// It has expired.
    pub(crate) expired: bool,
    /// An administrator has suspended it.
    pub(crate) disabled: bool,
    /// When it last knocked, since the start of the daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen: Option<i64>,
    /// From where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_address: Option<String>,
}

/// Something that happened. Dates are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Event {
    /// When.
    pub(crate) time: i64,
    /// What kind of event it is; it does not change when the text does.
    pub(crate) kind: String,
    /// How grave it is: error, warn, info or debug.
    pub(crate) level: String,
    /// One line.
    pub(crate) text: String,
    /// The door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) door: Option<String>,
    /// The address that knocked, or that is let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<String>,
    /// The client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The fingerprint of its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// When the door closes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<i64>,
}

/// What happened last of a kind, and how often it happened.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Count {
    /// How often since the start.
    pub(crate) count: i64,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last: Option<Event>,
}

/// A door of the configuration.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Door {
    /// Its name.
    pub(crate) name: String,
    /// Its first ports, like `22/tcp`.
    pub(crate) ports: Vec<String>,
    /// How many ports and ranges it has.
    pub(crate) ports_in_all: i64,
    /// Whether a sequence opens it.
    pub(crate) sequence: bool,
    /// How long it is open by default, in seconds.
    pub(crate) seconds: i64,
}

/// What runs, and how it is. Dates are in seconds since 1970.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Status {
    /// The version of the daemon.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: i64,
    /// Since when it runs.
    pub(crate) since: i64,
    /// The configuration file; none for default values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<String>,
    /// Since when its contents are in force.
    pub(crate) in_force_since: i64,
    /// Why what was last in force runs in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_good: Option<String>,
    /// Why the last reload was refused, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_reloaded: Option<String>,
    /// Which firewall.
    pub(crate) firewall: String,
    /// Why this one.
    pub(crate) firewall_why: String,
    /// Since when the gate stands in place without a repair; none without a gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gate_since: Option<i64>,
    /// Since when the gate cannot be made or checked, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gate_broken_since: Option<i64>,
    /// How knocks are heard.
    pub(crate) listen: String,
    /// The doors.
    pub(crate) doors: Vec<Door>,
    /// How many doors there are, if those are not all.
    pub(crate) doors_in_all: i64,
    /// How many clients have a key.
    pub(crate) clients: i64,
    /// Clients with a key are heard; true if there are none.
    pub(crate) clients_heard: bool,
    /// How many grants are open.
    pub(crate) grants: i64,
    /// The level of the log, if it was set by command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log_level: Option<String>,
    /// Knocks and requests that have opened a door.
    pub(crate) accepted: Count,
    /// Knocks and requests that were refused.
    pub(crate) refused: Count,
    /// What other programs had changed in the firewall, and was put back.
    pub(crate) repairs: Count,
    /// What did not work.
    pub(crate) errors: Count,
}

/// The result of [`Method::Status`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct StatusReply {
    /// The status.
    pub(crate) status: Status,
}

/// One page of [`Method::ListGrants`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct GrantsReply {
    /// Open doors, in the order of their names and addresses.
    pub(crate) grants: Vec<Grant>,
}

/// One page of [`Method::ListClients`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ClientsReply {
    /// Clients.
    pub(crate) clients: Vec<Client>,
}

/// The result of [`Method::Open`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OpenReply {
    /// When the door closes, in seconds since 1970.
    pub(crate) until: i64,
    /// In how many seconds that is.
    pub(crate) seconds_left: i64,
}

/// The result of [`Method::Close`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CloseReply {
    /// How many open doors were closed, or are open only for others behind the same address.
    pub(crate) closed: i64,
    /// How many connections were ended, if that was asked for.
    pub(crate) cut: i64,
}

/// The result of [`Method::Reload`].
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ReloadReply {
    /// The configuration file; none for default values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) configuration: Option<String>,
    /// How many doors it has.
    pub(crate) doors: i64,
    /// Keys that have changed and take effect only after a restart.
    pub(crate) needs_restart: Vec<String>,
}

/// The result of [`Method::SetLogLevel`].
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LevelReply {
    /// What is logged now.
    pub(crate) level: String,
}

/// One reply of [`Method::Watch`]. The first has no event: from then on nothing is missed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WatchReply {
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<Event>,
    /// How many events before it were lost, because this client did not read them in time.
    pub(crate) lost: i64,
}

/// An error of this interface.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no door {0:?}")]
    NoSuchDoor(String),
    #[error("there is no client {0:?}, and none of this name has a door open")]
    NoSuchClient(String),
    #[error("no door can be opened for {address}: {why}")]
    NotEligible { address: String, why: String },
    #[error("too many doors are open by hand, or for this address; close one first")]
    TooMany,
    #[error(
        "the firewall has not done it in time, and may still do it; `nft list table inet port_knocking_doors` shows what is open"
    )]
    FirewallSlow,
    #[error("the doors are closed, and the connections through them could not be ended: {0}")]
    NotCut(String),
    #[error("the daemon keeps what was in force: {0}")]
    NotReloaded(String),
    #[error("the daemon does not answer; its log may say why")]
    Busy,
    #[error("the configuration is still being read; the log will say whether it is in force")]
    StillReading,
    #[error("too many connections to the control socket are open; close one")]
    TooManyConnections,
    #[error("too many watch already; end one")]
    TooManyWatchers,
    #[error("the answer is too long for a message")]
    AnswerTooLong,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let (name, fields): (_, Vec<(&str, String)>) = match failure {
            Failure::NoSuchDoor(door) => ("NoSuchDoor", vec![("door", door)]),
            Failure::NoSuchClient(client) => ("NoSuchClient", vec![("client", client)]),
            Failure::NotEligible { address, why } => {
                ("AddressNotEligible", vec![("address", address), ("why", why)])
            }
            Failure::TooMany => ("TooMany", vec![]),
            Failure::FirewallSlow => ("FirewallSlow", vec![]),
            Failure::NotCut(why) => ("NotCut", vec![("why", why)]),
            Failure::NotReloaded(why) => ("NotReloaded", vec![("why", why)]),
            Failure::Busy => ("Busy", vec![]),
            Failure::StillReading => ("StillReading", vec![]),
            Failure::TooManyConnections => ("TooManyConnections", vec![]),
            Failure::TooManyWatchers => ("TooManyWatchers", vec![]),
            Failure::AnswerTooLong => ("AnswerTooLong", vec![]),
        };
        let parameters =
            fields.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect();
        Self { error: format!("{NAME}.{name}"), parameters }
    }
}

impl Failure {
    /// Reads an error reply; `None` if it is not of this interface.
    pub(crate) fn read(refused: &Refused) -> Option<Self> {
        let text = |name| refused.parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(match refused.error.strip_prefix(NAME)?.strip_prefix('.')? {
            "NoSuchDoor" => Self::NoSuchDoor(text("door")),
            "NoSuchClient" => Self::NoSuchClient(text("client")),
            "AddressNotEligible" => Self::NotEligible { address: text("address"), why: text("why") },
            "TooMany" => Self::TooMany,
            "FirewallSlow" => Self::FirewallSlow,
            "NotCut" => Self::NotCut(text("why")),
            "NotReloaded" => Self::NotReloaded(text("why")),
            "Busy" => Self::Busy,
            "StillReading" => Self::StillReading,
            "TooManyConnections" => Self::TooManyConnections,
            "TooManyWatchers" => Self::TooManyWatchers,
            "AnswerTooLong" => Self::AnswerTooLong,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests;
