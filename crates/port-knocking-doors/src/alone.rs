//! One daemon for each network: two would work against each other.
//!
//! Who works holds the name of an abstract socket. Such a name belongs to a network namespace, and the kernel
//! frees it when its process ends, however it ends; and it is in nobody's way who saves and loads the
//! ruleset, as a table of nftables would be. But anybody on the machine may take it. So it counts only in
//! the hands of root or of the user that we are: nobody else keeps a daemon from starting.
//!
//! Source: unix(7), "Abstract sockets" and `SO_PEERCRED`; network_namespaces(7).

use std::{io, os::fd::AsFd as _};

use rustix::{net::sockopt::socket_peercred, process::geteuid};
use socket2::{Domain, SockAddr, Socket, Type};

/// The name; the zero in front makes it abstract.
const NAME: &str = "\0port-knocking-doors";

/// Why this daemon does not work here.
#[derive(Debug, thiserror::Error)]
pub enum NotAlone {
    /// Another does.
    #[error("another port-knocking-doors runs in this network namespace; stop it first")]
    AlreadyRuns,
    /// The kernel has no such sockets.
    #[error("cannot see whether another port-knocking-doors runs")]
    Socket(#[source] io::Error),
}

/// The name, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Alone(
    #[expect(dead_code, reason = "the kernel frees the name when this closes")] Option<Socket>,
);

impl Alone {
    /// Takes the name, if no daemon has it.
    pub(crate) fn claim() -> Result<Self, NotAlone> {
        let name = SockAddr::unix(NAME).map_err(NotAlone::Socket)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(NotAlone::Socket)?;
        match socket.bind(&name).and_then(|()| socket.listen(1)) {
            Ok(()) => Ok(Self(Some(socket))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
                Some(user) if user == 0 || user == geteuid().as_raw() => Err(NotAlone::AlreadyRuns),
                user => {
                    let user = user.map_or("somebody".to_owned(), |user| format!("the user {user}"));
                    tracing::warn!(
                        "{user} holds the name by which one port-knocking-doors finds another: nothing keeps a \
                         second one from working against this one"
                    );
                    Ok(Self(None))
                }
            },
            Err(error) => Err(NotAlone::Socket(error)),
        }
    }
}

/// The user who holds the name; `None` if it cannot be seen, as when somebody lets nobody connect.
fn holder(name: &SockAddr) -> Option<u32> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).ok()?;
    socket.connect(name).ok()?;
    socket_peercred(socket.as_fd()).ok().map(|credentials| credentials.uid.as_raw())
}
