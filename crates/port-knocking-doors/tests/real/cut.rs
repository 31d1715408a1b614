//! `close --cut`: which connections end with their door.

use std::{
    io::{self, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use crate::{
    control::{fine, started},
    testbed::{CLIENT, PORT, SERVER, STRANGER, Testbed, echoes, gate},
};

#[test]
fn a_connection_lives_on_when_its_door_is_closed_and_ends_when_that_is_asked_for() {
    let testbed = started("");
    let connected = |source: &str| {
        fine(&testbed, &["open", "default", source, "--for", "1h"]);
        let mut stream = testbed.connect(source, PORT).unwrap();
        assert!(echoes(&mut stream));
        stream
    };
    for (source, other) in [(CLIENT[0], STRANGER[0]), (CLIENT[1], STRANGER[1])] {
        let (mut first, mut second, mut stays) = (connected(source), connected(source), connected(other));
        let said = fine(&testbed, &["close", "default", source]);
        assert!(said.contains("live on (--cut ends them)") && !testbed.is_open(source), "{said}");
        assert!(echoes(&mut first) && echoes(&mut second) && echoes(&mut stays));
        // The door is closed, and they go all the same.
        let said = fine(&testbed, &["close", "default", source, "--cut"]);
        assert_eq!(said, "nothing like that was open; ended: 2 connections");
        for stream in [&mut first, &mut second] {
            let ended = stream.read(&mut [0]);
            assert!(!matches!(ended, Ok(1..)), "{ended:?}");
        }
        assert!(echoes(&mut stays), "another address's connection lives on");
        let said = fine(&testbed, &["close", "--all", "--cut"]);
        assert_eq!(said, "closed: 1 door; ended: 1 connection");
        assert!(!matches!(stays.read(&mut [0]), Ok(1..)));
    }
    let said = fine(&testbed, &["close", "default", CLIENT[0], "--cut"]);
    assert_eq!(said, "nothing like that was open; there were no connections");
}

#[test]
fn a_connection_that_connection_tracking_met_from_the_wrong_side_is_cut_all_the_same() {
    let testbed = started("");
    fine(&testbed, &["open", "default", CLIENT[0], "--for", "1h"]);
    let mut stream = testbed.connect(CLIENT[0], PORT).unwrap();
    assert!(echoes(&mut stream));
    // The server's retransmissions would do the same; here the entry is written as they leave it.
    let local = stream.local_addr().unwrap().port().to_string();
    let (port, ends) = (PORT.to_string(), (SERVER[0], CLIENT[0]));
    testbed.on_server("conntrack", &["-D", "-p", "tcp", "--orig-src", ends.1, "--orig-port-src", &local]);
    let reversed = ["-I", "-p", "tcp", "--src", ends.0, "--dst", ends.1, "--sport", &port, "--dport", &local];
    let state = ["--state", "ESTABLISHED", "--timeout", "600", "--status", "ASSURED"];
    testbed.on_server("conntrack", &[&reversed[..], &state].concat());
    let said = fine(&testbed, &["close", "default", CLIENT[0], "--cut"]);
    assert_eq!(said, "closed: 1 door; ended: 1 connection");
    assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
}

#[test]
fn a_connection_that_the_server_makes_from_a_port_of_the_door_is_not_cut() {
    let mut testbed = Testbed::new();
    testbed.start(&gate("[[doors]]\nname = \"many\"\nports = [\"2200-2300/tcp\"]\nopen_for = 60"));
    let listener = testbed.client.enter(|| TcpListener::bind((CLIENT[0], 5000))).unwrap();
    let echoing = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let _ = io::copy(&mut &stream, &mut &stream);
    });
    let mut outward = testbed.server.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(SERVER[0].parse().unwrap(), 2250).into()).unwrap();
        socket.connect(&SocketAddr::new(CLIENT[0].parse().unwrap(), 5000).into()).unwrap();
        TcpStream::from(socket)
    });
    assert!(echoes(&mut outward));
    let said = fine(&testbed, &["close", "many", CLIENT[0], "--cut"]);
    assert_eq!(said, "nothing like that was open; there were no connections");
    assert!(echoes(&mut outward));
    drop(outward);
    echoing.join().unwrap();
}

#[test]
fn what_is_forwarded_to_another_machine_is_not_cut() {
    let testbed = started("");
    let behind = testbed.machine_behind();
    let listener = behind.enter(|| TcpListener::bind(("203.0.113.2", PORT))).unwrap();
    let echoing = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let _ = io::copy(&mut &stream, &mut &stream);
    });
    let mut passes = testbed.as_client(|| TcpStream::connect(("203.0.113.2", PORT))).unwrap();
    assert!(echoes(&mut passes));
    let said = fine(&testbed, &["close", "default", CLIENT[0], "--cut"]);
    assert_eq!(said, "nothing like that was open; there were no connections");
    assert!(echoes(&mut passes));
    drop(passes);
    echoing.join().unwrap();
}
