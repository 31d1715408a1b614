//! Sends receipts without a bound port: as complete IP packets through raw sockets that receive nothing.
//!
//! With a bound UDP socket the kernel would show that the port is in use, and a stranger must not learn that. The raw
//! sockets themselves must not be visible either:
//!
//! ```text
//!   stranger ── IP protocol 255 ─► no socket for it            ─► "protocol unreachable", from the kernel
//!                                  a socket of IPPROTO_RAW     ─► silence; it gets the packet
//!                                  one bound to loopback's own ─► "protocol unreachable", from the kernel
//! ```
//!
//! Source: raw(7), ip(7), ipv6(7): with `IPPROTO_RAW` the sender writes the IP header.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
};

use doors_core::packet::WayBack;
use socket2::{Domain, Protocol, Socket, Type};

use super::{datagram, filter, receive};

/// One raw socket for each family.
#[derive(Debug)]
pub(crate) struct ReplySocket {
    v4: Socket,
    /// `None` on a machine without IPv6.
    v6: Option<Socket>,
}

impl ReplySocket {
    /// Opens the sockets. Needs `CAP_NET_RAW`.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self { v4: open(Ipv4Addr::LOCALHOST.into())?, v6: open(Ipv6Addr::LOCALHOST.into()).ok() })
    }

    /// Sends a datagram from our address and port, though no socket is bound there.
    pub(crate) fn send(&self, way: &WayBack, payload: &[u8]) -> io::Result<()> {
        let refused = || io::Error::other("there is no way back");
        let packet = datagram::write(way.from, way.to, payload).ok_or_else(refused)?;
        let (socket, to) = match way.to {
            SocketAddr::V4(_) => (&self.v4, way.to),
            SocketAddr::V6(to) => {
                // The kernel would take a port for a protocol number. A link-local address is valid only with its
                // link.
                let scope = if is_link_local(*to.ip()) { way.link.0 } else { 0 };
                let to = SocketAddrV6::new(*to.ip(), 0, 0, scope);
                (self.v6.as_ref().ok_or_else(refused)?, to.into())
            }
        };
        // The socket is bound to a loopback address, from which no route leads out, so the real source address is
        // passed.
        receive::send_from(socket, way.from.ip(), to, &packet)
    }
}

/// Opens a raw socket that no packet from outside matches.
fn open(loopback: IpAddr) -> io::Result<Socket> {
    let address = SocketAddr::new(loopback, 0);
    let socket =
        Socket::new(Domain::for_address(address), Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
    socket.set_nonblocking(true)?;
    // Packets that this machine sends to itself would stay in the receive buffer.
    socket.attach_filter(&filter::nothing())?;
    // Loopback may be down. An address that only a local route makes ours is also a valid source.
    match loopback {
        IpAddr::V4(_) => socket.set_freebind_v4(true)?,
        IpAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}
