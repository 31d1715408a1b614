//! The commands with which an administrator gives keys away and takes them back.

use std::{
    fmt::Write as _,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use clap::{Args, Subcommand};
use doors_core::time::Wall;
use doors_os::trusted_file;
use doors_spa::identity::{BadKey, ClientKey};
use doors_text::error_chain::in_one_line;
use rand_core::UnwrapErr;

use crate::{
    commands::clients_file::{self, EditError, NewClient, ReplaceError},
    config::last_good::{CopyError, Store},
    config::{self, Config, ConfigError, Texts},
    control::running::{self, Takeover},
    spa::gateway_key::{self, KeyError},
};

/// About this machine's own key.
#[derive(Debug, Subcommand)]
pub(crate) enum Gateway {
    /// Make the gateway key; an existing one is never overwritten
    Init,
    /// Print the gateway card, which every client needs
    Card {
        /// Draw it as a QR code, too
        #[arg(long)]
        qr: bool,
    },
    /// Make a new gateway key; the old one is accepted for some time more
    Rotate {
        /// For how many days the old card still works
        #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(..=3650))]
        keep: u64,
        /// Give up the card from before the last rotation, though it still works
        #[arg(long)]
        drop_older: bool,
    },
}

/// About clients with a key.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Add a client to the configuration file
    Add(NewArguments),
    /// Show the clients, their keys' fingerprints and their doors
    List,
    /// Take a client out of the configuration file
    Remove {
        /// Its name
        name: String,
    },
}

/// A new client.
#[derive(Args, Debug)]
pub(crate) struct NewArguments {
    /// Its name: letters, digits, and . _ - @ between
    name: String,
    /// Its public key: "ssh-ed25519 AAAA… comment"; without it, the key is read from standard input
    #[arg(long, value_name = "LINE", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file with its public key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A door that it may open; can be given several times
    #[arg(long = "door", value_name = "DOOR", required = true)]
    doors: Vec<String>,
    /// The longest time for which it may have a door open, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    max_open_for: Option<u32>,
    /// A network from which it may knock; can be given several times
    #[arg(long, value_name = "NETWORK")]
    from: Vec<String>,
    /// The last day on which its key is worth something: 2026-12-31
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the card is too long for a QR code")]
    Qr,
    #[error(
        "the card from before the last rotation still works, and a new rotation would end that: clients that have \
         not got the newest card would be locked out; to do it all the same: --drop-older"
    )]
    OlderCard,
    #[error(
        "there is no configuration file to put clients into; write /etc/port_knocker.toml, or one in the home \
         directory with --set-configuration-file-in-home, or name one with --conf"
    )]
    NoFile,
    #[error("cannot read the public key from {from}")]
    PublicKey { from: String, source: io::Error },
    #[error("the public key cannot be used: {0}")]
    BadKey(BadKey),
    #[error("there is no public key on standard input; give one with --key or --key-file")]
    NoKey,
    #[error(
        "this is a private key, which stays with the client; give its public line, in the file that ends in .pub"
    )]
    PrivateKey,
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error("nothing was changed")]
    Replace(#[from] ReplaceError<ConfigError>),
    #[error(
        "the client `{0}` is a line of the file that authorized_keys names; take the line out there, and reload"
    )]
    InAuthorizedKeys(String),
    #[error("cannot ask the running daemon to read its configuration again")]
    Daemon(#[source] io::Error),
    #[error(
        "{done} in the file, but not in the copy with which a daemon starts if the file cannot be used: that start would \
         bring back what was there before; once the copy can be written, a start or a reload of the daemon does it"
    )]
    Kept { done: String, source: CopyError },
    #[error(
        "{0} in the file, but the running daemon cannot use the file and goes on with what was in force before: its log \
         says why; mend that, and try: systemctl reload port-knocking-doors"
    )]
    Refused(String),
    #[error(
        "{0} in the file, but the running daemon has not read the file within a minute, so that it goes on with what was \
         in force before; its log may say why, and a restart takes the file over"
    )]
    Slow(String),
}

impl AdminError {
    /// Whether something that was given to us is wrong, so that nothing was touched.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(
            self,
            Self::BadKey(_)
                | Self::NoKey
                | Self::PrivateKey
                | Self::Edit(_)
                | Self::Replace(ReplaceError::Check(_))
                | Self::InAuthorizedKeys(_)
                | Self::OlderCard
        )
    }
}

/// Runs a command about the gateway key. Gives what there is to print.
pub(crate) fn gateway(command: &Gateway, config: &Config) -> Result<String, AdminError> {
    let path = &config.gateway_key;
    let mut random = UnwrapErr(getrandom::SysRng);
    match command {
        Gateway::Init => {
            gateway_key::init(path, &mut random)?;
            Ok(format!("written: {}\nits card: port-knocking-doors gateway card\n", path.display()))
        }
        Gateway::Card { qr } => {
            let keys = gateway_key::load(path)?;
            let card = gateway_key::card_text(&keys);
            let drawn = match qr {
                true => gateway_key::qr(&card).ok_or(AdminError::Qr)?,
                false => String::new(),
            };
            Ok(format!("{drawn}{}\n", *card))
        }
        Gateway::Rotate { keep, drop_older } => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let older = gateway_key::load(path)?.previous;
            if !drop_older && older.is_some_and(|(_, until)| until > now.as_secs()) {
                return Err(AdminError::OlderCard);
            }
            let keep_for = Duration::from_secs(keep.saturating_mul(24 * 60 * 60));
            gateway_key::rotate(path, &mut random, now.as_secs(), keep_for)?;
            let mut text =
                format!("a new key is in {}; the old card works for {keep} days more\n", path.display());
            text.push_str("give the new card to every client: port-knocking-doors gateway card\n");
            let daemon = config.path.as_deref().map(running::daemon_of).transpose();
            let daemon = daemon.map_err(AdminError::Daemon)?.flatten();
            if let (Some(file), Some(_)) = (&config.path, daemon) {
                running::take_over(file, daemon).map_err(AdminError::Daemon)?;
                text.push_str("the running daemon was asked to take it over; its log says whether it did\n");
            }
            Ok(text)
        }
    }
}

/// Runs a command about clients. Gives what there is to print.
pub(crate) fn client(
    command: &Client,
    config: &Config,
    reload: impl Fn(&Path, &str) -> Result<Config, ConfigError>,
) -> Result<String, AdminError> {
    match command {
        Client::List => Ok(list(config)),
        Client::Add(new) => {
            let key = public_key(new)?;
            let (parsed, _) = ClientKey::from_openssh(&key).map_err(AdminError::BadKey)?;
            let client = NewClient {
                name: new.name.clone(),
                key,
                doors: new.doors.clone(),
                max_open_for: new.max_open_for,
                from: new.from.clone(),
                until: new.until.clone(),
            };
            let doors = new.doors.join(", ");
            let done = format!("added: {} ({}) may open {doors}", new.name, parsed.fingerprint());
            let mut text = change(config, &reload, |text| clients_file::add(text, &client), done)?;
            if let Err(error) = gateway_key::load(&config.gateway_key) {
                let _ = writeln!(text, "still missing: {}", in_one_line(&error));
            }
            Ok(text)
        }
        Client::Remove { name } => {
            let done = format!("removed: {name}");
            let taken = change(config, &reload, |text| clients_file::remove(text, name), done);
            let known = config.key_access.iter().flat_map(|access| access.clients.iter());
            match taken {
                Err(AdminError::Edit(EditError::Unknown { .. }))
                    if known.into_iter().any(|client| *client.who.name == **name) =>
                {
                    Err(AdminError::InAuthorizedKeys(name.clone()))
                }
                taken => taken,
            }
        }
    }
}

/// Changes the configuration file, and lets the running daemon take it over. Says what is `done`.
fn change(
    config: &Config,
    reload: impl Fn(&Path, &str) -> Result<Config, ConfigError>,
    edit: impl FnOnce(&str) -> Result<String, EditError>,
    done: String,
) -> Result<String, AdminError> {
    let path = config.path.as_ref().ok_or(AdminError::NoFile)?;
    let old = config::read_text(path)?;
    let new = edit(&old)?;
    // Asked before, because the mark is on the file that goes.
    let daemon = running::daemon_of(path).map_err(AdminError::Daemon)?;
    clients_file::replace(path, &old, &new, |path, text| reload(path, text).map(drop))?;
    let taken = running::take_over(path, daemon);
    if let Some(texts) = config.texts.clone().map(|texts| Texts { text: new, ..texts }) {
        let store = Store::of_environment();
        let kept = match &taken {
            // A daemon that has taken it over sees to the copy itself, if its disk lets it.
            Ok(Takeover::Done) => store.await_kept(&texts),
            Ok(_) | Err(_) => store.follow(&texts),
        };
        kept.map_err(|source| AdminError::Kept { done: done.clone(), source })?;
    }
    match taken.map_err(AdminError::Daemon)? {
        Takeover::Done => Ok(format!("{done}\nthe running daemon has taken it over\n")),
        Takeover::NoDaemon => Ok(format!("{done}\nno daemon runs with this file\n")),
        Takeover::Ended => Ok(format!("{done}\nthe daemon that ran with this file has ended\n")),
        Takeover::Refused => Err(AdminError::Refused(done)),
        Takeover::Slow => Err(AdminError::Slow(done)),
    }
}

/// No public key is longer, nor a file of some of them.
const LONGEST_KEY: usize = 64 * 1024;

fn public_key(new: &NewArguments) -> Result<String, AdminError> {
    let told = |from: &str, source| AdminError::PublicKey { from: from.to_owned(), source };
    let text = match (&new.key, &new.key_file) {
        (Some(key), _) => key.clone(),
        (None, Some(file)) => {
            read_small_file(file).map_err(|source| told(&file.display().to_string(), source))?
        }
        (None, None) => {
            let mut text = String::new();
            let most = u64::try_from(LONGEST_KEY).unwrap_or(u64::MAX);
            let read = io::stdin().take(most).read_to_string(&mut text);
            read.map_err(|source| told("standard input", source))?;
            text
        }
    };
    if text.contains("PRIVATE KEY-----") {
        return Err(AdminError::PrivateKey);
    }
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().map(str::to_owned).ok_or(AdminError::NoKey)
}

/// Reads a file that the administrator names, whosever it is, and neither waits for a FIFO nor reads a device to its end.
fn read_small_file(path: &Path) -> io::Result<String> {
    let file = trusted_file::open(path)?;
    trusted_file::regular(&file)?;
    let mut bytes = Vec::new();
    trusted_file::read_up_to(&file, LONGEST_KEY, &mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn list(config: &Config) -> String {
    let mut text = String::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    for client in config.key_access.iter().flat_map(|access| access.clients.iter()) {
        let doors: Vec<&str> = client.doors.iter().map(|door| door.as_str()).collect();
        let _ = write!(text, "{}  {}  {}", client.who.name, client.who.fingerprint, doors.join(","));
        if let Some(longest) = client.max_open_for {
            let _ = write!(text, "  at most {} s", longest.as_secs());
        }
        if !client.from.is_empty() {
            let networks: Vec<String> = client.from.iter().map(ToString::to_string).collect();
            let _ = write!(text, "  from {}", networks.join(","));
        }
        if let Some(until) = client.until {
            let over = if client.has_expired(Wall(now)) { ", which is over" } else { "" };
            let _ = write!(text, "  until {}{over}", crate::config::day(until));
        }
        text.push('\n');
    }
    if text.is_empty() {
        text.push_str("no client has a key; add one with: port-knocking-doors client add NAME --door DOOR\n");
    }
    text
}
