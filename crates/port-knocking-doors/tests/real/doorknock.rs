//! The client as a program, against the real daemon.

use std::{
    fs::{File, Permissions},
    io::{self, Read as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use doorknock::connect::wait_for_port;
use doors_lab::Process;
use socket2::{Domain, Protocol, Socket, Type};

use crate::testbed::{CLIENT, PATIENCE, SEQUENCE, SERVER, Testbed, gate};

/// The file with the sequence, which only its owner can read.
fn sequence_file(testbed: &Testbed) -> PathBuf {
    let path = testbed.directory.path().join("sequence");
    std::fs::write(&path, SEQUENCE.map(|port| port.to_string()).join(",")).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// The standard input of a client that reads the sequence from it.
fn sequence(testbed: &Testbed) -> Stdio {
    File::open(sequence_file(testbed)).unwrap().into()
}

/// Runs the client until it ends, with the same code as the program `doorknock`.
pub(crate) fn doorknock(testbed: &Testbed, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.arg("demo-client").args(arguments).stdin(sequence(testbed));
    let (status, said) = Process::start(&testbed.client, command).unwrap().finish(PATIENCE).unwrap().unwrap();
    (status.code(), said)
}

/// Runs the client with the server's address of each family for the name `both`.
fn doorknock_by_name(testbed: &Testbed, arguments: &[&str]) -> (Option<i32>, String) {
    let hosts = testbed.directory.path().join("hosts");
    std::fs::write(&hosts, SERVER.map(|server| format!("{server} both\n")).concat()).unwrap();
    // Only this process sees the mount.
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
    command.arg(env!("CARGO_BIN_EXE_port-knocking-doors")).arg("demo-client").args(arguments);
    command.stdin(sequence(testbed));
    let (status, said) = Process::start(&testbed.client, command).unwrap().finish(PATIENCE).unwrap().unwrap();
    (status.code(), said)
}

/// Captures all datagrams to the server, for each family in order of arrival.
struct Capture([Socket; 2]);

impl Capture {
    fn at_server(testbed: &Testbed) -> Self {
        Self([Domain::IPV4, Domain::IPV6].map(|family| {
            let ear = testbed.server.enter(|| Socket::new(family, Type::RAW, Some(Protocol::UDP))).unwrap();
            ear.set_nonblocking(true).unwrap();
            ear
        }))
    }

    /// The ports of the knocks since the last call, for each family. A datagram may arrive after its sender has
    /// ended, so this waits for the expected number.
    fn wait_for(&mut self, expected: usize) -> [Vec<u16>; 2] {
        let begun = Instant::now();
        let mut heard = self.arrived();
        while heard.concat().len() < expected && begun.elapsed() < PATIENCE {
            let more = self.arrived();
            heard.iter_mut().zip(more).for_each(|(ports, more)| ports.extend(more));
        }
        heard
    }

    /// The ports of the knocks that have arrived by now.
    fn arrived(&mut self) -> [Vec<u16>; 2] {
        let mut heard = [Vec::new(), Vec::new()];
        for (ear, ports) in self.0.iter_mut().zip(&mut heard) {
            let mut packet = [0; 64];
            while let Ok(length) = ear.read(&mut packet) {
                // Only over IPv4 the IP header, 20 bytes, precedes the UDP header.
                let header = if length == 20 + 8 + 6 { 20 } else { 0 };
                assert_eq!(packet[header + 8..length], *b"knock\n");
                ports.push(u16::from_be_bytes([packet[header + 2], packet[header + 3]]));
            }
        }
        heard
    }
}

#[test]
fn the_knocks_arrive_in_order_over_the_requested_families() {
    let testbed = Testbed::new();
    let mut capture = Capture::at_server(&testbed);
    let (all, none) = (SEQUENCE.to_vec(), Vec::new());
    for (families, expected) in [
        (&[][..], [all.clone(), all.clone()]),
        (&["-4"], [all.clone(), none.clone()]),
        (&["-6"], [none, all]),
    ] {
        let (code, said) = doorknock_by_name(&testbed, &[&["sequence", "both", "-"], families].concat());
        assert_eq!((code, capture.wait_for(expected.concat().len())), (Some(0), expected), "{said}");
    }
}

#[test]
fn the_delay_is_between_knocks_and_the_pause_between_repetitions() {
    let testbed = Testbed::new();
    let mut capture = Capture::at_server(&testbed);
    let start = Instant::now();
    let more = ["--delay", "50", "--repeat", "3", "--pause", "1"];
    let (code, said) = doorknock(&testbed, &[&["sequence", SERVER[0], "-"], &more[..]].concat());
    assert_eq!((code, said.as_str()), (Some(0), "sent 15 knocks to 192.0.2.1"));
    assert!(start.elapsed() >= Duration::from_millis(3 * 4 * 50 + 2 * 1000));
    assert_eq!(capture.wait_for(15), [SEQUENCE.repeat(3), Vec::new()]);
}

#[test]
fn the_client_knocks_and_waits_until_the_door_is_open() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    for (server, client) in SERVER.iter().zip(CLIENT) {
        let (code, said) = doorknock(&testbed, &["sequence", server, "-", "--wait", "22"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("{server} port 22 accepts connections, ")), "{said}");
        testbed.hear(&format!("opened: door default for {client}"));
    }
}

#[test]
fn without_wait_the_client_only_knocks() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    let (code, said) = doorknock(&testbed, &["sequence", SERVER[0], "-", "--delay", "0"]);
    assert_eq!((code, said.as_str()), (Some(0), "sent 5 knocks to 192.0.2.1"));
    testbed.hear("opened:");
    let (code, said) = doorknock(&testbed, &["sequence", SERVER[0], "-", "--quiet"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
}

/// Drops the server's first SYN-ACKs over IPv4.
fn lose_answers(testbed: &Testbed, number: usize) {
    // Each has 60 bytes. A quota passes the packet that reaches it.
    let quota = number * 60 + 1;
    let lost = format!(
        "table inet lost {{ chain lost {{ type filter hook input priority 0; \
         tcp flags & (syn | ack) == syn | ack quota until {quota} bytes drop; }}; }}"
    );
    let mut nft = Command::new("nft");
    nft.arg(lost);
    let (status, said) = Process::start(&testbed.client, nft).unwrap().finish(PATIENCE).unwrap().unwrap();
    assert!(status.success(), "{said}");
}

#[test]
fn the_server_sees_one_connection_however_many_attempts_it_took() {
    let testbed = Testbed::new();
    let address: SocketAddr = SocketAddr::new(SERVER[0].parse().unwrap(), 2222);
    let listener = testbed.server.enter(|| TcpListener::bind(address)).unwrap();
    // The seventh attempt is accepted. The others were answered, too, and are again a second later.
    lose_answers(&testbed, 6);
    let arrival = testbed.client.enter(|| wait_for_port::wait(&[address], PATIENCE)).unwrap().unwrap();
    let (accepted, client) = listener.accept().unwrap();
    assert_eq!(client, arrival.stream.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    thread::sleep(Duration::from_millis(1500));
    let second = listener.accept().map_err(|error| error.kind());
    assert!(matches!(second, Err(io::ErrorKind::WouldBlock)), "{second:?}");
    drop(accepted);
}

#[test]
fn a_grant_for_one_connection_is_enough_however_late_its_answer_comes() {
    let mut testbed = Testbed::new();
    let door = format!("name = \"ssh\"\nports = [\"22/tcp\"]\nsequence = {SEQUENCE:?}\ngrant = \"once\"");
    testbed.start(&format!("firewall = \"nftables\"\n[[doors]]\n{door}\n"));
    // The server's kernel repeats the answer after a second. That is longer than many attempts take, and all but one
    // of them find the door closed.
    lose_answers(&testbed, 1);
    let (code, said) = doorknock(&testbed, &["sequence", SERVER[0], "-", "--wait", "22"]);
    assert_eq!(code, Some(0), "{said}");
    let took = said.split("connections, ").nth(1).and_then(|rest| rest.split('.').next());
    assert!(took.unwrap().parse::<u32>().unwrap() >= 900, "no answer was lost: {said}");
}

#[test]
fn knocks_that_could_not_be_sent_are_reported_and_not_counted() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("ignoring_period_after_knock_error = 1"));
    let knock = ["sequence", "both", "-", "--repeat", "2", "--pause", "1"];
    let sum = |server: usize| format!("10 knocks to {}", SERVER[server]);
    let (code, said) = doorknock_by_name(&testbed, &knock);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&sum(0)) || said.contains(&sum(1)), "{said}");
    assert!(SERVER.iter().all(|server| said.contains(&format!("to {server}"))), "{said}");

    // Without IPv6 there is no route to the other address.
    testbed.client.enter(|| std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1")).unwrap();
    let complaint = format!("doorknock: cannot send knocks to {} port {}: ", SERVER[1], SEQUENCE[0]);
    let (code, said) = doorknock_by_name(&testbed, &knock);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("sent {}", sum(0))) && !said.contains(" and "), "{said}");
    assert_eq!(said.matches(&complaint).count(), 2, "{said}");
    let (code, said) = doorknock_by_name(&testbed, &["sequence", "both", "-", "--quiet"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    // One address is enough. The error for the other is printed only if that is not.
    let (code, said) = doorknock_by_name(&testbed, &["sequence", "both", "-", "--wait", "22"]);
    assert_eq!((code, said.contains("cannot")), (Some(0), false), "{said}");
    let closed = ["sequence", "both", "-", "--wait", "23", "--timeout", "1"];
    let (code, said) = doorknock_by_name(&testbed, &closed);
    assert_eq!((code, said.contains(&complaint)), (Some(1), true), "{said}");
    let (code, said) = doorknock_by_name(&testbed, &["sequence", "both", "-", "-6"]);
    assert_eq!((code, said.starts_with(&complaint)), (Some(1), true), "{said}");
}

#[test]
fn a_wrong_sequence_ends_with_exit_code_one_and_advice() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    let (code, said) =
        doorknock(&testbed, &["sequence", SERVER[0], "1,2,3,4,5", "--wait", "22", "--timeout", "1"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("192.0.2.1 port 22 does not accept connections") && said.contains("--repeat"),
        "{said}"
    );
}

#[test]
fn the_client_repeats_after_a_pause_longer_than_the_quiet_period() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("ignoring_period_after_knock_error = 1"));
    // After this wrong knock the first sequence is ignored, and the second is not.
    testbed.knock(CLIENT[0], &[9]);
    let (code, said) =
        doorknock(&testbed, &["sequence", SERVER[0], "-", "--wait", "22", "--repeat", "3", "--pause", "2"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn invalid_options_end_with_exit_code_two() {
    let testbed = Testbed::new();
    for (arguments, named) in [
        (&["sequence", "192.0.2.1", "1,x"][..], "\"x\" is no port"),
        (&["sequence", "192.0.2.1", "1,2,3,4"], "4 ports; a sequence has 5 to 20"),
        (&["sequence", "192.0.2.1", "1,2,3,4,5", "-4", "-6"], "cannot be used with"),
        (&["sequence", "192.0.2.1", "1,2,3,4,5", "--wait", "0"], "--wait"),
        (&["sequence", "", "1,2,3,4,5"], "write a name like door.example.org, or an address"),
        (&["proxy", "", "22", "--sequence", "1,2,3,4,5"], "write a name like door.example.org"),
        (&["proxy", "192.0.2.1", "22", "--sequence", "1,2"], "2 ports; a sequence has 5 to 20"),
        (&["proxy", "192.0.2.1", "22"], "--sequence"),
    ] {
        let (code, said) = doorknock(&testbed, arguments);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(named), "{said}");
    }
    let (code, said) = doorknock(&testbed, &["sequence", "192.0.2.1", "-", "-6"]);
    assert_eq!((code, said.as_str()), (Some(1), "doorknock: 192.0.2.1 has no IPv6 address"));
}

#[test]
fn proxy_connects_its_input_and_output_to_the_connection() {
    let mut testbed = Testbed::new();
    testbed.start(&gate(""));
    let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
    command.args(["demo-client", "proxy", SERVER[0], "22", "--sequence-file"]).arg(sequence_file(&testbed));
    let path = testbed.directory.path().join("input");
    std::fs::write(&path, "what goes in comes out\n").unwrap();
    command.stdin(std::fs::File::open(path).unwrap());
    let (status, said) = Process::start(&testbed.client, command).unwrap().finish(PATIENCE).unwrap().unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), "what goes in comes out"));
}
