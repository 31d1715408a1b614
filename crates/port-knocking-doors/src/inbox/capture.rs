//! Hears knocks with packet sockets: nothing listens, no port needs opening, and interfaces may come,
//! go and change their addresses at any time.

use std::io;

use doors_core::packet::{Link, Packet};
use tokio::io::unix::AsyncFd;

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
}

impl Capture {
    /// Starts to hear. Must be called within a runtime.
    pub(crate) fn open() -> Result<Self, InboxError> {
        let ring = |ether_type| Ring::open(ether_type).and_then(watch).map_err(denied);
        // Watching begins before reading, so that no change falls between.
        let changes = Addresses::watch().map_err(InboxError::Addresses)?;
        Ok(Self {
            v4: ring(EtherType::Ipv4)?,
            v6: ring(EtherType::Ipv6)?,
            changes: watch(changes).map_err(InboxError::Socket)?,
            addresses: Addresses::read().map_err(InboxError::Addresses)?,
        })
    }

    /// Returns when there may be packets.
    pub(crate) async fn ready(&mut self) -> Result<(), InboxError> {
        loop {
            tokio::select! {
                biased;
                changed = self.changes.readable_mut() => {
                    let mut changed = changed.map_err(InboxError::Socket)?;
                    match changed.get_inner_mut().notifications(|_| {}) {
                        Ok(Some(())) => {}
                        Ok(None) => {
                            changed.clear_ready();
                            continue;
                        }
                        Err(error) if error.number() == Some(libc::ENOBUFS) => {}
                        Err(error) => return Err(InboxError::Addresses(error)),
                    }
                    self.addresses.refresh().map_err(InboxError::Addresses)?;
                }
                ready = self.v4.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
                ready = self.v6.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
            }
        }
    }

    /// Hands over what has come, at most [`AT_ONCE`] packets of each family.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&Packet<'_>)) {
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
                    if self.addresses.contain(datagram.destination) {
                        each(&Packet {
                            source: datagram.source,
                            port: datagram.port,
                            link: Link(frame.link),
                            payload: datagram.payload,
                        });
                    }
                }
                Ok(())
            });
        }
    }
}

fn denied(error: io::Error) -> InboxError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InboxError::Denied(error),
        _ => InboxError::Socket(error),
    }
}
