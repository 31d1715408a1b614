//! Containers of this machine that reach a published port through the machine's own address.
//!
//! To the gate they are like any other client: what they send comes over a bridge, with their own address, to an address of
//! this machine and a guarded port. So they are shut out, and a container engine's users do not expect that.

use doors_os::netlink::socket::{Family, NetlinkError, Socket};
use ipnet::IpNet;

use super::{
    super::abi,
    base_chains, bridges, links,
    rule::Verdict,
    ruleset,
    walk::{self, Connection, Packet},
};
use crate::plan::{Plan, Ports};

/// Networks of containers that do not reach ports that are published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hairpin {
    /// They are not trusted.
    pub(super) networks: Vec<IpNet>,
    bridges: Vec<String>,
    published: Vec<Ports>,
    trusted: Vec<IpNet>,
}

impl Hairpin {
    /// Looks whether there are such networks, and guarded ports that are published.
    pub(super) fn look(plan: &Plan) -> Result<Option<Self>, NetlinkError> {
        let is_trusted = |network: &IpNet| plan.trusted.iter().any(|trusted| trusted.contains(network));
        let mut inside = bridges::inside()?;
        inside.retain(|(_, network)| !is_trusted(network));
        if inside.is_empty() {
            return Ok(None);
        }
        let published = published(plan)?;
        inside.retain(|(_, network)| published.iter().any(|(family, _)| *family == family_of(network)));
        if inside.is_empty() {
            return Ok(None);
        }
        let mut ports: Vec<Ports> = published.into_iter().map(|(_, ports)| ports).collect();
        ports.sort_unstable();
        ports.dedup();
        let mut bridges: Vec<String> = inside.iter().map(|(bridge, _)| bridge.clone()).collect();
        bridges.dedup();
        let networks = inside.into_iter().map(|(_, network)| network).collect();
        Ok(Some(Self { networks, bridges, published: ports, trusted: plan.trusted.clone() }))
    }

    /// What is said of them, with the line that lets them in.
    pub(super) fn said(&self) -> String {
        let listed = |all: Vec<String>| all.join(", ");
        let networks = listed(self.networks.iter().map(ToString::to_string).collect());
        let ports = listed(self.published.iter().map(ToString::to_string).collect());
        let trusted =
            self.trusted.iter().chain(&self.networks).map(|network| format!("\"{network}\"")).collect();
        format!(
            "containers on this machine ({networks}, on {}) do not reach the published {ports} through an address of this machine \
             without a grant; to let them in without one: trusted = [{}]; see docs/firewalls.md",
            self.bridges.join(", "),
            listed(trusted),
        )
    }
}

fn family_of(network: &IpNet) -> u8 {
    match network {
        IpNet::V4(_) => abi::NFPROTO_IPV4,
        IpNet::V6(_) => abi::NFPROTO_IPV6,
    }
}

/// The guarded ports that another table may lead to another destination, with the family.
fn published(plan: &Plan) -> Result<Vec<(u8, Ports)>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let links = links();
    let mut published = Vec::new();
    for base in base_chains(&mut socket)? {
        // Nothing but a chain of this type can translate.
        if base.hook != abi::NF_INET_PRE_ROUTING || !base.is_nat {
            continue;
        }
        let ruleset = ruleset(&mut socket, base.family, &base.table)?;
        if !ruleset.rules.values().flatten().any(|rule| rule.verdict == Verdict::Translate) {
            continue;
        }
        for ports in plan.doors.iter().flat_map(|door| &door.ports) {
            let ends = ruleset.ends(*ports);
            for family in walk::families(base.family) {
                let leads_elsewhere = |port: &u16| {
                    let (packet, links) = (Packet::First, &links[..]);
                    let (family, protocol, port) = (*family, ports.protocol, *port);
                    let connection = Connection { packet, family, protocol, port, mark: 0, links };
                    ruleset
                        .first(&base.name, &connection, |rule| rule.verdict == Verdict::Translate)
                        .is_some()
                };
                if ends.iter().any(leads_elsewhere) {
                    published.push((*family, *ports));
                }
            }
        }
    }
    Ok(published)
}
