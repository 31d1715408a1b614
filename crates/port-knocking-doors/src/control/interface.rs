//! The interface `org.port-knocking-doors`: what its methods take and give. The definition file says the same, for people
//! and for programs in other languages; a test compares the two.

mod replies;

use std::{fmt, net::IpAddr, time::Duration};

use doors_text::safe_text::escaped;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub(crate) use self::replies::{
    By, Client, ClientsReply, CloseReply, Count, Door, Event, Grant, GrantsReply, Holder, LevelReply,
    OpenReply, ReloadReply, Status, StatusReply, WatchReply,
};
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
        "the firewall has not done it in time, and may still do it; the firewall itself shows what is open (nft list ruleset)"
    )]
    FirewallSlow,
    #[error(
        "the firewall has not done yet what it was asked before, so nothing was changed; try again in a moment, and see the log"
    )]
    FirewallFull,
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
            Failure::FirewallFull => ("FirewallFull", vec![]),
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
            "FirewallFull" => Self::FirewallFull,
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
