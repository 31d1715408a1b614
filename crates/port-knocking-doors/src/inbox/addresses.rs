//! Reads which addresses are this machine's own.
//!
//! A packet socket also sees packets that a gateway only forwards. They are not knocks for this machine, so the
//! destination of each packet is looked up here. The answer equals that of the gate's `fib daddr type local`: it
//! comes from the routes in the kernel's table of local routes. Local routes in other tables apply only to some
//! packets: a transparent proxy uses them to take in packets for other hosts, and an address in a VRF is in the VRF's
//! table.
//!
//! No client can have one of these addresses, an anycast address of this machine (on a router, the first address of
//! each IPv6 network), or the broadcast address of a network here. So the core gets all three.
//!
//! Source: rtnetlink(7), `linux/rtnetlink.h`.

use doors_core::eligible::Own;
use doors_os::netlink::{
    address::address,
    message::{Message, NLM_F_DUMP, Writer},
    socket::{Family, NetlinkError, Socket},
};
use ipnet::IpNet;
use socket2::SockRef;

use super::filter;

/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// Links, and for each family the addresses and the routes. The kernel announces an address before it adds the local
/// route that makes the address the machine's own, so only the route announcements are reliable.
const GROUPS: u32 = (libc::RTMGRP_LINK
    | libc::RTMGRP_IPV4_IFADDR
    | libc::RTMGRP_IPV4_ROUTE
    | libc::RTMGRP_IPV6_IFADDR
    | libc::RTMGRP_IPV6_ROUTE)
    .cast_unsigned();

/// The machine's own addresses, and the socket to read them.
#[derive(Debug)]
pub(super) struct Addresses {
    own: Own,
    socket: Socket,
}

impl Addresses {
    /// Reads the addresses in this thread's network namespace.
    pub(super) fn read() -> Result<Self, NetlinkError> {
        let socket = Socket::open(Family::Route)?;
        let mut addresses = Self { own: Own::default(), socket };
        addresses.refresh()?;
        Ok(addresses)
    }

    /// Opens a socket that becomes readable when links or addresses change.
    ///
    /// A router changes its routes all the time, so a filter in the kernel drops the announcements of routes that are
    /// not local.
    pub(super) fn watch() -> Result<Socket, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Route, GROUPS)?;
        SockRef::from(&socket).attach_filter(&filter::local_routes()).map_err(NetlinkError::Socket)?;
        Ok(socket)
    }

    /// Reads the addresses again.
    pub(super) fn refresh(&mut self) -> Result<(), NetlinkError> {
        let (mut local, mut anycast, mut broadcast) = (Vec::new(), Vec::new(), Vec::new());
        for family in [libc::AF_INET, libc::AF_INET6] {
            let routes = match self.socket.dump(&request(u8::try_from(family).unwrap_or(0)), route) {
                // The kernel creates the table with the first address.
                Err(error) if error.number() == Some(libc::ENOENT) => Vec::new(),
                routes => routes?,
            };
            for (kind, network) in routes {
                match kind {
                    libc::RTN_LOCAL => local.push(network),
                    libc::RTN_ANYCAST => anycast.push(network),
                    libc::RTN_BROADCAST => broadcast.push(network.addr()),
                    _ => {}
                }
            }
        }
        self.own = Own::new(local, broadcast).with_anycast(anycast);
        Ok(())
    }

    /// The addresses as last read.
    pub(super) fn own(&self) -> &Own {
        &self.own
    }
}

/// Requests the routes of the local table only. Old kernels ignore that and send all routes.
fn request(family: u8) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(libc::RTM_GETROUTE, NLM_F_DUMP, 0, |writer| {
        writer.raw(&[family, 0, 0, 0, libc::RT_TABLE_LOCAL, 0, 0, 0, 0, 0, 0, 0]);
    });
    writer.bytes().to_vec()
}

/// The type of a route in the local table, and its destination.
fn route(message: &Message<'_>) -> Option<(u8, IpNet)> {
    let [_, prefix, _, _, table, _, _, kind, ..] = *message.body.first_chunk::<ROUTE_HEADER>()?;
    let attributes = message.attributes(ROUTE_HEADER);
    // The table field of the header holds small numbers only.
    let table = attributes
        .find(libc::RTA_TABLE)
        .and_then(|table| table.try_into().ok())
        .map_or(table.into(), u32::from_ne_bytes);
    if message.kind != libc::RTM_NEWROUTE || table != u32::from(libc::RT_TABLE_LOCAL) {
        return None;
    }
    let destination = address(attributes.find(libc::RTA_DST)?)?;
    Some((kind, IpNet::new(destination, prefix).ok()?))
}
