//! The sockets of this machine, as the kernel lists them.
//!
//! Source: sock_diag(7), `linux/inet_diag.h`, `net/tcp_states.h`.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use doors_os::netlink::{
    message::{Message, NLM_F_DUMP, Writer},
    socket::{Family, NetlinkError, SOCK_DIAG_BY_FAMILY, Socket},
};

use crate::plan::{Plan, Protocol};

// States of a socket, of `net/tcp_states.h`. A UDP socket that is connected to one peer is `TCP_ESTABLISHED`, one that is
// for all peers `TCP_CLOSE`.
pub(super) const TCP_ESTABLISHED: u32 = 1;
pub(super) const TCP_SYN_RECV: u32 = 3;
pub(super) const TCP_FIN_WAIT1: u32 = 4;
pub(super) const TCP_FIN_WAIT2: u32 = 5;
pub(super) const TCP_CLOSE: u32 = 7;
pub(super) const TCP_CLOSE_WAIT: u32 = 8;
pub(super) const TCP_LAST_ACK: u32 = 9;
pub(super) const TCP_LISTEN: u32 = 10;
pub(super) const TCP_CLOSING: u32 = 11;
pub(super) const TCP_NEW_SYN_RECV: u32 = 12;

/// The states of a connection over which something may still come, as bits. Either half may be closed.
pub(super) const LIVE: u32 = 1 << TCP_ESTABLISHED
    | 1 << TCP_FIN_WAIT1
    | 1 << TCP_FIN_WAIT2
    | 1 << TCP_CLOSE_WAIT
    | 1 << TCP_LAST_ACK
    | 1 << TCP_CLOSING;

/// One socket: where it is, and who is at the other end. The port of an end that is not fixed is 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// `AF_INET` or `AF_INET6`.
    pub(super) family: u8,
    /// By what the kernel knows it: `struct inet_diag_sockid`.
    pub(super) identity: [u8; 48],
}

/// The sockets on guarded ports in one of these `states`, which is one bit for each.
pub(super) fn guarded(plan: &Plan, protocol: Protocol, states: u32) -> Result<Vec<Listed>, NetlinkError> {
    let ports = || plan.doors.iter().flat_map(|door| &door.ports).filter(|ports| ports.protocol == protocol);
    let mut found = Vec::new();
    if ports().next().is_none() {
        return Ok(found);
    }
    let mut diag = Socket::open(Family::SocketDiagnosis)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let all = diag.dump(&sockets(u8::try_from(family).unwrap_or(0), protocol, states), listed)?;
        found.extend(
            all.into_iter()
                .filter(|socket| ports().any(|ports| ports.range().contains(&socket.local.port()))),
        );
    }
    Ok(found)
}

/// Asks for all sockets in some states: `struct inet_diag_req_v2`.
fn sockets(family: u8, protocol: Protocol, states: u32) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, 0, |writer| {
        writer.raw(&[family, protocol.number(), 0, 0]);
        writer.raw(&states.to_ne_bytes());
        writer.raw(&[0; 48]);
    });
    writer.bytes().to_vec()
}

/// Reads a `struct inet_diag_msg`.
fn listed(message: &Message<'_>) -> Option<Listed> {
    let (head, rest) = message.body.split_first_chunk::<4>()?;
    let identity = *rest.first_chunk::<48>()?;
    let (ports, rest) = rest.split_first_chunk::<4>()?;
    let (local, rest) = rest.split_first_chunk::<16>()?;
    let (peer, _) = rest.split_first_chunk::<16>()?;
    let [family, ..] = *head;
    let address = |bytes: &[u8; 16]| match i32::from(family) {
        libc::AF_INET => bytes.first_chunk::<4>().map(|four| IpAddr::from(*four)),
        // A socket for both families shows IPv4 as mapped into IPv6.
        _ => Some(Ipv6Addr::from(*bytes).to_canonical()),
    };
    let [l0, l1, p0, p1] = *ports;
    Some(Listed {
        peer: SocketAddr::new(address(peer)?, u16::from_be_bytes([p0, p1])),
        local: SocketAddr::new(address(local)?, u16::from_be_bytes([l0, l1])),
        family,
        identity,
    })
}
