//! The program as ssh's `ProxyCommand`: it knocks, connects, and joins.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use doors_spa::receipt::Answer;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    home::{Home, RUN_TIMEOUT},
    program::scene,
    testbed::receipt,
};

#[test]
fn the_proxy_joins_after_the_door_has_opened_and_says_why_if_not() {
    let (home, testbed) = scene(|_, _| Some(receipt(Answer::Granted)));
    let (mut child, mut peer, _watch) = proxy(&home);
    write!(child.stdin.take().unwrap(), "hello").unwrap();
    let mut heard = String::new();
    peer.read_to_string(&mut heard).unwrap();
    write!(peer, "heard {heard}").unwrap();
    drop(peer);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"heard hello"[..]));
    assert_eq!(testbed.heard.try_iter().count(), 1);

    let (home, _house) = scene(|_, _| Some(receipt(Answer::NotAllowed)));
    let said = home.doorknock(&["proxy", "127.0.0.1", "9", "--server", "home", "--door", "admin"]);
    assert_eq!((said.code, said.err.as_str()), (Some(4), "doorknock: not allowed to open: admin"));

    let both = ["proxy", "127.0.0.1", "22", "--server", "home", "--door", "ssh", "--sequence", "1,2,3,4,5"];
    for arguments in [&both[..], &both[..3], &["proxy", "127.0.0.1", "22", "--door", "ssh"]] {
        assert_eq!(home.doorknock(arguments).code, Some(2), "{arguments:?}");
    }
}

/// Ends a child that nobody has waited for in time, so that nothing waits for it without end.
struct Watch(#[expect(dead_code, reason = "it tells by being dropped")] mpsc::Sender<()>);

impl Watch {
    fn over(child: &Child) -> Self {
        let child = Pid::from_child(child);
        let (alive, told) = mpsc::channel();
        thread::spawn(move || {
            if told.recv_timeout(RUN_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                kill_process(child, Signal::KILL).unwrap();
            }
        });
        Self(alive)
    }
}

/// A proxy, with a door that opens, and the server's end of its connection, which is the only one.
fn proxy(home: &Home) -> (Child, TcpStream, Watch) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut proxy = home.command(&["proxy", "127.0.0.1", &port, "--server", "home", "--door", "ssh"]);
    proxy.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = proxy.spawn().unwrap();
    let watch = Watch::over(&child);
    listener.set_nonblocking(true).unwrap();
    let peer = loop {
        if let Ok((peer, _)) = listener.accept() {
            break peer;
        }
        if child.try_wait().unwrap().is_some() {
            panic!("the proxy does not connect: {:?}", child.wait_with_output());
        }
        thread::sleep(Duration::from_millis(1));
    };
    // Another would be refused by now, or be there.
    thread::sleep(Duration::from_millis(20));
    let another = listener.accept().map_err(|error| error.kind());
    assert!(matches!(another, Err(io::ErrorKind::WouldBlock)), "{another:?}");
    peer.set_nonblocking(false).unwrap();
    for limit in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        limit(&peer, Some(RUN_TIMEOUT)).unwrap();
    }
    (child, peer, watch)
}

#[test]
fn the_proxy_joins_without_a_receipt_and_then_knocks_no_more() {
    let (home, testbed) = scene(|_, _| None);
    let start = Instant::now();
    let (mut child, mut peer, _watch) = proxy(&home);
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    // On a slow machine it may have been repeated before; the last would leave after 4.5 s.
    let mut knocks = 0;
    while testbed.heard.recv_timeout(Duration::from_secs(5).saturating_sub(start.elapsed())).is_ok() {
        knocks += 1;
    }
    assert!((1..5).contains(&knocks), "{knocks} knocks");
    peer.write_all(b"welcome").unwrap();
    drop((peer, child.stdin.take()));
    let said = child.wait_with_output().unwrap();
    assert_eq!((said.status.code(), &said.stdout[..]), (Some(0), &b"welcome"[..]));
}

#[test]
fn a_port_that_refuses_behind_an_open_door_is_told_at_once() {
    let (home, _house) = scene(|_, _| Some(receipt(Answer::Granted)));
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port().to_string();
    let start = Instant::now();
    let said = home.doorknock(&["proxy", "127.0.0.1", &port, "--server", "home", "--door", "ssh"]);
    let expected =
        format!("doorknock: the door is open, and 127.0.0.1 port {port} does not accept connections: ");
    assert!(said.code == Some(1) && said.err.starts_with(&expected), "{said:?}");
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[test]
fn the_proxys_output_ends_with_the_server_and_its_input_is_handed_on() {
    let (home, _house) = scene(|_, _| Some(receipt(Answer::Granted)));
    let (mut child, mut peer, _watch) = proxy(&home);
    peer.write_all(b"that is all").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    let server = thread::spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
    let mut said = String::new();
    // Ends while the input is open, or ssh would wait for us and we for it.
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "that is all");
    assert!(child.try_wait().unwrap().is_none(), "the input is open");
    child.stdin.take().unwrap().write_all(&[7; 1_000_000]).unwrap();
    assert_eq!(server.join().unwrap(), 1_000_000);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_proxy_that_cannot_hand_on_everything_says_so() {
    let (home, _house) = scene(|_, _| Some(receipt(Answer::Granted)));
    let (mut child, peer, _watch) = proxy(&home);
    drop(peer);
    let mut input = child.stdin.take().unwrap();
    // The server is gone; as soon as that is known here, nothing is taken any more.
    while input.write_all(&[7; 100_000]).is_ok() {}
    let said = child.wait_with_output().unwrap();
    let told = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{told}");

    let (mut child, mut peer, _watch) = proxy(&home);
    drop(child.stdout.take());
    // Another test's process that is being started may have the other end of the output for a moment, too.
    while child.try_wait().unwrap().is_none() {
        let _ = peer.write_all(b"is anybody there");
        thread::sleep(Duration::from_millis(2));
    }
    let said = child.wait_with_output().unwrap();
    let told = String::from_utf8(said.stderr).unwrap();
    assert_eq!(said.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write to standard output"), "{told}");
}
