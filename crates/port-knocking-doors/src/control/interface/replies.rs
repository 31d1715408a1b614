//! What the methods of the interface give.

use serde::{Deserialize, Serialize};

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

/// The result of `Method::Status`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct StatusReply {
    /// The status.
    pub(crate) status: Status,
}

/// One page of `Method::ListGrants`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct GrantsReply {
    /// Open doors, in the order of their names and addresses.
    pub(crate) grants: Vec<Grant>,
}

/// One page of `Method::ListClients`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ClientsReply {
    /// Clients.
    pub(crate) clients: Vec<Client>,
}

/// The result of `Method::Open`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct OpenReply {
    /// When the door closes, in seconds since 1970.
    pub(crate) until: i64,
    /// In how many seconds that is.
    pub(crate) seconds_left: i64,
}

/// The result of `Method::Close`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct CloseReply {
    /// How many open doors were closed, or are open only for others behind the same address.
    pub(crate) closed: i64,
    /// How many connections were ended, if that was asked for.
    pub(crate) cut: i64,
}

/// The result of `Method::Reload`.
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

/// The result of `Method::SetLogLevel`.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct LevelReply {
    /// What is logged now.
    pub(crate) level: String,
}

/// One reply of `Method::Watch`. The first has no event: from then on nothing is missed.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WatchReply {
    /// What happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<Event>,
    /// How many events before it were lost, because this client did not read them in time.
    pub(crate) lost: i64,
}
