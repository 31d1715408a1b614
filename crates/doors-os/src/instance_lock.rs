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
    message::{DUMP, Writer},
    socket::{self as netlink, Family},
};

/// The name. The leading zero byte makes it abstract.
const NAME: &str = "\0port-knocking-doors";

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `UDIAG_SHOW_NAME | UDIAG_SHOW_UID`.
const SHOW: u32 = 0x1 | 0x40;
/// The length of `struct unix_diag_msg`; `UNIX_DIAG_NAME`, `UNIX_DIAG_UID`.
const HEADER: usize = 16;
const DIAG_NAME: u16 = 0;
const DIAG_USER: u16 = 7;

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
    request.message(BY_FAMILY, DUMP, 0, |writer| {
        // `struct unix_diag_req`: family, every state, any inode, what to show, any cookie.
        writer.raw(&[u8::try_from(libc::AF_UNIX).unwrap_or(0), 0, 0, 0]);
        writer.raw(&u32::MAX.to_ne_bytes());
        writer.raw(&[0; 4]);
        writer.raw(&SHOW.to_ne_bytes());
        writer.raw(&[0; 8]);
    });
    let mut kernel = netlink::Socket::open(Family::SocketDiagnosis).ok()?;
    let holders = kernel.dump(request.bytes(), |message| {
        let socket = message.attributes(HEADER);
        // Sockets of another type may have the same name.
        let is_stream = message.body.get(1).copied().map(i32::from) == Some(libc::SOCK_STREAM);
        let is_it = message.kind == BY_FAMILY && is_stream && socket.find(DIAG_NAME)? == NAME.as_bytes();
        socket.find(DIAG_USER).filter(|_| is_it)?.first_chunk().map(|user| u32::from_ne_bytes(*user))
    });
    holders.ok()?.first().copied()
}
