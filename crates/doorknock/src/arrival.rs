//! Waits until a port accepts connections.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// The first try is given up this soon: it may come a moment before the door opens and be swallowed, and
/// the next finds it open. Doubling costs a server far away at most as much again as its distance.
const FIRST_TRY: Duration = Duration::from_millis(1);

/// No try needs longer, however far away the server is.
const LONGEST_TRY: Duration = Duration::from_secs(3);

/// Between two refusals, so that a port that says no is not asked without end.
const AFTER_REFUSAL: Duration = Duration::from_millis(20);

/// Tries to connect to any of the addresses until one accepts or `patience` is over.
///
/// Each round gives every address more time than the round before: a door that drops packets does
/// not answer, and neither does a server far away until its answer has come.
#[must_use]
pub fn wait(addresses: &[SocketAddr], patience: Duration) -> Option<TcpStream> {
    let start = Instant::now();
    let mut longest = FIRST_TRY;
    loop {
        for address in addresses {
            let left = patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            let began = Instant::now();
            match TcpStream::connect_timeout(address, longest.min(left)) {
                Ok(stream) => return Some(stream),
                // Silence has taken its time; a refusal comes at once, and is waited out.
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(_) => {
                    let rest = longest.min(AFTER_REFUSAL).saturating_sub(began.elapsed());
                    std::thread::sleep(rest.min(left));
                }
            }
        }
        longest = longest.saturating_mul(2).min(LONGEST_TRY);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_listens_is_found_behind_one_that_does_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        let stream = wait(&[closed, open], Duration::from_secs(5)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
    }

    #[test]
    fn patience_ends() {
        let closed = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
        assert!(wait(&[closed], Duration::from_millis(60)).is_none());
    }
}
