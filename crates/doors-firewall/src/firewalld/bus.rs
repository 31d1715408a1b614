//! firewalld on the system bus: what can be asked of it, and what it announces.
//!
//! Source: firewalld.dbus(5).

use std::{collections::HashMap, io, num::NonZero, time::Duration};

use futures_util::StreamExt as _;
use zbus::{
    Connection, MatchRule, MessageStream, OwnedVariant,
    fdo::{DBusProxy, NameOwnerChangedStream},
    message::Type,
    names::BusName,
    proxy,
};

/// firewalld's name on the bus.
pub(crate) const FIREWALLD: &str = "org.fedoraproject.FirewallD1";

/// We take a longer call for failed. firewalld has been seen to take two seconds for one reload.
const CALL: Duration = Duration::from_secs(20);

/// Announcements that may wait for us.
const WAITING: Option<NonZero<usize>> = NonZero::new(1024);

/// A connection to the system bus.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    connection: Connection,
}

impl Bus {
    /// Connects to the bus that `DBUS_SYSTEM_BUS_ADDRESS` names, else to the usual one.
    pub(crate) async fn connect() -> zbus::Result<Self> {
        let connection = zbus::connection::Builder::system().method_timeout(CALL).build().await?;
        Ok(Self { connection })
    }

    /// Whether firewalld is there.
    pub(crate) async fn firewalld_runs(&self) -> zbus::Result<bool> {
        let bus = DBusProxy::new(&self.connection).await?;
        Ok(bus.name_has_owner(BusName::try_from(FIREWALLD)?).await?)
    }

    /// What can be asked of firewalld.
    pub(super) async fn firewalld(&self) -> zbus::Result<Firewalld> {
        Ok(Firewalld {
            main: MainProxy::new(&self.connection).await?,
            zones: ZoneProxy::new(&self.connection).await?,
            policies: PolicyProxy::new(&self.connection).await?,
        })
    }

    /// Listens to what firewalld announces, and to its coming and going.
    pub(super) async fn announcements(&self) -> zbus::Result<Announcements> {
        let bus = DBusProxy::new(&self.connection).await?;
        let owners = bus.receive_name_owner_changed_with_args(&[(0, FIREWALLD)]).await?;
        let rule = MatchRule::builder().msg_type(Type::Signal).sender(FIREWALLD).path(MAIN_PATH).build()?;
        let signals = MessageStream::for_match_rule(rule, &self.connection, WAITING).await?;
        let owner = bus.get_name_owner(BusName::try_from(FIREWALLD)?).await.ok();
        Ok(Announcements { owners, signals, owner: owner.map(|owner| owner.to_string()) })
    }
}

/// Whether there is no bus at all, rather than a bus that cannot be used for now.
pub(crate) fn is_missing(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::Connection(error, _) => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
        }
        zbus::Error::Address(_) => true,
        _ => false,
    }
}

const MAIN_PATH: &str = "/org/fedoraproject/FirewallD1";

/// Something that firewalld announces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Announcement {
    /// It has dropped everything that is not permanent.
    Reloaded,
    /// Its zones may have changed.
    ZonesChanged,
    /// A rich rule was added, by us or by another program.
    RuleAdded {
        /// In the words of the request.
        rule: String,
    },
    /// A rich rule was removed: by us, by another program, or by its timer.
    RuleRemoved {
        /// In the words of the request.
        rule: String,
    },
    /// It has left the bus.
    Gone,
    /// It is on the bus, and knows nothing of before.
    Back,
    /// The bus itself is gone.
    NoBus,
}

/// What firewalld announces.
#[derive(Debug)]
pub(super) struct Announcements {
    owners: NameOwnerChangedStream,
    signals: MessageStream,
    /// firewalld's unique name. Every program on the bus may send us what looks like its signals.
    owner: Option<String>,
}

impl Announcements {
    /// The next announcement. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Announcement {
        loop {
            tokio::select! {
                biased;
                owner = self.owners.next() => return match owner {
                    None => Announcement::NoBus,
                    Some(change) => {
                        let owner = change.args().ok().and_then(|args| args.new_owner().as_ref().map(ToString::to_string));
                        self.owner = owner;
                        match self.owner {
                            Some(_) => Announcement::Back,
                            None => Announcement::Gone,
                        }
                    }
                },
                signal = self.signals.next() => match signal {
                    None | Some(Err(_)) => return Announcement::NoBus,
                    Some(Ok(message)) => {
                        let header = message.header();
                        if header.sender().map(|sender| sender.as_str()) != self.owner.as_deref() {
                            continue;
                        }
                        match header.member().map(|member| member.as_str()) {
                            Some("Reloaded") => return Announcement::Reloaded,
                            Some("RichRuleRemoved") => {
                                // The zone, too, is as in the request: empty for the default zone.
                                if let Ok((_, rule)) = message.body().deserialize::<(String, String)>() {
                                    return Announcement::RuleRemoved { rule };
                                }
                            }
                            Some("RichRuleAdded") => {
                                if let Ok((_, rule, _)) = message.body().deserialize::<(String, String, i32)>() {
                                    return Announcement::RuleAdded { rule };
                                }
                            }
                            // Addresses in a set change nothing for us, and others change them all the time.
                            Some("EntryAdded" | "EntryRemoved") | None => {}
                            Some(_) => return Announcement::ZonesChanged,
                        }
                    }
                },
            }
        }
    }
}

/// What can be asked of firewalld.
#[derive(Clone, Debug)]
pub(super) struct Firewalld {
    pub(super) main: MainProxy<'static>,
    pub(super) zones: ZoneProxy<'static>,
    pub(super) policies: PolicyProxy<'static>,
}

/// The interface for the whole.
#[proxy(
    interface = "org.fedoraproject.FirewallD1",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
pub(super) trait Main {
    /// The zone of interfaces that have none.
    #[zbus(name = "getDefaultZone")]
    fn default_zone(&self) -> zbus::Result<String>;

    /// What a service is.
    #[zbus(name = "getServiceSettings2")]
    fn service(&self, service: &str) -> zbus::Result<HashMap<String, OwnedVariant>>;
}

/// The interface for zones.
#[proxy(
    interface = "org.fedoraproject.FirewallD1.zone",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
pub(super) trait Zone {
    /// The names of all zones.
    #[zbus(name = "getZones")]
    fn all(&self) -> zbus::Result<Vec<String>>;

    /// The zones that have interfaces or sources: by name, then by "interfaces" and "sources".
    #[zbus(name = "getActiveZones")]
    fn active(&self) -> zbus::Result<HashMap<String, HashMap<String, Vec<String>>>>;

    /// What a zone lets through.
    #[zbus(name = "getZoneSettings2")]
    fn settings(&self, zone: &str) -> zbus::Result<HashMap<String, OwnedVariant>>;

    /// The rich rules of a zone, as firewalld writes them.
    #[zbus(name = "getRichRules")]
    fn rich_rules(&self, zone: &str) -> zbus::Result<Vec<String>>;

    /// Adds a rule that firewalld takes away after some seconds.
    #[zbus(name = "addRichRule")]
    fn add_rich_rule(&self, zone: &str, rule: &str, seconds: i32) -> zbus::Result<String>;

    /// Takes a rule away.
    #[zbus(name = "removeRichRule")]
    fn remove_rich_rule(&self, zone: &str, rule: &str) -> zbus::Result<String>;
}

/// The interface for what goes from zone to zone, or to this machine.
#[proxy(
    interface = "org.fedoraproject.FirewallD1.policy",
    default_service = "org.fedoraproject.FirewallD1",
    default_path = "/org/fedoraproject/FirewallD1"
)]
pub(super) trait Policy {
    /// The policies that are in force: by name, then by "ingress_zones" and "egress_zones".
    #[zbus(name = "getActivePolicies")]
    fn active(&self) -> zbus::Result<HashMap<String, HashMap<String, Vec<String>>>>;

    /// What a policy does.
    #[zbus(name = "getPolicySettings")]
    fn settings(&self, policy: &str) -> zbus::Result<HashMap<String, OwnedVariant>>;
}

/// What firewalld answers when it does not do something: `CODE: text`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Code {
    /// The rule is there already; its first timer goes on.
    AlreadyEnabled,
    /// The rule is not there.
    NotEnabled,
    /// There is no such zone, so there is nothing in it.
    NoZone,
    /// Asking again will not help.
    Hopeless,
    /// It is not known whether it was done.
    NoAnswer,
    /// Something else.
    Other,
}

/// Reads the code out of an error.
pub(super) fn code(error: &zbus::Error) -> Code {
    let zbus::Error::MethodError(name, text, _) = error else { return Code::NoAnswer };
    let Some(text) = text.as_ref().filter(|_| name.as_str() == "org.fedoraproject.FirewallD1.Exception")
    else {
        return if name.as_str().ends_with(".NoReply") { Code::NoAnswer } else { Code::Other };
    };
    match text.split(':').next().unwrap_or_default() {
        "ALREADY_ENABLED" => Code::AlreadyEnabled,
        "NOT_ENABLED" => Code::NotEnabled,
        "INVALID_ZONE" => Code::NoZone,
        code if code.starts_with("INVALID_") => Code::Hopeless,
        _ => Code::Other,
    }
}
