//! Makes sure that the kernel stamps datagrams when they arrive.
//!
//! ```text
//!   asked for     first socket that wants stamps
//!   ┊             a datagram that comes here gets its stamp when it is read: its place is lost
//!   switched on   by a work queue of the kernel, for the whole machine
//!   ┊             a datagram that comes here is stamped at once
//! ```
//!
//! On a busy machine milliseconds pass between the two. So stamping is switched on, and seen to be on,
//! before any socket for knocks is bound.
//!
//! Source: `net_enable_timestamp` in `net/core/dev.c`, `__sock_recv_timestamp` in `net/socket.c`.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, SystemTime},
};

use socket2::{Domain, Socket, Type};

use super::receive;

/// The start is not held up for longer than a tenth of a second.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// While it lives, stamping stays on.
#[derive(Debug)]
pub(super) struct Stamping(Socket);

impl Stamping {
    /// Switches stamping on, and waits until it is.
    pub(super) fn begin() -> io::Result<Self> {
        let stamping = Self::ask_for()?;
        for _ in 0..TRIES {
            if stamping.is_on()? {
                return Ok(stamping);
            }
            thread::sleep(PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// A socket that wants stamps, and to which nobody can send but itself.
    fn ask_for() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.connect(&socket.local_addr()?)?;
        receive::prepare(&socket, false)?;
        Ok(Self(socket))
    }

    /// Whether a datagram has a stamp from before it was read.
    fn is_on(&self) -> io::Result<bool> {
        self.0.send(b"?")?;
        let before = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Ok(receive::receive(&self.0)?.is_some_and(|received| received.at < before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_begun_every_datagram_is_stamped_when_it_arrives() {
        // When the last socket of the machine goes that wanted stamps, the kernel switches them off, as late
        // as it likes: so this has to be tried often to be tried at all.
        for _ in 0..200 {
            assert!(Stamping::begin().unwrap().is_on().unwrap());
        }
    }
}
