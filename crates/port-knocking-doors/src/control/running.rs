//! Finds the daemon that runs with a configuration file.
//!
//! The daemon holds a shared lock on the file that it has read, and a command asks the kernel which process holds it.
//! There is no pid file that may be stale: the kernel releases the lock when the process ends.
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

/// How often the locks are checked; and after how many checks a daemon that had no file in force counts as having
/// refused again.
const BETWEEN_POLLS: Duration = Duration::from_millis(5);
const SECOND_REFUSAL: u32 = 600;

/// How often to look for a daemon, and the pause after each look.
const LOOKUP_ATTEMPTS: u32 = 10;
const LOOKUP_INTERVAL: Duration = Duration::from_millis(20);

/// The lock on the file that the daemon has read.
#[derive(Debug)]
pub(crate) struct Mark {
    /// Closing this, or any other descriptor of the same file in this process, releases the lock.
    _file: Arc<File>,
}

/// The bytes that the daemon locks. They may lie beyond the end of the file.
#[derive(Clone, Copy, Debug)]
enum LockByte {
    /// A daemon reads this file.
    Reads,
    /// The contents of the file are in force.
    InForce,
    /// The file was read in this version.
    Version(libc::off_t),
    /// The version of the clients' files that were read with it.
    Clients(Version),
}

/// The offsets of the bytes for versions, after all others, in two parts that fit into a 32-bit offset.
const VERSIONS: libc::off_t = 1 << (libc::off_t::BITS - 3);
const CLIENTS: libc::off_t = VERSIONS << 1;

/// The low bits of a number, as many as one part of the offsets has room for.
fn low_bits(number: u64) -> libc::off_t {
    let mask = u64::try_from(VERSIONS).unwrap_or_default().saturating_sub(1);
    libc::off_t::try_from(number & mask).unwrap_or_default()
}

impl LockByte {
    /// The version of an open file. It is derived from metadata that every user may read, and not from the contents,
    /// because every user can see which bytes are locked (/proc/locks).
    fn version_of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let parts = [metadata.ino(), metadata.size()].map(u64::to_be_bytes);
        let times = [metadata.mtime(), metadata.mtime_nsec()].map(i64::to_be_bytes);
        let digest = Sha256::new().chain_update(parts.concat()).chain_update(times.concat()).finalize();
        let number = digest.iter().take(7).fold(0, |number, byte| number << 8 | u64::from(*byte));
        Ok(Self::Version(low_bits(number)))
    }

    /// The offset of the byte.
    fn offset(self) -> libc::off_t {
        match self {
            Self::Reads => 0,
            Self::InForce => 1,
            Self::Version(version) => VERSIONS | version,
            Self::Clients(Version(version)) => CLIENTS | low_bits(version),
        }
    }
}

/// A configuration file that was read, still open.
#[derive(Debug)]
pub(crate) struct AsRead {
    file: Arc<File>,
    version: Version,
}

impl AsRead {
    /// The file that was read, and the version of the clients' files that were read with it.
    pub(crate) fn new(file: Arc<File>, version: Version) -> Self {
        Self { file, version }
    }

    /// The file that has this name now. Does not block on a pipe.
    pub(crate) fn named(path: &Path) -> Option<Self> {
        let file = trusted_file::open(path).ok()?;
        trusted_file::regular(&file).is_ok().then(|| Self::new(Arc::new(file), Version::default()))
    }
}

impl Mark {
    /// Locks a file. To be repeated whenever another descriptor of the same file was closed.
    pub(crate) fn set(AsRead { file, version }: AsRead, in_force: bool) -> io::Result<Self> {
        // The order matters: a command that finds `InForce` locked can also see which version was read.
        let marks = [LockByte::version_of(&file)?, LockByte::Clients(version), LockByte::Reads];
        for byte in marks.into_iter().chain(in_force.then_some(LockByte::InForce)) {
            ask(&file, libc::F_SETLK, libc::F_RDLCK, byte)?;
        }
        Ok(Self { _file: file })
    }
}

/// The daemon that has read a file; `None` if there is none.
pub(crate) fn daemon_of(path: &Path) -> io::Result<Option<Pid>> {
    // While a daemon reads an unusable file, its lock is released for a moment.
    for _ in 0..LOOKUP_ATTEMPTS {
        let found = holder_of(&open(path)?, LockByte::Reads)?;
        if found.is_some() {
            return Ok(found);
        }
        std::thread::sleep(LOOKUP_INTERVAL);
    }
    Ok(of_replaced(path))
}

/// The daemon that has read an earlier file of this name, which is deleted: editors and configuration management
/// put a new file in its place. The kernel still shows it under that name (proc_pid_fd(5)).
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

/// Opens a file. Does not block on a pipe.
fn open(path: &Path) -> io::Result<File> {
    Ok(trusted_file::open(path)?)
}

/// A daemon whose configuration differs from its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Behind {
    /// It has not read the file since the last change.
    Unread(Pid),
    /// It has read the file, and could not use it.
    Refused(Pid),
}

/// Whether the daemon of a file runs with something other than the file's contents.
pub(crate) fn behind(path: &Path) -> Option<Behind> {
    let daemon = daemon_of(path).ok()??;
    let file = open(path).ok()?;
    let holds = |byte| Some(holder_of(&file, byte).ok()? == Some(daemon));
    if !holds(LockByte::version_of(&file).ok()?)? {
        return Some(Behind::Unread(daemon));
    }
    (!holds(LockByte::InForce)?).then_some(Behind::Refused(daemon))
}

fn holder(path: &Path, byte: LockByte) -> io::Result<Option<Pid>> {
    holder_of(&open(path)?, byte)
}

fn holder_of(file: &File, byte: LockByte) -> io::Result<Option<Pid>> {
    // Whether a write lock would conflict with a held lock. Nothing is locked.
    let lock = ask(file, libc::F_GETLK, libc::F_WRLCK, byte)?;
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

/// Whether a process belongs to root or to our own user: every user who may read the file can lock it.
fn is_trusted(pid: Pid) -> bool {
    let owner = fs::metadata(format!("/proc/{pid}")).map(|process| process.uid());
    owner.is_ok_and(|owner| owner == 0 || owner == rustix::process::geteuid().as_raw())
}

/// Queries or sets a lock on one byte.
fn ask(file: &File, command: libc::c_int, kind: libc::c_int, byte: LockByte) -> io::Result<libc::flock> {
    // SAFETY: all zeroes are a valid `flock`.
    let mut lock: libc::flock = unsafe { zeroed() };
    lock.l_type = kind.try_into().map_err(io::Error::other)?;
    lock.l_start = byte.offset();
    lock.l_len = 1;
    // SAFETY: the lock is a live `flock`, which the kernel reads and may write.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(lock) }
}

/// The result of a reload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Takeover {
    /// No daemon runs with the file.
    NoDaemon,
    /// The daemon runs with the new file.
    Done,
    /// It has read the new file and keeps the configuration that was in force; its log says why.
    Refused,
    /// It is still reading, or hangs.
    Slow,
    /// It ended meanwhile.
    Ended,
}

/// Whether a daemon runs with the current file and with this version of the clients' files.
pub(crate) fn runs_with(path: &Path, daemon: Pid, version: Version) -> io::Result<bool> {
    let file = open(path)?;
    let holds = |byte| holder_of(&file, byte).map(|holder| holder == Some(daemon));
    // Of the file itself, too: it may have been changed in its place since.
    let is_read = holds(LockByte::version_of(&file)?)? && holds(LockByte::Clients(version))?;
    Ok(is_read && holds(LockByte::InForce)?)
}

/// Makes a daemon reload, and waits until it runs with this version of the clients' files.
pub(crate) fn take_over(path: &Path, daemon: Option<Pid>, version: Version) -> io::Result<Takeover> {
    let Some(daemon) = daemon else { return Ok(Takeover::NoDaemon) };
    // A daemon that already ran with something else gives no answer by still doing so.
    let refusals = if holder(path, LockByte::InForce)? == Some(daemon) { 3 } else { SECOND_REFUSAL };
    kill_process(daemon, Signal::HUP)?;
    let begun = Instant::now();
    let mut refused = 0_u32;
    while begun.elapsed() < RELOAD_TIMEOUT {
        if runs_with(path, daemon, version)? {
            return Ok(Takeover::Done);
        }
        // A file that is in force gets both locks at nearly the same time.
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

/// Makes a daemon reload, without waiting for it.
pub(crate) fn ask_to_reload(daemon: Pid) -> io::Result<()> {
    Ok(kill_process(daemon, Signal::HUP)?)
}
