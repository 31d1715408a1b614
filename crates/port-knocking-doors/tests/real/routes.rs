//! Knocks in a foreign name, which come in where that name does not live.
//!
//! ```text
//!   client 192.0.2.7 ──── "server" ─┐
//!                                   server
//!   outside 203.0.113.2 ──── "wan" ─┘
//! ```

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use doors_lab::Namespace;

use crate::{
    raw,
    testbed::{CLIENT, House, SEQUENCE, SERVER, STRANGER, crowd, gate, stay_on_this_processor},
};

/// The server's address outside, and the address of the machine there.
const WAN: &str = "203.0.113.1";
const OUTSIDE: &str = "203.0.113.2";
/// No port of a sequence.
const WRONG: u16 = 9;

/// A house with a second network, whose filters of all interfaces and of the outer one are set so.
fn house(all: u8, wan: u8) -> (House, Namespace) {
    stay_on_this_processor();
    let house = House::new();
    let outside = Namespace::new().unwrap();
    house.server.cable("wan", &outside, "outside").unwrap();
    house.server.address("wan", format!("{WAN}/24").parse().unwrap()).unwrap();
    outside.address("outside", format!("{OUTSIDE}/24").parse().unwrap()).unwrap();
    outside.route("192.0.2.0/24".parse().unwrap(), WAN.parse().unwrap()).unwrap();
    for (name, mode) in [("all", all), ("wan", wan), ("server", 0)] {
        set(&house, name, "rp_filter", mode);
    }
    (house, outside)
}

fn set(house: &House, link: &str, key: &str, value: u8) {
    let file = format!("/proc/sys/net/ipv4/conf/{link}/{key}");
    house.server.enter(|| fs::write(file, value.to_string())).unwrap();
}

/// Knocks from a network in any name.
fn knock(from: &Namespace, source: &str, target: &str, ports: &[u16]) {
    let end = |address: &str, port| SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
    from.enter(|| {
        for port in ports {
            raw::send(&raw::datagram(end(source, 40_000), end(target, *port), b"knock\n"));
        }
    });
}

/// The machine outside knocks wrong in its own name: what came before from there has been judged.
fn witness(house: &mut House, outside: &Namespace, number: u8) {
    let source = format!("203.0.113.{number}");
    knock(outside, &source, WAN, &[WRONG]);
    house.hear(&format!("wrong knock: {source} on port {WRONG}"));
}

fn opens(house: &mut House, source: &str) {
    house.hear(&format!("opened: door default for {source}"));
}

/// What every daemon is told.
fn configuration() -> String {
    gate("max_opened_door_duration = 60\nignoring_period_after_knock_error = 60")
}

#[test]
fn what_strict_routing_throws_away_makes_no_client_wait() {
    for (all, wan) in [(1, 0), (0, 1)] {
        let (mut house, outside) = house(all, wan);
        house.start(&configuration());
        // Before the client comes, and while it knocks.
        for (number, client) in [(11, CLIENT[0]), (12, STRANGER[0])] {
            let right = if number == 11 { 0 } else { 3 };
            knock(&house.client, client, SERVER[0], &SEQUENCE[..right]);
            for target in [WAN, SERVER[0]] {
                knock(&outside, client, target, &[WRONG, SEQUENCE[0]]);
            }
            witness(&mut house, &outside, number);
            knock(&house.client, client, SERVER[0], &SEQUENCE[right..]);
            opens(&mut house, client);
        }
        let lines = house.daemon().lines();
        let is_told = |line: &String| line.contains("wrong") && line.contains(CLIENT[0]);
        assert!(!lines.iter().any(is_told), "{lines:#?}");
    }
}

#[test]
fn what_strict_routing_throws_away_opens_nothing() {
    let (mut house, outside) = house(1, 0);
    let socket = house.server.enter(|| UdpSocket::bind(("0.0.0.0", SEQUENCE[4]))).unwrap();
    house.start(&configuration());
    knock(&outside, CLIENT[0], WAN, &SEQUENCE);
    // Nor does it bring a client further who is at it.
    knock(&house.client, STRANGER[0], SERVER[0], &SEQUENCE[..4]);
    knock(&outside, STRANGER[0], SERVER[0], &SEQUENCE[4..]);
    witness(&mut house, &outside, 11);
    // That is what the kernel itself does.
    knock(&outside, OUTSIDE, WAN, &SEQUENCE[4..]);
    let (_, heard) = socket.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(heard.ip().to_string(), OUTSIDE);
    // Grants are made one after the other: when this one is there, all before it would be.
    knock(&house.client, &crowd(1), SERVER[0], &SEQUENCE);
    opens(&mut house, &crowd(1));
    let open: Vec<String> = house.grants("default").into_keys().collect();
    assert_eq!(open, [crowd(1)], "{:#?}", house.daemon().lines());
}

#[test]
fn where_routing_is_not_strict_knocks_count_from_every_interface() {
    for (all, wan) in [(0, 0), (2, 0), (0, 2), (1, 2)] {
        let (mut house, outside) = house(all, wan);
        house.start(&configuration());
        knock(&outside, CLIENT[0], WAN, &SEQUENCE);
        opens(&mut house, CLIENT[0]);
        for (place, port) in SEQUENCE.into_iter().enumerate() {
            let (from, target) = [(&house.client, SERVER[0]), (&outside, WAN)][place % 2];
            knock(from, STRANGER[0], target, &[port]);
        }
        opens(&mut house, STRANGER[0]);
    }
}

#[test]
fn a_client_with_two_ways_back_knocks_over_both_where_routing_is_strict() {
    let (mut house, outside) = house(1, 1);
    // Filters that are strict everywhere, and routes that lead out of both.
    set(&house, "server", "rp_filter", 1);
    let routes = ["nexthop", "via", CLIENT[0], "dev", "server", "nexthop", "via", OUTSIDE, "dev", "wan"];
    house.on_server("ip", &[&["route", "add", "198.18.0.0/15"][..], &routes].concat());
    house.start(&configuration());
    for (place, port) in SEQUENCE.into_iter().enumerate() {
        let (from, target) = [(&house.client, SERVER[0]), (&outside, WAN)][place % 2];
        knock(from, "198.18.0.7", target, &[port]);
    }
    house.hear("door default for 198.18.0.7");
}

#[test]
fn where_the_way_back_depends_on_a_mark_knocks_count_as_the_kernel_may_take_them() {
    let (mut house, outside) = house(1, 1);
    set(&house, "wan", "src_valid_mark", 1);
    house.on_server(
        "nft",
        &["add table ip m; add chain ip m in { type filter hook prerouting priority mangle; }; \
         add rule ip m in iif wan meta mark set 7"],
    );
    house.on_server("ip", &["rule", "add", "fwmark", "7", "lookup", "100"]);
    house
        .on_server("ip", &["route", "add", "198.51.100.66/32", "via", OUTSIDE, "dev", "wan", "table", "100"]);
    house.start(&configuration());
    knock(&outside, STRANGER[0], WAN, &SEQUENCE);
    opens(&mut house, STRANGER[0]);
}

#[test]
fn a_local_user_who_knocks_in_a_foreign_name_makes_nobody_wait() {
    for listen in ["capture", "sockets"] {
        let mut house = House::new();
        house.start(&format!("listen = \"{listen}\"\n{}", configuration()));
        for ((client, own), loopback) in CLIENT.iter().zip(SERVER).zip(["127.0.0.1", "::1"]) {
            let wrong = SEQUENCE[3];
            knock(&house.server, client, loopback, &[wrong]);
            // Over IPv4 only root can, and sockets are not told that such a datagram came over loopback.
            if listen == "capture" || client.contains(':') {
                knock(&house.server, client, own, &[wrong]);
            }
            // In its own name it is heard, and told that it is wrong.
            for target in [loopback, own] {
                knock(&house.server, target, target, &[wrong]);
                house.hear(&format!("wrong knock: {target} on port {wrong}"));
            }
            house.knock(client, &SEQUENCE);
            opens(&mut house, client);
            let lines = house.daemon().lines();
            assert!(!lines.iter().any(|line| line.contains(&format!("wrong knock: {client}"))), "{lines:#?}");
        }
    }
}
