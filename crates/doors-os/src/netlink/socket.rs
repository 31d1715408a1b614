//! A netlink socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{
        self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink,
        netlink::SocketAddrNetlink,
    },
};

use super::message::{self, Message};
use crate::sockopt;

/// How often an interrupted dump is tried before it fails. One takes some microseconds.
const DUMP_ATTEMPTS: usize = 64;

/// Room for 65,536 grants of under 200 bytes each, and for the rules of 1,024 doors.
const LARGEST_BATCH: libc::c_int = 16 << 20;

/// The kernel's own bound for one datagram of a dump is 32 KiB.
const BUFFER: usize = 64 * 1024;

/// The type of a request for sockets, of `linux/sock_diag.h`.
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Destroys a socket, in the messages of sock_diag(7).
pub const SOCK_DESTROY: u16 = 21;

/// The netlink protocol.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// Links, addresses and routes.
    Route,
    /// nftables and connection tracking.
    Netfilter,
    /// Information about sockets.
    SocketDiagnosis,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket failed.
    #[error("cannot talk to the kernel over netlink")]
    Socket(#[source] io::Error),
    /// The kernel refused.
    #[error("the kernel refused it: {error}{}", .text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// The error.
        error: io::Error,
        /// The kernel's text.
        text: Option<String>,
    },
    /// The message exceeds the socket's send buffer, which this process may not enlarge.
    #[error(
        "a change of {bytes} bytes is too long for this container, which may not raise the bound; set the sysctl \
         net.core.wmem_max of the host to {bytes} at least, or configure fewer doors"
    )]
    TooLong {
        /// The length of the message.
        bytes: usize,
    },
    /// The kernel did not answer, which should not happen.
    #[error("the kernel did not answer over netlink")]
    Silent,
}

impl NetlinkError {
    /// The kernel's error number.
    pub fn number(&self) -> Option<i32> {
        match self {
            Self::Refused { error, .. } | Self::Socket(error) => error.raw_os_error(),
            Self::TooLong { .. } | Self::Silent => None,
        }
    }
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        Self::Socket(errno.into())
    }
}

/// A netlink socket for requests and their answers.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    port: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in this thread's network namespace.
    pub fn open(family: Family) -> Result<Self, NetlinkError> {
        Self::open_in_groups(family, 0)
    }

    /// Opens a socket that also receives the notifications of `groups`, one bit for each.
    pub fn open_in_groups(family: Family, groups: u32) -> Result<Self, NetlinkError> {
        let protocol: Option<Protocol> = match family {
            Family::Route => None,
            Family::Netfilter => Some(netlink::NETFILTER),
            Family::SocketDiagnosis => Some(netlink::SOCK_DIAG),
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        let name = net::getsockname(&fd)?;
        let port = SocketAddrNetlink::try_from(name)?.pid();
        // An answer need not repeat the request, an error has a text, and a dump applies the filter in the request. Old
        // kernels lack these options. Without them errors have less text and dumps are longer.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK, libc::NETLINK_GET_STRICT_CHK] {
            let _ = sockopt::set_flag(fd.as_fd(), libc::SOL_NETLINK, option);
        }
        // A batch that restores tens of thousands of grants exceeds the default buffer, and so may the kernel's
        // answer. A process that may not exceed the limit, as in a container, gets at most twice `net.core.wmem_max`.
        for (forced, asked) in
            [(libc::SO_SNDBUFFORCE, libc::SO_SNDBUF), (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF)]
        {
            let set = |option| sockopt::set_number(fd.as_fd(), libc::SOL_SOCKET, option, LARGEST_BATCH);
            let _ = set(forced).or_else(|_| set(asked));
        }
        Ok(Self { fd, port, buffer: vec![0; BUFFER] })
    }

    /// Shrinks the receive buffer. What does not fit is lost, and the next read reports it.
    pub fn hold_at_most(&self, bytes: i32) {
        let _ = sockopt::set_number(self.fd.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, bytes);
    }

    /// The port that the kernel gave this socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends requests, of which at least the last one asks for an acknowledgement.
    ///
    /// The kernel processes them during `send`, so every answer is queued when it returns. Returns the first error.
    pub fn request(&mut self, bytes: &[u8]) -> Result<(), NetlinkError> {
        self.ask(bytes, |_| None::<()>).map(drop)
    }

    /// Sends requests like [`Self::request`]. Returns the first value that `read` finds in the answers.
    pub fn ask<T>(
        &mut self,
        bytes: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        net::send(&self.fd, bytes, SendFlags::empty()).map_err(|error| match error {
            Errno::MSGSIZE => NetlinkError::TooLong { bytes: bytes.len() },
            other => other.into(),
        })?;
        let mut answered = false;
        let mut refused = None;
        let mut found = None;
        while let Some(received) = self.receive()? {
            for message in message::messages(self.buffer.get(..received).unwrap_or_default()) {
                found = found.or_else(|| read(&message));
                if message.kind == message::NLMSG_ERROR {
                    answered = true;
                    let (number, text) = message.error();
                    if number != 0 && refused.is_none() {
                        let error = io::Error::from_raw_os_error(number);
                        refused = Some(NetlinkError::Refused { error, text });
                    }
                }
            }
        }
        match (refused, answered) {
            (Some(refused), _) => Err(refused),
            (None, true) => Ok(found),
            (None, false) => Err(NetlinkError::Silent),
        }
    }

    /// Sends a dump request and reads the whole dump. Repeats a dump that was interrupted.
    pub fn dump<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(request, &read)? {
                return Ok(all);
            }
        }
        let error = io::Error::from_raw_os_error(libc::EINTR);
        Err(NetlinkError::Refused { error, text: Some("it changes faster than it can be read".to_owned()) })
    }

    /// Reads one notification datagram; `None` if none waits.
    pub fn notifications(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<Option<()>, NetlinkError> {
        let Some(received) = self.receive()? else { return Ok(None) };
        for message in message::messages(self.buffer.get(..received).unwrap_or_default()) {
            each(&message);
        }
        Ok(Some(()))
    }

    fn dump_once<T>(
        &mut self,
        request: &[u8],
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        net::send(&self.fd, request, SendFlags::empty())?;
        let mut all = Vec::new();
        let mut interrupted = false;
        while let Some(received) = self.receive()? {
            for message in message::messages(self.buffer.get(..received).unwrap_or_default()) {
                interrupted |= message.flags & message::NLM_F_DUMP_INTR != 0;
                match message.kind {
                    message::NLMSG_DONE => return Ok((!interrupted).then_some(all)),
                    message::NLMSG_ERROR => {
                        let (number, text) = message.error();
                        // An object that does not exist has no entries.
                        if number == libc::ENOENT {
                            return Ok(Some(Vec::new()));
                        }
                        let error = io::Error::from_raw_os_error(number);
                        return Err(NetlinkError::Refused { error, text });
                    }
                    _ => all.extend(read(&message)),
                }
            }
        }
        Err(NetlinkError::Silent)
    }

    /// The number of bytes received; `None` if nothing waits.
    fn receive(&mut self) -> Result<Option<usize>, NetlinkError> {
        loop {
            match net::recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((received, _)) => return Ok(Some(received)),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
