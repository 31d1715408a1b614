//! Ends connections that were made through a door: by the address of the client and the door's ports.
//!
//! A socket of this machine is destroyed, and its peer gets a reset. Of a connection that goes on to a container, only
//! connection tracking can be told to forget: the client's next packet is then a new connection, and the gate drops
//! it. If the container sends first, connection tracking takes up the connection again.
//!
//! Source: sock_diag(7), `linux/inet_diag.h`, `linux/netfilter/nfnetlink_conntrack.h`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use doors_core::{door::GrantKey, eligible::Own};
use doors_os::netlink::{
    message::{Attributes, Message, NLM_F_ACK, Writer},
    socket::{Family, NetlinkError, SOCK_DESTROY, Socket},
};

use super::{
    abi,
    diagnosis::{self, Listed},
    snapshot::list,
};
use crate::plan::{Plan, Ports, Protocol, address};

/// The states of a TCP socket over which something may come: all but closed, listening, and waiting after the end.
const TCP_STATES: u32 = diagnosis::LIVE | 1 << diagnosis::TCP_SYN_RECV | 1 << diagnosis::TCP_NEW_SYN_RECV;
/// A UDP socket that is connected to one peer.
const UDP_STATES: u32 = 1 << diagnosis::TCP_ESTABLISHED;

/// Which ports of which addresses are cut.
struct Wanted<'a>(BTreeMap<IpAddr, Vec<&'a Ports>>);

impl<'a> Wanted<'a> {
    fn new(plan: &'a Plan, keys: &[GrantKey]) -> Self {
        let mut ports: BTreeMap<IpAddr, Vec<&Ports>> = BTreeMap::new();
        for key in keys {
            let of_door = plan.door(&key.door).into_iter().flat_map(|door| &door.ports);
            ports.entry(key.source).or_default().extend(of_door);
        }
        Self(ports)
    }

    fn has(&self, source: IpAddr, protocol: Protocol, port: u16) -> bool {
        let of_source = self.0.get(&source).into_iter().flatten();
        of_source.into_iter().any(|ports| ports.protocol == protocol && ports.range().contains(&port))
    }
}

/// Ends the connections of these addresses to these doors. Returns how many there were.
///
/// # Errors
/// The first error. What could be ended is ended all the same.
pub(super) fn cut(plan: &Plan, keys: &[GrantKey], own: &Own) -> Result<usize, NetlinkError> {
    let wanted = Wanted::new(plan, keys);
    let mut ended = BTreeSet::new();
    let served = served(plan);
    let known = known(&wanted, own);
    // Connection tracking may have met a connection with a packet of the server, and then has it the other way around.
    let is_outward = |one: &&Tracked| {
        let served = served.as_ref().is_ok_and(|served| served.contains(&(one.protocol, one.local)));
        one.is_ours && !served
    };
    let (outward, inward): (Vec<&Tracked>, Vec<&Tracked>) = known.iter().flatten().partition(is_outward);
    let outward = outward.into_iter().map(|one| (one.protocol, one.local, one.peer)).collect();
    let sockets = destroy_sockets(plan, &wanted, &outward, &mut ended);
    let forgotten = forget(&inward, &mut ended);
    sockets.and(forgotten).and(known.map(drop)).and(served.map(drop)).map(|()| ended.len())
}

/// The ports of doors on which a socket of this machine serves all peers.
fn served(plan: &Plan) -> Result<BTreeSet<(Protocol, u16)>, NetlinkError> {
    let mut ports = BTreeSet::new();
    for (protocol, state) in [(Protocol::Tcp, diagnosis::TCP_LISTEN), (Protocol::Udp, diagnosis::TCP_CLOSE)] {
        let sockets = diagnosis::guarded(plan, protocol, 1 << state)?;
        ports.extend(sockets.iter().map(|socket| (protocol, socket.local.port())));
    }
    Ok(ports)
}

/// The connections that connection tracking knows, of those that are wanted, and those that this machine has made.
fn known(wanted: &Wanted<'_>, own: &Own) -> Result<Vec<Tracked>, NetlinkError> {
    let request = list(abi::IPCTNL_MSG_CT_GET, 0, |_| {});
    Socket::open(Family::Netfilter)?.dump(&request, |message| tracked(message, wanted, own))
}

/// One connection, by its protocol and its outer end.
type Ended = BTreeSet<(Protocol, SocketAddr)>;

/// Destroys the sockets, but for those of connections that this machine itself has made, from a port of a door.
fn destroy_sockets(
    plan: &Plan,
    wanted: &Wanted<'_>,
    outward: &BTreeSet<(Protocol, u16, SocketAddr)>,
    ended: &mut Ended,
) -> Result<(), NetlinkError> {
    let mut outcome = Ok(());
    for (protocol, states) in [(Protocol::Tcp, TCP_STATES), (Protocol::Udp, UDP_STATES)] {
        let mut sockets = match diagnosis::guarded(plan, protocol, states) {
            Ok(sockets) => sockets,
            Err(error) => {
                outcome = outcome.and(Err(error));
                continue;
            }
        };
        sockets.retain(|socket| {
            wanted.has(socket.peer.ip(), protocol, socket.local.port())
                && !outward.contains(&(protocol, socket.local.port(), socket.peer))
        });
        if sockets.is_empty() {
            continue;
        }
        let mut diag = Socket::open(Family::SocketDiagnosis)?;
        for socket in sockets {
            match diag.request(&destroy(&socket, protocol)) {
                Ok(()) => drop(ended.insert((protocol, socket.peer))),
                // It has ended by itself.
                Err(error) if error.number() == Some(libc::ENOENT) => {}
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
    }
    outcome
}

/// Has connection tracking forget these.
fn forget(known: &[&Tracked], ended: &mut Ended) -> Result<(), NetlinkError> {
    if known.is_empty() {
        return Ok(());
    }
    let mut netfilter = Socket::open(Family::Netfilter)?;
    let mut outcome = Ok(());
    for Tracked { protocol, peer, lives, forget, .. } in known {
        match netfilter.request(forget) {
            Ok(()) if *lives => drop(ended.insert((*protocol, *peer))),
            Ok(()) => {}
            Err(error) if error.number() == Some(libc::ENOENT) => {}
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    outcome
}

/// Destroys a socket: `struct inet_diag_req_v2`, with the identity that the kernel has shown.
fn destroy(socket: &Listed, protocol: Protocol) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(SOCK_DESTROY, NLM_F_ACK, 1, |writer| {
        writer.raw(&[socket.family, protocol.number(), 0, 0]);
        writer.raw(&u32::MAX.to_ne_bytes());
        writer.raw(&socket.identity);
    });
    writer.bytes().to_vec()
}

/// A connection that connection tracking knows.
struct Tracked {
    protocol: Protocol,
    peer: SocketAddr,
    /// The port of this machine, or of the container behind it.
    local: u16,
    /// Connection tracking says that this machine has made it.
    is_ours: bool,
    /// It is not what remains of one that has ended.
    lives: bool,
    /// The request to forget it.
    forget: Vec<u8>,
}

/// Reads a connection; `None` if it is not to be cut. Its door is known by the port that the client has used, or by the
/// port behind destination NAT.
fn tracked(message: &Message<'_>, wanted: &Wanted<'_>, own: &Own) -> Option<Tracked> {
    // After `struct nfgenmsg`.
    let connection = message.attributes(4);
    let (original, reply) = (connection.nested(abi::CTA_TUPLE_ORIG), connection.nested(abi::CTA_TUPLE_REPLY));
    let ports = original.nested(abi::CTA_TUPLE_PROTO);
    let protocol = match ports.find(abi::CTA_PROTO_NUM)? {
        [6] => Protocol::Tcp,
        [17] => Protocol::Udp,
        _ => return None,
    };
    let end = |of: Attributes<'_>, [v4, v6]: [u16; 2]| {
        let ip = of.nested(abi::CTA_TUPLE_IP);
        address(ip.find(v4).or_else(|| ip.find(v6))?)
    };
    let source = end(original, [abi::CTA_IP_V4_SRC, abi::CTA_IP_V6_SRC])?;
    let target = end(original, [abi::CTA_IP_V4_DST, abi::CTA_IP_V6_DST])?;
    let port = |of: Attributes<'_>, kind| {
        of.find(kind).and_then(|port| port.try_into().ok()).map(u16::from_be_bytes)
    };
    let [from, outside] = [port(ports, abi::CTA_PROTO_SRC_PORT)?, port(ports, abi::CTA_PROTO_DST_PORT)?];
    let is_ours = own.contain(source) && wanted.has(target, protocol, from);
    let inside = port(reply.nested(abi::CTA_TUPLE_PROTO), abi::CTA_PROTO_SRC_PORT).unwrap_or(outside);
    // A connection to another machine does not go through the gate, unless destination NAT of ours has led it there.
    let is_for_us =
        own.contain(target) || end(reply, [abi::CTA_IP_V4_SRC, abi::CTA_IP_V6_SRC]) != Some(target);
    let is_wanted = wanted.has(source, protocol, outside) || wanted.has(source, protocol, inside);
    if !(is_ours || is_for_us && is_wanted) {
        return None;
    }
    let mut writer = Writer::default();
    writer.message(abi::IPCTNL_MSG_CT_DELETE, NLM_F_ACK, 1, |writer| {
        writer.raw(message.body.get(..4).unwrap_or_default());
        writer.nest(abi::CTA_TUPLE_ORIG, |tuple| tuple.raw(original.0));
        for kind in [abi::CTA_ZONE, abi::CTA_ID] {
            if let Some(value) = connection.find(kind) {
                writer.put(kind, value);
            }
        }
    });
    let (peer, local) = match is_ours {
        true => ((target, outside).into(), from),
        false => ((source, from).into(), inside),
    };
    let state = connection
        .nested(abi::CTA_PROTOINFO)
        .nested(abi::CTA_PROTOINFO_TCP)
        .find(abi::CTA_PROTOINFO_TCP_STATE);
    let lives =
        state.and_then(|state| state.first()).is_none_or(|state| *state < abi::TCP_CONNTRACK_LAST_ACK);
    Some(Tracked { protocol, peer, local, is_ours, lives, forget: writer.bytes().to_vec() })
}
