//! How knocks are heard: with packet sockets and with bound sockets, over both families.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::{
    raw,
    testbed::{CLIENT, SEQUENCE, STRANGER, Testbed, crowd, gate, send_from, server_for},
};

const CAPTURE: &str = "listen = \"capture\"";
const SOCKETS: &str = "listen = \"sockets\"";

#[test]
fn two_hundred_sequences_without_pauses_open_two_hundred_doors() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(&format!("max_opened_door_duration = 120\n{listen}")));
        for number in 1..=200 {
            testbed.knock(&crowd(number), &SEQUENCE);
        }
        for _ in 0..200 {
            testbed.hear("opened:");
        }
        assert_eq!(testbed.grants("default").len(), 200);
        let wrong = testbed.daemon().lines().iter().filter(|line| line.contains("wrong")).count();
        assert_eq!(wrong, 0, "{listen}");
    }
}

#[test]
fn many_simultaneous_clients_are_distinguished() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(&format!("max_opened_door_duration = 120\n{listen}")));
        let target = server_for(CLIENT[0]);
        testbed.as_client(|| {
            let sockets: Vec<UdpSocket> =
                (1..=100).map(|number| UdpSocket::bind((crowd(number), 0)).unwrap()).collect();
            for port in SEQUENCE {
                for socket in &sockets {
                    send_from(socket, (target, port), b"knock\n");
                }
            }
        });
        (1..=100)
            .for_each(|number| drop(testbed.hear(&format!("opened: door default for {}, ", crowd(number)))));
        assert_eq!(testbed.grants("default").len(), 100);
    }
}

#[test]
fn knocks_over_ipv4_and_ipv6_open_for_their_own_family() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        testbed.knock(CLIENT[1], &SEQUENCE);
        testbed.hear(&format!("opened: door default for {}", CLIENT[1]));
        assert!(testbed.is_open(CLIENT[1]));
        assert!(!testbed.is_open(CLIENT[0]));
    }
}

#[test]
fn a_wrong_knock_makes_only_its_source_wait() {
    for (listen, wrong) in [(CAPTURE, 9999), (SOCKETS, SEQUENCE[3])] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(&format!("ignoring_period_after_knock_error = 2\n{listen}")));
        testbed.knock(CLIENT[0], &SEQUENCE[..2]);
        testbed.knock(CLIENT[0], &[wrong]);
        testbed.hear(&format!("wrong knock: {} on port {wrong}, after 2 right ones", CLIENT[0]));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.knock(STRANGER[0], &SEQUENCE);
        testbed.hear(&format!("opened: door default for {}", STRANGER[0]));
        assert!(!testbed.is_open(CLIENT[0]));
        std::thread::sleep(std::time::Duration::from_millis(2100));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear(&format!("opened: door default for {}", CLIENT[0]));
    }
}

#[test]
fn with_capture_every_port_counts_and_with_sockets_only_knock_ports() {
    for (listen, opens) in [(CAPTURE, false), (SOCKETS, true)] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        let mut knocks = SEQUENCE.to_vec();
        knocks.insert(2, 9999);
        testbed.knock(CLIENT[0], &knocks);
        testbed.knock(STRANGER[0], &SEQUENCE);
        testbed.hear(&format!("opened: door default for {}", STRANGER[0]));
        assert_eq!(testbed.is_open(CLIENT[0]), opens, "{listen}");
    }
}

#[test]
fn a_daemon_with_nothing_to_hear_guards_its_doors_and_starts_hearing_after_a_reload() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        let nothing =
            format!("firewall = \"nftables\"\n{listen}\n[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n");
        testbed.start(&nothing);
        let read_again = |testbed: &mut Testbed, text: &str| {
            testbed.write(text);
            testbed.daemon().signal(Signal::HUP).unwrap();
            testbed.hear("the configuration has been read again");
        };
        assert!(!testbed.is_open(CLIENT[0]));
        read_again(&mut testbed, &format!("{nothing}sequence = {SEQUENCE:?}\n"));
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened: door ssh");
        read_again(&mut testbed, &nothing);
        assert!(!testbed.is_open(STRANGER[0]));
        assert!(!testbed.daemon().lines().iter().any(|line| line.contains("no IPv6")));
        assert!(testbed.end(Signal::TERM).success(), "{listen}");
    }
}

#[test]
fn other_datagrams_are_not_knocks() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        for payload in
            [&b"knock"[..], b"knock\r\n", b"Knock\n", b"knock\n\n", b"", b"knock\n2345678901234567890"]
        {
            testbed.send(CLIENT[0], &SEQUENCE, payload);
        }
        // They do not count at all, not even as wrong knocks.
        testbed.knock(CLIENT[0], &SEQUENCE);
        testbed.hear("opened:");
        assert_eq!(testbed.grants("default").len(), 1);
        assert!(!testbed.daemon().lines().iter().any(|line| line.contains("wrong")));
    }
}

#[test]
fn interfaces_and_addresses_may_appear_and_disappear() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    testbed.server.remove("server").unwrap();
    testbed.client.cable("late", &testbed.server, "later").unwrap();
    testbed.server.address("later", "203.0.113.1/24".parse().unwrap()).unwrap();
    testbed.client.address("late", "203.0.113.7/24".parse().unwrap()).unwrap();
    testbed.send_at("203.0.113.7", "203.0.113.1".parse().unwrap(), &SEQUENCE, b"knock\n");
    testbed.hear("opened: door default for 203.0.113.7");
}

#[test]
fn an_address_counts_as_soon_as_the_kernel_treats_it_as_its_own() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    testbed.client.route("203.0.113.0/24".parse().unwrap(), server_for(CLIENT[0])).unwrap();
    // No interface has these addresses; only a route makes them the server's own. Such a route is also the last step
    // when an interface gets an address.
    testbed.server.own("203.0.113.0/24".parse().unwrap()).unwrap();
    testbed.server.own("2001:db8:2::/64".parse().unwrap()).unwrap();
    testbed.client.route("2001:db8:2::/64".parse().unwrap(), server_for(CLIENT[1])).unwrap();
    for (client, target) in CLIENT.iter().zip(["203.0.113.9", "2001:db8:2::9"]) {
        testbed.send_at(client, target.parse().unwrap(), &SEQUENCE, b"knock\n");
        testbed.hear(&format!("opened: door default for {client}"));
    }
}

#[test]
fn addresses_of_a_transparent_proxy_are_not_the_machines_own() {
    let mut testbed = Testbed::new();
    for network in ["192.0.2.0/24", "2001:db8::/64"] {
        testbed.server.take_in(network.parse().unwrap(), 100).unwrap();
    }
    testbed.start(&gate(""));
    // If they counted as the machine's own, these sources would be rejected as forged.
    for client in CLIENT {
        testbed.knock(client, &SEQUENCE);
        testbed.hear(&format!("opened: door default for {client}"));
    }
}

#[test]
fn forwarded_knocks_for_other_machines_are_ignored() {
    let mut testbed = Testbed::new();
    let _inside = testbed.machine_behind();
    testbed.start(&gate(""));
    // If heard, these knocks would be wrong, and the right ones after them ignored.
    testbed.send_at(CLIENT[0], "203.0.113.2".parse().unwrap(), &[9, 10, 11], b"knock\n");
    // The server's address on its other side is its own.
    testbed.send_at(CLIENT[0], "203.0.113.1".parse().unwrap(), &SEQUENCE, b"knock\n");
    testbed.hear("opened:");
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("wrong")), "the first were not heard");
}

#[test]
fn broadcast_and_multicast_are_not_knocks() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        for target in ["192.0.2.255", "255.255.255.255", "224.0.0.1", "ff02::1"] {
            let target = SocketAddr::new(target.parse().unwrap(), SEQUENCE[3]);
            let source: IpAddr = CLIENT[usize::from(target.is_ipv6())].parse().unwrap();
            testbed.as_client(|| {
                let socket = Socket::new(Domain::for_address(target), Type::DGRAM, None).unwrap();
                // Most of them have no route.
                socket.bind_device(Some(b"client")).unwrap();
                socket.set_broadcast(true).unwrap();
                socket.bind(&SocketAddr::new(source, 0).into()).unwrap();
                socket.send_to(b"knock\n", &target.into()).unwrap();
            });
        }
        // If heard, they would be wrong knocks, and the right ones after them ignored.
        for client in CLIENT {
            testbed.knock(client, &SEQUENCE);
            testbed.hear(&format!("opened: door default for {client}"));
        }
        assert!(!testbed.daemon().lines().iter().any(|line| line.contains("wrong")), "{listen}");
    }
}

#[test]
fn a_knock_whose_checksum_has_to_be_verified_counts() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        testbed.start(&gate(listen));
        for client in CLIENT {
            // On a virtual link the kernel vouches for checksums that it has not computed. It does not vouch for a
            // packet from a raw socket, nor for one from a real network.
            let source = SocketAddr::new(client.parse().unwrap(), 40_000);
            testbed.as_client(|| {
                for port in SEQUENCE {
                    let target = SocketAddr::new(server_for(client), port);
                    raw::send(&raw::datagram(source, target, b"knock\n"));
                }
            });
            testbed.hear(&format!("opened: door default for {client}"));
        }
    }
}

#[test]
fn many_address_changes_do_not_delay_hearing() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 60"));
    for number in 0..400_u16 {
        let address = format!("203.0.{}.{}/32", number / 250, number % 250 + 1);
        testbed.server.address("server", address.parse().unwrap()).unwrap();
    }
    let begun = std::time::Instant::now();
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    assert!(begun.elapsed() < std::time::Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[test]
fn a_mapped_address_over_ipv6_does_not_knock_for_an_ipv4_client() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    for port in SEQUENCE {
        let mapped = "[::ffff:198.51.100.66]:40000".parse().unwrap();
        let packet = raw::datagram(mapped, SocketAddr::new(server_for(CLIENT[1]), port), b"knock\n");
        testbed.client.enter(|| raw::send(&packet));
    }
    testbed.knock(CLIENT[0], &SEQUENCE);
    let first = testbed.hear("opened:");
    assert!(first.contains(CLIENT[0]), "{first}");
    assert!(!testbed.daemon().lines().iter().any(|line| line.contains("198.51.100.66")));
}

#[test]
fn a_flood_of_forged_knocks_locks_no_client_out_and_the_log_stays_short() {
    for listen in [CAPTURE, SOCKETS] {
        let mut testbed = Testbed::new();
        // There is no quiet period, so a client that has lost a datagram may knock again at once.
        let without_quiet = "max_opened_door_duration = 60\nignoring_period_after_knock_error = 0";
        testbed.start(&gate(&format!("{without_quiet}\n{listen}")));
        let resident = |testbed: &mut Testbed| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", testbed.daemon().id())).unwrap();
            let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let before = resident(&mut testbed);
        let server = server_for(STRANGER[1]);
        for round in 0..20_u32 {
            testbed.client.enter(|| {
                for number in 0..50_u32 {
                    let forged = format!("2001:db8:1::{round:x}:{number:x}");
                    let socket = UdpSocket::bind((forged, 0)).unwrap();
                    for port in [SEQUENCE[0], SEQUENCE[0], SEQUENCE[3]] {
                        send_from(&socket, (server, port), b"knock\n");
                    }
                }
            });
            // A kernel that is busy with other tests may lose a datagram; three attempts are enough.
            let client = crowd(u8::try_from(round).unwrap() + 1);
            let is_in = (0..3).any(|_| {
                testbed.knock(&client, &SEQUENCE);
                let knocked = std::time::Instant::now();
                std::iter::repeat_with(|| testbed.grants("default").contains_key(&client))
                    .take_while(|_| knocked.elapsed() < std::time::Duration::from_secs(3))
                    .any(|is_in| is_in)
            });
            assert!(is_in, "{client} is kept out: {:#?}", testbed.daemon().lines());
        }
        assert!(resident(&mut testbed) < before + 2048, "the table took memory without bound");
        let wrong = testbed.daemon().lines().iter().filter(|line| line.contains("wrong")).count();
        assert!((1..=25).contains(&wrong), "{wrong} lines");
    }
}
