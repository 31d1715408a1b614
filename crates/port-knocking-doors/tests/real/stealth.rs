//! In capture mode, a stranger cannot see that the daemon listens.

use std::{
    fs,
    io::Read as _,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use doors_spa::receipt::Answer as Told;
use rustix::process::Signal;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    raw,
    raw_client::{Device, client, open},
    testbed::{CLIENT, PATIENCE, SEQUENCE, SILENCE, Testbed, server_for},
};

const DOOR: &str = "[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n";
/// The protocol of raw sockets that only send (`IPPROTO_RAW`).
const RESERVED: u8 = 255;

/// A testbed without a rate limit for ICMP errors.
fn talkative() -> Testbed {
    let testbed = Testbed::new();
    testbed.server.enter(|| {
        for file in ["ipv4/icmp_ratelimit", "ipv6/icmp/ratelimit"] {
            fs::write(format!("/proc/sys/net/{file}"), "0").unwrap();
        }
    });
    testbed
}

/// The ICMP error with which the server answers a packet from the client, with the packet that it quotes.
fn answer(testbed: &Testbed, source: &str, packet: &[u8]) -> Vec<u8> {
    let source: IpAddr = source.parse().unwrap();
    let (domain, protocol, header) = match source {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 20),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 0),
    };
    testbed.client.enter(|| {
        let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
        socket.set_read_timeout(Some(SILENCE)).unwrap();
        let mut buffer = [0; 1500];
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            // A new link may lose the first packet.
            raw::send(packet);
            while let Ok(length) = socket.read(&mut buffer) {
                let message = &buffer[header..length];
                // Over IPv6, neighbour discovery uses the same protocol; the types of errors are below 128.
                if message[0] < 128 {
                    return message.to_vec();
                }
            }
        }
        panic!("no answer to {source}")
    })
}

/// The server's answers to an unknown IP protocol, over both families.
fn answers_to_reserved(testbed: &Testbed) -> [Vec<u8>; 2] {
    CLIENT.map(|source| {
        let packet = raw::packet(source.parse().unwrap(), server_for(source), RESERVED, b"hello");
        answer(testbed, source, &packet)
    })
}

/// The server's answers to a knock on several ports, over both families.
fn answers_to_knocks(testbed: &Testbed) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for port in [SEQUENCE[0], SEQUENCE[3], doors_spa::PORT, 9999] {
        for (source, unreachable) in CLIENT.iter().zip([[3, 3], [1, 4]]) {
            let from = SocketAddr::new(source.parse().unwrap(), 40_000);
            let packet = raw::datagram(from, SocketAddr::new(server_for(source), port), b"knock\n");
            let answer = answer(testbed, source, &packet);
            // "Port unreachable" about this very datagram (RFC 792, RFC 4443).
            assert_eq!(answer[..2], unreachable, "{source} to {port}");
            assert_eq!(answer[answer.len() - 14..], packet[packet.len() - 14..]);
            answers.push(answer);
        }
    }
    answers
}

#[test]
fn knock_ports_answer_like_all_closed_ports_and_as_before_the_daemon() {
    let mut testbed = talkative();
    let device = Device::new(1, &testbed.card());
    let before = answers_to_knocks(&testbed);
    let client = client("laptop", &device, &["ssh"], "");
    testbed.start(&testbed.gateway(&format!("{DOOR}sequence = {SEQUENCE:?}\n{client}")));
    assert_eq!(answers_to_knocks(&testbed), before);
    testbed.hear("wrong knock");
}

#[test]
fn the_reply_sockets_change_no_answer_of_the_machine() {
    let mut testbed = talkative();
    let device = Device::new(1, &testbed.card());
    let before = answers_to_reserved(&testbed);
    let text = testbed.gateway(&format!("{DOOR}{}", client("laptop", &device, &["ssh"], "")));
    testbed.start(&text);
    for source in CLIENT {
        assert_eq!(device.open(&testbed, source, "ssh", 0).answer, Told::Granted);
    }
    assert_eq!(answers_to_reserved(&testbed), before);
}

#[test]
fn without_clients_there_are_no_reply_sockets() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    let without_clients = testbed.gateway(DOOR);
    let with_client = format!("{without_clients}{}", client("laptop", &device, &["ssh"], ""));
    testbed.start(&without_clients);
    for (text, sockets) in [(&without_clients, 0), (&with_client, 2), (&without_clients, 0)] {
        testbed.write(text);
        testbed.daemon().signal(Signal::HUP).unwrap();
        testbed.hear("the configuration has been read again");
        let tables = testbed.on_server("cat", &["/proc/net/raw", "/proc/net/raw6"]);
        // Each table has a heading.
        assert_eq!(tables.lines().count(), 2 + sockets, "{tables}");
        if sockets > 0 {
            // The replay log for the very first client is opened beside the reload.
            testbed.until("the client is heard", |testbed| {
                !testbed.is_silent(CLIENT[0], &device.seal(&device.request(open("ssh", 0))).bytes)
            });
            assert_eq!(device.open(&testbed, CLIENT[0], "ssh", 0).answer, Told::Granted);
        }
    }
}

#[test]
fn a_receipt_comes_from_the_address_that_was_knocked() {
    let mut testbed = Testbed::new();
    let device = Device::new(1, &testbed.card());
    // A second address of the interface, and a network that only a route makes the server's own.
    let targets = ["192.0.2.9", "203.0.113.9", "2001:db8::9", "2001:db8:2::9"];
    testbed.server.address("server", "192.0.2.9/24".parse().unwrap()).unwrap();
    testbed.server.address("server", "2001:db8::9/64".parse().unwrap()).unwrap();
    for (network, way) in [("203.0.113.0/24", CLIENT[0]), ("2001:db8:2::/64", CLIENT[1])] {
        let network = network.parse().unwrap();
        testbed.server.own(network).unwrap();
        testbed.client.route(network, server_for(way)).unwrap();
    }
    testbed.server.enter(|| {
        for family in ["ipv4", "ipv6"] {
            fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "0").unwrap();
        }
    });
    let text = testbed.gateway(&format!("{DOOR}{}", client("laptop", &device, &["ssh"], "")));
    testbed.start(&text);
    for target in targets {
        let target: IpAddr = target.parse().unwrap();
        let receipt = device.open_at(&testbed, CLIENT[usize::from(target.is_ipv6())], target, "ssh");
        assert_eq!(receipt.answer, Told::Granted, "{target}");
    }
}
