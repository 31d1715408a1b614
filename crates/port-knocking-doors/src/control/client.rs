//! How a command speaks with the running daemon.

use std::{
    ffi::OsStr,
    fs::Metadata,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{net::sockopt::socket_peercred, process::Uid};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{
    interface::{Failure, NAME},
    protocol::{Call, Frames, Refused, Reply, framed},
};

/// Where the control socket is, unless an option or systemd says otherwise.
const IN_RUN: &str = "/run/port-knocking-doors";
const SOCKET: &str = "control.varlink";

/// A daemon that says nothing for this long hangs, but for what takes longer.
const SILENCE: Duration = Duration::from_secs(12);
/// A reload, or the end of very many connections.
const LONG_WORK: Duration = Duration::from_secs(90);

/// Why a command got no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nothing listens there.
    #[error(
        "no port-knocking-doors runs here: nothing answers at {0}; start it with: systemctl start port-knocking-doors (or \
         say with --control-socket where its socket is)"
    )]
    NoDaemon(PathBuf),
    /// The socket is not for this user.
    #[error(
        "{0} is not for you; become root, or a member of the group that control_group names in the configuration"
    )]
    Denied(PathBuf),
    /// The socket belongs to another user.
    #[error("what answers at {path} belongs to the user {user}, and not to root; nothing was asked")]
    Stranger {
        /// The socket.
        path: PathBuf,
        /// Whose it is.
        user: u32,
    },
    /// The daemon says no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// An input that the daemon does not take.
    #[error("the daemon takes no such {0}")]
    Parameter(String),
    /// An answer that says nothing to this program.
    #[error("the daemon answers with {0}; it may be of another version than this command")]
    Unknown(String),
    /// The daemon is there and says nothing.
    #[error("the daemon does not answer: it hangs, or is stopped (systemctl restart port-knocking-doors)")]
    Silent,
    /// There can be no socket of this name.
    #[error("there can be no socket {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the daemon has ended, or does not answer")]
    Broken(#[source] io::Error),
}

/// Where the daemon makes the control socket: where an option says, or in the directory that systemd gives the service
/// (systemd.exec(5), `RuntimeDirectory=`), or the usual one.
pub(crate) fn socket_of_service(option: Option<&Path>) -> PathBuf {
    let given = std::env::var_os("RUNTIME_DIRECTORY").unwrap_or_default();
    let first = given.as_encoded_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
    let first = Path::new(OsStr::from_bytes(first));
    match option {
        None if first.is_absolute() => first.join(SOCKET),
        option => socket(option),
    }
}

/// Where a command looks for it. The directory of the service in which a command runs is another's.
pub(crate) fn socket(option: Option<&Path>) -> PathBuf {
    option.map_or_else(|| Path::new(IN_RUN).join(SOCKET), Path::to_owned)
}

/// Whether the peer is the daemon: root, our own user, or the one to whom the socket's directory belongs, into which no
/// other can put a socket.
fn is_trusted(user: Uid, path: &Path) -> bool {
    let directory = path.parent().and_then(|directory| directory.metadata().ok());
    let is_owner = |directory: &Metadata| directory.uid() == user.as_raw() && directory.mode() & 0o022 == 0;
    user.is_root() || user == rustix::process::geteuid() || directory.as_ref().is_some_and(is_owner)
}

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    frames: Frames,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) fn connect(path: &Path) -> Result<Self, CallError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::PermissionDenied => CallError::Denied(path.to_owned()),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                CallError::NoDaemon(path.to_owned())
            }
            io::ErrorKind::WouldBlock => CallError::Silent,
            io::ErrorKind::InvalidInput => CallError::Path { path: path.to_owned(), source: error },
            _ => CallError::Broken(error),
        };
        // Not one that waits: the daemon may hang.
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(CallError::Broken)?;
        socket.set_nonblocking(true).map_err(CallError::Broken)?;
        socket.connect(&SockAddr::unix(path).map_err(failed)?).map_err(failed)?;
        socket.set_nonblocking(false).map_err(CallError::Broken)?;
        let stream = UnixStream::from(OwnedFd::from(socket));
        let peer = socket_peercred(stream.as_fd()).map_err(|error| CallError::Broken(error.into()))?;
        if !is_trusted(peer.uid, path) {
            return Err(CallError::Stranger { path: path.to_owned(), user: peer.uid.as_raw() });
        }
        stream.set_read_timeout(Some(SILENCE)).map_err(CallError::Broken)?;
        stream.set_write_timeout(Some(SILENCE)).map_err(CallError::Broken)?;
        Ok(Self { stream, frames: Frames::default() })
    }

    /// Calls a method with one reply.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: Map<String, Value>,
    ) -> Result<T, CallError> {
        if ["Reload", "Close"].contains(&method) {
            self.stream.set_read_timeout(Some(LONG_WORK)).map_err(CallError::Broken)?;
        }
        self.send(method, parameters, false)?;
        let (reply, _) = self.receive()?;
        Ok(reply)
    }

    /// Calls a method with several replies, and passes each to `take`, until it returns false. `waits`: the next reply may
    /// be long in coming.
    ///
    /// # Errors
    /// [`CallError`].
    pub(crate) fn stream<T: DeserializeOwned>(
        &mut self,
        method: &str,
        parameters: Map<String, Value>,
        waits: bool,
        mut take: impl FnMut(T) -> bool,
    ) -> Result<(), CallError> {
        self.send(method, parameters, true)?;
        if waits {
            self.stream.set_read_timeout(None).map_err(CallError::Broken)?;
        }
        loop {
            let (reply, continues) = self.receive()?;
            if !take(reply) || !continues {
                return Ok(());
            }
        }
    }

    fn send(&mut self, method: &str, parameters: Map<String, Value>, more: bool) -> Result<(), CallError> {
        let method = format!("{NAME}.{method}");
        let call = Call { method, parameters: Some(parameters), more, oneway: false, upgrade: false };
        let message = framed(&call).ok_or_else(|| CallError::Parameter("long input".to_owned()))?;
        match self.stream.write_all(&message) {
            // It may have said why before it hung up.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CallError::Broken(error)),
            _ => Ok(()),
        }
    }

    fn receive<T: DeserializeOwned>(&mut self) -> Result<(T, bool), CallError> {
        let broken = |what| CallError::Broken(io::Error::other(what));
        let message = loop {
            if let Some(message) = self.frames.next().map_err(|_| broken("its answer is too long"))? {
                break message;
            }
            let mut buffer = [0; 16384];
            let count = self.stream.read(&mut buffer).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => CallError::Silent,
                _ => CallError::Broken(error),
            })?;
            if count == 0 {
                return Err(broken("it has closed the connection"));
            }
            self.frames.push(buffer.get(..count).unwrap_or_default());
        };
        let reply: Reply =
            serde_json::from_slice(&message).map_err(|error| CallError::Broken(error.into()))?;
        if let Some(error) = reply.error {
            return Err(refused(Refused { error, parameters: reply.parameters }));
        }
        let parameters = serde_json::from_value(Value::Object(reply.parameters));
        Ok((parameters.map_err(|error| CallError::Unknown(error.to_string()))?, reply.continues))
    }
}

fn refused(refused: Refused) -> CallError {
    if let Some(failure) = Failure::read(&refused) {
        return CallError::Failed(failure);
    }
    let text = |name| refused.parameters.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    match &*refused.error {
        "org.varlink.service.PermissionDenied" => CallError::Denied("this method".into()),
        "org.varlink.service.InvalidParameter" => CallError::Parameter(text("parameter")),
        _ => CallError::Unknown(refused.error),
    }
}
