//! Hears knocks with bound UDP sockets, for places where packet sockets are not allowed.
//!
//! Datagrams on several sockets have to be judged in the order in which the kernel received them, and
//! reading socket by socket loses it. So all sockets are read, and then all of them once more:
//!
//! ```text
//!   first reading    finds X                what came before X lay in its socket by then
//!   second reading   finds that, too        so whatever is stamped no later than X is complete
//! ```
//!
//! What is complete is sorted by the kernel's own stamps and handed over; the rest waits for the next
//! reading. No clock is asked, and nothing waits for a timer.

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
    AT_ONCE, InboxError, filter, is_forged_here,
    notes::{Note, Notes},
    own::Watched,
    receive::{self, Received},
    timestamping::Stamping,
};

/// Bytes that may wait on one socket, so that no flood takes much memory.
const WAITING: usize = 256 * 1024;

/// Datagrams that are read from one socket before the next has its turn.
const FROM_ONE: usize = AT_ONCE / 8;

/// Makes the filter of a socket.
type Filter = fn() -> Vec<SockFilter>;

/// One socket for each knock port and family.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: Vec<(u16, AsyncFd<Socket>)>,
    own: Watched,
    /// Read, and not yet known to be next.
    waiting: Vec<(u16, Received)>,
    /// Whether the latest reading found something, so that another has to follow at once.
    again: bool,
    notes: Notes,
}

impl Sockets {
    /// Binds the ports, over IPv4 and IPv6. Must be called within a runtime.
    pub(crate) fn open(ports: &[u16], spa_port: Option<u16>) -> Result<Self, InboxError> {
        let mut notes = Notes::default();
        let _stamping = begin_stamping(&mut notes);
        let mut sockets = bind_all(ports, filter::payloads)?;
        sockets.extend(bind_all(spa_port.as_slice(), filter::spa_payloads)?);
        let is_v4 =
            |(_, socket): &(u16, AsyncFd<Socket>)| socket.get_ref().domain().ok() == Some(Domain::IPV4);
        // Without a port to hear there is no socket, and that says nothing about the machine.
        if !sockets.is_empty() && sockets.iter().all(is_v4) {
            notes.add(Note::OnlyIpv4);
        }
        Ok(Self { sockets, own: Watched::open()?, waiting: Vec::new(), again: false, notes })
    }

    /// Hears other ports from here on. If one of them cannot be bound, nothing changes.
    pub(crate) fn follow(&mut self, ports: &[u16], spa_port: Option<u16>) -> Result<(), InboxError> {
        let bound = |port: &u16| self.sockets.iter().any(|(other, _)| other == port);
        let new: Vec<u16> = ports.iter().copied().filter(|port| !bound(port)).collect();
        let new_spa: Vec<u16> = spa_port.into_iter().filter(|port| !bound(port)).collect();
        // Where something is heard already, stamping is on.
        let _stamping = self.sockets.is_empty().then(|| begin_stamping(&mut self.notes));
        let mut new = bind_all(&new, filter::payloads)?;
        new.extend(bind_all(&new_spa, filter::spa_payloads)?);
        self.sockets.retain(|(port, _)| ports.contains(port) || spa_port == Some(*port));
        self.sockets.extend(new);
        for (port, socket) in &self.sockets {
            // A port may have changed what it is for.
            let filter = if spa_port == Some(*port) { filter::spa_payloads } else { filter::payloads };
            attach(socket.get_ref(), filter).map_err(InboxError::Socket)?;
        }
        self.again = true;
        Ok(())
    }

    /// Sends from one of the ports.
    pub(crate) fn send(&self, way: &WayBack, payload: &[u8]) -> io::Result<()> {
        let domain = Domain::for_address(way.to);
        let fits = |socket: &Socket| socket.domain().is_ok_and(|other| other == domain);
        let found =
            self.sockets.iter().find(|(port, socket)| *port == way.from.port() && fits(socket.get_ref()));
        let (_, socket) = found.ok_or_else(|| io::Error::other("the port is not heard any more"))?;
        receive::send_from(socket.get_ref(), way.from.ip(), way.to, payload)
    }

    /// Returns when there may be packets: never while there is no port to hear, because neither a door has
    /// a sequence nor is there a client.
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
                    // From here on every socket is read until a reading finds nothing, so whatever comes later
                    // is announced anew.
                    return ready.map(|mut ready| ready.clear_ready()).map_err(InboxError::Socket);
                }
            }
        }
    }

    /// What an administrator should know.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.notes.take().into_iter().chain(self.own.notes()).collect()
    }

    /// This machine's own addresses, if they have changed.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        self.own.news()
    }

    /// Hands over what is known to be next, in the order in which the kernel received it.
    pub(crate) fn drain(
        &mut self,
        mut each: impl FnMut(&Packet<'_>, &mut dyn Routes),
    ) -> Result<(), InboxError> {
        let complete = self.read_all()?;
        let mut next: Vec<(u16, Received)> =
            self.waiting.extract_if(.., |(_, received)| Some(received.at) <= complete).collect();
        next.sort_by_key(|(_, received)| received.at);
        for (port, received) in next {
            // A knock is for one machine: one that is for all would try every door of a network at once.
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

    /// Reads every socket once. Gives the stamp up to which nothing is missing; `None` if nothing is
    /// known to be complete.
    ///
    /// That is the latest stamp of an earlier reading; but if a socket held more than its share, then no
    /// later than the last that was read there.
    fn read_all(&mut self) -> Result<Option<Duration>, InboxError> {
        let mut complete = self.waiting.iter().map(|(_, received)| received.at).max();
        let before = self.waiting.len();
        for (port, socket) in &self.sockets {
            let mut left = FROM_ONE;
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
                    // An error that somebody's ICMP message left on the socket is not ours.
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

/// Sees to it that all that comes is stamped when it does. Where that cannot be seen, because loopback is
/// down, knocks are heard all the same.
fn begin_stamping(notes: &mut Notes) -> Option<Stamping> {
    Stamping::begin().map_err(|error| notes.add(Note::NotStamped(error))).ok()
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
    socket.set_recv_buffer_size(WAITING)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn attach(socket: &Socket, filter: Filter) -> io::Result<()> {
    match socket.domain()? {
        Domain::IPV6 => socket.attach_filter(&filter::in_our_own_name(filter())),
        // Over IPv4 no user may send in a foreign name.
        _ => socket.attach_filter(&filter()),
    }
}

/// The machine, or this network namespace, does without IPv6.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}
