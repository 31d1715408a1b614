//! Makes the kernel timestamp datagrams on arrival.
//!
//! ```text
//!   requested     a first socket wants timestamps
//!   ┊             a datagram that arrives here gets its timestamp when it is read: the order is lost
//!   switched on   by a work queue of the kernel, for the whole machine
//!   ┊             a datagram that arrives here gets its timestamp at once
//! ```
//!
//! On a busy machine milliseconds pass between the two. So timestamping is switched on, and verified, before any
//! socket for knocks is bound.
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

/// The start waits at most a tenth of a second.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// Keeps timestamping switched on while it lives.
#[derive(Debug)]
pub(super) struct Timestamping(Socket);

impl Timestamping {
    /// Switches timestamping on, and waits until it is on.
    pub(super) fn begin() -> io::Result<Self> {
        let timestamping = Self::request()?;
        for _ in 0..ATTEMPTS {
            if timestamping.is_on()? {
                return Ok(timestamping);
            }
            thread::sleep(PAUSE);
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Opens a socket that wants timestamps. It is connected to itself, so no other socket can send to it.
    fn request() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.connect(&socket.local_addr()?)?;
        receive::prepare(&socket, false)?;
        Ok(Self(socket))
    }

    /// Whether a datagram gets its timestamp before it is read.
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
    fn once_begun_every_datagram_is_timestamped_on_arrival() {
        // When the last socket that wants timestamps closes, the kernel switches them off some time later. So the
        // test repeats, to meet that state at all.
        for _ in 0..200 {
            assert!(Timestamping::begin().unwrap().is_on().unwrap());
        }
    }
}
