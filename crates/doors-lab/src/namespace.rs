//! A network of its own, and the thread that starts its processes.

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

/// A network of its own, with a loopback interface that is up.
///
/// It has a thread that lives as long as it does and starts its processes. When that thread ends, also
/// because this whole program is killed, the kernel ends them.
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
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let made = unshare(UnshareFlags::NEWNET).and_then(|()| File::open("/proc/thread-self/ns/net"));
            let _ = tell.send(made);
            drop(tell);
            spawn_on_order(&orders);
        });
        let made = told.recv().unwrap_or_else(|error| Err(io::Error::other(error)));
        let namespace = Self { descriptor: made.map_err(LabError::Namespace)?.into(), spawner };
        namespace.enter(|| {
            // Nobody else can have an address here, and a new link would look for him for a second.
            for which in ["all", "default"] {
                let file = format!("/proc/sys/net/ipv6/conf/{which}/accept_dad");
                match fs::write(file, "0") {
                    // A machine without IPv6 has nothing to look for.
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
    /// What the system says if it cannot be started.
    pub fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answered) = mpsc::channel();
        self.spawner.send((command, answer)).map_err(io::Error::other)?;
        answered.recv().map_err(io::Error::other)?
    }

    /// Runs `work` in a thread that is in this network.
    ///
    /// # Panics
    /// If `work` does, or if the kernel does not let the thread in, which it always did before.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.move_in();
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves this thread into the network, for good.
    ///
    /// # Panics
    /// If the kernel does not let it in.
    #[allow(clippy::expect_used, reason = "a thread that went on in the host's network would do harm there")]
    pub fn move_in(&self) {
        move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace that we made lets us in");
    }

    /// Lays a cable: a pair of interfaces that work, `here` in this network and `there` in the other.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn cable(&self, here: &str, other: &Self, there: &str) -> Result<(), LabError> {
        self.enter(|| cable::lay(here, other.as_fd(), there))?;
        self.enter(|| cable::up(here))?;
        other.enter(|| cable::up(there).and_then(|()| cable::wait_until_it_works(there)))?;
        self.enter(|| cable::wait_until_it_works(here))
    }

    /// Gives an interface an address. It can be used at once.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn address(&self, link: &str, address: IpNet) -> Result<(), LabError> {
        self.enter(|| cable::add_address(link, address))
    }

    /// Sends packets for `destination` by way of `gateway`.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn route(&self, destination: IpNet, gateway: std::net::IpAddr) -> Result<(), LabError> {
        self.enter(|| cable::add_route(destination, gateway))
    }

    /// Makes every address of `network` this network's own, as if each were on an interface.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn own(&self, network: IpNet) -> Result<(), LabError> {
        self.enter(|| {
            // Over IPv6 a socket takes such an address only where it may take any.
            let allowed = fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1");
            allowed.map_err(LabError::Namespace)?;
            cable::add_local_route(network, cable::LOCAL_TABLE)
        })
    }

    /// Makes every address of `network` local for packets that are looked up in a table of their own, as a
    /// transparent proxy does.
    ///
    /// # Errors
    /// [`LabError::Link`].
    pub fn take_in(&self, network: IpNet, table: u8) -> Result<(), LabError> {
        self.enter(|| cable::add_local_route(network, table))
    }

    /// Takes an interface away.
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

/// Makes this process root of a user namespace of its own, if it may not make namespaces already, as root in
/// a container may not. To be called while the process has one thread only.
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

/// Starts processes until nobody orders any more.
#[allow(unsafe_code, reason = "what runs between fork(2) and exec(2) is limited")]
fn spawn_on_order(orders: &mpsc::Receiver<(Command, mpsc::Sender<io::Result<Child>>)>) {
    while let Ok((mut command, answer)) = orders.recv() {
        let die_with_us = || set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from);
        // SAFETY: it makes one system call and takes no memory or lock.
        unsafe { command.pre_exec(die_with_us) };
        let _ = answer.send(command.spawn());
    }
}

/// Gives this process a place for files that nobody else sees and that vanishes with it. To be called
/// while the process has one thread only.
///
/// # Errors
/// [`LabError::Namespace`] or [`LabError::Place`] if that is not allowed.
pub fn private_place() -> Result<PathBuf, LabError> {
    let place = PathBuf::from("/mnt");
    unshare(UnshareFlags::NEWNS).map_err(LabError::Namespace)?;
    let make = || -> io::Result<()> {
        let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", alone)?;
        rustix::mount::mount("tmpfs", &place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)?;
        Ok(())
    };
    match make() {
        Ok(()) => Ok(place),
        Err(source) => Err(LabError::Place { path: place, source }),
    }
}

#[allow(unsafe_code, reason = "unshare(2) is unsafe only where it splits the table of descriptors")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: none of the namespaces that are asked for has anything to do with descriptors.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}
