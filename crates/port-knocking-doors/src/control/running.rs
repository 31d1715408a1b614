//! Finds the daemon that runs with a configuration file.
//!
//! The daemon holds a shared lock on the very file that it has read. Whoever wants to know asks the kernel who
//! holds it. There is no file with a number that may be stale: the kernel forgets the lock with the process.
//!
//! Source: fcntl(2), "Advisory record locking".
#![allow(unsafe_code, reason = "no safe interface tells who holds a lock; this file is the one that asks")]

use std::{
    fs::{self, File},
    io,
    mem::zeroed,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use doors_os::trusted_file;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};

use crate::config::Version;

/// How long a daemon may take to read its configuration again: 100,000 keys on a slow machine.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the marks are looked at, and after how many looks a daemon that was not in force before has refused again.
const BETWEEN_POLLS: Duration = Duration::from_millis(5);
const SECOND_REFUSAL: u32 = 600;

/// So often it is looked for a daemon, and so long after each look.
const LOOKS: u32 = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The mark on the file that the daemon reads.
#[derive(Debug)]
pub(crate) struct Mark {
    /// Closing this, or any other opening of the same file in this process, takes the mark away.
    _file: Arc<File>,
}

/// Bytes that are locked; the file need not be so long.
#[derive(Clone, Copy, Debug)]
enum LockByte {
    /// A daemon reads this file.
    Reads,
    /// And what stands in it is in force.
    InForce,
    /// It was read when it was of this version.
    Version(libc::off_t),
    /// It was read together with these files of clients.
    Clients(Version),
}

/// Where the bytes for versions are, behind all others, in two parts that fit where an offset has 32 bits.
const VERSIONS: libc::off_t = 1 << (libc::off_t::BITS - 3);
const CLIENTS: libc::off_t = VERSIONS << 1;

/// As much of a number as there is room for in one part.
fn low_bits(number: u64) -> libc::off_t {
    let mask = u64::try_from(VERSIONS).unwrap_or_default().saturating_sub(1);
    libc::off_t::try_from(number & mask).unwrap_or_default()
}

impl LockByte {
    /// For the version of a file that is open now. Made of what every user may know of it, and not of what stands in
    /// it: whoever likes can see which bytes are locked (/proc/locks).
    fn version_of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let parts = [metadata.ino(), metadata.size()].map(u64::to_be_bytes);
        let times = [metadata.mtime(), metadata.mtime_nsec()].map(i64::to_be_bytes);
        let digest = Sha256::new().chain_update(parts.concat()).chain_update(times.concat()).finalize();
        let number = digest.iter().take(7).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self::Version(low_bits(number)))
    }

    /// Which byte it is.
    fn offset(self) -> libc::off_t {
        match self {
            Self::Reads => 0,
            Self::InForce => 1,
            Self::Version(version) => VERSIONS | version,
            Self::Clients(Version(version)) => CLIENTS | low_bits(version),
        }
    }
}

/// A configuration file that was read, and is open.
#[derive(Debug)]
pub(crate) struct AsRead {
    file: Arc<File>,
    version: Version,
}

impl AsRead {
    /// The file that was read, and the files of clients that were read with it.
    pub(crate) fn new(file: Arc<File>, version: Version) -> Self {
        Self { file, version }
    }

    /// The file that has this name now. Waits for no pipe.
    pub(crate) fn named(path: &Path) -> Option<Self> {
        let file = trusted_file::open(path).ok()?;
        trusted_file::regular(&file).is_ok().then(|| Self::new(Arc::new(file), Version::default()))
    }
}

impl Mark {
    /// Marks a file. To be done anew whenever one was closed that the same name had.
    pub(crate) fn set(AsRead { file, version }: AsRead, in_force: bool) -> io::Result<Self> {
        // In this order: who finds that it is in force knows what was read.
        let marks = [LockByte::version_of(&file)?, LockByte::Clients(version), LockByte::Reads];
        for byte in marks.into_iter().chain(in_force.then_some(LockByte::InForce)) {
            ask(&file, libc::F_SETLK, libc::F_RDLCK, byte)?;
        }
        Ok(Self { _file: file })
    }
}

/// The daemon that reads a file; `None` if none does.
pub(crate) fn daemon_of(path: &Path) -> io::Result<Option<Pid>> {
    // While a daemon reads a file that it cannot use, the mark is away for a moment.
    for _ in 0..LOOKS {
        let found = holder_of(&open(path)?, LockByte::Reads)?.or_else(|| of_replaced(path));
        if found.is_some() {
            return Ok(found);
        }
        std::thread::sleep(BETWEEN_LOOKS);
    }
    Ok(None)
}

/// The daemon that has read a file which had this name before, and which is gone: editors and configuration management
/// put a new one in its place. The kernel calls it by that name still (proc_pid_fd(5)).
fn of_replaced(path: &Path) -> Option<Pid> {
    let mut gone = fs::canonicalize(path).ok()?.into_os_string();
    gone.push(" (deleted)");
    let marks = |pid: Pid, fd: &Path| {
        fs::read_link(fd).is_ok_and(|link| link.as_os_str() == gone)
            && open(fd)
                .is_ok_and(|file| holder_of(&file, LockByte::Reads).is_ok_and(|held| held == Some(pid)))
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        open.any(|fd| marks(pid, &fd.path())).then_some(pid)
    })
}

/// Waits for no pipe.
fn open(path: &Path) -> io::Result<File> {
    Ok(trusted_file::open(path)?)
}

/// A daemon that runs with something else than what stands in its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Behind {
    /// It has not read the file since that was changed.
    Unread(Pid),
    /// It has read it, and could not use it.
    Refused(Pid),
}

/// Whether the daemon of a file runs with something else than what stands there.
pub(crate) fn behind(path: &Path) -> Option<Behind> {
    let daemon = daemon_of(path).ok()??;
    let file = open(path).ok()?;
    let holds = |byte| Some(holder_of(&file, byte).ok()? == Some(daemon));
    if !holds(LockByte::version_of(&file).ok()?)? {
        return Some(Behind::Unread(daemon));
    }
    (!holds(LockByte::InForce)?).then_some(Behind::Refused(daemon))
}

fn holder(path: &Path, place: LockByte) -> io::Result<Option<Pid>> {
    holder_of(&open(path)?, place)
}

fn holder_of(file: &File, place: LockByte) -> io::Result<Option<Pid>> {
    // Whether somebody would be in the way of a lock for writing; nothing is locked.
    let lock = ask(file, libc::F_GETLK, libc::F_WRLCK, place)?;
    let held = i32::from(lock.l_type) != libc::F_UNLCK;
    match Pid::from_raw(lock.l_pid).filter(|_| held) {
        Some(pid) if !is_trusted(pid) => {
            let what =
                format!("process {pid} of another user holds a lock on the configuration file; end it first");
            Err(io::Error::other(what))
        }
        holder => Ok(holder),
    }
}

/// Whether a process is root's, or our own user's: anybody who may read the file can lock it.
fn is_trusted(pid: Pid) -> bool {
    let owner = fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
    owner.is_ok_and(|owner| owner == 0 || owner == rustix::process::geteuid().as_raw())
}

/// One question or order about a lock on one byte.
fn ask(file: &File, command: libc::c_int, kind: libc::c_int, place: LockByte) -> io::Result<libc::flock> {
    // SAFETY: all zeroes are a valid `flock`.
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_type = kind.try_into().map_err(io::Error::other)?;
    lock.l_start = place.offset();
    lock.l_len = 1;
    // SAFETY: the lock is a live `flock`, which the kernel reads and may write.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

/// What became of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takeover {
    /// No daemon runs with the file.
    NoDaemon,
    /// The daemon runs with the new file.
    Done,
    /// It has read the new file, and goes on with what was in force before; its log says why.
    Refused,
    /// It still reads, or hangs.
    Slow,
    /// It has ended meanwhile.
    Ended,
}

/// Whether a daemon runs with the file as it is, and with these files of clients.
pub(crate) fn runs_with(path: &Path, daemon: Pid, version: Version) -> io::Result<bool> {
    let holds = |byte| holder(path, byte).map(|holder| holder == Some(daemon));
    Ok(holds(LockByte::Clients(version))? && holds(LockByte::InForce)?)
}

/// Lets a daemon read its configuration again, and waits until it runs with these files of clients.
pub(crate) fn take_over(path: &Path, daemon: Option<Pid>, version: Version) -> io::Result<Takeover> {
    let Some(daemon) = daemon else { return Ok(Takeover::NoDaemon) };
    // One that runs with something else already says nothing by doing so still.
    let refusals = if holder(path, LockByte::InForce)? == Some(daemon) { 3 } else { SECOND_REFUSAL };
    kill_process(daemon, Signal::HUP)?;
    let begun = Instant::now();
    let mut refused = 0_u32;
    while begun.elapsed() < RELOAD_TIMEOUT {
        if runs_with(path, daemon, version)? {
            return Ok(Takeover::Done);
        }
        // Both marks of a file that is in force are set at nearly the same time.
        let is_refused = holder(path, LockByte::Reads)? == Some(daemon)
            && holder(path, LockByte::InForce)? != Some(daemon);
        refused = if is_refused { refused.saturating_add(1) } else { 0 };
        if refused > refusals {
            return Ok(Takeover::Refused);
        }
        if rustix::process::test_kill_process(daemon).is_err() {
            return Ok(Takeover::Ended);
        }
        std::thread::sleep(BETWEEN_POLLS);
    }
    Ok(Takeover::Slow)
}

/// Lets a daemon read its configuration again, and does not wait.
pub(crate) fn ask_to_reload(daemon: Pid) -> io::Result<()> {
    Ok(kill_process(daemon, Signal::HUP)?)
}
