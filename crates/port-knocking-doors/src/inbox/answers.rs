//! Sends receipts where nothing is bound: whole IP packets through raw sockets, which receive nothing.
//!
//! A bound UDP socket would let the kernel say that the port is there. Nobody is to see that.
//!
//! Source: raw(7), ipv6(7): with `IPPROTO_RAW` the sender writes the IP header.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
};

use doors_core::packet::WayBack;
use socket2::{Domain, Protocol, Socket, Type};

use super::datagram;

/// One raw socket for each family.
#[derive(Debug)]
pub(crate) struct Answers {
    v4: Socket,
    /// `None` where there is no IPv6.
    v6: Option<Socket>,
}

impl Answers {
    /// Opens the sockets. Needs `CAP_NET_RAW`.
    pub(crate) fn open() -> io::Result<Self> {
        let open = |domain| {
            let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
            socket.set_nonblocking(true)?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self { v4: open(Domain::IPV4)?, v6: open(Domain::IPV6).ok() })
    }

    /// Sends a datagram from our address and port, though nothing is bound there.
    pub(crate) fn send(&self, way: &WayBack, payload: &[u8]) -> io::Result<()> {
        let refused = || io::Error::other("there is no way back");
        let packet = datagram::write(way.from, way.to, payload).ok_or_else(refused)?;
        let (socket, to) = match way.to {
            SocketAddr::V4(_) => (&self.v4, way.to),
            SocketAddr::V6(to) => {
                // A port would be taken for a protocol. A link-local address means something only on its link.
                let scope = if is_link_local(*to.ip()) { way.link.0 } else { 0 };
                let to = SocketAddrV6::new(*to.ip(), 0, 0, scope);
                (self.v6.as_ref().ok_or_else(refused)?, to.into())
            }
        };
        socket.send_to(&packet, &to.into()).map(drop)
    }
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.is_unicast_link_local()
}
