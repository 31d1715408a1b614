//! The knocks that were accepted, on disk: what keeps a replayed knock out after a restart.
//!
//! ```text
//!   <state_dir>/lock             held by the one process that writes
//!   <state_dir>/knocks           the replay log
//!   <state_dir>/knocks.new       the next one, while it is made
//!   <state_dir>/knocks.damaged   the latest one of which nothing could be believed
//!
//!   header, 16 bytes                      record, 32 bytes; then the next, up to one that is all zero
//!    0  6  "knocks"                        0  8  client
//!    6  2  version, 1                      8  8  time, milliseconds since 1970
//!    8  4  generation                     16  8  nonce
//!   12  4  check, over the 12 before      24  8  check, over the 24 before, generation and slot
//! ```
//!
//! Numbers are big-endian; a check is the first bytes of a SHA-256. It finds what a crash has torn or a disk has
//! damaged, and is no defence: only root can write here.
//!
//! An acknowledged knock is on the disk: [`ReplayLog::append`] returns when it is. What is not whole at the next
//! start is as if lost: it is counted, left out, and its place is taken by what the core says of a loss. What is no
//! log at all was one, for all that is known, and is put aside. So no bytes keep a client out or let a copy in,
//! but a whole header of another version, whose records are for another program to keep.

mod log;
mod place;
mod record;
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
    log::{LONGEST, Log},
    place::{KNOCKS, NEXT, Place, Seen},
    record::{Contents, Unreadable},
};

/// After so many records, or as many as the file began with if those are more, a new file is made of those that
/// still count: so each record is written twice on average, however many clients there are.
const MANY: usize = 4096;

/// The replay log, open for writing. Nobody else can open it meanwhile.
#[derive(Debug)]
pub struct ReplayLog {
    place: Place,
    log: Log<File>,
    /// How many records were added since the file was made.
    added: usize,
    /// With how many records it was made.
    kept: usize,
    /// The name of the file may not be on the disk yet.
    renamed: bool,
}

/// What was found on the disk.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Loaded {
    /// The knocks, in the order in which they were written, and after a loss what the core says of it.
    pub records: Vec<Record>,
    /// There was a replay log.
    pub found: bool,
    /// Not all of it was whole.
    pub loss: Option<Loss>,
}

/// What is there of the directory for the state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    /// It is there.
    There,
    /// It is there, and nothing in its replay log can be believed.
    Damaged,
    /// It will be made.
    ToBeMade,
}

impl ReplayLog {
    /// Opens the replay log in this directory, and makes both if they are missing. If it is missing, or not all of
    /// it is whole, what it holds from here on is what is whole, and `if_lost`: at no instant is there a replay log
    /// that says less.
    ///
    /// # Errors
    /// [`ReplayLogError`] if there is no replay log to go on with. Nothing was changed then.
    pub fn open(directory: &Path, if_lost: &[Record]) -> Result<(Self, Loaded), ReplayLogError> {
        let place = Place::open(directory)?;
        let Some((file, bytes, length)) = place.read()? else {
            return Self::make(place, 1, Loaded { records: if_lost.to_vec(), ..Loaded::default() });
        };
        let path = || place.path(KNOCKS);
        let write = |source| ReplayLogError::Write { path: path(), source };
        let Contents { generation, mut records, loss } = match understand(&bytes, length) {
            Ok(contents) => contents,
            Err(Unreadable::Damaged(loss)) => {
                place.put_aside()?;
                let records = if_lost.to_vec();
                return Self::make(place, 1, Loaded { records, found: true, loss: Some(loss) });
            }
            Err(Unreadable::Version(version)) => {
                return Err(ReplayLogError::Version { path: path(), version });
            }
        };
        if loss.is_some() {
            records.extend(if_lost);
            return Self::make(place, generation.wrapping_add(1), Loaded { records, found: true, loss });
        }
        let mut log = Log::new(file, generation, records.len(), bytes.len());
        log.sync().map_err(write)?;
        // The last one to write may have ended between the name and its way to the disk.
        let replay_log = Self { place, log, added: records.len(), kept: 0, renamed: true };
        Ok((replay_log, Loaded { records, found: true, loss: None }))
    }

    /// Whether a replay log could be opened in this directory, as far as can be seen without touching anything.
    ///
    /// # Errors
    /// What [`ReplayLog::open`] would say, but that another process uses it.
    pub(crate) fn look(directory: &Path) -> Result<State, ReplayLogError> {
        let (beginning, length) = match place::look(directory)? {
            Seen::NoDirectory => return Ok(State::ToBeMade),
            Seen::NoJournal => return Ok(State::There),
            Seen::ReplayLog(beginning, length) => (beginning, length),
        };
        match understand(&beginning, length) {
            Ok(_) => Ok(State::There),
            Err(Unreadable::Damaged(_)) => place::can_put_aside(directory).map(|()| State::Damaged),
            Err(Unreadable::Version(version)) => {
                Err(ReplayLogError::Version { path: directory.join(KNOCKS), version })
            }
        }
    }

    /// Writes knocks, and returns when they are on the disk.
    ///
    /// # Errors
    /// [`ReplayLogError::Write`] if they are not; then no door may open for them. The replay log stays good, and
    /// a later attempt may succeed.
    pub fn append(&mut self, records: &[Record]) -> Result<(), ReplayLogError> {
        let written = self.sync_name().and_then(|()| self.log.append(records));
        written.map_err(|source| ReplayLogError::Write { path: self.place.path(KNOCKS), source })?;
        self.added = self.added.saturating_add(records.len());
        Ok(())
    }

    /// Puts a new file in the place of the old one, with only the knocks that still count.
    ///
    /// # Errors
    /// [`ReplayLogError::Write`]. The replay log stays good, and holds all that it has held.
    pub fn compact(&mut self, keep: &[Record]) -> Result<(), ReplayLogError> {
        self.log = write(&self.place, self.log.generation().wrapping_add(1), keep)?;
        (self.added, self.kept) = (0, keep.len());
        self.renamed = true;
        self.sync_name().map_err(|source| ReplayLogError::Write { path: self.place.path(KNOCKS), source })
    }

    /// Whether enough knocks were added for [`ReplayLog::compact`] to be worth its while.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        self.added > self.kept.max(MANY)
    }

    /// Makes the file anew, with these records.
    fn make(place: Place, generation: u32, loaded: Loaded) -> Result<(Self, Loaded), ReplayLogError> {
        let log = write(&place, generation, &loaded.records)?;
        let kept = loaded.records.len();
        let mut replay_log = Self { place, log, added: 0, kept, renamed: true };
        let named = replay_log.sync_name();
        named.map_err(|source| ReplayLogError::Write { path: replay_log.place.path(KNOCKS), source })?;
        Ok((replay_log, loaded))
    }

    /// Brings the name of the file to the disk. Until then a crash may bring back the file before it, so
    /// nothing is acknowledged.
    fn sync_name(&mut self) -> io::Result<()> {
        if self.renamed {
            self.place.sync()?;
            self.renamed = false;
        }
        Ok(())
    }
}

/// What stands in a file of this length that begins with these bytes: all of it, if it is not too long to be read.
fn understand(bytes: &[u8], length: u64) -> Result<Contents, Unreadable> {
    match usize::try_from(length).is_ok_and(|length| length <= LONGEST) {
        true => record::read(bytes),
        false => Err(record::too_long(bytes)),
    }
}

/// Makes a new file and gives it the name of the old one.
fn write(place: &Place, generation: u32, records: &[Record]) -> Result<Log<File>, ReplayLogError> {
    let bytes = Log::<File>::whole(generation, records);
    let written = match bytes.len() <= LONGEST {
        true => place.replace(&bytes),
        false => Err(io::ErrorKind::FileTooLarge.into()),
    };
    let file = written.map_err(|source| ReplayLogError::Write { path: place.path(NEXT), source })?;
    Ok(Log::new(file, generation, records.len(), bytes.len()))
}

/// What an administrator can do about a directory that cannot be used.
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

/// Why there is no replay log, or why nothing was written to it.
#[derive(Debug, thiserror::Error)]
pub enum ReplayLogError {
    /// The directory cannot be made or opened.
    #[error("cannot use the directory {} for the state{}", path.display(), way_out(path, source))]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could change what is remembered.
    #[error("{0} can be changed by others (mode {mode:03o}); try: chmod go-w {0}", path.display())]
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not even its owner may write there.
    #[error("nothing can be written to {0} (mode {mode:03o}); try: chmod u+rwx {0}", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else owns what is remembered.
    #[error("{0} belongs to another user ({owner}); try: chown {we} {0}", path.display())]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        we: u32,
    },
    /// A file of ours cannot be opened or read. A symbolic link is one that cannot.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process writes here.
    #[error("another port-knocking-doors uses {0}; stop it, or give this one another state_dir", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Something that is no file has the name of the replay log.
    #[error("{} is no regular file, so no journal of knocks; move it away", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A directory has a name that the replay log needs.
    #[error("{} is a directory, and stands where a file for the journal of knocks has to be; move it away", path.display())]
    InTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// The replay log is of another version.
    #[error(
        "{} has version {version}, and this program knows 1; move it away, and start again: the first hour costs \
         each knock a challenge",
        path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says.
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
