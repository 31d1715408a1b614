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
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::Duration,
};

use doors_os::{clock::Clock, sockopt};
use rustix::{fs::XattrFlags, io::Errno};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::LocalSet,
};

use super::{interface::Right, request::Request, session::Session};
use crate::observe::{facts::LastSeen, log};

/// The connections of one user, but for root.
const CONNECTIONS_OF_ONE: usize = 16;
/// The connections of all users but root.
const CONNECTIONS_OF_OTHERS: usize = 96;
/// The connections of all.
const CONNECTIONS: usize = 128;
/// The requests that may wait for the loop.
const QUEUE: usize = 16;
/// The pause after a connection could not be accepted, because there are no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who may use the control socket, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// The groups whose members may use it.
    pub(crate) groups: Groups,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("a port-knocking-doors uses {0} already; give this one another, with --control-socket")]
    InUse(PathBuf),
    #[error("{0} is there, and is no socket; give another path with --control-socket")]
    NotASocket(PathBuf),
    #[error("cannot make {path}")]
    Path { path: PathBuf, source: io::Error },
    #[error("cannot start its thread")]
    Thread(#[source] io::Error),
}

/// The groups with a right, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Groups {
    /// Those who may see.
    pub(crate) read: Option<u32>,
    /// Those who may see and change.
    pub(crate) change: Option<u32>,
}

/// The daemon's side.
pub(crate) struct Server {
    requests: mpsc::Receiver<Request>,
    path: PathBuf,
    /// The socket that we have made.
    made: Option<Identity>,
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
        let groups = settings.groups;
        let path = std::path::absolute(&settings.path)
            .map_err(|source| ControlError::Path { path: settings.path.clone(), source })?;
        let listener = listen(&path, groups)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ControlError::Thread)?;
        let made = Identity::of(&path);
        let (asks, requests) = mpsc::channel(QUEUE);
        let (running, ended) = oneshot::channel();
        let work = move || {
            let connections = Rc::new(Connections::default());
            let serve = async {
                let listener = match UnixListener::from_std(listener) {
                    Ok(listener) => listener,
                    Err(error) => return log::no_control_socket(&error),
                };
                let accept = accept(&listener, groups, &connections, |user, right, stream, place| {
                    let session = Session::new(user, right, clock, asks.clone(), LastSeen::clone(&last_seen));
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
        Ok(Self { requests, path, made, _running: running })
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
        // A command that finds no socket knows at once that no daemon runs. Another daemon's stays.
        if self.made.is_some() && Identity::of(&self.path) == self.made {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// By what a file is known, whatever its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.symlink_metadata().ok()?;
        Some(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// Makes the socket. Only root can open it, and the groups.
fn listen(path: &Path, groups: Groups) -> Result<std::os::unix::net::UnixListener, ControlError> {
    let failed = |source| ControlError::Path { path: path.to_owned(), source };
    if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
        fs::create_dir_all(directory).map_err(failed)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    }
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(there) if !there.file_type().is_socket() => return Err(ControlError::NotASocket(path.to_owned())),
        Ok(_) if is_used(path).map_err(failed)? => return Err(ControlError::InUse(path.to_owned())),
        // A daemon that was killed has left it.
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    if let Err(error) = admit(path, groups) {
        // Root can open it all the same.
        log::groups_not_admitted(path, &error);
    }
    // Before Linux 6.16 there is no such option, and a member of a group who passes a descriptor that lingers can make the
    // others wait.
    let _ = sockopt::refuse_descriptors(listener.as_fd());
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Lets the members of the groups open the socket; no other user but root can, whatever it sends. Source: acl(5),
/// `linux/posix_acl_xattr.h`.
fn admit(path: &Path, groups: Groups) -> io::Result<()> {
    const VERSION: u32 = 2;
    const ACL_USER_OBJ: u16 = 0x01;
    const ACL_GROUP_OBJ: u16 = 0x04;
    const ACL_GROUP: u16 = 0x08;
    const ACL_MASK: u16 = 0x10;
    const ACL_OTHER: u16 = 0x20;
    const READ_WRITE: u16 = 6;
    const NO_ID: u32 = u32::MAX;
    let named: BTreeSet<u32> = groups.read.into_iter().chain(groups.change).collect();
    if named.is_empty() {
        return Ok(());
    }
    let mut acl = VERSION.to_le_bytes().to_vec();
    let mut entry = |tag: u16, may: u16, id: u32| {
        acl.extend([tag.to_le_bytes(), may.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    };
    entry(ACL_USER_OBJ, READ_WRITE, NO_ID);
    entry(ACL_GROUP_OBJ, 0, NO_ID);
    named.iter().for_each(|group| entry(ACL_GROUP, READ_WRITE, *group));
    entry(ACL_MASK, READ_WRITE, NO_ID);
    entry(ACL_OTHER, 0, NO_ID);
    match (rustix::fs::setxattr(path, "system.posix_acl_access", &acl, XattrFlags::empty()), named.first()) {
        // A file system without such lists knows one group.
        (Err(Errno::OPNOTSUPP), Some(group)) if named.len() == 1 => {
            chown(path, None, Some(*group))?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))
        }
        (set, _) => Ok(set?),
    }
}

/// Whether a process listens at a socket. Does not wait for one that accepts nothing.
fn is_used(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // Its queue is full, or it is of another kind.
        Ok(()) | Err(_) => Ok(true),
    }
}

async fn accept(
    listener: &UnixListener,
    groups: Groups,
    connections: &Rc<Connections>,
    serve: impl Fn(u32, Right, tokio::net::UnixStream, Place),
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(peer) = stream.peer_cred() else { continue };
        let Some(right) = groups.right_of(peer.uid(), peer.gid(), &stream) else {
            // Nothing that it sends is read.
            drop(stream.try_write(&super::session::denied()));
            continue;
        };
        match connections.take(peer.uid()) {
            Some(place) => serve(peer.uid(), right, stream, place),
            None => drop(stream.try_write(&super::session::too_many())),
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
}
