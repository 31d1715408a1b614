//! Puts a new text in the place of a file: checked, all at once, and only if nobody else has changed it.

use std::{
    io,
    path::{Path, PathBuf},
};

use doors_os::{
    atomic_file::{AtomicFile, AtomicFileError, Rights},
    trusted_file::{self, Untrusted},
};

/// Replaces the file if its text is still `expected`, and if `check` agrees with the new one. Mode and owner
/// stay. If the path is a symbolic link, the file to which it leads is replaced.
///
/// # Errors
/// [`ReplaceError`]. The file is the old one then, unless the disk failed at the very end.
pub fn replace<E: std::error::Error + 'static>(
    path: &Path,
    expected: &str,
    new: &str,
    check: impl FnOnce(&Path, &str) -> Result<(), E>,
) -> Result<(), ReplaceError<E>> {
    let draft = AtomicFile::of(path).map_err(|error| match error {
        AtomicFileError::Taken => ReplaceError::InUse { path: path.to_owned() },
        AtomicFileError::Io(source) => ReplaceError::Write { path: path.to_owned(), source },
    })?;
    // Asked before the check, as its answer would be about a text that is not wanted any more; and after
    // it, as an editor takes no lock.
    unchanged(path, draft.target(), expected)?;
    check(path, new).map_err(ReplaceError::Check)?;
    let rights = unchanged(path, draft.target(), expected)?;
    draft
        .replace(new.as_bytes(), rights)
        .map_err(|source| ReplaceError::Write { path: path.to_owned(), source })
}

fn unchanged<E: std::error::Error + 'static>(
    path: &Path,
    target: &Path,
    expected: &str,
) -> Result<Rights, ReplaceError<E>> {
    let (text, rights) = read(target, expected.len())
        .map_err(|source| ReplaceError::Read { path: path.to_owned(), source })?;
    match text == expected.as_bytes() {
        true => Ok(rights),
        false => Err(ReplaceError::Changed { path: path.to_owned() }),
    }
}

/// The bytes of a file, at most one more than `length`. Whose it is was asked when its text was believed.
fn read(path: &Path, length: usize) -> io::Result<(Vec<u8>, Rights)> {
    let file = trusted_file::open(path).map_err(io::Error::from)?;
    let rights = Rights::of(&trusted_file::regular(&file)?);
    let mut bytes = Vec::new();
    match trusted_file::read_up_to(&file, length, &mut bytes) {
        Ok(()) | Err(Untrusted::Long) => Ok((bytes, rights)),
        Err(untrusted) => Err(untrusted.into()),
    }
}

/// Why a file was not replaced.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError<E: std::error::Error + 'static> {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else has edited the file meanwhile.
    #[error("somebody has changed {} meanwhile, so it was left as it is; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Another process edits the file.
    #[error("another process changes {} at this moment; try again", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The new text is not good.
    #[error(transparent)]
    Check(E),
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
