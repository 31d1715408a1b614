//! Both ways of a connection, and how each of them ends.

use std::net::TcpListener;

use super::*;

/// As long as a test may take before it fails.
const LIMIT: Duration = Duration::from_secs(20);
/// More than all buffers between two ends hold.
const MUCH: usize = 20_000_000;

/// Both ends of a connection. Neither waits without end.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (peer, _) = listener.accept().unwrap();
    for end in [&stream, &peer] {
        end.set_read_timeout(Some(LIMIT)).unwrap();
        end.set_write_timeout(Some(LIMIT)).unwrap();
    }
    (stream, peer)
}

/// Bytes of which no two pieces are alike.
fn bytes(seed: u8) -> Vec<u8> {
    (0..MUCH).map(|number| (number / 251).to_le_bytes()[0].wrapping_add(seed)).collect()
}

#[test]
fn bytes_go_both_ways_and_the_end_is_passed_on() {
    let (stream, mut peer) = connection();
    let server = thread::spawn(move || {
        let mut heard = String::new();
        // Ends only if the end of the input is passed on.
        peer.read_to_string(&mut heard).unwrap();
        write!(peer, "heard {heard}").unwrap();
    });
    let mut output = Vec::new();
    join(&stream, &b"hello"[..], &mut output).unwrap();
    server.join().unwrap();
    assert_eq!(output, b"heard hello");
}

#[test]
fn much_goes_both_ways_at_once() {
    let (stream, mut peer) = connection();
    let mut back = peer.try_clone().unwrap();
    let writer = thread::spawn(move || {
        back.write_all(&bytes(1)).unwrap();
        back.shutdown(Shutdown::Write).unwrap();
    });
    let reader = thread::spawn(move || {
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        heard
    });
    let mut output = Vec::new();
    join(&stream, io::Cursor::new(bytes(2)), &mut output).unwrap();
    writer.join().unwrap();
    assert!(output == bytes(1), "{} bytes back", output.len());
    let heard = reader.join().unwrap();
    assert!(heard == bytes(2), "{} bytes there", heard.len());
}

#[test]
fn the_servers_end_closes_the_output_and_the_input_goes_on() {
    let (stream, mut peer) = connection();
    let (input, mut typed) = io::pipe().unwrap();
    let (mut shown, output) = io::pipe().unwrap();
    let server = thread::spawn(move || {
        write!(peer, "that is all").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        heard
    });
    let user = thread::spawn(move || {
        let mut seen = String::new();
        // Ends only if the output is closed while the input is open.
        shown.read_to_string(&mut seen).unwrap();
        typed.write_all(&bytes(3)).unwrap();
        seen
    });
    join_with(&stream, input, output, LIMIT).unwrap();
    assert_eq!(user.join().unwrap(), "that is all");
    let heard = server.join().unwrap();
    assert!(heard == bytes(3), "{} bytes there", heard.len());
}

/// Tells when an input has come to its end.
struct End(mpsc::Sender<()>);

impl Read for End {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        let _ = self.0.send(());
        Ok(0)
    }
}

#[test]
fn a_server_that_is_slow_after_its_end_gets_all_of_the_input() {
    let (stream, mut peer) = connection();
    let patience = Duration::from_millis(20);
    let (end, ended) = mpsc::channel();
    let input = io::Cursor::new(bytes(4)).chain(End(end));
    let server = thread::spawn(move || {
        peer.shutdown(Shutdown::Write).unwrap();
        // The input waits for longer than an input may be silent.
        thread::sleep(10 * patience);
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).unwrap();
        heard
    });
    join_with(&stream, input, io::sink(), patience).unwrap();
    assert!(ended.try_recv().is_ok(), "there was more input");
    let heard = server.join().unwrap();
    assert!(heard == bytes(4), "{} bytes there", heard.len());
}

#[test]
fn an_input_that_is_open_and_silent_ends_with_the_server() {
    let (stream, peer) = connection();
    let (input, _typed) = io::pipe().unwrap();
    drop(peer);
    join_with(&stream, input, io::sink(), Duration::from_millis(20)).unwrap();
}

#[test]
fn input_that_the_server_does_not_take_is_an_error() {
    let (stream, peer) = connection();
    drop(peer);
    let error = join_with(&stream, io::repeat(7), io::sink(), LIMIT).unwrap_err();
    assert!(matches!(error, Broken::Refused(_) | Broken::Connection(_)), "{error}");
}

#[test]
fn an_output_that_breaks_is_an_error_at_once() {
    let (stream, mut peer) = connection();
    let (input, _typed) = io::pipe().unwrap();
    let (shown, output) = io::pipe().unwrap();
    drop(shown);
    write!(peer, "is anybody there").unwrap();
    let error = join_with(&stream, input, output, LIMIT).unwrap_err();
    assert!(matches!(error, Broken::Output(_)), "{error}");
}

#[test]
fn an_input_that_cannot_be_read_is_an_error_and_the_server_hears_its_end() {
    struct Unreadable;
    impl Read for Unreadable {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
    let (stream, mut peer) = connection();
    let server = thread::spawn(move || peer.read_to_end(&mut Vec::new()).unwrap());
    let error = join_with(&stream, Unreadable, io::sink(), LIMIT).unwrap_err();
    assert!(matches!(error, Broken::Input(_)), "{error}");
    server.join().unwrap();
}
