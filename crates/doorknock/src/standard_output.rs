//! Standard output that can be closed before the process ends.
//!
//! One of four modules that know which system this is: the reader of a pipe learns of its end when the last
//! descriptor of it is closed, and the standard library closes none of this process's own.

use std::io::{self, Write};

/// Standard output, which is closed with this value where the system has a way to do that. What is printed
/// after that goes nowhere.
#[derive(Debug, Default)]
pub struct StandardOutput {
    _private: (),
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

impl Drop for StandardOutput {
    fn drop(&mut self) {
        // A reader that cannot be told of the end now is told when the process ends.
        let _ = self.flush().and_then(|()| system::close());
    }
}

#[cfg(unix)]
mod system {
    use std::{fs::OpenOptions, io};

    /// Puts something else in its place, so that no other file gets its number and what is printed.
    pub(super) fn close() -> io::Result<()> {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(nowhere).map_err(io::Error::from)
    }
}

#[cfg(not(unix))]
mod system {
    use std::io;

    /// It stays open until the process ends.
    #[expect(clippy::unnecessary_wraps, reason = "on another system it may fail")]
    pub(super) fn close() -> io::Result<()> {
        Ok(())
    }
}
