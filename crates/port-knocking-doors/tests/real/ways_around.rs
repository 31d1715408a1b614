//! How a stranger, or a client whose grant has expired, may try to get past the gate.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use crate::{
    gate::refused,
    raw,
    testbed::{
        Answer, CLIENT, PATIENCE, PORT, SEQUENCE, SERVER, STRANGER, Testbed, echoes, gate, server_for,
    },
};

/// A source port that a client uses repeatedly.
const SAME: u16 = 40_000;

fn client(source: &str) -> SocketAddr {
    SocketAddr::new(source.parse().unwrap(), SAME)
}

fn server(source: &str, port: u16) -> SocketAddr {
    SocketAddr::new(server_for(source), port)
}

/// Connects from [`SAME`].
fn connect(testbed: &Testbed, source: &str, port: u16) -> std::io::Result<TcpStream> {
    let (from, to) = (client(source), server(source, port));
    testbed.client.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    })
}

/// Whether the gate drops a segment from [`SAME`]. The client must send no other packets meanwhile.
fn is_dropped(testbed: &Testbed, source: &str, sequence: u32, flags: u8) -> bool {
    is_dropped_at(testbed, source, PORT, sequence, flags)
}

fn is_dropped_at(testbed: &Testbed, source: &str, port: u16, sequence: u32, flags: u8) -> bool {
    let before = refused(testbed);
    testbed.client.enter(|| raw::send(&raw::segment(client(source), server(source, port), sequence, flags)));
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(250) {
        if refused(testbed) > before {
            return true;
        }
    }
    false
}

#[test]
fn a_connection_is_new_whatever_connection_tracking_remembers_of_its_addresses_and_ports() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("max_opened_door_duration = 2"));
    // The client's kernel would reset the connections after unexpected answers.
    testbed.in_client(
        "nft",
        &["add table inet t; add chain inet t out { type filter hook output priority 0; }; \
                              add rule inet t out tcp flags & rst == rst drop"],
    );
    for source in CLIENT {
        testbed.knock(source, &SEQUENCE);
        testbed.hear("opened:");
        let mut session = connect(&testbed, source, PORT).unwrap();
        testbed.hear("closed:");
        testbed.until_closed(source);
        assert!(is_dropped(&testbed, source, 7, raw::SYN), "ESTABLISHED");
        assert!(echoes(&mut session), "the connection lives on");
        // The server also closes once it has read everything: FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT.
        session.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(is_dropped(&testbed, source, 7, raw::SYN), "after a FIN");
        assert_eq!(session.read(&mut [0; 8]).unwrap(), 0);
        drop(session);
        assert!(is_dropped(&testbed, source, 7, raw::SYN), "closed");
    }
}

#[test]
fn a_connection_that_the_server_has_reset_does_not_let_the_client_in() {
    let mut testbed = Testbed::new();
    let port = 2222;
    for address in SERVER {
        let address = SocketAddr::new(address.parse().unwrap(), port);
        let listener = testbed.server.enter(|| TcpListener::bind(address)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Closing sends a reset.
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
    }
    testbed.start(&gate("max_opened_door_duration = 2").replace("[22]", "[2222]"));
    for source in CLIENT {
        testbed.knock(source, &SEQUENCE);
        testbed.hear("opened:");
        for _ in 0..3 {
            // The reset arrives at the latest when the client reads.
            let reset = connect(&testbed, source, port).and_then(|mut session| session.read(&mut [0; 8]));
            assert_eq!(reset.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
        }
        testbed.hear("closed:");
        testbed.until("the door is closed", |testbed| !testbed.grants("default").contains_key(source));
        assert!(is_dropped_at(&testbed, source, port, 7, raw::SYN));
    }
}

/// Starts the daemon with a door that grants one connection, and gets such a grant.
fn once(testbed: &mut Testbed, source: &str) {
    testbed.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"once\"\nports = [\"22/tcp\", \"53/udp\"]\n\
         sequence = {SEQUENCE:?}\ngrant = \"once\"\nopen_for = 60\n"
    ));
    testbed.knock(source, &SEQUENCE);
    testbed.hear("opened:");
}

#[test]
fn only_a_syn_spends_a_grant_for_one_connection() {
    for source in CLIENT {
        let mut testbed = Testbed::new();
        once(&mut testbed, source);
        for flags in
            [raw::ACK, raw::RST, raw::FIN, raw::SYN | raw::ACK, raw::SYN | raw::FIN, raw::SYN | raw::RST, 0]
        {
            assert!(is_dropped(&testbed, source, 7, flags), "{flags:#x}");
        }
        assert!(testbed.grants("once").contains_key(source));
        assert_eq!(testbed.ask(source, PORT), Answer::Accepted);
        assert_eq!(testbed.ask(source, PORT), Answer::Silence);
    }
}

#[test]
fn traffic_translated_to_this_machine_is_guarded_by_the_port_before_and_after_translation() {
    let routed: IpAddr = "203.0.113.9".parse().unwrap();
    let mut testbed = Testbed::new();
    // An address that is routed to this server but is not its own; and ports that are translated to the guarded port,
    // or from it.
    testbed.client.route("203.0.113.0/24".parse().unwrap(), SERVER[0].parse().unwrap()).unwrap();
    testbed.serve(2200);
    testbed.on_server(
        "nft",
        &["add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; \
         add rule ip nat pre ip daddr 203.0.113.9 tcp dport 22 dnat to 192.0.2.1:22; \
         add rule ip nat pre ip daddr 203.0.113.9 tcp dport 8022 redirect to :22; \
         add rule ip nat pre ip daddr 203.0.113.9 tcp dport 23 redirect to :2200; \
         add rule ip nat pre ip daddr 192.0.2.1 tcp dport 8022 redirect to :22"],
    );
    let own = server_for(CLIENT[0]);
    let ways = [(routed, 22), (routed, 8022), (routed, 23), (own, 8022)];
    let passes = |testbed: &Testbed, source: &str, way: (IpAddr, u16)| {
        testbed.connect_to(source, way.into(), Duration::from_millis(500)).is_ok()
    };
    for way in ways {
        assert!(passes(&testbed, STRANGER[0], way), "nothing guards {way:?} before the daemon runs");
    }
    testbed.start(&gate("max_opened_door_duration = 60").replace("[22]", "[22, 23]"));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened:");
    for way in ways {
        assert!(!passes(&testbed, STRANGER[0], way), "{way:?}");
        assert!(passes(&testbed, CLIENT[0], way), "{way:?}");
    }
}

#[test]
fn a_range_of_ports_is_guarded_before_translation_too() {
    let mut testbed = Testbed::new();
    testbed.serve(2200);
    testbed.on_server(
        "nft",
        &["add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; \
         add rule ip nat pre tcp dport 8000-8010 redirect to :2200"],
    );
    testbed.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"web\"\nports = [\"8000-8005/tcp\"]\n\
         sequence = {SEQUENCE:?}\nopen_for = 60\n"
    ));
    for (port, passes) in [(8000, false), (8003, false), (8005, false), (8006, true)] {
        assert_eq!((testbed.ask(CLIENT[0], port) == Answer::Accepted), passes, "{port}");
    }
}

#[test]
fn a_grant_for_one_connection_allows_one_also_through_address_translation() {
    let mut testbed = Testbed::new();
    testbed.on_server(
        "nft",
        &["add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; \
         add rule ip nat pre ip daddr 192.0.2.1 tcp dport 8022 redirect to :22"],
    );
    once(&mut testbed, CLIENT[0]);
    assert_eq!(testbed.ask(CLIENT[0], 8022), Answer::Accepted);
    assert_eq!(testbed.ask(CLIENT[0], 8022), Answer::Silence);
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
}

#[test]
fn a_forwarded_connection_of_a_grant_for_one_opens_no_other_door() {
    let mut testbed = Testbed::new();
    let inside = testbed.machine_behind();
    let listener = inside.enter(|| TcpListener::bind("203.0.113.2:80")).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    // Port 8080 is published; and an address that is only routed to the server is translated to the guarded port.
    testbed.client.route("203.0.113.9/32".parse().unwrap(), SERVER[0].parse().unwrap()).unwrap();
    testbed.on_server(
        "nft",
        &["add table ip nat; add chain ip nat pre { type nat hook prerouting priority dstnat; }; \
         add rule ip nat pre ip daddr 192.0.2.1 tcp dport 8080 dnat to 203.0.113.2:80; \
         add rule ip nat pre ip daddr 203.0.113.9 tcp dport 22 dnat to 192.0.2.1:22"],
    );
    testbed.start(&format!(
        "firewall = \"nftables\"\n[[doors]]\nname = \"web\"\nports = [\"8080/tcp\"]\nsequence = {SEQUENCE:?}\n\
         grant = \"once\"\nopen_for = 60\n[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\n\
         sequence = [1001, 1002, 1003, 1004, 1006]\n"
    ));
    testbed.knock(CLIENT[0], &SEQUENCE);
    testbed.hear("opened: door web");
    let syn = |to: (IpAddr, u16)| {
        testbed.client.enter(|| raw::send(&raw::segment(client(CLIENT[0]), to.into(), 7, raw::SYN)));
    };
    syn((server_for(CLIENT[0]), 8080));
    testbed.until("the grant is spent", |testbed| !testbed.grants("web").contains_key(CLIENT[0]));
    let before = dropped(&testbed);
    syn(("203.0.113.9".parse().unwrap(), 22));
    testbed.until("it is dropped", |testbed| dropped(testbed) > before);
}

/// The number of packets dropped at all doors.
fn dropped(testbed: &Testbed) -> u64 {
    let table = testbed.table();
    let counts = table.split("counter packets ").skip(1);
    counts.map(|count| count.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_connection_that_a_conntrack_helper_expects_needs_a_grant() {
    let mut testbed = Testbed::new();
    // The port echoes, so the client can make it say what an FTP server would.
    testbed.serve(21);
    testbed.on_server(
        "nft",
        &["add table inet h; add ct helper inet h ftp { type \"ftp\" protocol tcp; }; \
         add chain inet h pre { type filter hook prerouting priority filter; }; \
         add rule inet h pre tcp dport 21 ct helper set \"ftp\""],
    );
    testbed.start(&gate(""));
    let mut control = testbed.connect(CLIENT[0], 21).unwrap();
    // The helper parses a line only after it has seen the end of an earlier one.
    for line in ["220 ready\r\n", "227 Entering Passive Mode (192,0,2,1,0,22)\r\n"] {
        control.write_all(line.as_bytes()).unwrap();
        control.read_exact(&mut vec![0; line.len()]).unwrap();
    }
    let file = "/proc/thread-self/net/nf_conntrack_expect";
    let expected = testbed.server.enter(|| std::fs::read_to_string(file).unwrap());
    assert!(expected.contains("dport=22"), "the kernel expects nothing: {expected}");
    assert_eq!(testbed.ask(CLIENT[0], PORT), Answer::Silence);
}

#[test]
fn a_forged_segment_does_not_cut_a_connection_from_before_the_gate() {
    // A daemon of an earlier run may have added them to connection tracking.
    for (forged, runs) in [(raw::FIN | raw::ACK, 1), (raw::RST, 1), (raw::FIN | raw::ACK, 2)] {
        let mut testbed = Testbed::new();
        // Connection tracking forgets an ended connection at once.
        testbed.server.enter(|| {
            for state in ["close", "close_wait", "fin_wait", "last_ack", "time_wait"] {
                let file = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{state}");
                std::fs::write(file, "1").unwrap();
            }
        });
        let mut sessions: Vec<TcpStream> =
            CLIENT.iter().map(|source| connect(&testbed, source, PORT).unwrap()).collect();
        testbed.start(&gate("firewall_rules_check_periode_seconds = 1"));
        testbed.hear("connections that were there before go on: 2");
        for _ in 1..runs {
            testbed.end(Signal::TERM);
            testbed.start(&gate("firewall_rules_check_periode_seconds = 1"));
        }
        for (source, session) in CLIENT.iter().zip(&mut sessions) {
            // Once connection tracking has seen an acknowledgement, it accepts only a reset with the exact number.
            if forged != raw::RST {
                assert!(echoes(session));
            }
            let (from, to) = (client(source), server(source, PORT));
            testbed.client.enter(|| raw::send(&raw::segment(from, to, 7, forged)));
            testbed
                .until("connection tracking takes it for ended", |testbed| !is_established(testbed, source));
            testbed.until("the gate makes it known again", |testbed| is_established(testbed, source));
            assert!(echoes(session), "{forged:#x} {source}");
        }
    }
}

#[test]
fn a_half_closed_connection_from_before_the_gate_lives_on() {
    let mut testbed = Testbed::new();
    let address = SocketAddr::new(SERVER[0].parse().unwrap(), 2222);
    let listener = testbed.server.enter(|| TcpListener::bind(address)).unwrap();
    let pair = |testbed: &Testbed| {
        let client = testbed.connect(CLIENT[0], 2222).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, server)
    };
    let (mut upload, mut server_of_upload) = pair(&testbed);
    let (mut download, mut server_of_download) = pair(&testbed);
    server_of_upload.shutdown(std::net::Shutdown::Write).unwrap();
    download.shutdown(std::net::Shutdown::Write).unwrap();
    // Both FINs have arrived.
    assert_eq!(upload.read(&mut [0; 8]).unwrap() + server_of_download.read(&mut [0; 8]).unwrap(), 0);
    testbed.start(&gate("").replace("[22]", "[2222]"));
    testbed.hear("connections that were there before go on: 2");
    upload.write_all(b"up").unwrap();
    server_of_upload.read_exact(&mut [0; 2]).unwrap();
    server_of_download.write_all(b"down").unwrap();
    download.read_exact(&mut [0; 4]).unwrap();
}

/// Whether connection tracking has an established connection from [`SAME`].
fn is_established(testbed: &Testbed, source: &str) -> bool {
    let entries =
        testbed.server.enter(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack").unwrap());
    let family = if source.contains(':') { "ipv6" } else { "ipv4" };
    entries
        .lines()
        .any(|line| [family, "ESTABLISHED", &format!("sport={SAME}")].iter().all(|part| line.contains(part)))
}
