//! What was last in force, kept for a start at which the configuration file cannot be used.
//!
//! ```text
//!   in force ──► Keeper, a thread ──► last-good-… (0600)
//!                                          │
//!   start: the file is wrong ──────────────┴──► runs with that, and says so each minute
//! ```
//!
//! Without it, a wrong edit and a reboot leave no daemon, no gate, and the ports as open as the rest of the firewall
//! leaves them. With the option `--last-good` the daemon keeps the text of its configuration file, of the file of public
//! keys that this names, and of the files of clients, each time they have come into force.
//!
//! They are kept in a directory that is known without reading the file: the one that systemd gives the service, or
//! the default of `state_dir`. What `state_dir` says stands in the very file that cannot be read.
//!
//! The name of a copy is made of the path that the file really has, so that no daemon falls back to what another file has
//! said, and a command that names the file by a link changes the same copy. The name of a link is kept as a link to that
//! copy: where it led to may be what is gone.

mod contents;
mod keeper;
mod reminder;
mod start;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use doors_os::{
    atomic_file::{AtomicFile, AtomicFileError, Rights},
    trusted_file::{self, Demands, Untrusted},
};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use self::contents::Unreadable;
pub use self::keeper::Keeper;
pub(crate) use self::{
    reminder::Reminder,
    start::{NoConfig, kept_instead, load, reload},
};
use crate::{
    config::{STATE_DIR, Texts, keys::LARGEST_FILE},
    observe::log,
};

/// What the names of copies begin with.
const PREFIX: &str = "last-good-";

/// Two files, those of all clients with their names, and the paths.
const LONGEST: usize = 4 * LARGEST_FILE;

/// How long a disk may take to keep a copy before a command says that it has not.
const KEPT_WITHIN: Duration = Duration::from_secs(5);
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// The directory in which copies are kept.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// In the directory that systemd gives the service (systemd.exec(5), `StateDirectory=`), or the usual one.
    #[must_use]
    pub fn of_environment() -> Self {
        let given = std::env::var("STATE_DIRECTORY").unwrap_or_default();
        let first = PathBuf::from(given.split(':').next().unwrap_or_default());
        Self::new(if first.is_absolute() { first } else { PathBuf::from(STATE_DIR) })
    }

    /// In this directory.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where the copy of a configuration file is, or would be.
    #[must_use]
    pub fn path_of(&self, file: &Path) -> PathBuf {
        self.by_link(file).unwrap_or_else(|| self.name(&real(file)))
    }

    /// The name for what was in force from this path.
    fn name(&self, file: &Path) -> PathBuf {
        let digest = Sha256::digest(file.as_os_str().as_encoded_bytes());
        let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        self.directory.join(format!("{PREFIX}{name}"))
    }

    /// The copy of what was in force when the file was named by this link. It goes before the copy of what the link leads
    /// to now: that may never have been in force, or not of late.
    fn by_link(&self, file: &Path) -> Option<PathBuf> {
        let name = fs::read_link(self.name(&named(file))).ok()?;
        let is_ours = name.components().count() == 1 && name.to_str()?.starts_with(PREFIX);
        is_ours.then(|| self.directory.join(name))
    }

    /// What was last in force from a file; `None` if nothing was.
    ///
    /// # Errors
    /// [`CopyError`] if there is a copy that cannot be used, or that others could have written.
    pub(crate) fn read(&self, file: &Path) -> Result<Option<Texts>, CopyError> {
        let path = self.path_of(file);
        let unusable = |source| CopyError::Read { path: path.clone(), source };
        match open(&self.directory, OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => trusted_file::judge_directory(&opened.map_err(unusable)?)
                .map_err(|untrusted| refused(&self.directory, untrusted))?,
        }
        let copy = match open(&path, OFlags::NOFOLLOW) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(unusable)?,
        };
        let copy = trusted_file::read_opened(&copy, &Demands::public(LONGEST));
        let copy = copy.map_err(|untrusted| refused(&path, untrusted))?;
        let mut texts = contents::decode(&copy.bytes).map_err(|unreadable| match unreadable {
            Unreadable::Damaged => CopyError::Damaged { path: path.clone() },
            Unreadable::Version(version) => CopyError::Version { path: path.clone(), version },
        })?;
        // Of two paths with one name, the other.
        if path != self.name(&texts.path) {
            return Ok(None);
        }
        texts.path = file.to_owned();
        Ok(Some(texts))
    }

    /// Of files that are gone, the one that was in force last.
    pub(crate) fn latest(&self, files: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
        let since =
            |file: &PathBuf| self.path_of(file).symlink_metadata().and_then(|copy| copy.modified()).ok();
        let known = files.into_iter().filter_map(|file| since(&file).map(|since| (since, file)));
        known.max_by_key(|(since, _): &(SystemTime, _)| *since).map(|(_, file)| file)
    }

    /// Keeps what a command has just written into the file, if something is kept of that: a client that is removed
    /// while no daemon runs must not come back with what was in force before.
    pub(crate) fn follow(&self, texts: &Texts) -> Result<(), CopyError> {
        let known = [self.path_of(&texts.path), self.name(&real(&texts.path))];
        match known.iter().any(|copy| copy.symlink_metadata().is_ok()) {
            true => self.write(texts),
            false => Ok(()),
        }
    }

    /// Waits until the daemon has kept what a command has written into the file, and what is in force.
    pub(crate) fn await_kept(&self, texts: &Texts) -> Result<(), CopyError> {
        let begun = Instant::now();
        // One that cannot be read brings nothing back.
        while matches!(self.read(&texts.path), Ok(Some(kept)) if kept != *texts) {
            if begun.elapsed() > KEPT_WITHIN {
                return Err(CopyError::Stale { path: self.path_of(&texts.path) });
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// Keeps nothing of a file any more: a daemon runs with it that does not bring the copy up to date.
    pub(crate) fn forget(&self, file: &Path) {
        for path in [self.path_of(file), self.name(&real(file)), self.name(&named(file))] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => log::not_forgotten(&path, &error),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Keeps what is in force. Nothing is written if it is there already, so that a restart wears no flash memory.
    pub(crate) fn write(&self, texts: &Texts) -> Result<(), CopyError> {
        let file = real(&texts.path);
        let path = self.name(&file);
        let unwritten = |source| CopyError::Write { path: path.clone(), source };
        if self.path_of(&texts.path) == path
            && self.read(&texts.path).is_ok_and(|kept| kept.as_ref() == Some(texts))
        {
            // Of two files that are gone, this is the one that was in force last.
            let copy = open(&path, OFlags::NOFOLLOW).map_err(unwritten)?;
            copy.set_modified(SystemTime::now()).map_err(unwritten)?;
            return self.link(&texts.path, &path);
        }
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unwritten(error)),
            _ => {}
        }
        let directory = open(&self.directory, OFlags::DIRECTORY).map_err(unwritten)?;
        trusted_file::judge_directory(&directory).map_err(|untrusted| refused(&self.directory, untrusted))?;
        let draft = AtomicFile::of(&path).map_err(|error| match error {
            AtomicFileError::Taken => unwritten(io::ErrorKind::ResourceBusy.into()),
            AtomicFileError::Io(error) => unwritten(error),
        })?;
        let bytes = contents::encode(&Texts { path: file, ..texts.clone() });
        draft.replace(&bytes, Rights::private()).map_err(unwritten)?;
        self.link(&texts.path, &path)
    }

    /// Keeps where a file led to that is named by a link.
    fn link(&self, file: &Path, copy: &Path) -> Result<(), CopyError> {
        let link = self.name(&named(file));
        let Some(target) = copy.file_name() else { return Ok(()) };
        if link == copy || fs::read_link(&link).is_ok_and(|there| there.as_os_str() == target) {
            return Ok(());
        }
        // Whatever has the name is out of date.
        let made = match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => symlink(target, &link),
        };
        made.map_err(|source| CopyError::Write { path: link, source })
    }
}

/// The path that a file really has. A copy has to be found whatever directory a daemon is started from, and whether or not
/// the file is there.
fn real(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| named(file))
}

/// The path by which a file is named, without links on the way to it. If it is one itself, that is not followed.
fn named(file: &Path) -> PathBuf {
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    match (file.parent().map(fs::canonicalize), file.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => file,
    }
}

/// Waits for no pipe.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn refused(path: &Path, untrusted: Untrusted) -> CopyError {
    let path = path.to_owned();
    match untrusted {
        Untrusted::Owner { owner, we } => CopyError::Owner { path, owner, we },
        Untrusted::Mode(mode) => CopyError::Writable { path, mode },
        Untrusted::Unreadable(source) => CopyError::Read { path, source },
        Untrusted::Kind | Untrusted::Long | Untrusted::Missing | Untrusted::Dangling => {
            CopyError::Damaged { path }
        }
    }
}

/// Why a copy cannot be used, or is not kept. The message names the way out.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The kernel does not let us.
    #[error("cannot read {}", path.display())]
    Read {
        /// The copy.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another user can change it at any time.
    #[error(
        "{0} belongs to another user ({owner}), who could have written anything into it; remove it, or try: chown \
         {we} {0}",
        path.display()
    )]
    Owner {
        /// The copy, or its directory.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        we: u32,
    },
    /// Others could have written it.
    #[error("others could have written {0} (mode {mode:03o}); remove what is in it, or try: chmod go-w {0}", path.display())]
    Writable {
        /// The copy, or its directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is not as we write it.
    #[error("{} is damaged, or something else; remove it", path.display())]
    Damaged {
        /// The copy.
        path: PathBuf,
    },
    /// Another version of the program has written it.
    #[error("{} has version {version}, and this program knows {}; remove it", path.display(), contents::VERSION)]
    Version {
        /// The copy.
        path: PathBuf,
        /// What it says.
        version: String,
    },
    /// The daemon has not brought it up to date.
    #[error("{} holds what was in force before; the daemon's log says why", path.display())]
    Stale {
        /// The copy.
        path: PathBuf,
    },
    /// The disk is full, read-only, or not ours to write to.
    #[error("cannot write {}", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
