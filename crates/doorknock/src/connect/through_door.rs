//! Connects through a door that is being opened, also if nothing tells that it is open.
//!
//! No try is given up before another is a connection, since a door for one connection may be open for that try
//! alone, and its kernel repeats it. The first that is a connection is the one; all others are gone at that
//! moment, so what listens there hears of no other, as with [`crate::connect::wait_for_port`].

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};

use crate::{
    connect::attempt::{Attempt, FIRST_TOKEN},
    connect::attempts::Standing,
    connect::door_attempts::Approach,
};

/// Answers that are taken note of at once; more come with the next call.
const ANSWERS: usize = 64;

/// Tries under way. The oldest makes room for one more; there are five for each key and address, and one behind the
/// open door.
const MOST_PENDING: usize = 48;

/// Not every system can sleep without end.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The waker's.
const WAKE: Token = Token(0);

/// The tries to get in at any of some addresses.
#[derive(Debug)]
pub struct Entering {
    addresses: Vec<SocketAddr>,
    approach: Approach,
    pending: Vec<Attempt>,
    /// Whether a door is known to be open. Before that, silence and refusals mean nothing.
    is_open: bool,
    /// What the last try behind the open door was told.
    refusal: Option<io::Error>,
    tokens: usize,
    start: Instant,
    poll: Poll,
    events: Events,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Entered {
    /// The connection.
    Through(TcpStream),
    /// The door is open, and nothing accepts behind it.
    Refused(io::Error),
    /// Nothing: the time is over, or the waker was used.
    NotYet,
}

impl Entering {
    /// Nothing is tried before there was a knock.
    ///
    /// # Errors
    /// What the system says if it cannot wait for connections at all.
    pub fn new(addresses: Vec<SocketAddr>) -> io::Result<Self> {
        Ok(Self {
            approach: Approach::new(addresses.len()),
            addresses,
            pending: Vec::new(),
            is_open: false,
            refusal: None,
            tokens: FIRST_TOKEN,
            start: Instant::now(),
            poll: Poll::new()?,
            events: Events::with_capacity(ANSWERS),
        })
    }

    /// What ends a wait from another thread. There is one at most.
    ///
    /// # Errors
    /// What the system says.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKE)
    }

    /// A knock leaves to this address of a server.
    pub fn knocked(&mut self, at: IpAddr) {
        self.approach.knocked(&self.behind(at), self.start.elapsed());
    }

    /// A door was opened at this address of a server.
    pub fn opened(&mut self, at: IpAddr) {
        self.is_open = true;
        self.approach.opened(&self.behind(at), self.start.elapsed());
    }

    /// The places of the addresses that a door at this one is for: itself, if it is one of ours; else those of its
    /// family, since that is what the server saw; else all.
    fn behind(&self, at: IpAddr) -> Vec<usize> {
        let those = |fits: &dyn Fn(&SocketAddr) -> bool| -> Vec<usize> {
            let places = self.addresses.iter().enumerate().filter(|(_, address)| fits(address));
            places.map(|(place, _)| place).collect()
        };
        let choices = [
            those(&|address| address.ip() == at),
            those(&|address| address.is_ipv4() == at.is_ipv4()),
            those(&|_| true),
        ];
        choices.into_iter().find(|places| !places.is_empty()).unwrap_or_default()
    }

    /// Waits for a connection, or until all that is to be known is known; for so long at most.
    ///
    /// # Errors
    /// What the system says if it cannot wait for connections at all.
    pub fn wait(&mut self, patience: Option<Duration>) -> io::Result<Entered> {
        let over = patience.map(|patience| self.start.elapsed().saturating_add(patience));
        loop {
            let now = self.start.elapsed();
            if over.is_some_and(|over| now >= over) {
                return Ok(Entered::NotYet);
            }
            while let Some(place) = self.approach.take(now) {
                self.begin(place);
            }
            let until = [over, self.approach.next()].into_iter().flatten().min();
            let left = until.map_or(LONGEST_SLEEP, |until| until.saturating_sub(now).min(LONGEST_SLEEP));
            // What has just been refused is told without waiting.
            let left = if self.is_refused() { Duration::ZERO } else { left };
            match self.poll.poll(&mut self.events, Some(left)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(()) | Err(_) => {}
            }
            if let Some(attempt) = self.accepted() {
                self.pending.clear();
                return Ok(Entered::Through(attempt.finish(&self.poll)?));
            }
            if self.is_refused()
                && let Some(refusal) = self.refusal.take()
            {
                return Ok(Entered::Refused(refusal));
            }
            if self.events.iter().any(|event| event.token() == WAKE) {
                return Ok(Entered::NotYet);
            }
        }
    }

    fn is_refused(&self) -> bool {
        self.is_open && self.refusal.is_some() && self.pending.is_empty() && self.approach.next().is_none()
    }

    fn begin(&mut self, place: usize) {
        let Some(address) = self.addresses.get(place) else { return };
        let token = Token(self.tokens);
        self.tokens = self.tokens.saturating_add(1);
        match Attempt::begin(*address, &self.poll, token) {
            Ok(attempt) => {
                if self.pending.len() >= MOST_PENDING {
                    self.pending.remove(0);
                }
                self.pending.push(attempt);
            }
            Err(error) => self.refusal = Some(error),
        }
    }

    /// The first try that is a connection, by the events of the last wait.
    fn accepted(&mut self) -> Option<Attempt> {
        let mut number = 0;
        while let Some(attempt) = self.pending.get(number) {
            match attempt.standing(&self.events) {
                Ok(Standing::Accepted) => return Some(self.pending.remove(number)),
                Ok(Standing::Pending | Standing::Refused) => number = number.saturating_add(1),
                Err(error) => {
                    self.refusal = Some(error);
                    self.pending.remove(number);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn closed() -> SocketAddr {
        TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
    }

    #[test]
    fn behind_an_open_door_a_refusal_is_the_answer_and_before_that_it_is_none() {
        let address = closed();
        let mut entering = Entering::new(vec![address]).unwrap();
        entering.knocked(address.ip());
        let nothing = entering.wait(Some(Duration::from_millis(400))).unwrap();
        assert!(matches!(nothing, Entered::NotYet), "{nothing:?}");
        assert!(entering.refusal.is_some(), "it was tried");
        entering.opened(address.ip());
        let Entered::Refused(error) = entering.wait(None).unwrap() else { panic!("it waits on") };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn nothing_is_tried_before_a_knock_and_the_waker_ends_the_wait() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut entering = Entering::new(vec![address]).unwrap();
        let waker = entering.waker().unwrap();
        waker.wake().unwrap();
        assert!(matches!(entering.wait(None).unwrap(), Entered::NotYet));
        assert_eq!(entering.tokens, FIRST_TOKEN, "nothing was tried");
        entering.knocked(address.ip());
        assert!(matches!(entering.wait(None).unwrap(), Entered::Through(_)));
    }

    #[test]
    fn a_door_is_for_its_address_or_else_for_its_family_or_else_for_all() {
        let addresses =
            ["192.0.2.1:22", "192.0.2.2:22", "[2001:db8::1]:22"].map(|text| text.parse().unwrap());
        let entering = Entering::new(addresses.to_vec()).unwrap();
        let behind = |text: &str| entering.behind(text.parse().unwrap());
        assert_eq!(behind("192.0.2.2"), [1]);
        assert_eq!(behind("198.51.100.1"), [0, 1]);
        assert_eq!(behind("2001:db8::2"), [2]);
        let only = Entering::new(vec![addresses[0]]).unwrap();
        assert_eq!(only.behind("2001:db8::1".parse().unwrap()), [0]);
    }
}
