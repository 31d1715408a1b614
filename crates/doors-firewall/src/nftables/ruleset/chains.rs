//! The chains of the table, with the rules in each.

use ipnet::IpNet;

use super::{
    GUARDED, PASSING, TRACED, TRUSTED,
    guarded::{DoorChain, Guarded},
    sets,
};
use crate::{
    nftables::{abi, batch::Batch},
    plan::{Plan, PlannedDoor, Protocol, Refuse},
};

/// The chain that every packet meets before destination NAT.
const GATE: &str = "gate";
/// The chain that every packet meets that ends at this machine.
const ARRIVAL: &str = "arrival";
/// The chain that takes the pass of what is passed on to another machine.
const DEPARTURE: &str = "departure";
/// The chain for what has come through destination NAT.
const TRANSLATED: &str = "translated";
/// The chain that lets in what a grant lets in, and marks and traces it before.
const GRANTED: &str = "granted";
/// The two families, in the order in which sets are named.
const FAMILIES: [u8; 2] = [abi::NFPROTO_IPV4, abi::NFPROTO_IPV6];
/// The loopback interface is the first of every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK: u32 = 1;

pub(super) fn add_base_chains(batch: &mut Batch, plan: &Plan) {
    let trusted = &plan.trusted;
    for (chain, hook) in [(GATE, abi::NF_INET_PRE_ROUTING), (ARRIVAL, abi::NF_INET_LOCAL_IN)] {
        batch.add_base_chain(chain, hook);
        if let Some(mark) = plan.mark {
            batch.add_rule(chain, |rule| {
                rule.if_of_marked_connection(mark);
                rule.mark_packet(mark);
            });
        }
        batch.add_rule(chain, |rule| {
            rule.if_tcp_and_not_syn();
            rule.if_established();
            rule.accept();
        });
        batch.add_rule(chain, |rule| {
            rule.if_not_protocol(Protocol::Tcp);
            rule.if_established();
            rule.accept();
        });
        batch.add_rule(chain, |rule| {
            rule.if_interface(LOOPBACK);
            rule.accept();
        });
        if chain == GATE {
            batch.add_rule(chain, |rule| {
                rule.if_passed_on();
                rule.accept();
            });
        }
        let is_used = [
            trusted.iter().any(|net| matches!(net, IpNet::V4(_))),
            trusted.iter().any(|net| matches!(net, IpNet::V6(_))),
        ];
        for ((family, set), _) in FAMILIES.into_iter().zip(TRUSTED).zip(is_used).filter(|(_, used)| *used) {
            batch.add_rule(chain, |rule| {
                rule.if_source_in(family, set);
                rule.accept();
            });
        }
        if chain == ARRIVAL {
            add_passing(batch, plan);
            batch.add_rule(chain, |rule| {
                rule.if_translated();
                rule.jump(TRANSLATED);
            });
        }
        batch.add_rule(chain, |rule| rule.port_map(GUARDED));
    }
}

/// Lets through what has used up a grant at the gate, once.
fn add_passing(batch: &mut Batch, plan: &Plan) {
    if !plan.doors.iter().any(|door| door.once) {
        return;
    }
    for (family, passing) in FAMILIES.into_iter().zip(PASSING) {
        batch.add_rule(ARRIVAL, |rule| {
            rule.if_packet_in(family, passing);
            rule.take_out(passing);
            rule.accept();
        });
    }
    batch.add_base_chain(DEPARTURE, abi::NF_INET_FORWARD);
    for (family, passing) in FAMILIES.into_iter().zip(PASSING) {
        batch.add_rule(DEPARTURE, |rule| {
            rule.if_packet_in(family, passing);
            rule.take_out(passing);
        });
    }
}

/// Few connections come through destination NAT, so one rule after the other is quick enough. A map from
/// `meta l4proto . ct original proto-dst` would be read by the kernel, and not by `nft`.
pub(super) fn add_translated_chain(batch: &mut Batch, guarded: &Guarded<'_>) {
    batch.add_chain(TRANSLATED);
    for (ports, chain) in &guarded.ports {
        batch.add_rule(TRANSLATED, |rule| {
            rule.if_protocol(ports.protocol);
            rule.if_sent_to(ports.first, ports.last);
            rule.go_to(chain);
        });
    }
}

/// The protocols that a door has ports of.
fn protocols(door: &PlannedDoor) -> impl Iterator<Item = Protocol> {
    let has = |protocol: &Protocol| door.ports.iter().any(|ports| ports.protocol == *protocol);
    [Protocol::Tcp, Protocol::Udp].into_iter().filter(has)
}

/// Traces what a grant lets in, if that is owed, marks it, and accepts it. Looking for the element spends the trace.
/// Accepting is a rule of its own: connection tracking may be switched off for a packet, and then there is nothing to
/// mark.
pub(super) fn add_granted_chain(batch: &mut Batch, plan: &Plan) {
    batch.add_chain(GRANTED);
    for (family, traced) in FAMILIES.into_iter().zip(TRACED) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            batch.add_rule(GRANTED, |rule| {
                rule.if_first_of(protocol);
                rule.if_source_in(family, traced);
                rule.take_out(traced);
                rule.trace();
            });
        }
    }
    if let Some(mark) = plan.mark {
        batch.add_rule(GRANTED, |rule| rule.mark_packet(mark));
        batch.add_rule(GRANTED, |rule| rule.mark_connection(mark));
    }
    batch.add_rule(GRANTED, |rule| rule.accept());
}

pub(super) fn add_door_chain(
    batch: &mut Batch,
    DoorChain { name: chain, doors }: &DoorChain<'_>,
    plan: &Plan,
) {
    batch.add_chain(chain);
    for door in doors {
        for ((family, set), passing) in FAMILIES.into_iter().zip(sets(&door.name)).zip(PASSING) {
            if !door.once {
                batch.add_rule(chain, |rule| {
                    rule.if_source_in(family, &set);
                    rule.go_to(GRANTED);
                });
                continue;
            }
            // Looking for the element spends it, so what may not spend it is told apart before.
            for protocol in protocols(door) {
                batch.add_rule(chain, |rule| {
                    rule.if_first_of(protocol);
                    rule.if_source_in(family, &set);
                    rule.use_up(family, &set, passing);
                    rule.go_to(GRANTED);
                });
            }
        }
    }
    match plan.refuse {
        Refuse::Drop => batch.add_rule(chain, |rule| {
            rule.counter();
            rule.drop();
        }),
        Refuse::Reject => {
            // As a closed port does: a datagram to everybody, or on an Ethernet frame to everybody, has no answer.
            batch.add_rule(chain, |rule| {
                rule.if_for_this_machine_alone();
                rule.if_protocol(Protocol::Tcp);
                rule.counter();
                rule.reject_with_reset();
            });
            batch.add_rule(chain, |rule| {
                rule.if_for_this_machine_alone();
                rule.counter();
                rule.reject_with_port_unreachable();
            });
            batch.add_rule(chain, |rule| {
                rule.counter();
                rule.drop();
            });
        }
    }
}
