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
//! UDP sockets that are connected to one peer are like connections. Of others the kernel does not know the peers:
//! see `datagrams`.
//!
//! Source: `linux/netfilter/nfnetlink_conntrack.h`, `linux/netfilter/nf_conntrack_tcp.h`.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use doors_os::netlink::{
    message::{ACK, CREATE, EXCLUSIVE, Writer},
    socket::{NetlinkError, Socket},
};

use super::diagnosis;
use crate::plan::{Plan, Protocol, octets};

/// The states of a connection over which something may still come, as bits: `TCP_ESTABLISHED`, `TCP_FIN_WAIT1`,
/// `TCP_FIN_WAIT2`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK`, `TCP_CLOSING`. Either half may be closed.
const LIVE: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// `TCP_ESTABLISHED` as a bit, which for UDP means that a socket is connected.
const CONNECTED: u32 = 1 << 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const NEW_CONNECTION: u16 = 1 << 8;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_STATUS`, `CTA_PROTOINFO`, `CTA_TIMEOUT`.
pub(super) const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
pub(super) const STATUS: u16 = 3;
const PROTOCOL_INFO: u16 = 4;
const TIMEOUT: u16 = 7;
/// `CTA_TUPLE_IP` with the kinds of its addresses, `CTA_TUPLE_PROTO` with number and ports.
const TUPLE_IP: u16 = 1;
const IPV4: [u16; 2] = [1, 2];
const IPV6: [u16; 2] = [3, 4];
pub(super) const TUPLE_PROTOCOL: u16 = 2;
pub(super) const NUMBER: u16 = 1;
pub(super) const PORTS: [u16; 2] = [2, 3];
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
/// The kernel's own time for an established connection that is silent: five days; in UDP two minutes.
const TCP_SECONDS: u32 = 432_000;
const UDP_SECONDS: u32 = 120;

/// One connection: who came, and to what.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Session {
    protocol: Protocol,
    peer: SocketAddr,
    local: SocketAddr,
}

/// Connections that were there when the gate came, and that may have to be made known to connection tracking
/// again. Also those that it knew: an earlier run may have made them known.
#[derive(Debug, Default)]
pub(super) struct Sessions(BTreeSet<Session>);

/// How many connections were made known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Introduced {
    tcp: usize,
    udp: usize,
}

impl Introduced {
    /// Whether there is anything to tell.
    pub(super) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for Introduced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in TCP, {} in UDP", self.tcp, self.udp)
    }
}

impl Sessions {
    /// Makes the connections to guarded ports known, through a socket to netfilter. Says how many were new to
    /// connection tracking.
    ///
    /// The socket is one that stays open: the kernel takes tens of milliseconds to close one, because it
    /// looks for tables that belong to it.
    pub(super) fn make_known(
        &mut self,
        plan: &Plan,
        tracking: &mut Socket,
    ) -> Result<Introduced, NetlinkError> {
        self.0 = guarded(plan)?;
        let mut introduced = Introduced::default();
        for session in &self.0 {
            let count = match session.protocol {
                Protocol::Tcp => &mut introduced.tcp,
                Protocol::Udp => &mut introduced.udp,
            };
            *count = count.saturating_add(introduce(*session, tracking)?.into());
        }
        Ok(introduced)
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
    let mut live = BTreeSet::new();
    for (protocol, states) in [(Protocol::Tcp, LIVE), (Protocol::Udp, CONNECTED)] {
        let found = diagnosis::guarded(plan, protocol, states)?;
        live.extend(found.into_iter().map(|socket| Session {
            protocol,
            peer: socket.peer,
            local: socket.local,
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

/// Tells connection tracking of a connection.
fn introduction(session: Session) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(NEW_CONNECTION, CREATE | EXCLUSIVE | ACK, 1, |writer| {
        let family = if session.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        writer.raw(&[u8::try_from(family).unwrap_or(0), 0, 0, 0]);
        let Session { protocol, peer, local } = session;
        tuple(writer, ORIGINAL, protocol, [peer, local]);
        tuple(writer, REPLY, protocol, [local, peer]);
        writer.put_u32_be(STATUS, BOTH_WAYS);
        match protocol {
            Protocol::Tcp => {
                writer.put_u32_be(TIMEOUT, TCP_SECONDS);
                writer.nest(PROTOCOL_INFO, |info| info.nest(TCP_INFO, established));
            }
            Protocol::Udp => writer.put_u32_be(TIMEOUT, UDP_SECONDS),
        }
    });
    writer.bytes().to_vec()
}

/// An established TCP connection.
fn established(tcp: &mut Writer) {
    tcp.put(TCP_STATE, &[TCP_ESTABLISHED]);
    for kind in TCP_FLAGS {
        tcp.put(kind, &LIBERAL);
    }
}

fn tuple(writer: &mut Writer, kind: u16, protocol: Protocol, ends: [SocketAddr; 2]) {
    writer.nest(kind, |tuple| {
        let [from, _] = ends;
        let kinds = if from.is_ipv4() { IPV4 } else { IPV6 };
        tuple.nest(TUPLE_IP, |ip| {
            for (kind, address) in kinds.into_iter().zip(ends) {
                ip.put(kind, &octets(address.ip()));
            }
        });
        tuple.nest(TUPLE_PROTOCOL, |attributes| {
            attributes.put(NUMBER, &[protocol.number()]);
            for (kind, address) in PORTS.into_iter().zip(ends) {
                attributes.put(kind, &address.port().to_be_bytes());
            }
        });
    });
}
