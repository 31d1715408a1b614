//! Connections that are older than connection tracking.
//!
//! On a machine without a firewall nothing tracks connections until our gate asks for it. The next
//! packet of the administrator's own ssh session would then look like a new connection, and be
//! dropped. So, before the gate is set up, the daemon tells connection tracking of the live connections to
//! guarded ports. That lets in no address, only these very connections.
//!
//! Connection tracking does not know the windows of a connection that it meets in the middle, so it must
//! believe every segment of it: one forged FIN or RST makes it forget the connection. So while such a
//! connection lives, the daemon makes it known again whenever it is missing.
//!
//! UDP sockets that are connected to one peer are like connections. Of others the kernel does not know the peers:
//! see `datagrams`.

use std::{collections::BTreeSet, fmt, net::SocketAddr};

use doors_os::netlink::{
    message::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Writer},
    socket::{NetlinkError, Socket},
};

use super::{
    abi,
    diagnosis::{self, LIVE, TCP_ESTABLISHED},
};
use crate::plan::{Plan, Protocol, octets};

/// A UDP socket that is connected to one peer.
const CONNECTED: u32 = 1 << TCP_ESTABLISHED;
/// Packets have gone both ways.
const BOTH_WAYS: u32 = abi::IPS_SEEN_REPLY | abi::IPS_ASSURED | abi::IPS_CONFIRMED;
/// The flag, and a mask with that bit: the windows of the connection are not known.
const LIBERAL: [u8; 2] = [abi::IP_CT_TCP_FLAG_BE_LIBERAL; 2];
/// The kernel's own time for an established connection that is silent: five days; in UDP two minutes.
const TCP_SECONDS: u32 = 432_000;
const UDP_SECONDS: u32 = 120;

/// One connection.
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

    /// Makes live connections known again that connection tracking has forgotten. Costs nothing if there were no
    /// connections before the gate.
    pub(super) fn keep_known(&mut self, plan: &Plan, tracking: &mut Socket) -> Result<(), NetlinkError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let live = guarded(plan)?;
        self.0.retain(|session| live.contains(session));
        self.0.iter().try_for_each(|session| introduce(*session, tracking).map(drop))
    }

    /// Whether there are no such connections.
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
    writer.message(abi::IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 1, |writer| {
        let family = if session.local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        writer.raw(&[u8::try_from(family).unwrap_or(0), 0, 0, 0]);
        let Session { protocol, peer, local } = session;
        tuple(writer, abi::CTA_TUPLE_ORIG, protocol, [peer, local]);
        tuple(writer, abi::CTA_TUPLE_REPLY, protocol, [local, peer]);
        writer.put_u32_be(abi::CTA_STATUS, BOTH_WAYS);
        match protocol {
            Protocol::Tcp => {
                writer.put_u32_be(abi::CTA_TIMEOUT, TCP_SECONDS);
                writer.nest(abi::CTA_PROTOINFO, |info| info.nest(abi::CTA_PROTOINFO_TCP, established));
            }
            Protocol::Udp => writer.put_u32_be(abi::CTA_TIMEOUT, UDP_SECONDS),
        }
    });
    writer.bytes().to_vec()
}

/// An established TCP connection.
fn established(tcp: &mut Writer) {
    tcp.put(abi::CTA_PROTOINFO_TCP_STATE, &[abi::TCP_CONNTRACK_ESTABLISHED]);
    for kind in [abi::CTA_PROTOINFO_TCP_FLAGS_ORIGINAL, abi::CTA_PROTOINFO_TCP_FLAGS_REPLY] {
        tcp.put(kind, &LIBERAL);
    }
}

fn tuple(writer: &mut Writer, kind: u16, protocol: Protocol, ends: [SocketAddr; 2]) {
    writer.nest(kind, |tuple| {
        let [from, _] = ends;
        let kinds = if from.is_ipv4() {
            [abi::CTA_IP_V4_SRC, abi::CTA_IP_V4_DST]
        } else {
            [abi::CTA_IP_V6_SRC, abi::CTA_IP_V6_DST]
        };
        tuple.nest(abi::CTA_TUPLE_IP, |ip| {
            for (kind, address) in kinds.into_iter().zip(ends) {
                ip.put(kind, &octets(address.ip()));
            }
        });
        tuple.nest(abi::CTA_TUPLE_PROTO, |attributes| {
            attributes.put(abi::CTA_PROTO_NUM, &[protocol.number()]);
            for (kind, address) in [abi::CTA_PROTO_SRC_PORT, abi::CTA_PROTO_DST_PORT].into_iter().zip(ends) {
                attributes.put(kind, &address.port().to_be_bytes());
            }
        });
    });
}
