//! Where the `ssh-agent` listens.
//!
//! One of three modules that know which system this is: a Unix socket that `SSH_AUTH_SOCK` names, or the named
//! pipe of Windows, which opens as a file.

pub use system::connect;

#[cfg(unix)]
mod system {
    use std::{env, io, os::unix::net::UnixStream, time::Duration};

    /// Connects; `None` if there is no agent.
    ///
    /// # Errors
    /// What the system says if there should be one.
    pub fn connect(patience: Duration) -> io::Result<Option<UnixStream>> {
        let Some(path) = env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Some(stream))
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
