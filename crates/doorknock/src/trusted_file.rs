//! Reads what the client trusts: files that no other user can have written.
//!
//! One of four modules that know which system this is. On Unix, a file is opened once, and judged by what was
//! opened: its owner is the user or root, others may not write to it, it is a regular file, and not longer than
//! it can be. A FIFO does not hold the client up, and a link in the store leads nowhere. Elsewhere, a file in
//! the user's own directory is only the user's.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

/// A file that no other user can have written.
#[derive(Debug)]
pub struct TrustedFile {
    /// What it says.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Its permission bits if others may read it.
    pub open_to_others: Option<u32>,
}

/// A directory in which no other user can have put anything.
#[derive(Debug)]
pub struct TrustedDirectory {
    path: PathBuf,
    opened: system::Directory,
}

/// Why a file or directory is not read. The message names the way out.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// The system does not let us.
    #[error("cannot read {path}")]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It may lead anywhere.
    #[error("{path} is a link; put in its place what it leads to")]
    Link {
        /// Where it is.
        path: PathBuf,
    },
    /// It is a directory, a FIFO, a device.
    #[error("{path} is no {wanted}; move it away")]
    Kind {
        /// Where it is.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Another user can change it at any time.
    #[error(
        "{path} belongs to another user (number {owner}); if you trust what is in it, make it yours: sudo chown $USER {path}"
    )]
    Owner {
        /// Where it is.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Every user can have written it.
    #[error(
        "{path} can be changed by others (mode {mode:03o}); see whether it is as you left it, then: chmod go-w {path}"
    )]
    Writable {
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is something else.
    #[error("{path} is longer than {longest} bytes, so it is something else; move it away")]
    Long {
        /// Where it is.
        path: PathBuf,
        /// How long it may be.
        longest: u64,
    },
}

/// Reads a file that the user has named. It may be a link, as with `ssh`.
///
/// # Errors
/// [`Untrusted`].
pub fn read(path: &Path, longest: u64) -> Result<TrustedFile, Untrusted> {
    let unreadable = |source| Untrusted::Unreadable { path: path.to_owned(), source };
    let target = fs::canonicalize(path).map_err(unreadable)?;
    read_opened(system::open(&target), path, longest)
}

impl TrustedDirectory {
    /// Opens a directory; `None` if there is none.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn open(path: &Path) -> Result<Option<Self>, Untrusted> {
        let path = path.to_owned();
        match system::open_directory(&path) {
            Ok(opened) => {
                system::judge(opened.file(), &path)?;
                Ok(Some(Self { path, opened }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(not_opened(path, "directory", error)),
        }
    }

    /// The names of what is in it.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn names(&self) -> Result<Vec<OsString>, Untrusted> {
        let unreadable = |source| Untrusted::Unreadable { path: self.path.clone(), source };
        self.opened.names().map_err(unreadable)
    }

    /// Reads a file of it; `None` if there is none.
    ///
    /// # Errors
    /// [`Untrusted`].
    pub fn read(&self, name: &str, longest: u64) -> Result<Option<TrustedFile>, Untrusted> {
        match self.opened.open(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => read_opened(opened, &self.path.join(name), longest).map(Some),
        }
    }
}

fn read_opened(opened: io::Result<File>, path: &Path, longest: u64) -> Result<TrustedFile, Untrusted> {
    let unreadable = |source| Untrusted::Unreadable { path: path.to_owned(), source };
    let long = || Untrusted::Long { path: path.to_owned(), longest };
    let file = opened.map_err(|error| not_opened(path.to_owned(), "regular file", error))?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err(Untrusted::Kind { path: path.to_owned(), wanted: "regular file" });
    }
    let open_to_others = system::judge(Some(&file), path)?;
    if about.len() > longest {
        return Err(long());
    }
    // With room for all of it, so that no part of a secret stays behind when the vector grows.
    let room = usize::try_from(longest).unwrap_or_default().saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(longest.saturating_add(1)).read_to_end(&mut bytes).map_err(unreadable)?;
    match bytes.len() < room {
        true => Ok(TrustedFile { bytes, open_to_others }),
        // It has grown since it was opened.
        false => Err(long()),
    }
}

fn not_opened(path: PathBuf, wanted: &'static str, source: io::Error) -> Untrusted {
    match source.kind() {
        _ if fs::symlink_metadata(&path).is_ok_and(|about| about.is_symlink()) => Untrusted::Link { path },
        io::ErrorKind::NotADirectory => Untrusted::Kind { path, wanted },
        _ => Untrusted::Unreadable { path, source },
    }
}

#[cfg(unix)]
mod system {
    use std::{
        ffi::{OsStr, OsString},
        fs::File,
        io,
        os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
        path::{Path, PathBuf},
    };

    use rustix::{
        fs::{CWD, Dir, Mode, OFlags, openat},
        process::geteuid,
    };

    use super::Untrusted;

    /// Never waits for who writes into a FIFO, and never follows a link.
    const READ: OFlags =
        OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

    #[derive(Debug)]
    pub(super) struct Directory(File);

    pub(super) fn open(path: &Path) -> io::Result<File> {
        Ok(openat(CWD, path, READ, Mode::empty())?.into())
    }

    pub(super) fn open_directory(path: &Path) -> io::Result<Directory> {
        Ok(Directory(openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty())?.into()))
    }

    impl Directory {
        pub(super) fn file(&self) -> Option<&File> {
            Some(&self.0)
        }

        pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
            let entries = Dir::read_from(&self.0)?;
            let names = entries.map(|entry| Ok(OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned()));
            names.collect()
        }

        pub(super) fn open(&self, name: &str) -> io::Result<File> {
            Ok(openat(&self.0, name, READ, Mode::empty())?.into())
        }
    }

    /// Whether it is only the user's to change. Gives its permission bits if others may look into it.
    pub(super) fn judge(file: Option<&File>, path: &Path) -> Result<Option<u32>, Untrusted> {
        let Some(file) = file else { return Ok(None) };
        let path = path.to_owned();
        let about = match file.metadata() {
            Ok(about) => about,
            Err(source) => return Err(Untrusted::Unreadable { path, source }),
        };
        let mode = about.mode() & 0o777;
        judge_rights(path, about.uid(), mode, geteuid().as_raw())?;
        Ok((mode & 0o077 != 0).then_some(mode))
    }

    fn judge_rights(path: PathBuf, owner: u32, mode: u32, me: u32) -> Result<(), Untrusted> {
        match (owner == me || owner == 0, mode & 0o022 == 0) {
            (true, true) => Ok(()),
            (true, false) => Err(Untrusted::Writable { path, mode }),
            (false, _) => Err(Untrusted::Owner { path, owner }),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_the_user_and_root_can_have_written_what_is_trusted() {
            let judged = |owner, mode| judge_rights(PathBuf::from("/x"), owner, mode, 1000);
            for (owner, mode) in [(1000, 0o600), (1000, 0o644), (0, 0o644), (0, 0o555)] {
                assert!(judged(owner, mode).is_ok(), "{owner} {mode:o}");
            }
            for mode in [0o620, 0o602, 0o666] {
                assert!(matches!(judged(1000, mode), Err(Untrusted::Writable { .. })), "{mode:o}");
            }
            assert!(matches!(judged(1001, 0o600), Err(Untrusted::Owner { owner: 1001, .. })));
        }
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        ffi::OsString,
        fs::{self, File},
        io,
        path::{Path, PathBuf},
    };

    use super::Untrusted;

    #[derive(Debug)]
    pub(super) struct Directory(PathBuf);

    pub(super) fn open(path: &Path) -> io::Result<File> {
        match fs::symlink_metadata(path)?.is_symlink() {
            true => Err(io::ErrorKind::InvalidInput.into()),
            false => File::open(path),
        }
    }

    pub(super) fn open_directory(path: &Path) -> io::Result<Directory> {
        match fs::symlink_metadata(path)?.is_dir() {
            true => Ok(Directory(path.to_owned())),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    impl Directory {
        /// Directories cannot be opened as files here.
        pub(super) fn file(&self) -> Option<&File> {
            None
        }

        pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
            fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name())).collect()
        }

        pub(super) fn open(&self, name: &str) -> io::Result<File> {
            open(&self.0.join(name))
        }
    }

    pub(super) fn judge(_: Option<&File>, _: &Path) -> Result<Option<u32>, Untrusted> {
        Ok(None)
    }
}
