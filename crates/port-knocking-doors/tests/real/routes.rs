//! Knocks with a forged source address, which arrive on an interface where that address is not.
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
    testbed::{CLIENT, SEQUENCE, SERVER, STRANGER, Testbed, crowd, gate, stay_on_this_processor},
};

/// The server's address on the outer network, and the address of the machine there.
const WAN: &str = "203.0.113.1";
const OUTSIDE: &str = "203.0.113.2";
/// A port that is in no sequence.
const WRONG: u16 = 9;

/// A testbed with a second network, and these values of `rp_filter` for all interfaces and for the outer one.
fn testbed(all: u8, wan: u8) -> (Testbed, Namespace) {
    stay_on_this_processor();
    let testbed = Testbed::new();
    let outside = Namespace::new().unwrap();
    testbed.server.cable("wan", &outside, "outside").unwrap();
    testbed.server.address("wan", format!("{WAN}/24").parse().unwrap()).unwrap();
    outside.address("outside", format!("{OUTSIDE}/24").parse().unwrap()).unwrap();
    outside.route("192.0.2.0/24".parse().unwrap(), WAN.parse().unwrap()).unwrap();
    for (name, mode) in [("all", all), ("wan", wan), ("server", 0)] {
        set(&testbed, name, "rp_filter", mode);
    }
    (testbed, outside)
}

fn set(testbed: &Testbed, link: &str, key: &str, value: u8) {
    let file = format!("/proc/sys/net/ipv4/conf/{link}/{key}");
    testbed.server.enter(|| fs::write(file, value.to_string())).unwrap();
}

/// Knocks from a network with any source address.
fn knock(from: &Namespace, source: &str, target: &str, ports: &[u16]) {
    let end = |address: &str, port| SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
    from.enter(|| {
        for port in ports {
            raw::send(&raw::datagram(end(source, 40_000), end(target, *port), b"knock\n"));
        }
    });
}

/// The machine outside sends a wrong knock from its own address. Once that is logged, everything before it from there
/// has been handled.
fn witness(testbed: &mut Testbed, outside: &Namespace, number: u8) {
    let source = format!("203.0.113.{number}");
    knock(outside, &source, WAN, &[WRONG]);
    testbed.hear(&format!("wrong knock: {source} on port {WRONG}"));
}

fn opens(testbed: &mut Testbed, source: &str) {
    testbed.hear(&format!("opened: door default for {source}"));
}

/// The configuration of every daemon here.
fn configuration() -> String {
    gate("max_opened_door_duration = 60\nignoring_period_after_knock_error = 60")
}

#[test]
fn packets_that_strict_routing_drops_make_no_client_wait() {
    for (all, wan) in [(1, 0), (0, 1)] {
        let (mut testbed, outside) = testbed(all, wan);
        testbed.start(&configuration());
        // Before the client's first knock, and in the middle of its sequence.
        for (number, client) in [(11, CLIENT[0]), (12, STRANGER[0])] {
            let right = if number == 11 { 0 } else { 3 };
            knock(&testbed.client, client, SERVER[0], &SEQUENCE[..right]);
            for target in [WAN, SERVER[0]] {
                knock(&outside, client, target, &[WRONG, SEQUENCE[0]]);
            }
            witness(&mut testbed, &outside, number);
            knock(&testbed.client, client, SERVER[0], &SEQUENCE[right..]);
            opens(&mut testbed, client);
        }
        let lines = testbed.daemon().lines();
        let is_told = |line: &String| line.contains("wrong") && line.contains(CLIENT[0]);
        assert!(!lines.iter().any(is_told), "{lines:#?}");
    }
}

#[test]
fn packets_that_strict_routing_drops_open_nothing() {
    let (mut testbed, outside) = testbed(1, 0);
    let socket = testbed.server.enter(|| UdpSocket::bind(("0.0.0.0", SEQUENCE[4]))).unwrap();
    testbed.start(&configuration());
    knock(&outside, CLIENT[0], WAN, &SEQUENCE);
    // Nor does a forged knock complete a client's sequence.
    knock(&testbed.client, STRANGER[0], SERVER[0], &SEQUENCE[..4]);
    knock(&outside, STRANGER[0], SERVER[0], &SEQUENCE[4..]);
    witness(&mut testbed, &outside, 11);
    // The kernel itself behaves the same.
    knock(&outside, OUTSIDE, WAN, &SEQUENCE[4..]);
    let (_, heard) = socket.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(heard.ip().to_string(), OUTSIDE);
    // Grants are made in order: once this one is there, all earlier ones would be.
    knock(&testbed.client, &crowd(1), SERVER[0], &SEQUENCE);
    opens(&mut testbed, &crowd(1));
    let open: Vec<String> = testbed.grants("default").into_keys().collect();
    assert_eq!(open, [crowd(1)], "{:#?}", testbed.daemon().lines());
}

#[test]
fn without_strict_routing_knocks_from_every_interface_count() {
    for (all, wan) in [(0, 0), (2, 0), (0, 2), (1, 2)] {
        let (mut testbed, outside) = testbed(all, wan);
        testbed.start(&configuration());
        knock(&outside, CLIENT[0], WAN, &SEQUENCE);
        opens(&mut testbed, CLIENT[0]);
        for (place, port) in SEQUENCE.into_iter().enumerate() {
            let (from, target) = [(&testbed.client, SERVER[0]), (&outside, WAN)][place % 2];
            knock(from, STRANGER[0], target, &[port]);
        }
        opens(&mut testbed, STRANGER[0]);
    }
}

#[test]
fn with_strict_routing_a_client_with_two_routes_may_knock_over_both() {
    let (mut testbed, outside) = testbed(1, 1);
    // Strict filters on all interfaces, and routes through both.
    set(&testbed, "server", "rp_filter", 1);
    let routes = ["nexthop", "via", CLIENT[0], "dev", "server", "nexthop", "via", OUTSIDE, "dev", "wan"];
    testbed.on_server("ip", &[&["route", "add", "198.18.0.0/15"][..], &routes].concat());
    testbed.start(&configuration());
    for (place, port) in SEQUENCE.into_iter().enumerate() {
        let (from, target) = [(&testbed.client, SERVER[0]), (&outside, WAN)][place % 2];
        knock(from, "198.18.0.7", target, &[port]);
    }
    testbed.hear("door default for 198.18.0.7");
}

#[test]
fn where_the_route_back_depends_on_a_mark_knocks_count() {
    let (mut testbed, outside) = testbed(1, 1);
    set(&testbed, "wan", "src_valid_mark", 1);
    testbed.on_server(
        "nft",
        &["add table ip m; add chain ip m in { type filter hook prerouting priority mangle; }; \
         add rule ip m in iif wan meta mark set 7"],
    );
    testbed.on_server("ip", &["rule", "add", "fwmark", "7", "lookup", "100"]);
    testbed
        .on_server("ip", &["route", "add", "198.51.100.66/32", "via", OUTSIDE, "dev", "wan", "table", "100"]);
    testbed.start(&configuration());
    knock(&outside, STRANGER[0], WAN, &SEQUENCE);
    opens(&mut testbed, STRANGER[0]);
}

#[test]
fn a_local_user_who_forges_a_source_address_makes_no_client_wait() {
    for listen in ["capture", "sockets"] {
        let mut testbed = Testbed::new();
        testbed.start(&format!("listen = \"{listen}\"\n{}", configuration()));
        for ((client, own), loopback) in CLIENT.iter().zip(SERVER).zip(["127.0.0.1", "::1"]) {
            let wrong = SEQUENCE[3];
            knock(&testbed.server, client, loopback, &[wrong]);
            // Over IPv4 only root can do this, and sockets do not learn that such a datagram came over loopback.
            if listen == "capture" || client.contains(':') {
                knock(&testbed.server, client, own, &[wrong]);
            }
            // From its own address the user is heard, and the wrong knock is logged.
            for target in [loopback, own] {
                knock(&testbed.server, target, target, &[wrong]);
                testbed.hear(&format!("wrong knock: {target} on port {wrong}"));
            }
            testbed.knock(client, &SEQUENCE);
            opens(&mut testbed, client);
            let lines = testbed.daemon().lines();
            assert!(!lines.iter().any(|line| line.contains(&format!("wrong knock: {client}"))), "{lines:#?}");
        }
    }
}
