//! The commands that ask the running daemon, over its control socket.

mod close;
mod list;
mod log_level;
mod open;
mod reload;
mod status;
mod watch;

use std::{
    io::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use doors_core::time::Wall;
use doors_text::safe_text::escaped;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    config,
    control::{
        client::{self, CallError, Client},
        interface::{By, Holder, LONGEST},
    },
};

/// What every one of these commands takes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    /// Where the daemon's control socket is
    #[arg(id = "socket", long = "control-socket", global = true, value_name = "FILE")]
    control_socket: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Live {
    /// Show what the running daemon does, and how it is
    Status {
        #[command(flatten)]
        common: Common,
    },
    /// List the open doors, or the clients with a key
    List {
        #[command(flatten)]
        common: Common,
        #[command(subcommand)]
        what: Option<What>,
    },
    /// Open a door for an address, by hand
    Open {
        #[command(flatten)]
        common: Common,
        /// The door
        door: String,
        /// The address to let in
        address: IpAddr,
        /// For how long, like 90s, 10m or 1h; by default as long as the door says
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        open_for: Option<Duration>,
        /// Why; `list` shows it
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = note)]
        note: String,
    },
    /// Close open doors
    ///
    /// Connections that were made through them live on, unless --cut is given. Who may knock can open them again.
    Close {
        #[command(flatten)]
        common: Common,
        /// Only this door
        #[arg(required_unless_present_any = ["client", "all"])]
        door: Option<String>,
        /// Only for this address
        address: Option<IpAddr>,
        /// Only those that the client with this name or fingerprint has opened
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// Every open door
        #[arg(long, conflicts_with_all = ["door", "address", "client"])]
        all: bool,
        /// Also end the connections of these addresses to these doors
        #[arg(long)]
        cut: bool,
    },
    /// Show what happens, as it happens
    Watch {
        #[command(flatten)]
        common: Common,
        /// Only what is about this address
        #[arg(long)]
        address: Option<IpAddr>,
        /// Only what is about the client with this name or fingerprint
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
    },
    /// Have the daemon read its configuration again, and say whether it is in force
    Reload {
        #[command(flatten)]
        common: Common,
    },
    /// Log more or less: error, warn, info, debug, trace or off
    LogLevel {
        #[command(flatten)]
        common: Common,
        /// The level
        level: String,
        /// After this time, log as at the start again
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<Duration>,
    },
}

/// What to list.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum What {
    /// The clients with a key, and when each was last seen
    Clients,
}

/// Why a command has not done what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LiveError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// What a command has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// All is as it should be.
    Fine,
    /// It runs, but not as its configuration says, or its gate is broken.
    NotAsConfigured,
}

/// Runs one of the commands.
pub(crate) fn run(mut command: Live, socket: Option<PathBuf>) -> Result<Found, LiveError> {
    let common = command.common();
    common.control_socket = common.control_socket.take().or(socket);
    let done = match command {
        Live::Status { common } => return status::run(&common),
        Live::List { common, what: None } => list::grants(&common),
        Live::List { common, what: Some(What::Clients) } => list::clients(&common),
        Live::Open { common, door, address, open_for, note } => {
            open::run(&common, &door, address, open_for, &note)
        }
        Live::Close { common, door, address, client, all, cut } => {
            close::run(&common, door.as_deref(), address, client.as_deref(), all, cut)
        }
        Live::Watch { common, address, client } => watch::run(&common, address, client.as_deref()),
        Live::Reload { common } => reload::run(&common),
        Live::LogLevel { common, level, time } => log_level::run(&common, &level, time),
    };
    match done {
        // The reader has seen enough.
        Err(LiveError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Found::Fine),
        other => other.map(|()| Found::Fine),
    }
}

impl Live {
    fn common(&mut self) -> &mut Common {
        match self {
            Self::Status { common }
            | Self::List { common, .. }
            | Self::Open { common, .. }
            | Self::Close { common, .. }
            | Self::Watch { common, .. }
            | Self::Reload { common }
            | Self::LogLevel { common, .. } => common,
        }
    }
}

impl Common {
    fn connect(&self) -> Result<Client, CallError> {
        Client::connect(&client::socket(self.control_socket.as_deref()))
    }

    /// Prints a result: as JSON, or as `text`.
    fn print(&self, result: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), LiveError> {
        let mut out = anstream::stdout();
        match self.json {
            true => writeln!(out, "{}", json(result)?)?,
            false => out.write_all(text().as_bytes())?,
        }
        Ok(out.flush()?)
    }
}

fn json(value: &impl Serialize) -> io::Result<String> {
    serde_json::to_string(value).map_err(io::Error::other)
}

/// Parameters, without those that are not given.
fn parameters<const N: usize>(given: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let given = given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    given.collect()
}

/// Who has a door open, for a person.
fn who(holder: &Holder) -> String {
    let text = match (holder.by, &holder.client, &holder.note) {
        (By::Client, Some(name), _) => name.clone(),
        (By::Administrator, _, Some(note)) => format!("by hand ({note})"),
        (By::Administrator, ..) => "by hand".to_owned(),
        (By::Sequence | By::Client, ..) => "a sequence".to_owned(),
    };
    escaped(&text)
}

/// A date, for a person.
fn date(seconds: i64) -> String {
    config::moment(Wall(u64::try_from(seconds).unwrap_or_default().saturating_mul(1000)))
}

/// A time, for a person: its two largest units.
fn span(seconds: i64) -> String {
    let part = |unit: i64, of: i64| {
        seconds.checked_div(unit).and_then(|count| count.checked_rem(of)).unwrap_or_default()
    };
    match seconds.max(0) {
        short @ 0..=119 => format!("{short} s"),
        120..=7199 => format!("{} min {} s", part(60, 120), part(1, 60)),
        7200..=172_799 => format!("{} h {} min", part(3600, 48), part(60, 60)),
        _ => format!("{} d {} h", part(86_400, i64::MAX), part(3600, 24)),
    }
}

/// Reads a time like `90`, `90s`, `10m`, `2h` or `1d`.
fn time(text: &str) -> Result<Duration, String> {
    let right = || "write a time like 90s, 10m, 2h or 1d, at most 365d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(right()),
    };
    let count = digits.parse::<u64>().ok().filter(|_| digits.chars().all(|c| c.is_ascii_digit()));
    let seconds = count.and_then(|count| count.checked_mul(unit)).filter(|time| (1..=LONGEST).contains(time));
    seconds.map(Duration::from_secs).ok_or_else(right)
}

fn note(text: &str) -> Result<String, String> {
    let most = doors_core::lease::Note::MAX;
    match doors_core::lease::Note::new(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("a note is one line of at most {most} bytes, without quotes and backslashes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_with_its_unit_and_every_other_text_is_refused() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("365d", LONGEST)]
        {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in
            ["", "0", "0s", "-1", "+1", "1.5h", "h", "1 h", "1w", "366d", "99999999999999999999", "1hh", "١"]
        {
            assert!(time(wrong).unwrap_err().starts_with("write a time like"), "{wrong}");
        }
    }

    #[test]
    fn a_span_is_shown_in_its_two_largest_units() {
        for (seconds, text) in [
            (-5, "0 s"),
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min 0 s"),
            (7199, "119 min 59 s"),
            (7200, "2 h 0 min"),
            (172_799, "47 h 59 min"),
            (172_800, "2 d 0 h"),
            (31_536_000, "365 d 0 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
