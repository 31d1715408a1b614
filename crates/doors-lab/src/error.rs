//! Why a private network could not be made.

use std::{io, path::PathBuf};

use doors_os::netlink::socket::NetlinkError;

/// Why a private network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The system does not allow namespaces.
    #[error("cannot make a network namespace; run it as root, or allow user namespaces")]
    Namespace(#[source] io::Error),
    /// The private directory for files could not be made.
    #[error("cannot make a private directory at {path}", path = .path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel rejected a link, an address or a route.
    #[error("cannot {what}")]
    Link {
        /// What was tried, after "cannot".
        what: String,
        /// The kernel's error.
        source: NetlinkError,
    },
}
