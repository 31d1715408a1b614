//! Which addresses are this machine's own.
//!
//! A packet socket also sees packets that a gateway only passes on. They are no knocks for us, so
//! the destination of each is looked up here. The answer is the same as the gate's `fib daddr type
//! local`: the kernel's own local routes.
//!
//! Source: rtnetlink(7), `linux/rtnetlink.h`.

use std::net::IpAddr;

use ipnet::IpNet;
use socket2::SockRef;

use super::filter;
use crate::netlink::{
    address::address,
    message::{DUMP, Message, Writer},
    socket::{Family, NetlinkError, Socket},
};

pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DELETE_ROUTE: u16 = 25;
const GET_ROUTE: u16 = 26;
/// `RTN_LOCAL`.
pub(super) const LOCAL: u8 = 2;
/// `RTA_DST`.
const DESTINATION: u16 = 1;
/// `struct rtmsg`.
const ROUTE_HEADER: usize = 12;
/// `RTMGRP_LINK`, and for each family the addresses and the routes: `RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE |
/// RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE`. The kernel announces an address before it adds the local route
/// that makes it the machine's own, so the routes are what counts.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// The machine's own addresses, and a socket that hears when they change.
#[derive(Debug)]
pub(super) struct Addresses {
    own: Vec<IpNet>,
    socket: Socket,
}

impl Addresses {
    /// Reads the addresses in this thread's network namespace.
    pub(super) fn read() -> Result<Self, NetlinkError> {
        let socket = Socket::open(Family::Route)?;
        let mut addresses = Self { own: Vec::new(), socket };
        addresses.refresh()?;
        Ok(addresses)
    }

    /// Opens a socket that becomes readable when links or addresses change.
    ///
    /// A router changes its routes without end; a filter in the kernel leaves out those that are not local.
    pub(super) fn watch() -> Result<Socket, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Route, GROUPS)?;
        SockRef::from(&socket).attach_filter(&filter::local_routes()).map_err(NetlinkError::Socket)?;
        Ok(socket)
    }

    /// Reads them again.
    pub(super) fn refresh(&mut self) -> Result<(), NetlinkError> {
        let mut own = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = u8::try_from(family).unwrap_or(0);
            own.extend(self.socket.dump(&request(family), local_route)?);
        }
        // The most are single addresses: those first, in an order that can be searched.
        own.sort_unstable();
        self.own = own;
        Ok(())
    }

    /// Whether packets to this address are for this machine.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.own.binary_search(&IpNet::from(address)).is_ok()
            || self.own.iter().any(|net| net.prefix_len() < net.max_prefix_len() && net.contains(&address))
    }
}

/// Asks for local routes only; an old kernel that does not heed this sends all.
fn request(family: u8) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(GET_ROUTE, DUMP, 0, |writer| {
        writer.raw(&[family, 0, 0, 0, 0, 0, 0, LOCAL, 0, 0, 0, 0]);
    });
    writer.bytes().to_vec()
}

fn local_route(message: &Message<'_>) -> Option<IpNet> {
    let [_, prefix, _, _, _, _, _, kind, ..] = *message.body.first_chunk::<ROUTE_HEADER>()?;
    if message.kind != NEW_ROUTE || kind != LOCAL {
        return None;
    }
    let destination = address(message.attributes(ROUTE_HEADER).find(DESTINATION)?)?;
    IpNet::new(destination, prefix).ok()
}
