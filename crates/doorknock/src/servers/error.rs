//! Why a server cannot be stored or found.

use std::{io, path::PathBuf};

use doors_spa::card::BadCard;

use crate::trusted_file::Untrusted;

/// Why a server cannot be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// It is not known where this user's files are.
    #[error("cannot find your home directory; name one for the servers in DOORKNOCK_CONFIG")]
    NoHome,
    /// It was never added.
    #[error("there is no server \"{name}\"; doorknock list shows them, and doorknock add adds one")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// It was added before.
    #[error("there is a server \"{name}\" already; add --replace if this one takes its place")]
    Exists {
        /// Its name.
        name: String,
    },
    /// The file does not say what it should.
    #[error("{path} line {line}: {reason}; correct the file, or remove it")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong. It never shows the card.
        reason: String,
    },
    /// The file's card is not valid.
    #[error("{path} line {line}: not a valid card: {why}; doorknock add --replace stores another")]
    Card {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong with it.
        why: BadCard,
    },
    /// Another user may have written what is in the store.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The file is called as no server can be.
    #[error("{path} is not called like a server; rename it, or move it away")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written or removed.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}
