//! Keeps the accepted knocks on disk, so that a replayed knock is rejected after a restart, too.
//!
//! ```text
//!   <state_dir>/lock             locked by the only process that writes
//!   <state_dir>/knocks           the replay log
//!   <state_dir>/knocks.new       the next file, while it is written
//!   <state_dir>/knocks.damaged   the last file that was unusable
//!
//!   header, 16 bytes                      record, 32 bytes; then the next, up to an all-zero one
//!    0  6  "knocks"                        0  8  client
//!    6  2  version, 1                      8  8  time, milliseconds since 1970
//!    8  4  generation                     16  8  nonce
//!   12  4  check over the 12 bytes before     24  8  check over the 24 bytes before, generation and slot
//! ```
//!
//! Numbers are big-endian; a check is the first bytes of a SHA-256. It detects what a crash has torn or a disk has
//! damaged. It is not a defence: only root can write here.
//!
//! [`ReplayLog::append`] returns when a knock is on disk. A record that is not intact at the next start counts as
//! lost: it is left out, and the core adds a record of the loss. A file that is not a replay log may have been one,
//! so it is put aside. So damaged bytes can neither lock a client out nor let a replayed knock in. The exception is
//! an intact header of another version, whose records belong to another program: the replay log does not open.

mod log;
mod record;
mod state_dir;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use doors_core::spa::replay::Record;

pub use self::record::Loss;
use self::{
    log::{Log, MAX_LENGTH},
    record::{Contents, Unreadable},
    state_dir::{KNOCKS, NEXT, Seen, StateDir},
};

/// A new file is written once more records were added than this, or than the file started with, whichever is more. So
/// each record is written twice on average, whatever the number of clients.
const COMPACT_AFTER: usize = 4096;

/// The replay log, open for writing. No other process can open it meanwhile.
#[derive(Debug)]
pub struct ReplayLog {
    state_dir: StateDir,
    log: Log<File>,
    /// The number of records added since the file was written.
    added: usize,
    /// The number of records that the file was written with.
    kept: usize,
    /// Whether the file was renamed and the directory is not synced yet.
    renamed: bool,
}

/// What was found on disk.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Loaded {
    /// The knocks in the order in which they were written; after a loss, followed by the core's record of it.
    pub records: Vec<Record>,
    /// Whether there was a replay log.
    pub found: bool,
    /// What was not intact.
    pub loss: Option<Loss>,
}

/// The condition of the state directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// It exists.
    There,
    /// It exists, and its replay log is unusable.
    Damaged,
    /// It will be created.
    ToBeMade,
}

impl ReplayLog {
    /// Opens the replay log in this directory, and creates both if they are missing. If the log is missing or
    /// damaged, it is replaced by one with the intact records and `if_lost`. At no instant does the log on disk hold
    /// less.
    ///
    /// # Errors
    /// [`ReplayLogError`] if the replay log cannot be used. Nothing was changed then.
    pub fn open(directory: &Path, if_lost: &[Record]) -> Result<(Self, Loaded), ReplayLogError> {
        let state_dir = StateDir::open(directory)?;
        let Some((file, bytes, length)) = state_dir.read()? else {
            return Self::make(state_dir, 1, Loaded { records: if_lost.to_vec(), ..Loaded::default() });
        };
        let path = || state_dir.path(KNOCKS);
        let write = |source| ReplayLogError::Write { path: path(), source };
        let Contents { generation, mut records, loss } = match understand(&bytes, length) {
            Ok(contents) => contents,
            Err(Unreadable::Damaged(loss)) => {
                state_dir.put_aside()?;
                let records = if_lost.to_vec();
                return Self::make(state_dir, 1, Loaded { records, found: true, loss: Some(loss) });
            }
            Err(Unreadable::Version(version)) => {
                return Err(ReplayLogError::Version { path: path(), version });
            }
        };
        if loss.is_some() {
            records.extend(if_lost);
            return Self::make(state_dir, generation.wrapping_add(1), Loaded { records, found: true, loss });
        }
        let mut log = Log::new(file, generation, records.len(), bytes.len());
        log.sync().map_err(write)?;
        // The previous writer may have ended between renaming the file and syncing the directory.
        let replay_log = Self { state_dir, log, added: records.len(), kept: 0, renamed: true };
        Ok((replay_log, Loaded { records, found: true, loss: None }))
    }

    /// Whether [`ReplayLog::open`] would succeed in this directory, as far as can be seen without changing anything.
    ///
    /// # Errors
    /// The error of [`ReplayLog::open`], except that another process uses the directory.
    pub(crate) fn look(directory: &Path) -> Result<State, ReplayLogError> {
        let (beginning, length) = match state_dir::look(directory)? {
            Seen::NoDirectory => return Ok(State::ToBeMade),
            Seen::NoReplayLog => return Ok(State::There),
            Seen::ReplayLog(beginning, length) => (beginning, length),
        };
        match understand(&beginning, length) {
            Ok(_) => Ok(State::There),
            Err(Unreadable::Damaged(_)) => state_dir::can_put_aside(directory).map(|()| State::Damaged),
            Err(Unreadable::Version(version)) => {
                Err(ReplayLogError::Version { path: directory.join(KNOCKS), version })
            }
        }
    }

    /// Writes records, and returns when they are on disk.
    ///
    /// # Errors
    /// [`ReplayLogError::Write`] if they are not; then no door may open for them. The replay log stays usable, and a
    /// later attempt may succeed.
    pub fn append(&mut self, records: &[Record]) -> Result<(), ReplayLogError> {
        let written = self.sync_name().and_then(|()| self.log.append(records));
        written.map_err(|source| ReplayLogError::Write { path: self.state_dir.path(KNOCKS), source })?;
        self.added = self.added.saturating_add(records.len());
        Ok(())
    }

    /// Replaces the file with one that holds only these records.
    ///
    /// # Errors
    /// [`ReplayLogError::Write`]. The replay log stays usable, and keeps everything that it held.
    pub fn compact(&mut self, keep: &[Record]) -> Result<(), ReplayLogError> {
        self.log = write(&self.state_dir, self.log.generation().wrapping_add(1), keep)?;
        (self.added, self.kept) = (0, keep.len());
        self.renamed = true;
        self.sync_name().map_err(|source| ReplayLogError::Write { path: self.state_dir.path(KNOCKS), source })
    }

    /// Whether enough records were added to make [`ReplayLog::compact`] worthwhile.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.added > self.kept.max(COMPACT_AFTER)
    }

    /// Writes a new file with these records.
    fn make(state_dir: StateDir, generation: u32, loaded: Loaded) -> Result<(Self, Loaded), ReplayLogError> {
        let log = write(&state_dir, generation, &loaded.records)?;
        let kept = loaded.records.len();
        let mut replay_log = Self { state_dir, log, added: 0, kept, renamed: true };
        let named = replay_log.sync_name();
        named.map_err(|source| ReplayLogError::Write { path: replay_log.state_dir.path(KNOCKS), source })?;
        Ok((replay_log, loaded))
    }

    /// Syncs the directory after a rename. Until then a crash may bring back the previous file, so nothing is
    /// acknowledged.
    fn sync_name(&mut self) -> io::Result<()> {
        if self.renamed {
            self.state_dir.sync()?;
            self.renamed = false;
        }
        Ok(())
    }
}

/// Parses a file of this length that starts with these bytes. The bytes are the whole file, unless it is too long to
/// be read.
fn understand(bytes: &[u8], length: u64) -> Result<Contents, Unreadable> {
    match usize::try_from(length).is_ok_and(|length| length <= MAX_LENGTH) {
        true => record::read(bytes),
        false => Err(record::too_long(bytes)),
    }
}

/// Writes a new file, and renames it to replace the old one.
fn write(state_dir: &StateDir, generation: u32, records: &[Record]) -> Result<Log<File>, ReplayLogError> {
    let bytes = Log::<File>::whole(generation, records);
    let written = match bytes.len() <= MAX_LENGTH {
        true => state_dir.replace(&bytes),
        false => Err(io::ErrorKind::FileTooLarge.into()),
    };
    let file = written.map_err(|source| ReplayLogError::Write { path: state_dir.path(NEXT), source })?;
    Ok(Log::new(file, generation, records.len(), bytes.len()))
}

/// What an administrator can do about an unusable directory.
fn way_out(path: &Path, why: &io::Error) -> String {
    let directory = path.display();
    match why.kind() {
        io::ErrorKind::NotFound if path.is_symlink() => {
            "; it is a link to nothing: make what it names, or name another directory".to_owned()
        }
        io::ErrorKind::NotFound => {
            format!("; the one above it is missing, try: mkdir -p -m 700 {directory}")
        }
        io::ErrorKind::ReadOnlyFilesystem => format!(
            "; in the systemd unit everything is read-only that it does not name: try systemctl edit port-knocking-doors, \
             with the lines [Service] and ReadWritePaths={directory}, and make the directory before the restart"
        ),
        io::ErrorKind::NotADirectory => "; name a directory with state_dir".to_owned(),
        _ => String::new(),
    }
}

/// Why the replay log cannot be used, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayLogError {
    /// The directory cannot be created or opened.
    #[error("cannot use the directory {} for the state{}", path.display(), way_out(path, source))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another user could change the replay log.
    #[error("{0} can be changed by others (mode {mode:03o}); try: chmod go-w {0}", path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its owner may not write there.
    #[error("nothing can be written to {0} (mode {mode:03o}); try: chmod u+rwx {0}", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns it.
    #[error("{0} belongs to another user ({owner}); try: chown {we} {0}", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our own user.
        we: u32,
    },
    /// A file cannot be opened or read. Symbolic links are not followed.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process uses the directory.
    #[error("another port-knocking-doors uses {0}; stop it, or give this one another state_dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The name of the replay log belongs to something other than a regular file.
    #[error("{} is not a regular file, so it is not a replay log; move it away", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A directory has a name that the replay log needs.
    #[error("{} is a directory, and the replay log needs a file there; move it away", path.display())]
    InTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// The replay log has another version.
    #[error(
        "{} has version {version}, and this program knows 1; move it away, and start again: the first hour costs \
         each knock a challenge",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        version: u16,
    },
    /// The disk is full, or broken.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
