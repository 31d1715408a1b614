//! Which ports are guarded, and by which chain.

use std::collections::BTreeMap;

use doors_core::door::DoorName;

use crate::plan::{Plan, PlannedDoor, Ports, Protocol};

/// A chain for the ports of one door, or of several that share a port.
#[derive(Clone, Debug)]
pub(super) struct DoorChain<'a> {
    pub(super) name: String,
    pub(super) doors: Vec<&'a PlannedDoor>,
}

/// Which ports lead to which chain.
#[derive(Debug)]
pub(super) struct Guarded<'a> {
    pub(super) chains: Vec<DoorChain<'a>>,
    pub(super) ports: Vec<(Ports, String)>,
}

/// Which ports lead to which chain, for a plan.
pub(super) fn guarded(plan: &Plan) -> Guarded<'_> {
    let mut guarded = Guarded { chains: Vec::new(), ports: Vec::new() };
    let mut names: BTreeMap<Vec<&DoorName>, String> = BTreeMap::new();
    for (ports, doors) in pieces(plan) {
        let key = doors.iter().map(|door| &door.name).collect();
        let name = names.entry(key).or_insert_with_key(|key| {
            let name = match &key[..] {
                [door] => format!("door_{door}"),
                _ => format!("doors_{}", guarded.chains.len()),
            };
            guarded.chains.push(DoorChain { name: name.clone(), doors });
            name
        });
        match guarded.ports.last_mut() {
            // Ports that are listed one by one are one range to the kernel.
            Some((before, to))
                if to == name
                    && before.protocol == ports.protocol
                    && before.last.checked_add(1) == Some(ports.first) =>
            {
                before.last = ports.last;
            }
            _ => guarded.ports.push((ports, name.clone())),
        }
    }
    guarded
}

/// Cuts the ports of all doors into pieces that do not overlap, each with the doors that have it.
///
/// Goes through the ports once, from the lowest to the highest: there may be thousands.
pub(super) fn pieces(plan: &Plan) -> Vec<(Ports, Vec<&PlannedDoor>)> {
    let mut pieces = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        // A piece begins where some range begins, or behind where some range ends: how many ranges of a door
        // begin there, less those that end.
        let mut edges: BTreeMap<u32, Vec<(usize, i32)>> = BTreeMap::new();
        for (number, door) in plan.doors.iter().enumerate() {
            for ports in door.ports.iter().filter(|ports| ports.protocol == protocol) {
                edges.entry(ports.first.into()).or_default().push((number, 1));
                edges.entry(u32::from(ports.last).saturating_add(1)).or_default().push((number, -1));
            }
        }
        let mut open: BTreeMap<usize, i32> = BTreeMap::new();
        let mut edges = edges.into_iter().peekable();
        while let Some((first, changes)) = edges.next() {
            for (number, change) in changes {
                let ranges = open.entry(number).or_default();
                *ranges = ranges.saturating_add(change);
            }
            open.retain(|_, ranges| *ranges != 0);
            let last = edges.peek().and_then(|(next, _)| next.checked_sub(1));
            let doors: Vec<&PlannedDoor> = open.keys().filter_map(|number| plan.doors.get(*number)).collect();
            let ends = u16::try_from(first).ok().zip(last.and_then(|last| u16::try_from(last).ok()));
            if let Some((first, last)) = ends.filter(|_| !doors.is_empty()) {
                pieces.push((Ports { protocol, first, last }, doors));
            }
        }
    }
    pieces
}
