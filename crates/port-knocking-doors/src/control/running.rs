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

/// How long a daemon may take to read its configuration again: 100,000 keys on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
    Reads = 0,
    /// And what stands in it is in force.
    InForce = 1,
}

impl Mark {
    /// Marks a file. To be done anew whenever one was closed that the same name had.
    pub(crate) fn set(file: Arc<File>, in_force: bool) -> io::Result<Self> {
        ask(&file, libc::F_SETLK, libc::F_RDLCK, LockByte::Reads)?;
        if in_force {
            ask(&file, libc::F_SETLK, libc::F_RDLCK, LockByte::InForce)?;
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

/// The daemon that reads a file, and runs with something else than what stands there: it was wrong when it was read.
pub(crate) fn with_other_contents(path: &Path) -> Option<Pid> {
    let daemon = daemon_of(path).ok()??;
    (holder(path, LockByte::InForce).ok()? != Some(daemon)).then_some(daemon)
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
    lock.l_start = libc::off_t::from(place as i32);
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

/// Lets a daemon read the file again that has just been replaced, and waits until it runs with it.
pub(crate) fn take_over(path: &Path, daemon: Option<Pid>) -> io::Result<Takeover> {
    let Some(daemon) = daemon else { return Ok(Takeover::NoDaemon) };
    kill_process(daemon, Signal::HUP)?;
    let begun = Instant::now();
    let mut read = 0_u32;
    while begun.elapsed() < PATIENCE {
        if holder(path, LockByte::InForce)? == Some(daemon) {
            return Ok(Takeover::Done);
        }
        // Both marks of a file that is in force are set at nearly the same time.
        read = if holder(path, LockByte::Reads)? == Some(daemon) { read.saturating_add(1) } else { 0 };
        if read > 3 {
            return Ok(Takeover::Refused);
        }
        if rustix::process::test_kill_process(daemon).is_err() {
            return Ok(Takeover::Ended);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(Takeover::Slow)
}
