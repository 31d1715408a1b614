//! Why something of the lab could not be made.

use std::{io, path::PathBuf};

use doors_os::netlink::socket::NetlinkError;

/// Why the private network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces are not allowed here.
    #[error("cannot make a network namespace; run it as root, or allow user namespaces")]
    Namespace(#[source] io::Error),
    /// There is no place for files of its own.
    #[error("cannot have a place for files at {path}", path = .path.display())]
    Place {
        /// Where it would be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel refuses a link, an address or a route.
    #[error("cannot {what}")]
    Link {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: NetlinkError,
    },
}
