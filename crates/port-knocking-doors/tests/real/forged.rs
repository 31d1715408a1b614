//! Packets that no client's socket sends. All go to a port that nobody knocks at: heard, they would be wrong.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use port_knocking_doors::lab::Process;
use socket2::{Domain, Protocol, Socket, Type};

use crate::house::{CLIENT, House, PATIENCE, SEQUENCE, SERVER, STRANGER, gate, server_for};

const PORT: u16 = 9;
const NO_FRAGMENT: u16 = 0;
/// The first of several.
const FRAGMENT: u16 = 0x2000;

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A knock in UDP, with this checksum or with the right one.
fn udp(source: IpAddr, target: IpAddr, port: u16, checksum: Option<u16>) -> Vec<u8> {
    let ports = [40_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    let mut udp = [&ports[..], &[0, 14, 0, 0], b"knock\n"].concat();
    // Over pseudo header and datagram.
    let all = [&octets(source)[..], &octets(target), &[0, 17, 0, 14], &udp].concat();
    let pairs = all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let right = !u16::try_from(sum).unwrap();
    udp[6..8].copy_from_slice(&checksum.unwrap_or(right).to_be_bytes());
    udp
}

/// Sends a datagram with a header of our own making from the client's network.
fn send(house: &House, source: &str, fragment: u16, udp: &[u8]) {
    let (source, target): (IpAddr, IpAddr) = (source.parse().unwrap(), server_for(source));
    let addresses = [octets(source), octets(target)].concat();
    let packet = match target {
        // The kernel fills in the header's checksum, and leaves ours alone.
        IpAddr::V4(_) => {
            let length = u8::try_from(20 + udp.len()).unwrap();
            let header = [&[0x45, 0, 0, length, 0, 1][..], &fragment.to_be_bytes(), &[64, 17, 0, 0]].concat();
            [&header[..], &addresses, udp].concat()
        }
        IpAddr::V6(_) => {
            let more = if fragment == NO_FRAGMENT { vec![] } else { vec![17, 0, 0, 1, 0, 0, 0, 1] };
            let next = if fragment == NO_FRAGMENT { 17 } else { 44 };
            let length = u8::try_from(more.len() + udp.len()).unwrap();
            [&[0x60, 0, 0, 0, 0, length, next, 64][..], &addresses, &more, udp].concat()
        }
    };
    house.client.enter(|| {
        let raw = Socket::new(Domain::for_address((target, 0).into()), Type::RAW, Some(Protocol::from(255)));
        raw.unwrap().send_to(&packet, &SocketAddr::new(target, 0).into()).unwrap();
    });
}

/// Whether the daemon has heard a wrong knock. What comes later is heard later, for each family.
fn heard_wrong(house: &mut House) -> bool {
    for witness in STRANGER {
        house.knock(witness, &SEQUENCE);
        house.hear(&format!("opened: door default for {witness}"));
    }
    house.daemon().lines().iter().any(|line| line.contains("wrong"))
}

#[test]
fn a_fragment_or_a_bad_checksum_is_no_knock() {
    let mut house = House::new();
    house.start(&gate("max_opened_door_duration = 60"));
    for client in CLIENT {
        let udp = |checksum| udp(client.parse().unwrap(), server_for(client), PORT, checksum);
        send(&house, client, FRAGMENT, &udp(None));
        send(&house, client, NO_FRAGMENT, &udp(Some(0xdead)));
    }
    // Over IPv6 none at all is bad, too.
    let [v4, v6] = CLIENT;
    send(&house, v6, NO_FRAGMENT, &udp(v6.parse().unwrap(), server_for(v6), PORT, Some(0)));
    assert!(!heard_wrong(&mut house), "{:#?}", house.daemon().lines());
    // The same packets are heard if nothing is wrong with them. IPv4 allows to leave the checksum out.
    for (client, checksum) in [(v4, Some(0)), (v6, None)] {
        for port in SEQUENCE {
            let udp = udp(client.parse().unwrap(), server_for(client), port, checksum);
            send(&house, client, NO_FRAGMENT, &udp);
        }
        house.hear(&format!("opened: door default for {client}"));
    }
}

#[test]
fn nobody_knocks_in_our_own_name() {
    let mut house = House::new();
    house.start(&gate("max_opened_door_duration = 60"));
    for own in SERVER {
        let udp = udp(own.parse().unwrap(), server_for(own), PORT, None);
        send(&house, own, NO_FRAGMENT, &udp);
    }
    assert!(!heard_wrong(&mut house), "{:#?}", house.daemon().lines());
}

#[test]
fn a_packet_for_another_machine_is_no_knock() {
    let mut house = House::new();
    house.start(&gate("max_opened_door_duration = 60"));
    // On its way out it gets the address of another card; this cable's end takes every frame.
    let readdressed = "add table netdev wire; \
         add chain netdev wire out { type filter hook egress device client priority 0; }; \
         add rule netdev wire out udp dport 9 ether daddr set 02:00:00:00:00:99 counter";
    on_client(&house, &[readdressed]);
    for client in CLIENT {
        house.knock(client, &[PORT]);
    }
    assert!(on_client(&house, &["list", "ruleset"]).contains("counter packets 2"), "none was readdressed");
    assert!(!heard_wrong(&mut house), "{:#?}", house.daemon().lines());
}

fn on_client(house: &House, arguments: &[&str]) -> String {
    let mut command = Command::new("nft");
    command.args(arguments);
    let mut process = Process::start(&house.client, command).unwrap();
    let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
    assert!(status.success(), "{arguments:?}: {said}");
    said
}
