//! Why a command did not work.

use std::{io, path::PathBuf};

use crate::{
    connect::relay, resolve, sequence, servers::ServersError, spa::key_file::KeyFileError,
    spa::keygen::KeygenError, spa::signer::SignerError, trusted_file::Untrusted,
};

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Target(#[from] resolve::TargetError),
    #[error(transparent)]
    Servers(#[from] ServersError),
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    #[error(transparent)]
    Keygen(#[from] KeygenError),
    #[error("not a valid card")]
    Card(#[from] doors_spa::card::BadCard),
    #[error("cannot read the {what} from standard input")]
    Input { what: &'static str, source: io::Error },
    #[error("cannot use the sequence")]
    SequenceFile(#[from] Untrusted),
    #[error("{path} can be read by others (mode {mode:03o}); try: chmod 600 {path}")]
    SequenceOpen { path: PathBuf, mode: u32 },
    #[error("cannot use the sequence in {place}: {reason}")]
    Sequence { place: String, reason: String },
    #[error("cannot remember the key; {0}")]
    KeyPath(String),
    #[error(transparent)]
    Send(#[from] sequence::Unsent),
    #[error(
        "{host} port {port} does not accept connections; a wrong sequence, a lost datagram, or nothing \
         listens there: try --repeat 3, or --delay 100"
    )]
    Closed { host: String, port: u16 },
    #[error("the door is open, and {host} port {port} does not accept connections")]
    OpenAndSilent { host: String, port: u16, source: io::Error },
    #[error("{server} has no door for you; its administrator gives you one")]
    NoDoor { server: String },
    #[error(
        "{server} has several doors for you: {doors}; name one, or see them anew with doorknock ask {server}"
    )]
    WhichDoor { server: String, doors: String },
    #[error("cannot wait for a connection")]
    Wait(#[source] io::Error),
    #[error(transparent)]
    Broken(#[from] relay::Broken),
    #[error("cannot print")]
    Print(#[source] io::Error),
}
