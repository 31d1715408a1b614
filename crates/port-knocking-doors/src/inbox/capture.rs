//! Hears knocks with packet sockets: nothing listens, no port needs opening, and interfaces may come,
//! go and change their addresses at any time.

use std::{io, time::Duration};

use doorknock::errors::in_one_line;
use doors_core::packet::{Link, Packet};
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{
    AT_ONCE, InboxError,
    addresses::Addresses,
    datagram::Datagram,
    ring::{EtherType, Ring},
};
use crate::{netlink::socket::Socket, readiness::watch};

/// Packet sockets on all interfaces.
///
/// One for each family, bound to its protocol: so a packet is seen once, on the interface where the
/// machine takes it, and not a second time on a port of a bridge or a bond.
#[derive(Debug)]
pub(crate) struct Capture {
    v4: AsyncFd<Ring>,
    v6: AsyncFd<Ring>,
    changes: AsyncFd<Socket>,
    addresses: Addresses,
    /// Whether something has changed since the addresses were read.
    stale: bool,
    /// When they may be read again.
    not_before: Instant,
}

/// The loopback interface is the first of every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK: u32 = 1;

/// After a reading of the addresses, so many times its own time passes before the next: however many
/// addresses change, most of the time is left for knocks.
const REST: u32 = 4;

/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Capture {
    /// Starts to hear. Must be called within a runtime.
    pub(crate) fn open(spa_port: Option<u16>) -> Result<Self, InboxError> {
        let ring = |ether_type| Ring::open(ether_type, spa_port).and_then(watch).map_err(denied);
        // Watching begins before reading, so that no change falls between.
        let changes = Addresses::watch().map_err(InboxError::Addresses)?;
        Ok(Self {
            v4: ring(EtherType::Ipv4)?,
            v6: ring(EtherType::Ipv6)?,
            changes: watch(changes).map_err(InboxError::Socket)?,
            addresses: Addresses::read().map_err(InboxError::Addresses)?,
            stale: false,
            not_before: Instant::now(),
        })
    }

    /// Hears clients with a key on this port from here on.
    pub(crate) fn follow(&self, spa_port: Option<u16>) -> Result<(), InboxError> {
        for ring in [&self.v4, &self.v6] {
            ring.get_ref().follow(spa_port).map_err(InboxError::Socket)?;
        }
        Ok(())
    }

    /// Returns when there may be packets.
    pub(crate) async fn ready(&mut self) -> Result<(), InboxError> {
        loop {
            // In no fixed order: neither a flood of packets nor one of changes keeps the other waiting.
            tokio::select! {
                changed = self.changes.readable_mut() => {
                    changed.map_err(InboxError::Socket)?.clear_ready();
                    self.hear_changes()?;
                }
                () = tokio::time::sleep_until(self.not_before), if self.stale => self.refresh(),
                ready = self.v4.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
                ready = self.v6.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
            }
        }
    }

    /// Takes all announcements of changes.
    fn hear_changes(&mut self) -> Result<(), InboxError> {
        loop {
            match self.changes.get_mut().notifications(|_| {}) {
                Ok(Some(())) => self.stale = true,
                Ok(None) => return Ok(()),
                // More has changed than the socket could hold.
                Err(error) if error.number() == Some(libc::ENOBUFS) => self.stale = true,
                Err(error) => return Err(InboxError::Addresses(error)),
            }
        }
    }

    /// Reads the addresses again. If that fails, the old ones have to do until the next try.
    fn refresh(&mut self) {
        let began = Instant::now();
        let pause = match self.addresses.refresh() {
            Ok(()) => {
                self.stale = false;
                began.elapsed().saturating_mul(REST)
            }
            Err(error) => {
                tracing::warn!("cannot read this machine's own addresses: {}", in_one_line(&error));
                RETRY_AFTER
            }
        };
        let now = Instant::now();
        self.not_before = now.checked_add(pause).unwrap_or(now);
    }

    /// Hands over what has come, at most [`AT_ONCE`] packets of each family.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&Packet<'_>)) -> Result<(), InboxError> {
        // An address that has just come counts for the packets that it brings.
        self.hear_changes()?;
        if self.stale && Instant::now() >= self.not_before {
            self.refresh();
        }
        for ring in [&mut self.v4, &mut self.v6] {
            let mut left = AT_ONCE;
            let _ = ring.try_io_mut(tokio::io::Interest::READABLE, |ring| {
                while let Some(next) = left.checked_sub(1) {
                    left = next;
                    let Some(frame) = ring.take() else {
                        // Empty: tells the runtime to wait for the kernel again.
                        return Err(io::Error::from(io::ErrorKind::WouldBlock));
                    };
                    let Some(datagram) = Datagram::parse(frame.packet(), frame.checksum) else { continue };
                    // Who claims to be us and comes from outside, is not. The network layer would drop it,
                    // and we see packets before it does.
                    let forged = frame.link != LOOPBACK && self.addresses.contain(datagram.source);
                    if !forged && self.addresses.contain(datagram.destination) {
                        each(&Packet {
                            source: datagram.source,
                            source_port: datagram.source_port,
                            destination: datagram.destination,
                            port: datagram.port,
                            link: Link(frame.link),
                            payload: datagram.payload,
                        });
                    }
                }
                Ok(())
            });
        }
        Ok(())
    }
}

/// What went wrong where only some may open a socket.
pub(super) fn denied(error: io::Error) -> InboxError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InboxError::Denied(error),
        _ => InboxError::Socket(error),
    }
}
