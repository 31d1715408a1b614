//! Files that no other user may read.
//!
//! One of four modules that know which system this is. On Unix, permission bits keep others out; elsewhere,
//! a file in the user's own directory is only the user's.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

/// Makes a file that was not there, and waits until it is on the disk.
///
/// # Errors
/// What the system says; [`io::ErrorKind::AlreadyExists`] if something is there.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = system::only_mine(OpenOptions::new().write(true).create_new(true)).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a file in place of what is there, in one step: a reader sees the old one or the new one.
///
/// # Errors
/// What the system says. What was there is then unchanged.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // In the same directory, so that it is on the same file system.
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    // Left over from a process that ended in the middle and had the same number.
    let _ = fs::remove_file(&beside);
    let written = create(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written?;
    path.parent().map_or(Ok(()), system::sync_directory)
}

/// Makes a directory, and those it lies in.
///
/// # Errors
/// What the system says.
pub fn create_directory(path: &Path) -> io::Result<()> {
    system::create_directory(path)
}

#[cfg(unix)]
mod system {
    use std::{
        fs::{DirBuilder, File, OpenOptions},
        io,
        os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
        path::Path,
    };

    pub(super) fn only_mine(options: &mut OpenOptions) -> &mut OpenOptions {
        options.mode(0o600)
    }

    pub(super) fn create_directory(path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)
    }

    /// A name is on the disk only when its directory is.
    pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

#[cfg(not(unix))]
mod system {
    use std::{
        fs::{self, OpenOptions},
        io,
        path::Path,
    };

    pub(super) fn only_mine(options: &mut OpenOptions) -> &mut OpenOptions {
        options
    }

    pub(super) fn create_directory(path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// Directories cannot be opened as files here; a journal keeps their order.
    pub(super) fn sync_directory(_: &Path) -> io::Result<()> {
        Ok(())
    }
}
