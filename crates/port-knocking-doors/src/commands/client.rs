//! The commands about clients with a key.
//!
//! ```text
//!   client add ──► lock clients.d ──► read the configuration ──► would it be good with the new file?
//!                                                                             │
//!           the daemon reads it again ◄── clients.d/NAME.toml, all at once ◄──┘
//! ```
//!
//! They write and remove files in `clients_dir`, and nothing else: what an administrator has written is theirs.

mod add;
mod change;
mod list;
mod remove;
mod suspend;

use std::{io, path::PathBuf};

use clap::Subcommand;
use doors_spa::identity::BadKey;

pub(crate) use self::add::NewClient;
use crate::config::{Config, ConfigError, Inputs, last_good::CopyError};

/// About clients with a key.
#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Add a client: write its file in clients_dir
    Add(NewClient),
    /// Show the clients, their keys' fingerprints and their doors
    List,
    /// Let a client open nothing for the time being, and close what it has open
    Disable {
        /// Its name
        name: String,
    },
    /// Let a disabled client knock again
    Enable {
        /// Its name
        name: String,
    },
    /// Remove a client: remove its file from clients_dir
    Remove {
        /// Its name
        name: String,
    },
}

/// Runs a command. Gives what there is to print.
pub(crate) fn run(command: &Client, inputs: &Inputs) -> Result<String, ClientError> {
    match command {
        Client::List => Ok(list::list(&Config::load(inputs)?)),
        Client::Add(new) => add::add(new, inputs),
        Client::Disable { name } => suspend::suspend(name, true, inputs),
        Client::Enable { name } => suspend::suspend(name, false, inputs),
        Client::Remove { name } => remove::remove(name, inputs),
    }
}

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The configuration, as it is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration, as it would be.
    #[error("nothing was changed")]
    New(#[source] ConfigError),
    #[error(
        "there is no configuration file, and so no door for clients; write /etc/port_knocker.toml, or one in the home \
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
    #[error(
        "\"{}\" is no name for a client; give 1 to 64 letters and digits, with . _ - @ between, like \"laptop\"",
        .0.escape_debug()
    )]
    BadName(String),
    #[error("--until is in the past ({0}), so that this client would never be let in; give a later date")]
    Expired(String),
    #[error(
        "there is a client `{name}` already, with another key, other doors or other limits ({at}); choose another name, \
         or remove it first"
    )]
    Exists { name: String, at: String },
    #[error(
        "this is the key of the client `{name}` already ({at}); make a key for each device, or remove `{name}` first"
    )]
    SameKey { name: String, at: String },
    #[error("there is no client `{}`; {hint}", name.escape_debug())]
    Unknown { name: String, hint: String },
    #[error(
        "nothing was changed: the client `{name}` stands in {at}, which is yours to edit; take {what} out there, then: \
         systemctl reload port-knocking-doors"
    )]
    Elsewhere { name: String, at: String, what: &'static str },
    #[error("nothing was changed: another process changes {} at this moment; try again", .0.display())]
    InUse(PathBuf),
    #[error("nothing was changed: cannot use {}", path.display())]
    Unusable { path: PathBuf, source: io::Error },
    #[error("nothing was changed: cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("nothing was changed: cannot remove {}", path.display())]
    Remove { path: PathBuf, source: io::Error },
    #[error(
        "{done}, but the disk has not said that it will be so after a power cut; try again, and look at the disk"
    )]
    NotSynced { done: String, source: io::Error },
    #[error(
        "{done}, but the configuration cannot be used any more: another program has changed it meanwhile"
    )]
    Meanwhile { done: String, source: ConfigError },
    #[error(
        "{done}, but the running daemon cannot be asked to read it; try: systemctl reload port-knocking-doors"
    )]
    Daemon { done: String, source: io::Error },
    #[error(
        "{done} in the file, but not in the copy with which a daemon starts if the file cannot be used: that start would \
         bring back what was there before; once the copy can be written, a start or a reload of the daemon does it"
    )]
    Kept { done: String, source: CopyError },
    #[error(
        "{0}, but the running daemon cannot use the configuration and goes on with what was in force before: its log \
         says why; mend that, and try: systemctl reload port-knocking-doors"
    )]
    Refused(String),
    #[error(
        "{done}, but this gateway has no key yet, so that the running daemon goes on with what was in force before; \
         try: port-knocking-doors gateway init"
    )]
    NoGatewayKey { done: String },
    #[error(
        "{0}, but the running daemon has not read it within a minute, so that it goes on with what was in force before; \
         its log may say why, and a restart takes it over"
    )]
    Slow(String),
}

impl ClientError {
    /// Whether something that was given to us is wrong, so that nothing was touched.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::New(_)
                | Self::BadKey(_)
                | Self::NoKey
                | Self::PrivateKey
                | Self::BadName(_)
                | Self::Expired(_)
                | Self::Exists { .. }
                | Self::SameKey { .. }
                | Self::Unknown { .. }
                | Self::Elsewhere { .. }
        )
    }
}

/// What a broken configuration means for a command.
pub(crate) fn not_done(command: &Client) -> String {
    match command {
        Client::Remove { name } => format!(
            "nothing was changed, and if the client `{}` was let in, it still is; mend this first, then remove it again",
            name.escape_debug()
        ),
        Client::Disable { name } => format!(
            "nothing was changed, and if the client `{}` was let in, it still is; mend this first, then disable it again",
            name.escape_debug()
        ),
        Client::Add(_) | Client::Enable { .. } | Client::List => NOTHING_CHANGED.to_owned(),
    }
}

/// What a broken configuration means for most commands.
pub(crate) const NOTHING_CHANGED: &str =
    "nothing was changed, and clients are let in as before; mend this first";
