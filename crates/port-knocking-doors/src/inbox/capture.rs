//! Hears knocks with packet sockets: no port is bound or needs opening, and interfaces may appear, disappear and
//! change their addresses at any time.

use std::io;

use doors_core::{
    eligible::Own,
    packet::{Link, Packet, Routes},
};
use doors_os::async_fd::watch;
use tokio::io::unix::AsyncFd;

use super::{
    DRAIN_LIMIT, InboxError, LOOPBACK,
    datagram::Datagram,
    is_forged_here,
    notes::Note,
    own::WatchedAddresses,
    ring::{EtherType, Ring},
    routes::KernelRoutes,
};

/// Packet sockets on all interfaces.
///
/// One for each family, bound to its protocol. So a packet is seen once, on the interface where the machine receives
/// it, and not again on a port of a bridge or a bond.
#[derive(Debug)]
pub(crate) struct Capture {
    v4: AsyncFd<Ring>,
    v6: AsyncFd<Ring>,
    own: WatchedAddresses,
    routes: KernelRoutes,
}

impl Capture {
    /// Opens the sockets. Must be called within a runtime.
    pub(crate) fn open(spa_port: Option<u16>) -> Result<Self, InboxError> {
        let ring = |ether_type| Ring::open(ether_type, spa_port).and_then(watch).map_err(denied);
        let routes = KernelRoutes::open().map_err(InboxError::Addresses)?;
        Ok(Self {
            routes,
            own: WatchedAddresses::open()?,
            v4: ring(EtherType::Ipv4)?,
            v6: ring(EtherType::Ipv6)?,
        })
    }

    /// Changes the UDP port of clients with a key.
    pub(crate) fn follow(&self, spa_port: Option<u16>) -> Result<(), InboxError> {
        for ring in [&self.v4, &self.v6] {
            ring.get_ref().follow(spa_port).map_err(InboxError::Socket)?;
        }
        Ok(())
    }

    /// Returns when there may be packets.
    pub(crate) async fn ready(&mut self) -> Result<(), InboxError> {
        loop {
            // In random order, so that neither a flood of packets nor one of address changes starves the other.
            tokio::select! {
                changed = self.own.changed() => changed?,
                ready = self.v4.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
                ready = self.v6.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
            }
        }
    }

    /// Notes for the administrator.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.routes.notes().into_iter().chain(self.own.notes()).collect()
    }

    /// This machine's own addresses, if they have changed.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        self.own.news()
    }

    /// Passes on the packets that have arrived, at most [`DRAIN_LIMIT`] of each family.
    pub(crate) fn drain(
        &mut self,
        mut each: impl FnMut(&Packet<'_>, &mut dyn Routes),
    ) -> Result<(), InboxError> {
        let own = self.own.own();
        let routes = &mut self.routes;
        for ring in [&mut self.v4, &mut self.v6] {
            let mut left = DRAIN_LIMIT;
            let _ = ring.try_io_mut(tokio::io::Interest::READABLE, |ring| {
                while let Some(next) = left.checked_sub(1) {
                    left = next;
                    let Some(frame) = ring.take() else {
                        // The ring is empty: tells the runtime to wait for the kernel again.
                        return Err(io::Error::from(io::ErrorKind::WouldBlock));
                    };
                    let Some(datagram) = Datagram::parse(frame.packet(), frame.checksum) else { continue };
                    // A packet from outside with one of our own addresses as its source is forged. The network layer
                    // would drop it, but a packet socket sees it first.
                    let forged = is_forged_here(own, datagram.source, frame.link)
                        || (frame.link != LOOPBACK && own.contain(datagram.source));
                    if !forged && own.contain(datagram.destination) {
                        let packet = Packet {
                            source: datagram.source,
                            source_port: datagram.source_port,
                            destination: datagram.destination,
                            port: datagram.port,
                            link: Link(frame.link),
                            payload: datagram.payload,
                        };
                        each(&packet, routes);
                    }
                }
                Ok(())
            });
        }
        Ok(())
    }
}

/// Tells a lack of permission from other errors.
pub(super) fn denied(error: io::Error) -> InboxError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InboxError::Denied(error),
        _ => InboxError::Socket(error),
    }
}
