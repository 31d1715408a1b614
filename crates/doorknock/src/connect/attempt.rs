//! A connection that is being made, by a socket that does not block.

use std::{
    io,
    net::{SocketAddr, TcpStream},
};

use mio::{Events, Interest, Poll, Token, event::Event};

use crate::connect::attempts::Standing;

/// The tokens of attempts begin here; those before are for other things.
pub(crate) const FIRST_TOKEN: usize = 1;

/// A connection that is being made.
#[derive(Debug)]
pub(crate) struct Attempt {
    stream: mio::net::TcpStream,
    token: Token,
}

impl Attempt {
    /// Begins.
    pub(crate) fn begin(address: SocketAddr, poll: &Poll, token: Token) -> io::Result<Self> {
        let mut stream = mio::net::TcpStream::connect(address)?;
        poll.registry().register(&mut stream, token, Interest::WRITABLE)?;
        Ok(Self { stream, token })
    }

    /// How it stands after these events: accepted, or pending; refused is the error.
    ///
    /// Without an event, not every system knows how a connection stands.
    pub(crate) fn standing(&self, events: &Events) -> io::Result<Standing> {
        if !events.iter().map(Event::token).any(|token| token == self.token) {
            return Ok(Standing::Pending);
        }
        match self.stream.take_error()? {
            None if self.stream.peer_addr().is_ok() => Ok(Standing::Accepted),
            None => Ok(Standing::Pending),
            Some(error) => Err(error),
        }
    }

    /// A connection like any other, that blocks.
    pub(crate) fn finish(mut self, poll: &Poll) -> io::Result<TcpStream> {
        poll.registry().deregister(&mut self.stream)?;
        let stream = TcpStream::from(self.stream);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}
