//! Where the `ssh-agent` listens.
//!
//! One of four modules that know which system this is: a Unix socket that `SSH_AUTH_SOCK` names, or the named
//! pipe of Windows, which opens as a file.

pub use system::connect;

#[cfg(unix)]
mod system {
    use std::{
        env,
        io::{self, Read, Write},
        os::unix::net::UnixStream,
        time::{Duration, Instant},
    };

    /// A connection that gives an answer so much time in all, however it is cut into pieces.
    #[derive(Debug)]
    pub struct Stream {
        socket: UnixStream,
        patience: Duration,
        until: Instant,
    }

    /// Connects; `None` if there is no agent.
    ///
    /// # Errors
    /// What the system says if there should be one.
    pub fn connect(patience: Duration) -> io::Result<Option<Stream>> {
        let Some(path) = env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let socket = UnixStream::connect(path)?;
        socket.set_write_timeout(Some(patience))?;
        Ok(Some(Stream { socket, patience, until: Instant::now() }))
    }

    impl Read for Stream {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let left = self.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            self.socket.read(buffer)
        }
    }

    /// The time for the answer begins when the question is asked.
    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = self.socket.write(bytes)?;
            self.until = Instant::now().checked_add(self.patience).unwrap_or(self.until);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.socket.flush()
        }
    }

    #[cfg(test)]
    mod tests {
        use std::thread;

        use super::*;

        #[test]
        fn an_answer_in_pieces_has_no_more_time_than_one_in_one_piece() {
            let (socket, mut agent) = UnixStream::pair().unwrap();
            let patience = Duration::from_millis(300);
            let mut stream = Stream { socket, patience, until: Instant::now() };
            thread::spawn(move || {
                while agent.write_all(b"x").is_ok() {
                    thread::sleep(Duration::from_millis(20))
                }
            });
            let start = Instant::now();
            stream.write_all(b"?").unwrap();
            let error = stream.read_exact(&mut [0; 1000]).unwrap_err();
            assert!([io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock].contains(&error.kind()), "{error}");
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        env,
        fs::{File, OpenOptions},
        io,
        time::Duration,
    };

    /// Where the agent that comes with Windows listens.
    const PIPE: &str = r"\\.\pipe\openssh-ssh-agent";

    /// Connects; `None` if there is no agent.
    ///
    /// The patience is not kept: a pipe that is opened as a file has no time limit. It is the user's own
    /// agent, and the user can end the program.
    ///
    /// # Errors
    /// What the system says if there should be one.
    pub fn connect(_: Duration) -> io::Result<Option<File>> {
        let path = env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
        match OpenOptions::new().read(true).write(true).open(path.unwrap_or_else(|| PIPE.into())) {
            Ok(pipe) => Ok(Some(pipe)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
