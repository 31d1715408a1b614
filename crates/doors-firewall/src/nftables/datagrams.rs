//! UDP that is in use when the gate comes.
//!
//! Most UDP services have one socket for all their peers (WireGuard, DNS, a game), and the kernel has no list of these
//! peers. So when the gate comes, only connection tracking can know them; and where nothing has switched it on, it
//! knows none. Then the gate cannot tell a packet of a peer from one of a stranger, and drops it. A packet that the
//! service itself sends makes its peer known.
//!
//! For a while we could let pass what the service answers; but then every stranger that gets an answer would be let in,
//! too. So this is left to the administrator, and the daemon says beforehand which ports it concerns.

use std::collections::BTreeSet;

use doors_os::netlink::{
    message::{Attributes, Message},
    socket::{Family, NetlinkError, Socket},
};

use super::{
    abi,
    diagnosis::{self, TCP_CLOSE},
    snapshot::{Snapshot, list},
};
use crate::plan::{Plan, Protocol};

/// A UDP socket that is for all peers.
const FOR_ALL: u32 = 1 << TCP_CLOSE;
/// A message names at most so many ports.
const NAMED: usize = 8;

/// Services with guarded UDP ports that serve all their peers with one socket.
#[derive(Debug)]
pub(super) struct Services {
    ports: BTreeSet<u16>,
    /// How many of their flows connection tracking knows.
    known: usize,
}

impl Services {
    /// Looks for them. `None` without such services, and where the gate is there already: it has switched connection
    /// tracking on.
    pub(super) fn before_the_gate(plan: &Plan) -> Result<Option<Self>, NetlinkError> {
        let sockets = diagnosis::guarded(plan, Protocol::Udp, FOR_ALL)?;
        let ports: BTreeSet<u16> = sockets.iter().map(|socket| socket.local.port()).collect();
        if ports.is_empty() {
            return Ok(None);
        }
        let mut netfilter = Socket::open(Family::Netfilter)?;
        if !Snapshot::take(&mut netfilter)?.is_empty() {
            return Ok(None);
        }
        let flows = netfilter.dump(&list(abi::IPCTNL_MSG_CT_GET, 0, |_| {}), |message| {
            passes_to(message, &ports).filter(|passes| *passes)
        })?;
        Ok(Some(Self { ports, known: flows.len() }))
    }

    /// Whether connection tracking knows no flow to them, so that the gate cuts all of them.
    pub(super) fn are_unknown(&self) -> bool {
        self.known == 0
    }

    /// What becomes of their flows.
    pub(super) fn fate(&self) -> String {
        let mut named: Vec<String> =
            self.ports.iter().take(NAMED).map(|port| format!("{port}/udp")).collect();
        if let Some(more @ 1..) = self.ports.len().checked_sub(NAMED) {
            named.push(format!("{more} more"));
        }
        let cut = match self.known {
            0 => "none of the flows to it: when the gate comes, it cuts them".to_owned(),
            known => {
                format!("{known} of the flows to it: these go on; when the gate comes, it cuts any others")
            }
        };
        format!(
            "a service listens on {}, and connection tracking knows {cut}, each until the service itself sends \
             something over it, because they cannot be told from a stranger's; how to keep them: docs/firewalls.md, \
             \"UDP that is in use before the gate\"",
            named.join(", "),
        )
    }
}

/// Whether this is a UDP flow whose peer passes the gate to one of these ports, as established: by a connection
/// that the peer began, when it has been answered; by one that the service began, at once.
fn passes_to(message: &Message<'_>, ports: &BTreeSet<u16>) -> Option<bool> {
    // After `struct nfgenmsg`.
    let connection = message.attributes(4);
    let of = connection.nested(abi::CTA_TUPLE_ORIG).nested(abi::CTA_TUPLE_PROTO);
    let is_udp = of.find(abi::CTA_PROTO_NUM)? == [Protocol::Udp.number()];
    let [source, target] = [abi::CTA_PROTO_SRC_PORT, abi::CTA_PROTO_DST_PORT]
        .map(|kind| port(of, kind).is_some_and(|port| ports.contains(&port)));
    let answered = connection.u32_be(abi::CTA_STATUS)? & abi::IPS_SEEN_REPLY != 0;
    Some(is_udp && (source || (target && answered)))
}

fn port(of: Attributes<'_>, kind: u16) -> Option<u16> {
    of.find(kind)?.try_into().ok().map(u16::from_be_bytes)
}
