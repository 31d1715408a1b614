//! UDP services that are in use when the gate is installed.

use std::net::UdpSocket;

use rustix::process::Signal;

use crate::testbed::{CLIENT, PATIENCE, SERVER, SILENCE, STRANGER, Testbed, gate, server_for};

/// The guarded port.
const VOICE: u16 = 6000;
/// The message about a service whose peers the kernel does not know.
const SAID: &str = "a service listens on 6000/udp, and connection tracking knows";

fn voice() -> String {
    gate(&format!(
        "max_opened_door_duration = 60\n[[doors]]\nname = \"voice\"\nports = [\"{VOICE}/udp\"]\n\
         sequence = [1001,1002,1003,1004,1006]\n"
    ))
}

/// The service.
fn service(testbed: &Testbed, address: &str) -> UdpSocket {
    let socket = testbed.server.enter(|| UdpSocket::bind((address, VOICE))).unwrap();
    socket.set_read_timeout(Some(SILENCE)).unwrap();
    socket
}

/// A peer of the service.
fn peer(testbed: &Testbed, source: &str) -> UdpSocket {
    let socket = testbed.client.enter(|| UdpSocket::bind((source, 0))).unwrap();
    socket.connect((server_for(source), VOICE)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether a peer's datagram reaches the service, and its answer the peer.
fn talk(peer: &UdpSocket, service: &UdpSocket) -> bool {
    let address = peer.local_addr().unwrap();
    peer.send(b"hello").unwrap();
    let Ok((_, source)) = service.recv_from(&mut [0; 8]) else { return false };
    assert_eq!(source, address);
    service.send_to(b"hello", address).unwrap();
    peer.recv(&mut [0; 8]).unwrap() == 5
}

/// Switches connection tracking on, as any stateful firewall does.
fn turn_tracking_on(testbed: &Testbed) {
    testbed.on_server(
        "nft",
        &["add table inet track; add chain inet track in { type filter hook prerouting priority 0; }; \
         add rule inet track in ct state established accept"],
    );
}

/// The output of `check` on one line.
fn check(testbed: &Testbed) -> String {
    let path = testbed.write(&voice());
    let (_, said) = testbed.run(&["check", "--conf", path.to_str().unwrap()]);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_connected_udp_socket_from_before_the_gate_keeps_working_as_long_as_it_is_open() {
    let mut testbed = Testbed::new();
    // Connection tracking forgets a flow quickly.
    testbed.server.enter(|| {
        for name in ["udp_timeout", "udp_timeout_stream"] {
            std::fs::write(format!("/proc/sys/net/netfilter/nf_conntrack_{name}"), "1").unwrap();
        }
    });
    let pairs: Vec<(UdpSocket, UdpSocket)> = CLIENT
        .iter()
        .zip(SERVER)
        .map(|(client, server)| {
            let (peer, service) = (peer(&testbed, client), service(&testbed, server));
            service.connect(peer.local_addr().unwrap()).unwrap();
            (peer, service)
        })
        .collect();
    testbed.start(&format!("firewall_rules_check_periode_seconds = 1\n{}", voice()));
    testbed.hear("connections that were there before go on: 0 in TCP, 2 in UDP");
    for (peer, service) in pairs {
        let port = peer.local_addr().unwrap().port();
        let hears = || {
            peer.send(b"hello").unwrap();
            service.recv(&mut [0; 8]).is_ok()
        };
        assert!(hears(), "{:#?}", testbed.daemon().lines());
        // A packet sets a timeout of one second, the daemon's entry one of two minutes.
        testbed.until("a packet has left it little time", |testbed| {
            hears() && seconds_left(testbed, port) <= Some(1)
        });
        testbed.until("it is made known again", |testbed| seconds_left(testbed, port) > Some(1));
        assert!(hears(), "{:#?}", testbed.daemon().lines());
        // Another port of the same peer is unknown to the service.
        drop(service);
        let [here, there] = [peer.local_addr(), peer.peer_addr()].map(|end| end.unwrap().ip().to_string());
        let (other, service) = (self::peer(&testbed, &here), self::service(&testbed, &there));
        assert!(!talk(&other, &service));
    }
}

/// The remaining time of a flow from this port in connection tracking.
fn seconds_left(testbed: &Testbed, port: u16) -> Option<u64> {
    let file = "/proc/thread-self/net/nf_conntrack";
    let entries = testbed.server.enter(|| std::fs::read_to_string(file).unwrap());
    // ipv4     2 udp      17 119 src=192.0.2.7 dst=192.0.2.1 sport=40000 dport=6000 …
    let entry = entries.lines().find(|line| line.contains(&format!("sport={port} dport={VOICE}")))?;
    Some(entry.split_whitespace().nth(4)?.parse().unwrap())
}

#[test]
fn check_and_start_report_the_udp_that_the_gate_cuts() {
    let mut testbed = Testbed::new();
    for (client, server) in CLIENT.iter().zip(SERVER) {
        let (peer, service) = (peer(&testbed, client), service(&testbed, server));
        assert!(talk(&peer, &service));
        assert!(check(&testbed).contains(&format!("warning: {SAID} none of")), "{}", check(&testbed));
        testbed.start(&voice());
        let lines = testbed.daemon().lines().to_vec();
        let is_said = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(is_said(&format!("WARN {SAID} none of")), "{lines:#?}");
        assert!(!is_said("go on"), "{lines:#?}");
        assert!(!talk(&peer, &service), "cut, as was said");
        // Once installed, the gate cuts nothing more.
        assert!(!check(&testbed).contains(SAID), "{}", check(&testbed));
        testbed.end(Signal::TERM);
        testbed.on_server("nft", &["flush", "ruleset"]);
    }
}

#[test]
fn a_datagram_from_the_service_readmits_its_peer_and_no_stranger() {
    let mut testbed = Testbed::new();
    for ((client, stranger), server) in CLIENT.iter().zip(STRANGER).zip(SERVER) {
        let (peer, stranger) = (peer(&testbed, client), self::peer(&testbed, stranger));
        let service = service(&testbed, server);
        assert!(talk(&peer, &service) && talk(&stranger, &service));
        testbed.start(&voice());
        assert!(!talk(&peer, &service));
        service.send_to(b"there?", peer.local_addr().unwrap()).unwrap();
        peer.recv(&mut [0; 8]).unwrap();
        assert!(talk(&peer, &service));
        assert!(!talk(&stranger, &service));
        testbed.end(Signal::TERM);
        testbed.on_server("nft", &["flush", "ruleset"]);
    }
}

#[test]
fn udp_that_connection_tracking_knows_continues_when_the_gate_is_installed() {
    let mut testbed = Testbed::new();
    turn_tracking_on(&testbed);
    let pairs: Vec<(UdpSocket, UdpSocket)> = CLIENT
        .iter()
        .zip(SERVER)
        .map(|(client, server)| (peer(&testbed, client), service(&testbed, server)))
        .collect();
    let silent = peer(&testbed, STRANGER[0]);
    // A peer without an answer cannot be told from a stranger.
    silent.send(b"hello").unwrap();
    pairs[0].1.recv(&mut [0; 8]).unwrap();
    assert!(pairs.iter().all(|(peer, service)| talk(peer, service)));
    assert!(check(&testbed).contains(&format!("{SAID} 2 of")), "{}", check(&testbed));
    testbed.start(&voice());
    testbed.hear(&format!("INFO {SAID} 2 of"));
    assert!(pairs.iter().all(|(peer, service)| talk(peer, service)), "{:#?}", testbed.daemon().lines());
    assert!(!talk(&silent, &pairs[0].1));
    // The table that switched it on is not needed any more.
    testbed.on_server("nft", &["delete", "table", "inet", "track"]);
    assert!(pairs.iter().all(|(peer, service)| talk(peer, service)));
}

#[test]
fn a_restart_with_the_gate_in_place_cuts_no_udp_and_does_not_mention_it() {
    let mut testbed = Testbed::new();
    let service = service(&testbed, SERVER[0]);
    testbed.start(&voice());
    let known = peer(&testbed, CLIENT[0]);
    testbed.knock(CLIENT[0], &[1001, 1002, 1003, 1004, 1006]);
    testbed.hear("opened: door voice");
    assert!(talk(&known, &service));
    for signal in [Signal::TERM, Signal::KILL] {
        testbed.end(signal);
        testbed.on_server("nft", &["flush", "set", "inet", "port_knocking_doors", "voice4"]);
        testbed.start(&voice());
        assert!(talk(&known, &service), "{:#?}", testbed.daemon().lines());
        assert!(!talk(&peer(&testbed, STRANGER[0]), &service));
        let lines = testbed.daemon().lines();
        assert!(!lines.iter().any(|line| line.contains(SAID) || line.contains("go on: ")), "{lines:#?}");
    }
}
