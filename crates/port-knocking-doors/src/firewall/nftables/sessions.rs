//! Connections that were there before connection tracking was.
//!
//! On a machine without a firewall nothing tracks connections until our gate asks for it. The next
//! packet of the administrator's own ssh session would then look like a new connection, and be
//! dropped. So, before the gate is set up, the connections to guarded ports that live are made
//! known to connection tracking. No address is let in by this, only these very connections.
//!
//! Connection tracking does not know the windows of a connection that it meets in the middle, so it must
//! believe every segment of it: one forged FIN or RST makes it forget the connection. So as long as such a
//! connection lives, it is made known again whenever it is missing.
//!
//! Source: sock_diag(7), `linux/inet_diag.h`, `linux/netfilter/nfnetlink_conntrack.h`,
//! `linux/netfilter/nf_conntrack_tcp.h`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use crate::{
    firewall::plan::{Plan, Protocol, octets},
    netlink::{
        message::{ACK, CREATE, DUMP, EXCLUSIVE, Message, Writer},
        socket::{Family, NetlinkError, Socket},
    },
};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// The states of a connection over which something may still come, as bits: `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`,
/// `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK`, `TCP_CLOSING`. Either half may be closed.
const LIVE: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const NEW_CONNECTION: u16 = 1 << 8;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_PROTOINFO`, `CTA_TIMEOUT`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TIMEOUT: u16 = 7;
/// `CTA_TUPLE_IP` with the kinds of its addresses, `CTA_TUPLE_PROTO` with number and ports.
const TUPLE_IP: u16 = 1;
const IPV4: [u16; 2] = [1, 2];
const IPV6: [u16; 2] = [3, 4];
const TUPLE_PROTOCOL: u16 = 2;
const NUMBER: u16 = 1;
const PORTS: [u16; 2] = [2, 3];
/// `IPS_SEEN_REPLY | IPS_ASSURED | IPS_CONFIRMED`.
const BOTH_WAYS: u32 = 1 << 1 | 1 << 2 | 1 << 3;
/// `CTA_PROTOINFO_TCP` and below it the state and the flags of both directions.
const TCP_INFO: u16 = 1;
const TCP_STATE: u16 = 1;
const TCP_FLAGS: [u16; 2] = [4, 5];
/// `TCP_CONNTRACK_ESTABLISHED`.
const TCP_ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL`, and a mask with that bit: nobody knows the windows so far.
const LIBERAL: [u8; 2] = [0x08, 0x08];
/// The kernel's own time for an established connection that is silent: five days.
const SECONDS: u32 = 432_000;

/// One connection: who came, and to what.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Session {
    peer: SocketAddr,
    local: SocketAddr,
}

/// Connections that were there when the gate came, and that may have to be made known to connection tracking
/// again. Also those that it knew: an earlier run may have made them known.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeSet<Session>);

impl Sessions {
    /// Makes the connections to guarded ports known, through a socket to netfilter. Says how many were new to
    /// connection tracking.
    ///
    /// The socket is one that stays open: the kernel takes tens of milliseconds to close one, because it
    /// looks for tables that belong to it.
    pub(super) fn make_known(&mut self, plan: &Plan, tracking: &mut Socket) -> Result<usize, NetlinkError> {
        self.0 = guarded(plan)?;
        let mut count: usize = 0;
        for session in &self.0 {
            count = count.saturating_add(introduce(*session, tracking)?.into());
        }
        Ok(count)
    }

    /// Makes those known again that were made known before, live, and were forgotten since. Costs nothing if
    /// there are none.
    pub(super) fn keep_known(&mut self, plan: &Plan, tracking: &mut Socket) -> Result<(), NetlinkError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let live = guarded(plan)?;
        self.0.retain(|session| live.contains(session));
        self.0.iter().try_for_each(|session| introduce(*session, tracking).map(drop))
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The connections to guarded ports that live.
fn guarded(plan: &Plan) -> Result<BTreeSet<Session>, NetlinkError> {
    let mut diag = Socket::open(Family::SocketDiagnosis)?;
    let mut live = BTreeSet::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let all = diag.dump(&living(u8::try_from(family).unwrap_or(0)), session)?;
        live.extend(all.into_iter().filter(|session| {
            plan.doors
                .iter()
                .flat_map(|door| &door.ports)
                .any(|ports| ports.protocol == Protocol::Tcp && ports.range().contains(&session.local.port()))
        }));
    }
    Ok(live)
}

/// Tells connection tracking of a connection. Says whether that was news.
fn introduce(session: Session, tracking: &mut Socket) -> Result<bool, NetlinkError> {
    match tracking.request(&introduction(session)) {
        Ok(()) => Ok(true),
        Err(error) if error.number() == Some(libc::EEXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks for all TCP connections that live: `struct inet_diag_req_v2`.
fn living(family: u8) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(BY_FAMILY, DUMP, 0, |writer| {
        writer.raw(&[family, Protocol::Tcp.number(), 0, 0]);
        writer.raw(&LIVE.to_ne_bytes());
        writer.raw(&[0; 48]);
    });
    writer.bytes().to_vec()
}

/// Reads a `struct inet_diag_msg`.
fn session(message: &Message<'_>) -> Option<Session> {
    let (head, rest) = message.body.split_first_chunk::<4>()?;
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
    Some(Session {
        peer: SocketAddr::new(address(peer)?, u16::from_be_bytes([p0, p1])),
        local: SocketAddr::new(address(local)?, u16::from_be_bytes([l0, l1])),
    })
}

/// Tells connection tracking of a connection.
fn introduction(session: Session) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(NEW_CONNECTION, CREATE | EXCLUSIVE | ACK, 1, |writer| {
        let family = if session.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        writer.raw(&[u8::try_from(family).unwrap_or(0), 0, 0, 0]);
        tuple(writer, ORIGINAL, session.peer, session.local);
        tuple(writer, REPLY, session.local, session.peer);
        writer.put_u32_be(STATUS, BOTH_WAYS);
        writer.put_u32_be(TIMEOUT, SECONDS);
        writer.nest(PROTOCOL_INFO, |info| {
            info.nest(TCP_INFO, |tcp| {
                tcp.put(TCP_STATE, &[TCP_ESTABLISHED]);
                for kind in TCP_FLAGS {
                    tcp.put(kind, &LIBERAL);
                }
            });
        });
    });
    writer.bytes().to_vec()
}

fn tuple(writer: &mut Writer, kind: u16, from: SocketAddr, to: SocketAddr) {
    writer.nest(kind, |tuple| {
        let kinds = if from.is_ipv4() { IPV4 } else { IPV6 };
        tuple.nest(TUPLE_IP, |ip| {
            for (kind, address) in kinds.into_iter().zip([from, to]) {
                ip.put(kind, &octets(address.ip()));
            }
        });
        tuple.nest(TUPLE_PROTOCOL, |protocol| {
            protocol.put(NUMBER, &[Protocol::Tcp.number()]);
            for (kind, address) in PORTS.into_iter().zip([from, to]) {
                protocol.put(kind, &address.port().to_be_bytes());
            }
        });
    });
}
