//! Allows one daemon for each network namespace: two would work against each other.
//!
//! The running daemon holds the name of an abstract socket. Such a name belongs to a network namespace, and the
//! kernel frees it when its process ends, however it ends. Unlike a table of nftables, it does not get into a ruleset
//! that an administrator saves and loads. But every user of the machine can take the name, so it counts only if root
//! or our own user holds it: no other user can keep a daemon from starting.
//!
//! The socket does not listen. The kernel is asked who owns it, because any user could fill a queue of connections.
//!
//! Source: unix(7), "Abstract sockets"; network_namespaces(7); sock_diag(7), `linux/unix_diag.h`.

use std::io;

use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::netlink::{
    message::{NLM_F_DUMP, Writer},
    socket::{self as netlink, Family, SOCK_DIAG_BY_FAMILY},
};

/// The name. The leading zero byte makes it abstract.
const NAME: &str = "\0port-knocking-doors";

// Of `linux/unix_diag.h`.
const UDIAG_SHOW_NAME: u32 = 0x1;
const UDIAG_SHOW_UID: u32 = 0x40;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_UID: u16 = 7;
/// The length of `struct unix_diag_msg`.
const UNIX_DIAG_MSG_LEN: usize = 16;

/// Why this daemon does not run here.
#[derive(Debug, thiserror::Error)]
pub enum InstanceLockError {
    /// Another one runs.
    #[error("another port-knocking-doors runs in this network namespace; stop it first")]
    AlreadyRuns,
    /// The kernel does not offer such sockets.
    #[error("cannot see whether another port-knocking-doors runs")]
    Socket(#[source] io::Error),
}

/// Who holds the name, for as long as this value lives.
#[derive(Debug)]
pub enum InstanceLock {
    /// We do; the kernel frees the name when the socket closes.
    Held(Socket),
    /// Another user does, which does not count: nothing keeps a second daemon from working against this one. Holds
    /// the user's id, if the kernel says it.
    HeldByOther(Option<u32>),
}

impl InstanceLock {
    /// Takes the name, unless a daemon has it.
    ///
    /// # Errors
    /// [`InstanceLockError::AlreadyRuns`] if root or our own user holds it.
    pub fn claim() -> Result<Self, InstanceLockError> {
        let name = SockAddr::unix(NAME).map_err(InstanceLockError::Socket)?;
        let socket =
            Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).map_err(InstanceLockError::Socket)?;
        match socket.bind(&name) {
            Ok(()) => Ok(Self::Held(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder() {
                Some(user) if user == 0 || user == geteuid().as_raw() => Err(InstanceLockError::AlreadyRuns),
                user => Ok(Self::HeldByOther(user)),
            },
            Err(error) => Err(InstanceLockError::Socket(error)),
        }
    }
}

/// The user who holds the name; `None` if the kernel does not say.
fn holder() -> Option<u32> {
    let mut request = Writer::default();
    request.message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, 0, |writer| {
        // `struct unix_diag_req`: family, every state, any inode, what to show, any cookie.
        writer.raw(&[u8::try_from(libc::AF_UNIX).unwrap_or(0), 0, 0, 0]);
        writer.raw(&u32::MAX.to_ne_bytes());
        writer.raw(&[0; 4]);
        writer.raw(&(UDIAG_SHOW_NAME | UDIAG_SHOW_UID).to_ne_bytes());
        writer.raw(&[0; 8]);
    });
    let mut kernel = netlink::Socket::open(Family::SocketDiagnosis).ok()?;
    let holders = kernel.dump(request.bytes(), |message| {
        let socket = message.attributes(UNIX_DIAG_MSG_LEN);
        // Sockets of another type may have the same name.
        let is_stream = message.body.get(1).copied().map(i32::from) == Some(libc::SOCK_STREAM);
        let is_it = message.kind == SOCK_DIAG_BY_FAMILY
            && is_stream
            && socket.find(UNIX_DIAG_NAME)? == NAME.as_bytes();
        socket.find(UNIX_DIAG_UID).filter(|_| is_it)?.first_chunk().map(|user| u32::from_ne_bytes(*user))
    });
    holders.ok()?.first().copied()
}
