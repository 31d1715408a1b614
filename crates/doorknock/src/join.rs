//! Joins a connection with standard input and output, for ssh's `ProxyCommand`.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
};

/// Copies both ways until the server closes its side. The end of the input is passed on.
///
/// # Errors
/// What the system says if the connection or the output breaks.
pub fn join(
    stream: &TcpStream,
    mut input: impl Read + Send + 'static,
    mut output: impl Write,
) -> io::Result<()> {
    // Keystrokes go out at once.
    stream.set_nodelay(true)?;
    let mut there = stream.try_clone()?;
    let mut back = stream.try_clone()?;
    // Not waited for: a read from a terminal cannot be broken off, and ends with the process.
    thread::spawn(move || {
        let _ = copy(&mut input, &mut there);
        let _ = there.shutdown(Shutdown::Write);
    });
    copy(&mut back, &mut output)
}

/// Like `io::copy`, and hands on what is there at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(buffer.get(..read).unwrap_or_default())?;
        to.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn bytes_go_both_ways_and_the_end_is_passed_on() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
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
}
