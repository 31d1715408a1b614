//! Hears knocks with packet sockets: nothing listens, no port needs opening, and interfaces may come,
//! go and change their addresses at any time.

use std::io;

use doors_core::{
    eligible::Own,
    packet::{Link, Packet, Routes},
};
use doors_os::async_fd::watch;
use tokio::io::unix::AsyncFd;

use super::{
    AT_ONCE, InboxError, LOOPBACK,
    datagram::Datagram,
    is_forged_here,
    notes::Note,
    own::Watched,
    ring::{EtherType, Ring},
    routes::KernelRoutes,
};

/// Packet sockets on all interfaces.
///
/// One for each family, bound to its protocol: so a packet is seen once, on the interface where the
/// machine takes it, and not a second time on a port of a bridge or a bond.
#[derive(Debug)]
pub(crate) struct Capture {
    v4: AsyncFd<Ring>,
    v6: AsyncFd<Ring>,
    own: Watched,
    routes: KernelRoutes,
}

impl Capture {
    /// Starts to hear. Must be called within a runtime.
    pub(crate) fn open(spa_port: Option<u16>) -> Result<Self, InboxError> {
        let ring = |ether_type| Ring::open(ether_type, spa_port).and_then(watch).map_err(denied);
        let routes = KernelRoutes::open().map_err(InboxError::Addresses)?;
        Ok(Self { routes, own: Watched::open()?, v4: ring(EtherType::Ipv4)?, v6: ring(EtherType::Ipv6)? })
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
                changed = self.own.changed() => changed?,
                ready = self.v4.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
                ready = self.v6.readable_mut() => return ready.map(drop).map_err(InboxError::Socket),
            }
        }
    }

    /// What an administrator should know.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.routes.notes().into_iter().chain(self.own.notes()).collect()
    }

    /// This machine's own addresses, if they have changed.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        self.own.news()
    }

    /// Hands over what has come, at most [`AT_ONCE`] packets of each family.
    pub(crate) fn drain(
        &mut self,
        mut each: impl FnMut(&Packet<'_>, &mut dyn Routes),
    ) -> Result<(), InboxError> {
        let own = self.own.own();
        let routes = &mut self.routes;
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

/// What went wrong where only some may open a socket.
pub(super) fn denied(error: io::Error) -> InboxError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => InboxError::Denied(error),
        _ => InboxError::Socket(error),
    }
}
