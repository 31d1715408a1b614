//! A network namespace, and the thread that starts its processes.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::{Child, Command},
    sync::mpsc,
    thread,
};

use ipnet::IpNet;
use rustix::{
    mount::{MountFlags, MountPropagationFlags},
    process::{Signal, set_parent_process_death_signal},
    thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, capabilities, move_into_link_name_space},
};

use super::{cable, error::LabError};

/// A network namespace with a loopback interface that is up.
///
/// It has a thread that lives as long as it does and starts its processes. When that thread ends, even
/// because this whole program is killed, the kernel kills the processes (`PR_SET_PDEATHSIG`, prctl(2)).
#[derive(Debug)]
pub struct Namespace {
    descriptor: OwnedFd,
    spawner: mpsc::Sender<(Command, mpsc::Sender<io::Result<Child>>)>,
}

impl Namespace {
    /// Makes an empty network.
    ///
    /// # Errors
    /// [`LabError::Namespace`] if that is not allowed.
    pub fn new() -> Result<Self, LabError> {
        let (spawner, orders) = mpsc::channel();
        let (send_made, made) = mpsc::channel();
        thread::spawn(move || {
            let made = unshare(UnshareFlags::NEWNET).and_then(|()| File::open("/proc/thread-self/ns/net"));
            let _ = send_made.send(made);
            drop(send_made);
            spawn_on_order(&orders);
        });
        let made = made.recv().unwrap_or_else(|error| Err(io::Error::other(error)));
        let namespace = Self { descriptor: made.map_err(LabError::Namespace)?.into(), spawner };
        namespace.enter(|| {
            // No other host can have an address here, so duplicate address detection (RFC 4862, section 5.4)
            // would only delay each new link by a second.
            for which in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{which}/accept_dad");
                match fs::write(file, "0") {
                    // A machine without IPv6 has no such file.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(LabError::Namespace(error));
                    }
                    _ => {}
                }
            }
            cable::up("lo")
        })?;
        Ok(namespace)
    }

    /// Starts a process in this network. It ends with the network at the latest.
    ///
    /// # Errors
    /// The system's error if it cannot be started.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answered) = mpsc::channel();
        self.spawner.send((command, answer)).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)?
    }

    /// Runs `work` in a thread of this network.
    ///
    /// # Panics
    /// If `work` panics, or if the kernel does not let the thread in.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.move_in();
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread into the network. It cannot leave again.
    ///
    /// # Panics
    /// If the kernel does not let it in.
    #[allow(clippy::expect_used, reason = "a thread that went on in the host's network would do harm there")]
    pub fn move_in(&self) {
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace that we made lets us in");
    }

    /// Lays a cable: a veth pair (veth(4)) that is up, with `here` in this network and `there` in the other.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn cable(&self, here: &str, other: &Self, there: &str) -> Result<(), LabError> {
        self.enter(|| cable::lay(here, other.as_fd(), there))?;
        self.enter(|| cable::up(here))?;
        other.enter(|| cable::up(there).and_then(|()| cable::wait_until_up(there)))?;
        self.enter(|| cable::wait_until_up(here))
    }

    /// Gives an interface an address, which can be used at once.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn address(&self, link: &str, address: IpNet) -> Result<(), LabError> {
        self.enter(|| cable::add_address(link, address))
    }

    /// Adds a route: packets for `destination` go to `gateway`.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn route(&self, destination: IpNet, gateway: std::net::IpAddr) -> Result<(), LabError> {
        self.enter(|| cable::add_route(destination, gateway))
    }

    /// Makes every address of `network` local to this network, as if each were on an interface.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn own(&self, network: IpNet) -> Result<(), LabError> {
        self.enter(|| {
            // For IPv6, a socket can bind to such an address only if nonlocal addresses are allowed.
            let allowed = fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1");
            allowed.map_err(LabError::Namespace)?;
            cable::add_local_route(network, libc::RT_TABLE_LOCAL)
        })
    }

    /// Makes every address of `network` local for packets that are looked up in this routing table, as a
    /// transparent proxy does.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn take_in(&self, network: IpNet, table: u8) -> Result<(), LabError> {
        self.enter(|| cable::add_local_route(network, table))
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn remove(&self, link: &str) -> Result<(), LabError> {
        self.enter(|| cable::remove(link))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Makes this process root of a user namespace, unless it may make namespaces already, as root in a container
/// may not. Call it while the process has only one thread.
///
/// # Errors
/// [`LabError::Namespace`] if the system does not allow user namespaces.
pub fn become_root() -> Result<(), LabError> {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)) {
        return Ok(());
    }
    let map = |file: &str, text: String| fs::write(format!("/proc/self/{file}"), text);
    unshare(UnshareFlags::NEWUSER)
        .and_then(|()| map("setgroups", "deny".to_owned()))
        .and_then(|()| map("uid_map", format!("0 {} 1", user.as_raw())))
        .and_then(|()| map("gid_map", format!("0 {} 1", group.as_raw())))
        .map_err(LabError::Namespace)
}

/// Starts processes until all senders are gone.
#[allow(unsafe_code, reason = "what runs between fork(2) and exec(2) is limited")]
fn spawn_on_order(orders: &mpsc::Receiver<(Command, mpsc::Sender<io::Result<Child>>)>) {
    while let Ok((mut command, answer)) = orders.recv() {
        let die_with_us = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        // SAFETY: the closure makes one system call; it takes no memory and no lock.
        unsafe { command.pre_exec(die_with_us) };
        let _ = answer.send(command.spawn());
    }
}

/// Mounts a directory for files that only this process sees and that disappears with it. Returns its path.
/// Call it while the process has only one thread.
///
/// # Errors
/// [`LabError::Namespace`] or [`LabError::Directory`] if that is not allowed.
pub fn private_directory() -> Result<PathBuf, LabError> {
    let directory = PathBuf::from("/mnt");
    unshare(UnshareFlags::NEWNS).map_err(LabError::Namespace)?;
    let make = || -> io::Result<()> {
        let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", alone)?;
        rustix::mount::mount("tmpfs", &directory, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
        Ok(())
    };
    match make() {
        Ok(()) => Ok(directory),
        Err(source) => Err(LabError::Directory { path: directory, source }),
    }
}

#[allow(unsafe_code, reason = "unshare(2) is unsafe only where it splits the table of descriptors")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: none of these namespaces affects descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}
