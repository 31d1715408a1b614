//! Joins a connection with standard input and output, for ssh's `ProxyCommand`.
//!
//! Each way ends by itself, and its end is passed on. The end of the input closes the connection's way there,
//! and what the server still says is handed on. The server's end closes the output, and what the input still
//! says is handed on.
//!
//! When our output has ended, ssh hangs up, and our input ends as well; and a server that is gone altogether
//! refuses what it is sent. But neither happens if the input is a terminal without typing, or where the
//! output cannot be closed: from here, a server that is gone looks like one that listens. So after the
//! server's end, an input that says nothing for five seconds counts as ended.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// An input that is silent for so long after the server's end, has ended. Longer than a program pauses that is
/// about to say more, and not too long for a user who waits at a terminal.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why not everything has been handed on.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The way back.
    #[error("the connection broke")]
    Connection(#[source] io::Error),
    /// The way there.
    #[error("the server did not take all of the input")]
    Refused(#[source] io::Error),
    /// Standard input.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// Standard output.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

/// Copies both ways until both have ended, and drops the output as soon as the server has.
///
/// # Errors
/// [`Broken`] if something may not have arrived.
pub fn join(stream: &TcpStream, input: impl Read + Send + 'static, output: impl Write) -> Result<(), Broken> {
    join_with(stream, input, output, INPUT_TIMEOUT)
}

fn join_with(
    stream: &TcpStream,
    input: impl Read + Send + 'static,
    mut output: impl Write,
    patience: Duration,
) -> Result<(), Broken> {
    // Keystrokes go out at once.
    stream.set_nodelay(true).map_err(Broken::Connection)?;
    let there = stream.try_clone().map_err(Broken::Connection)?;
    let mut back = stream;
    let turns = Arc::new(AtomicUsize::new(0));
    let (tell, told) = mpsc::channel();
    // Not waited for without end: a read from a terminal cannot be broken off, and ends with the process.
    let input = Watched { input, turns: Arc::clone(&turns) };
    thread::spawn(move || tell.send(hand_over(input, &there)));

    copy(&mut back, &mut output).map_err(|side| match side {
        Side::From(error) => Broken::Connection(error),
        Side::To(error) => Broken::Output(error),
    })?;
    drop(output);
    loop {
        let before = turns.load(Ordering::Relaxed);
        match told.recv_timeout(patience) {
            Ok(ended) => return ended,
            // While it writes, the server is slow, and not the input.
            Err(RecvTimeoutError::Timeout) if before != turns.load(Ordering::Relaxed) => {}
            Err(RecvTimeoutError::Timeout) if !reads(before) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

/// Copies the input to the server, and passes on its end.
fn hand_over(mut input: impl Read, mut there: &TcpStream) -> Result<(), Broken> {
    let copied = copy(&mut input, &mut there).map_err(|side| match side {
        Side::From(error) => Broken::Input(error),
        Side::To(error) => Broken::Refused(error),
    });
    // Also the end of an input that cannot be read: the server must not wait for more of it.
    let passed_on = there.shutdown(Shutdown::Write).and_then(|()| match there.take_error()? {
        Some(error) => Err(error),
        None => Ok(()),
    });
    copied.and(passed_on.map_err(Broken::Refused))
}

/// An input that counts when a read begins and when it ends.
struct Watched<I> {
    input: I,
    turns: Arc<AtomicUsize>,
}

/// Whether a read has begun and has not ended, by the count.
fn reads(turns: usize) -> bool {
    turns & 1 == 1
}

impl<I: Read> Read for Watched<I> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.turns.fetch_add(1, Ordering::Relaxed);
        let read = self.input.read(buffer);
        self.turns.fetch_add(1, Ordering::Relaxed);
        read
    }
}

/// Which side of a copy failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

/// Like `io::copy`, hands on what is there at once, and says which side failed.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(), Side> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Side::From(error)),
        };
        let written = to.write_all(buffer.get(..read).unwrap_or_default());
        written.and_then(|()| to.flush()).map_err(Side::To)?;
    }
}

#[cfg(test)]
mod tests;
