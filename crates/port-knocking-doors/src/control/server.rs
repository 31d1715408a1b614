//! The control socket: who may connect, how many at once, and what each connection may ask for.
//!
//! ```text
//!   connection ──► rights ──► bounds ──► Session ──► Request ──► the daemon's loop
//! ```
//!
//! A thread of its own does all of it. The loop sees only requests that are complete, allowed, and one at a time for each
//! connection.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt, fs, io,
    os::{
        fd::AsFd as _,
        unix::{fs::PermissionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::Duration,
};

use doors_os::{clock::Clock, sockopt};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::{interface::Right, request::Request, session::Session};
use crate::observe::facts::LastSeen;

/// The connections of one user, but for root.
const CONNECTIONS_OF_ONE: usize = 16;
/// The connections of all users but root.
const CONNECTIONS_OF_OTHERS: usize = 96;
/// The connections of all.
const CONNECTIONS: usize = 128;
/// The requests that may wait for the loop.
const QUEUE: usize = 16;
/// The pause after a connection could not be accepted, because there are no more descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who may use the control socket, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The group, by name or number, whose members may see.
    pub(crate) read_group: Option<String>,
    /// The group, by name or number, whose members may see and change.
    pub(crate) group: Option<String>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("a port-knocking-doors uses {0} already; give this one another, with --control-socket")]
    InUse(PathBuf),
    #[error("cannot make {path}")]
    Path { path: PathBuf, source: io::Error },
    #[error("{key}: there is no group \"{group}\" in /etc/group; write its number if it is elsewhere")]
    NoGroup { key: &'static str, group: String },
    #[error("cannot start its thread")]
    Thread(#[source] io::Error),
}

/// The groups with a right, as numbers.
#[derive(Clone, Copy, Debug)]
struct Groups {
    read: Option<u32>,
    change: Option<u32>,
}

/// The daemon's side.
pub(crate) struct Server {
    requests: mpsc::Receiver<Request>,
    path: PathBuf,
    /// Dropping this ends the thread.
    _running: oneshot::Sender<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Server {
    /// Makes the socket, and starts the thread.
    ///
    /// # Errors
    /// [`ControlError`].
    pub(crate) fn start(
        settings: &Settings,
        clock: Clock,
        last_seen: LastSeen,
    ) -> Result<Self, ControlError> {
        let groups = Groups {
            read: resolve("control_read_group", settings.read_group.as_deref())?,
            change: resolve("control_group", settings.group.as_deref())?,
        };
        let path = settings.path.clone();
        let listener = listen(&path, groups)?;
        let (asks, requests) = mpsc::channel(QUEUE);
        let (running, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ControlError::Thread)?;
        let work = move || {
            let connections = Rc::new(Connections::default());
            let serve = async {
                let Ok(listener) = UnixListener::from_std(listener) else { return };
                let accept = accept(&listener, groups, &connections, |right, stream, place| {
                    let session = Session::new(right, clock, asks.clone(), LastSeen::clone(&last_seen));
                    tokio::task::spawn_local(async move {
                        session.run(stream).await;
                        drop(place);
                    });
                });
                tokio::select! {
                    () = accept => {}
                    _ = ended => {}
                }
            };
            LocalSet::new().block_on(&runtime, serve);
        };
        thread::Builder::new().name("control".to_owned()).spawn(work).map_err(ControlError::Thread)?;
        Ok(Self { requests, path, _running: running })
    }

    /// The next request. Never returns if the thread has ended.
    pub(crate) async fn next(&mut self) -> Request {
        match self.requests.recv().await {
            Some(request) => request,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever finds no socket knows at once that no daemon runs.
        drop(fs::remove_file(&self.path));
    }
}

/// Makes the socket. Without groups only root can open it; with groups each connection is asked whose it is.
fn listen(path: &Path, groups: Groups) -> Result<std::os::unix::net::UnixListener, ControlError> {
    let failed = |source| ControlError::Path { path: path.to_owned(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(ControlError::InUse(path.to_owned()));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    let mode = if groups.read.is_some() || groups.change.is_some() { 0o666 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// The number of a group.
fn resolve(key: &'static str, group: Option<&str>) -> Result<Option<u32>, ControlError> {
    let Some(group) = group else { return Ok(None) };
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let number = group.parse().ok().or_else(|| number_of(&text, group));
    number.map(Some).ok_or_else(|| ControlError::NoGroup { key, group: group.to_owned() })
}

/// Finds a group in a file like /etc/group (group(5)).
fn number_of(text: &str, group: &str) -> Option<u32> {
    let of = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    text.lines().find_map(of)
}

async fn accept(
    listener: &UnixListener,
    groups: Groups,
    connections: &Rc<Connections>,
    serve: impl Fn(Right, tokio::net::UnixStream, Place),
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        let Some(right) = groups.right_of(peer.uid(), peer.gid(), &stream) else {
            // Nothing that it sends is read.
            drop(stream.try_write(&super::session::denied()));
            continue;
        };
        if let Some(place) = connections.take(peer.uid()) {
            serve(right, stream, place);
        }
    }
}

impl Groups {
    fn right_of(self, user: u32, group: u32, stream: &tokio::net::UnixStream) -> Option<Right> {
        if user == 0 || user == rustix::process::geteuid().as_raw() {
            return Some(Right::Change);
        }
        let others = sockopt::peer_groups(stream.as_fd()).ok()?;
        let is_in =
            |wanted: Option<u32>| wanted.is_some_and(|wanted| wanted == group || others.contains(&wanted));
        match (is_in(self.change), is_in(self.read)) {
            (true, _) => Some(Right::Change),
            (false, true) => Some(Right::Read),
            (false, false) => None,
        }
    }
}

/// How many connections each user has.
#[derive(Debug, Default)]
struct Connections {
    of: RefCell<BTreeMap<u32, usize>>,
}

/// The place of one connection.
struct Place {
    user: u32,
    connections: Rc<Connections>,
}

impl Connections {
    /// A place for one more connection of this user; `None` if it has too many. Silent connections of one user keep no other
    /// out, and those of all others do not keep root out.
    fn take(self: &Rc<Self>, user: u32) -> Option<Place> {
        let mut of = self.of.borrow_mut();
        let all: usize = of.values().sum();
        let of_root = of.get(&0).copied().unwrap_or_default();
        let own = of.get(&user).copied().unwrap_or_default();
        let is_full = match user {
            0 => all >= CONNECTIONS,
            _ => own >= CONNECTIONS_OF_ONE || all.saturating_sub(of_root) >= CONNECTIONS_OF_OTHERS,
        };
        if is_full {
            return None;
        }
        of.insert(user, own.saturating_add(1));
        Some(Place { user, connections: Rc::clone(self) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of = self.connections.of.borrow_mut();
        if let Some(own) = of.get_mut(&self.user) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                of.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_connections_keep_no_other_user_out_and_never_root() {
        let connections = Rc::new(Connections::default());
        let mut places = Vec::new();
        for user in 1..=20 {
            places.extend((0..1000).map_while(|_| connections.take(user)));
            assert_eq!(places.len(), (user as usize * CONNECTIONS_OF_ONE).min(CONNECTIONS_OF_OTHERS));
        }
        places.extend((0..1000).map_while(|_| connections.take(0)));
        assert_eq!(places.len(), CONNECTIONS, "the rest is for root");
        places.clear();
        assert!(connections.of.borrow().is_empty());
    }

    #[test]
    fn a_group_is_found_by_its_name() {
        let text = "root:x:0:\nadm:x:4:syslog,me\nbad line\nsudo:x:27:me\nlast:x:nothing:\n";
        for (group, number) in
            [("adm", Some(4)), ("sudo", Some(27)), ("ad", None), ("last", None), ("x", None)]
        {
            assert_eq!(number_of(text, group), number, "{group}");
        }
        assert_eq!(resolve("control_group", Some("12345")).unwrap(), Some(12345));
        let error = resolve("control_group", Some("no-such-group")).unwrap_err().to_string();
        assert!(error.starts_with("control_group: there is no group \"no-such-group\""), "{error}");
    }
}
