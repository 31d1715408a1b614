//! Which ports are guarded, and by which chain.

use doors_core::door::DoorName;

use crate::plan::{Plan, Ports, Protocol};

/// A chain for the ports of one door, or of several that share a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct DoorChain {
    pub(super) name: String,
    pub(super) doors: Vec<DoorName>,
}

/// Which ports lead to which chain.
#[derive(Debug)]
pub(super) struct Guarded {
    pub(super) chains: Vec<DoorChain>,
    pub(super) ports: Vec<(Ports, String)>,
}

/// Which ports lead to which chain, for a plan.
pub(super) fn guarded(plan: &Plan) -> Guarded {
    let mut guarded = Guarded { chains: Vec::new(), ports: Vec::new() };
    for (ports, doors) in pieces(plan) {
        let known = guarded.chains.iter().find(|chain| chain.doors == doors);
        let name = match (known, &doors[..]) {
            (Some(chain), _) => chain.name.clone(),
            (None, [door]) => format!("door_{door}"),
            (None, _) => format!("doors_{}", guarded.chains.len()),
        };
        if known.is_none() {
            guarded.chains.push(DoorChain { name: name.clone(), doors });
        }
        guarded.ports.push((ports, name));
    }
    guarded
}

/// Cuts the ports of all doors into pieces that do not overlap, each with the doors that have it.
pub(super) fn pieces(plan: &Plan) -> Vec<(Ports, Vec<DoorName>)> {
    let mut pieces: Vec<(Ports, Vec<DoorName>)> = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let all = || {
            plan.doors.iter().flat_map(|door| {
                door.ports.iter().filter(|ports| ports.protocol == protocol).map(move |ports| (door, *ports))
            })
        };
        // A piece begins where some range begins, or behind where some range ends.
        let mut starts: Vec<u16> =
            all().flat_map(|(_, ports)| [Some(ports.first), ports.last.checked_add(1)]).flatten().collect();
        starts.sort_unstable();
        starts.dedup();
        for (number, first) in starts.iter().enumerate() {
            let next = starts.get(number.saturating_add(1));
            let last = next.map_or(u16::MAX, |next| next.saturating_sub(1));
            let mut doors: Vec<DoorName> = all()
                .filter(|(_, ports)| ports.range().contains(first))
                .map(|(door, _)| door.name.clone())
                .collect();
            doors.dedup();
            if !doors.is_empty() {
                pieces.push((Ports { protocol, first: *first, last }, doors));
            }
        }
    }
    pieces
}
