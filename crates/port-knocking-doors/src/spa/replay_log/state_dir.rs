//! The directory of the replay log. It is opened once, so a later change of the path has no effect.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use doors_os::trusted_file::{self, Demands, Untrusted};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use super::{
    ReplayLogError,
    log::{Disk, MAX_LENGTH},
    record::HEADER,
};

/// The name of the replay log.
pub(super) const KNOCKS: &str = "knocks";
/// The name of the last replay log that was unusable.
pub(super) const DAMAGED: &str = "knocks.damaged";
/// The name of the next replay log while it is written.
pub(super) const NEXT: &str = "knocks.new";
const LOCK: &str = "lock";

/// An open directory and the lock in it.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    directory: File,
    _lock: File,
}

impl StateDir {
    /// Opens a directory, creates it if it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Self, ReplayLogError> {
        let directory = open_directory(path)
            .map_err(|source| ReplayLogError::Directory { path: path.to_owned(), source })?;
        trusted_file::judge_directory(&directory).map_err(|untrusted| refused(path, untrusted))?;
        let lock = open_in(&directory, LOCK, OFlags::RDWR | OFlags::CREATE);
        let lock = lock.map_err(|source| match source.kind() {
            io::ErrorKind::IsADirectory => ReplayLogError::InTheWay { path: path.join(LOCK) },
            // The cause is the directory, and so is the way out.
            io::ErrorKind::ReadOnlyFilesystem => ReplayLogError::Directory { path: path.to_owned(), source },
            _ => ReplayLogError::Read { path: path.join(LOCK), source },
        })?;
        match lock.try_lock() {
            Ok(()) => {
                // A file that a crash has left is useless.
                let _ = rustix::fs::unlinkat(&directory, NEXT, AtFlags::empty());
                in_the_way(path, NEXT)?;
                Ok(Self { path: path.to_owned(), directory, _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(ReplayLogError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(ReplayLogError::Read { path: path.join(LOCK), source }),
        }
    }

    /// The path of a file in the directory.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The replay log, its contents and its length; `None` if there is none. If it is too long to be read, the
    /// contents are only its first bytes.
    pub(super) fn read(&self) -> Result<Option<(File, Vec<u8>, u64)>, ReplayLogError> {
        let path = self.path(KNOCKS);
        let file = match open_in(&self.directory, KNOCKS, OFlags::RDWR) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ReplayLogError::Read { path, source }),
        };
        let demands = Demands::public(MAX_LENGTH);
        let judged = trusted_file::judge(&file, &demands);
        let length = judged.map_err(|untrusted| refused(&path, untrusted))?.len();
        if usize::try_from(length).is_ok_and(|length| length <= MAX_LENGTH) {
            let read = trusted_file::read_opened(&file, &demands);
            let mut bytes = read.map_err(|untrusted| refused(&path, untrusted))?.bytes;
            return Ok(Some((file, std::mem::take(&mut *bytes), length)));
        }
        let beginning = beginning(&file).map_err(|source| ReplayLogError::Read { path, source })?;
        Ok(Some((file, beginning, length)))
    }

    /// Replaces the contents of the replay log. At every instant it has either the old contents or all of the new
    /// ones. After [`StateDir::sync`] a crash cannot bring back the old ones.
    pub(super) fn replace(&self, bytes: &[u8]) -> io::Result<File> {
        let make = || {
            let file = open_in(&self.directory, NEXT, OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            rustix::fs::renameat(&self.directory, NEXT, &self.directory, KNOCKS)?;
            Ok(file)
        };
        make().inspect_err(|_| {
            // It may occupy the space that the old file needs.
            let _ = rustix::fs::unlinkat(&self.directory, NEXT, AtFlags::empty());
        })
    }

    /// Renames the damaged replay log, replacing an earlier damaged one.
    pub(super) fn put_aside(&self) -> Result<(), ReplayLogError> {
        can_put_aside(&self.path)?;
        let renamed = rustix::fs::renameat(&self.directory, KNOCKS, &self.directory, DAMAGED);
        renamed.map_err(|error| ReplayLogError::Write { path: self.path(KNOCKS), source: error.into() })
    }

    /// Returns when the names in the directory are on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

/// What can be seen of a replay log without changing anything.
#[derive(Debug)]
pub(super) enum Seen {
    /// The directory will be created.
    NoDirectory,
    /// The replay log will be created.
    NoReplayLog,
    /// Its first bytes and its length.
    ReplayLog(Vec<u8>, u64),
}

/// Looks for the replay log in a directory.
pub(super) fn look(path: &Path) -> Result<Seen, ReplayLogError> {
    let unusable = |source: io::Error| ReplayLogError::Directory { path: path.to_owned(), source };
    let directory = match open_there(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => {
            let above = path.parent().unwrap_or(Path::new("/"));
            may_write(CWD, above).map_err(unusable)?;
            return Ok(Seen::NoDirectory);
        }
        Err(error) => return Err(unusable(error)),
    };
    trusted_file::judge_directory(&directory).map_err(|untrusted| refused(path, untrusted))?;
    // A service may run as root without the capability to override permissions, as with our unit.
    let mode = directory.metadata().map_err(unusable)?.permissions().mode() & 0o7777;
    if mode & 0o700 != 0o700 {
        return Err(ReplayLogError::ReadOnly { path: path.to_owned(), mode });
    }
    may_write(&directory, Path::new(".")).map_err(unusable)?;
    [LOCK, NEXT].into_iter().try_for_each(|name| in_the_way(path, name))?;
    let replay_log = path.join(KNOCKS);
    let file = match open_in(&directory, KNOCKS, OFlags::RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Seen::NoReplayLog),
        Err(source) => return Err(ReplayLogError::Read { path: replay_log, source }),
    };
    let judged = trusted_file::judge(&file, &Demands::public(MAX_LENGTH));
    let length = judged.map_err(|untrusted| refused(&replay_log, untrusted))?.len();
    let beginning = beginning(&file).map_err(|source| ReplayLogError::Read { path: replay_log, source })?;
    Ok(Seen::ReplayLog(beginning, length))
}

/// Whether a damaged replay log can be renamed.
pub(super) fn can_put_aside(directory: &Path) -> Result<(), ReplayLogError> {
    in_the_way(directory, DAMAGED)
}

/// A rename replaces a file with the target name, but not a directory.
fn in_the_way(directory: &Path, name: &str) -> Result<(), ReplayLogError> {
    let path = directory.join(name);
    match path.symlink_metadata().is_ok_and(|there| there.is_dir()) {
        true => Err(ReplayLogError::InTheWay { path }),
        false => Ok(()),
    }
}

fn beginning(file: &File) -> io::Result<Vec<u8>> {
    let mut beginning = vec![0; HEADER];
    let length = file.read_at(&mut beginning, 0)?;
    beginning.truncate(length);
    Ok(beginning)
}

fn may_write(at: impl AsFd, path: &Path) -> io::Result<()> {
    Ok(rustix::fs::accessat(at, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

impl Disk for File {
    fn write_at(&mut self, bytes: &[u8], offset: usize) -> io::Result<()> {
        let offset = u64::try_from(offset).map_err(io::Error::other)?;
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: usize) -> io::Result<()> {
        self.set_len(u64::try_from(length).map_err(io::Error::other)?)
    }
}

/// Creates only the last component: the directories above belong to the administrator. The path may be a symbolic
/// link, which systemd creates for a service with `DynamicUser=`.
fn open_directory(path: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    open_there(path)
}

fn open_there(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Follows no link, and does not block on a pipe.
fn open_in(directory: &File, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// A user who can change the replay log can make a replayed knock look new.
fn refused(path: &Path, untrusted: Untrusted) -> ReplayLogError {
    let path = path.to_owned();
    match untrusted {
        Untrusted::Owner { owner, we } => ReplayLogError::Owner { path, owner, we },
        Untrusted::Mode(mode) => ReplayLogError::Writable { path, mode },
        Untrusted::Kind | Untrusted::Long => ReplayLogError::NotOurs { path },
        Untrusted::Unreadable(source) => ReplayLogError::Read { path, source },
        Untrusted::Missing | Untrusted::Dangling => {
            ReplayLogError::Read { path, source: io::ErrorKind::NotFound.into() }
        }
    }
}
