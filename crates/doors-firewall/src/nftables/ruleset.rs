//! The gate as nftables sees it.
//!
//! ```text
//! table inet port_knocking_doors {
//!     set ssh4 { type ipv4_addr; flags timeout; }     who may use the door "ssh", and until when
//!     set ssh6 { type ipv6_addr; flags timeout; }
//!     set trusted4 { type ipv4_addr; flags interval; }
//!     map guarded { type inet_proto . inet_service : verdict; flags interval
//!         elements = { tcp . 22 : goto door_ssh, udp . 60000-60010 : goto door_ssh } }
//!     chain door_ssh { ip saddr @ssh4 goto granted; ip6 saddr @ssh6 goto granted; counter drop; }
//!     chain granted { accept; }
//!     chain gate {
//!         type filter hook prerouting priority mangle; policy accept;
//!         tcp flags & (fin | syn | rst | ack) != syn ct state established accept
//!         meta l4proto != tcp ct state established accept
//!         iif lo accept
//!         fib daddr type unicast accept
//!         ip saddr @trusted4 accept
//!         meta l4proto . th dport vmap @guarded
//!     }
//!     chain arrival {
//!         type filter hook input priority mangle; policy accept;
//!         tcp flags & (fin | syn | rst | ack) != syn ct state established accept
//!         meta l4proto != tcp ct state established accept
//!         iif lo accept
//!         ip saddr @trusted4 accept
//!         ct status dnat jump translated
//!         meta l4proto . th dport vmap @guarded
//!     }
//!     chain translated { meta l4proto tcp ct original proto-dst 22 goto door_ssh; … }
//! }
//! ```
//!
//! **A SYN needs a grant, whatever connection tracking says of its addresses and ports.** Connection
//! tracking calls a SYN `established` as long as it remembers a connection between them: for minutes after
//! that has ended, and for days if it never did. **What is `related` needs one, too**: with a helper
//! assigned, a client can name any port in what it says. ICMP errors are not guarded, and pass.
//!
//! **`gate`** judges what is sent to an address of ours, before destination NAT: so a published port is
//! guarded by its outside number, wherever it leads. What is to be passed on to another machine has a unicast
//! destination, and passes. Broadcast, multicast and anycast are guarded like our own addresses: the answer
//! to such a datagram would make everything that follows from its sender an established connection.
//!
//! **`arrival`** judges what ends at this machine, after destination NAT: by the port it was sent to, and
//! else by the port it ends at. That is what `gate` cannot see: a foreign address, or another port, that is
//! translated to one of ours. Most packets meet both; for a grant that stays, that makes no difference.
//!
//! A door for one connection only has sets with `flags dynamic` and a size, and elements with `limit rate
//! 1/week burst 1 packets`: finding the element spends it, at once for all processors. In TCP only a SYN
//! looks for it. The packet that has found it takes it away, and leaves a pass for `arrival`:
//!
//! ```text
//!     set passing4 { type ipv4_addr . inet_proto . inet_service; flags dynamic,timeout; timeout 1s; }
//!     chain door_web {
//!         tcp flags & (fin | syn | rst | ack) == syn ip saddr @web4
//!             add @passing4 { ip saddr . meta l4proto . th sport } delete @web4 { ip saddr } goto granted
//!         …
//!     }
//!     chain arrival {
//!         …
//!         ip saddr . meta l4proto . th sport @passing4 delete @passing4 { … } accept
//!     }
//!     chain departure {
//!         type filter hook forward priority mangle; policy accept;
//!         ip saddr . meta l4proto . th sport @passing4 delete @passing4 { … }
//!     }
//! ```
//!
//! A pass is good for one arrival. What is passed on to another machine leaves it in `departure`, or a packet
//! from the same address and port could use it at another door.
//!
//! With `mark`, what is granted is marked, so that one rule of another firewall can let it in while its port stays
//! closed:
//!
//! ```text
//!     chain granted {
//!         meta mark set meta mark | 0x20000000
//!         ct mark set ct mark | 0x20000000
//!         accept
//!     }
//!     chain gate {
//!         …
//!         ct state established ct direction original ct mark & 0x20000000 == 0x20000000
//!             meta mark set meta mark | 0x20000000
//!         …
//! ```
//!
//! **Every packet of the client's is marked, not only the first**: the other firewall may have no rule for what is
//! established, and then it would let a connection begin and go no further. What the server answers is not marked: the
//! mark must not lead answers another way. The bits are set beside what others have set. In connection tracking they
//! only say which connections are marked; as soon as our table is gone, no packet is.
//!
//! The first packet through a new grant is traced, see `trace`. Whose that is, two sets for all doors together know,
//! from which the packet takes itself out. The chain comes behind the grant, so that nothing else spends a trace:
//!
//! ```text
//!     set trace.4 { type ipv4_addr; flags dynamic,timeout; timeout 10m; }
//!     chain granted {
//!         tcp flags & (fin | syn | rst | ack) == syn ip saddr @trace.4
//!             delete @trace.4 { ip saddr } meta nftrace set 1
//!         …
//! ```
//!
//! **Sets are dear**: the kernel finds a set by going through the names of all of them, for each rule that names one.
//! So a door has the two that it needs, and what can be shared is shared and comes first.
//!
//! A grant is an element with a timeout: the kernel closes the door, whatever becomes of us. Nothing
//! in here ever accepts what another table drops, and nothing concerns a port that no door has.

mod chains;
mod guarded;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::Lease,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::{
    chains::{add_base_chains, add_door_chain, add_granted_chain, add_translated_chain},
    guarded::guarded,
};
use super::batch::{Batch, Element, SetKind, Use};
use super::trace::OWED_FOR;
use crate::plan::{Plan, PlannedDoor, Ports, octets};

/// The name of our table, in the family `inet`.
pub const TABLE: &str = "port_knocking_doors";
/// The sets of sources whose next packet through a grant is traced. No door's name holds a point.
const TRACED: [&str; 2] = ["trace.4", "trace.6"];
/// The sets of packets that have used up a grant for one connection.
const PASSING: [&str; 2] = ["passing4", "passing6"];
/// A packet needs no longer from the gate to its arrival. Of one that another table drops the pass stays for so
/// long.
const PASSES_FOR: Duration = Duration::from_secs(1);
/// The map from guarded ports to chains.
pub(super) const GUARDED: &str = "guarded";
/// The sets of networks that always pass.
pub(super) const TRUSTED: [&str; 2] = ["trusted4", "trusted6"];

/// The transaction that makes the table anew, whether or not there is one, with these grants in it.
pub(super) fn replace<'a>(plan: &Plan, grants: impl IntoIterator<Item = (&'a Lease, Duration)>) -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    // Deleting what is not there fails; adding it first makes it certain.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    // Of the sets, those come first that many rules name: the kernel looks for a name in one after the other.
    let [traced4, traced6] = TRACED;
    batch.add_set(traced4, SetKind::Ipv4Grants(OWED_FOR, Use::Once));
    batch.add_set(traced6, SetKind::Ipv6Grants(OWED_FOR, Use::Once));
    if plan.doors.iter().any(|door| door.once) {
        let [passing4, passing6] = PASSING;
        batch.add_set(passing4, SetKind::Ipv4Packets(PASSES_FOR));
        batch.add_set(passing6, SetKind::Ipv6Packets(PASSES_FOR));
    }
    add_trusted(&mut batch, &plan.trusted);
    batch.add_set(GUARDED, SetKind::PortMap);
    for door in &plan.doors {
        let [set4, set6] = sets(&door.name);
        let each = used_by(door);
        batch.add_set(&set4, SetKind::Ipv4Grants(door.open_for, each));
        batch.add_set(&set6, SetKind::Ipv6Grants(door.open_for, each));
    }
    add_granted_chain(&mut batch, plan);
    let guarded = guarded(plan);
    for mut chain in guarded.chains.iter().cloned() {
        // Of several doors that let a source in, one that lasts comes first: it is not used up.
        chain.doors.sort_by_key(|door| door.once);
        add_door_chain(&mut batch, &chain, plan);
    }
    let element = |(ports, chain): &(Ports, String)| {
        let key = |port: u16| {
            let [high, low] = port.to_be_bytes();
            vec![ports.protocol.number(), 0, 0, 0, high, low, 0, 0]
        };
        Element::Goto(key(ports.first), key(ports.last), chain.clone())
    };
    batch.add_elements(GUARDED, &guarded.ports.iter().map(element).collect::<Vec<_>>());
    add_translated_chain(&mut batch, &guarded);
    add_base_chains(&mut batch, plan);

    add_grants(&mut batch, plan, grants);
    batch.finish()
}

/// The transaction that puts grants into a table that has none of them.
pub(super) fn fill<'a>(plan: &Plan, grants: impl IntoIterator<Item = (&'a Lease, Duration)>) -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    add_grants(&mut batch, plan, grants);
    batch.finish()
}

fn add_grants<'a>(batch: &mut Batch, plan: &Plan, grants: impl IntoIterator<Item = (&'a Lease, Duration)>) {
    let mut elements: BTreeMap<String, Vec<Element>> = BTreeMap::new();
    for (lease, left) in grants {
        elements.entry(set_of(&lease.key)).or_default().push(grant(plan, lease, left));
    }
    for (set, elements) in elements {
        batch.add_elements(&set, &elements);
    }
}

/// The transaction that takes the table away; it fails with `ENOENT` if it is not there.
pub(super) fn remove() -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    batch.delete_table();
    batch.finish()
}

/// The transaction that makes `grants` true and `closed` false. It needs no knowledge of what is true. Of the grants
/// in `owed` the next packet is traced, within that time.
pub(super) fn change<'a>(
    plan: &Plan,
    grants: impl IntoIterator<Item = (&'a Lease, Duration)>,
    closed: impl IntoIterator<Item = &'a GrantKey>,
    owed: &[(GrantKey, Duration)],
) -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    for (admission, left) in owed {
        let element = Element::Grant(octets(admission.source), *left, Use::Once, None);
        let [traced4, traced6] = TRACED;
        batch.add_elements(if admission.source.is_ipv4() { traced4 } else { traced6 }, &[element]);
    }
    for (lease, left) in grants {
        let (key, set) = (&lease.key, set_of(&lease.key));
        // Whether adding an element again changes its time differs between kernels, and deleting
        // what is not there fails: add, delete, add is the same everywhere. No packet sees a gap,
        // because the transaction becomes true at one moment.
        batch.add_elements(&set, &[stand_in(plan, key)]);
        batch.delete_elements(&set, &[Element::Key(octets(key.source))]);
        batch.add_elements(&set, &[grant(plan, lease, left)]);
    }
    for admission in closed {
        let set = set_of(admission);
        batch.add_elements(&set, &[stand_in(plan, admission)]);
        batch.delete_elements(&set, &[Element::Key(octets(admission.source))]);
    }
    batch.finish()
}

/// The transaction that gives grants another time. It fails with `ENOENT` if the kernel does not hold one of them any more.
pub(super) fn change_times<'a>(
    plan: &Plan,
    grants: impl IntoIterator<Item = (&'a Lease, Duration)>,
) -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    for (lease, left) in grants {
        let set = set_of(&lease.key);
        batch.delete_elements(&set, &[Element::Key(octets(lease.key.source))]);
        batch.add_elements(&set, &[grant(plan, lease, left)]);
    }
    batch.finish()
}

/// A transaction that changes nothing.
pub(super) fn nothing() -> Vec<u8> {
    let mut batch = Batch::new(TABLE);
    let (key, [traced4, _]) = (vec![0; 4], TRACED);
    let second = Duration::from_secs(1);
    batch.add_elements(traced4, &[Element::Grant(key.clone(), second, Use::Once, None)]);
    batch.delete_elements(traced4, &[Element::Key(key)]);
    batch.finish()
}

/// The element of a grant. Whose key it was stands beside it, for `nft list set` and for our own next run.
fn grant(plan: &Plan, lease: &Lease, left: Duration) -> Element {
    let each = plan.door(&lease.key.door).map_or(Use::Stays, used_by);
    Element::Grant(octets(lease.key.source), left, each, lease.granted_to.remark())
}

/// What is added so that deleting cannot fail.
///
/// While the transaction takes effect, a processor that still uses the table from before finds this element for some
/// nanoseconds. So for a door for one connection, the element must not let in another connection.
fn stand_in(plan: &Plan, admission: &GrantKey) -> Element {
    let each = match plan.door(&admission.door) {
        Some(door) if door.once => Use::Never,
        _ => Use::Stays,
    };
    Element::Grant(octets(admission.source), Duration::from_secs(1), each, None)
}

/// What a packet does to the grants of a door.
fn used_by(door: &PlannedDoor) -> Use {
    if door.once { Use::Once } else { Use::Stays }
}

/// The names of a door's sets, for IPv4 and for IPv6.
pub(super) fn sets(door: &DoorName) -> [String; 2] {
    [format!("{door}4"), format!("{door}6")]
}

/// Whether the set of this name holds grants, and not what is known of some packets.
pub(super) fn holds_grants(set: &str) -> bool {
    !TRACED.contains(&set) && !PASSING.contains(&set)
}

/// The set that holds a grant.
pub(super) fn set_of(admission: &GrantKey) -> String {
    let [set4, set6] = sets(&admission.door);
    match admission.source {
        IpAddr::V4(_) => set4,
        IpAddr::V6(_) => set6,
    }
}

fn add_trusted(batch: &mut Batch, trusted: &[IpNet]) {
    let mut v4: Vec<Ipv4Net> = Vec::new();
    let mut v6: Vec<Ipv6Net> = Vec::new();
    for net in trusted {
        match net {
            IpNet::V4(net) => v4.push(*net),
            IpNet::V6(net) => v6.push(*net),
        }
    }
    // Ranges in a set must not overlap.
    let v4 = Ipv4Net::aggregate(&v4).into_iter().map(|net| {
        let behind = net.broadcast().to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec());
        (net.network().octets().to_vec(), behind)
    });
    let v6 = Ipv6Net::aggregate(&v6).into_iter().map(|net| {
        let behind = net.broadcast().to_bits().checked_add(1).map(|bits| bits.to_be_bytes().to_vec());
        (net.network().octets().to_vec(), behind)
    });
    let elements = |ranges: Vec<(Vec<u8>, Option<Vec<u8>>)>| {
        let mut elements = Vec::new();
        for (first, behind) in ranges {
            elements.push(Element::RangeStart(first));
            elements.extend(behind.map(Element::RangeEnd));
        }
        elements
    };
    let [trusted4, trusted6] = TRUSTED;
    for (name, kind, ranges) in [
        (trusted4, SetKind::Ipv4Ranges, v4.collect::<Vec<_>>()),
        (trusted6, SetKind::Ipv6Ranges, v6.collect()),
    ] {
        if !ranges.is_empty() {
            batch.add_set(name, kind);
            batch.add_elements(name, &elements(ranges));
        }
    }
}

#[cfg(test)]
mod tests;
