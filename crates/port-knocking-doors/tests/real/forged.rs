//! Packets that no client's socket sends. All go to a port outside the sequence: if heard, they would be wrong
//! knocks.

use std::{net::SocketAddr, process::Command};

use doors_lab::Process;

use crate::{
    raw,
    testbed::{CLIENT, PATIENCE, SEQUENCE, SERVER, STRANGER, Testbed, gate, server_for},
};

const PORT: u16 = 9;

/// A knock in an IP packet, with this checksum or with the right one.
fn knock(source: &str, port: u16, checksum: Option<u16>) -> Vec<u8> {
    let from = SocketAddr::new(source.parse().unwrap(), 40_000);
    let to = SocketAddr::new(server_for(source), port);
    raw::packet(from.ip(), to.ip(), raw::UDP, &raw::udp(from, to, b"knock\n", checksum))
}

fn send(testbed: &Testbed, packet: &[u8]) {
    testbed.client.enter(|| raw::send(packet));
}

/// Whether the daemon has heard a wrong knock. Packets of a family are heard in order, so it waits for a later right
/// sequence of each family.
fn heard_wrong(testbed: &mut Testbed) -> bool {
    for witness in STRANGER {
        testbed.knock(witness, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {witness}"));
    }
    testbed.daemon().lines().iter().any(|line| line.contains("wrong"))
}

#[test]
fn a_fragment_or_an_invalid_checksum_is_not_a_knock() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    for client in CLIENT {
        send(&testbed, &raw::fragment(&knock(client, PORT, None)));
        send(&testbed, &knock(client, PORT, Some(0xdead)));
    }
    // Over IPv6 a missing checksum is invalid, too.
    let [v4, v6] = CLIENT;
    send(&testbed, &knock(v6, PORT, Some(0)));
    assert!(!heard_wrong(&mut testbed), "{:#?}", testbed.daemon().lines());
    // Valid packets are heard. IPv4 allows a missing checksum.
    for (client, checksum) in [(v4, Some(0)), (v6, None)] {
        for port in SEQUENCE {
            send(&testbed, &knock(client, port, checksum));
        }
        testbed.hear(&format!("opened: door default for {client}"));
    }
}

#[test]
fn a_knock_from_outside_with_our_own_address_is_ignored() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    for own in SERVER {
        send(&testbed, &knock(own, PORT, None));
    }
    assert!(!heard_wrong(&mut testbed), "{:#?}", testbed.daemon().lines());
}

#[test]
fn a_packet_for_another_machine_is_not_a_knock() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    // The packet gets the hardware address of another machine; the other end of this link takes every frame.
    let readdressed = "add table netdev wire; \
         add chain netdev wire out { type filter hook egress device client priority 0; }; \
         add rule netdev wire out udp dport 9 ether daddr set 02:00:00:00:00:99 counter";
    on_client(&testbed, &[readdressed]);
    for client in CLIENT {
        testbed.knock(client, &[PORT]);
    }
    assert!(on_client(&testbed, &["list", "ruleset"]).contains("counter packets 2"), "none was readdressed");
    assert!(!heard_wrong(&mut testbed), "{:#?}", testbed.daemon().lines());
}

fn on_client(testbed: &Testbed, arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    let mut process = Process::start(&testbed.client, command).unwrap();
    let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
    assert!(status.success(), "{arguments:?}: {said}");
    said
}
