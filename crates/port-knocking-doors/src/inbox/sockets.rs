//! Hears knocks with bound UDP sockets, where packet sockets are not allowed.
//!
//! Datagrams on several sockets have to be handled in the order in which the kernel received them, and reading one
//! socket after the other loses it. So all sockets are read, and then all of them once more:
//!
//! ```text
//!   first reading    finds X                what came before X lay in its socket by then
//!   second reading   finds that, too        so whatever is stamped no later than X is complete
//! ```
//!
//! The complete part is sorted by the kernel's timestamps and passed on; the rest waits for the next reading. This
//! needs neither a clock nor a timer.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use doors_core::{
    eligible::Own,
    packet::{AllRoutes, Link, Packet, Routes, WayBack},
};
use doors_os::async_fd::watch;
use socket2::{Domain, SockFilter, Socket, Type};
use tokio::io::unix::AsyncFd;

use super::{
    DRAIN_LIMIT, InboxError, filter, is_forged_here,
    notes::{Note, Notes},
    own::WatchedAddresses,
    receive::{self, Received},
    timestamping::Timestamping,
};

/// The receive buffer of one socket, so that a flood takes little memory.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// The maximum number of datagrams that one reading takes from one socket.
const SOCKET_LIMIT: usize = DRAIN_LIMIT / 8;

/// Builds the filter of a socket.
type Filter = fn() -> Vec<SockFilter>;

/// One socket for each knock port and family.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<(u16, AsyncFd<Socket>)>,
    own: WatchedAddresses,
    /// Datagrams that were read, with earlier ones possibly missing.
    waiting: Vec<(u16, Received)>,
    /// Whether the last reading found something, so that another one has to follow at once.
    again: bool,
    notes: Notes,
}

impl Sockets {
    /// Binds the ports, over IPv4 and IPv6. Must be called within a runtime.
    pub(crate) fn open(ports: &[u16], spa_port: Option<u16>) -> Result<Self, InboxError> {
        let mut notes = Notes::default();
        let _timestamping = begin_timestamping(&mut notes);
        let mut sockets = bind_all(ports, filter::payloads)?;
        sockets.extend(bind_all(spa_port.as_slice(), filter::spa_payloads)?);
        let is_v4 =
            |(_, socket): &(u16, AsyncFd<Socket>)| socket.get_ref().domain().ok() == Some(Domain::IPV4);
        // Without a port to hear there is no socket, which says nothing about the machine.
        if !sockets.is_empty() && sockets.iter().all(is_v4) {
            notes.add(Note::OnlyIpv4);
        }
        Ok(Self { sockets, own: WatchedAddresses::open()?, waiting: Vec::new(), again: false, notes })
    }

    /// Changes the ports to hear. If one of them cannot be bound, nothing changes.
    pub(crate) fn follow(&mut self, ports: &[u16], spa_port: Option<u16>) -> Result<(), InboxError> {
        let bound = |port: &u16| self.sockets.iter().any(|(other, _)| other == port);
        let new: Vec<u16> = ports.iter().copied().filter(|port| !bound(port)).collect();
        let new_spa: Vec<u16> = spa_port.into_iter().filter(|port| !bound(port)).collect();
        // With an open socket, timestamping is already on.
        let _timestamping = self.sockets.is_empty().then(|| begin_timestamping(&mut self.notes));
        let mut new = bind_all(&new, filter::payloads)?;
        new.extend(bind_all(&new_spa, filter::spa_payloads)?);
        self.sockets.retain(|(port, _)| ports.contains(port) || spa_port == Some(*port));
        self.sockets.extend(new);
        for (port, socket) in &self.sockets {
            // The purpose of a port may have changed.
            let filter = if spa_port == Some(*port) { filter::spa_payloads } else { filter::payloads };
            attach(socket.get_ref(), filter).map_err(InboxError::Socket)?;
        }
        self.again = true;
        Ok(())
    }

    /// Sends a datagram from one of the ports.
    pub(crate) fn send(&self, way: &WayBack, payload: &[u8]) -> io::Result<()> {
        let domain = Domain::for_address(way.to);
        let fits = |socket: &Socket| socket.domain().is_ok_and(|other| other == domain);
        let found =
            self.sockets.iter().find(|(port, socket)| *port == way.from.port() && fits(socket.get_ref()));
        let (_, socket) = found.ok_or_else(|| io::Error::other("the port is not heard any more"))?;
        receive::send_from(socket.get_ref(), way.from.ip(), way.to, payload)
    }

    /// Returns when there may be packets. Without a port to hear, because there is neither a sequence nor a client,
    /// it never returns.
    pub(crate) async fn ready(&mut self) -> Result<(), InboxError> {
        if self.again {
            return Ok(());
        }
        loop {
            let readable: Vec<_> =
                self.sockets.iter().map(|(_, socket)| Box::pin(socket.readable())).collect();
            let is_heard = !readable.is_empty();
            tokio::select! {
                changed = self.own.changed() => changed?,
                (ready, _, _) = async { futures_util::future::select_all(readable).await }, if is_heard => {
                    // From here on every socket is read until a reading finds nothing, so a later datagram makes the
                    // socket readable anew.
                    return ready.map(|mut ready| ready.clear_ready()).map_err(InboxError::Socket);
                }
            }
        }
    }

    /// Notes for the administrator.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.notes.take().into_iter().chain(self.own.notes()).collect()
    }

    /// This machine's own addresses, if they have changed.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        self.own.news()
    }

    /// Passes on the complete part, in the order in which the kernel received it.
    pub(crate) fn drain(
        &mut self,
        mut each: impl FnMut(&Packet<'_>, &mut dyn Routes),
    ) -> Result<(), InboxError> {
        let complete = self.read_all()?;
        let mut next: Vec<(u16, Received)> =
            self.waiting.extract_if(.., |(_, received)| Some(received.at) <= complete).collect();
        next.sort_by_key(|(_, received)| received.at);
        for (port, received) in next {
            // A knock is for one machine: a broadcast would try the doors of every machine in the network.
            let Some(destination) = received.destination else { continue };
            if is_forged_here(self.own.own(), received.source.ip(), received.link) {
                continue;
            }
            let packet = Packet {
                source: received.source.ip(),
                source_port: received.source.port(),
                destination,
                port,
                link: Link(received.link),
                payload: received.payload(),
            };
            each(&packet, &mut AllRoutes);
        }
        Ok(())
    }

    /// Reads every socket once. Returns the timestamp up to which nothing is missing; `None` if nothing is known to
    /// be complete.
    ///
    /// That is the latest timestamp of an earlier reading, but no later than the last datagram read from a socket
    /// that reached its limit.
    fn read_all(&mut self) -> Result<Option<Duration>, InboxError> {
        let mut complete = self.waiting.iter().map(|(_, received)| received.at).max();
        let before = self.waiting.len();
        for (port, socket) in &self.sockets {
            let mut left = SOCKET_LIMIT;
            loop {
                match receive::receive(socket.get_ref()) {
                    Ok(Some(received)) => {
                        self.waiting.push((*port, received));
                        left = left.saturating_sub(1);
                        if left == 0 {
                            complete = complete.min(Some(received.at));
                            break;
                        }
                    }
                    Ok(None) => break,
                    // An ICMP message of another host leaves an error on the socket, which does not stop the daemon.
                    Err(error) => {
                        self.notes.add(Note::Left(*port, error));
                        break;
                    }
                }
            }
        }
        self.again = self.waiting.len() > before;
        Ok(complete)
    }
}

/// Makes the kernel timestamp datagrams on arrival. If that fails, because loopback is down, knocks are heard all the
/// same.
fn begin_timestamping(notes: &mut Notes) -> Option<Timestamping> {
    Timestamping::begin().map_err(|error| notes.add(Note::NotStamped(error))).ok()
}

/// Binds every port for both families.
fn bind_all(ports: &[u16], filter: Filter) -> Result<Vec<(u16, AsyncFd<Socket>)>, InboxError> {
    let mut sockets = Vec::new();
    for port in ports.iter().copied() {
        for address in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            match bind(SocketAddr::new(address, port), filter) {
                Ok(socket) => sockets.push((port, watch(socket).map_err(InboxError::Socket)?)),
                Err(error) if address.is_ipv6() && is_without_ipv6(&error) => {}
                Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(InboxError::Reserved { port, source });
                }
                Err(source) => return Err(InboxError::Bind { port, source }),
            }
        }
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, filter: Filter) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    attach(&socket, filter)?;
    receive::prepare(&socket, address.is_ipv6())?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn attach(socket: &Socket, filter: Filter) -> io::Result<()> {
    match socket.domain()? {
        Domain::IPV6 => socket.attach_filter(&filter::in_our_own_name(filter())),
        // Over IPv4 a local user cannot send with a foreign source address.
        _ => socket.attach_filter(&filter()),
    }
}

/// Whether the error means that the machine or this network namespace has no IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
