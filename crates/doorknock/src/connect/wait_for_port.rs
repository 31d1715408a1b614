//! Waits until a port accepts connections.
//!
//! The sockets do not block, so that all tries of [`crate::connect::attempts`] wait side by side, and so that they are
//! gone the moment one is accepted: a server whose answer finds no socket is told so by the kernel, and what
//! listens there never hears of the others. An sshd would count them against the client's address. Only where
//! a link delivers in bursts, answers that come together make more than one connection.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token};

use crate::{
    connect::attempt::Attempt,
    connect::attempts::{Attempts, Standing},
};

/// Answers that are taken note of at once; more come with the next call.
const ANSWERS: usize = 64;

/// A port has accepted.
#[derive(Debug)]
pub struct Arrival {
    /// The connection.
    pub stream: TcpStream,
    /// The address, by its place among those that were tried.
    pub place: usize,
}

/// Tries to connect to any of the addresses until one accepts or `patience` is over; then there is none.
///
/// # Errors
/// What the system says if it cannot wait for connections at all.
pub fn wait(addresses: &[SocketAddr], patience: Duration) -> io::Result<Option<Arrival>> {
    let start = Instant::now();
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(ANSWERS);
    let mut attempts = Attempts::new(addresses.len());
    let mut tokens = (0..).map(Token);
    loop {
        let now = start.elapsed();
        if now >= patience {
            return Ok(None);
        }
        attempts.begin(now, |place| {
            let address = addresses.get(place).ok_or(io::ErrorKind::NotFound)?;
            Attempt::begin(*address, &poll, tokens.next().unwrap_or(Token(0)))
        });

        let until = attempts.next().unwrap_or(patience).min(patience);
        match poll.poll(&mut events, Some(until.saturating_sub(start.elapsed()))) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let accepted =
            attempts.look(start.elapsed(), |attempt| attempt.standing(&events).unwrap_or(Standing::Refused));
        if let Some((place, attempt)) = accepted {
            drop(attempts);
            return Ok(Some(Arrival { stream: attempt.finish(&poll)?, place }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    fn closed() -> SocketAddr {
        TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_port_that_listens_is_found_behind_one_that_does_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let open = listener.local_addr().unwrap();
        let arrival = wait(&[closed(), open], Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!((arrival.place, arrival.stream.peer_addr().unwrap()), (1, open));
    }

    #[test]
    fn a_port_that_begins_to_listen_is_found_and_its_connection_waits_for_what_comes() {
        let address = closed();
        let server = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            let (mut peer, _) = TcpListener::bind(address).unwrap().accept().unwrap();
            thread::sleep(Duration::from_millis(50));
            peer.write_all(b"hello").unwrap();
        });
        let mut stream = wait(&[address], Duration::from_secs(10)).unwrap().unwrap().stream;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        server.join().unwrap();
    }

    #[test]
    fn patience_ends() {
        assert!(wait(&[closed()], Duration::from_millis(60)).unwrap().is_none());
    }
}
