//! Puts a new text in the place of a file: checked, all at once, and only if nobody else has changed it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use crate::draft::{Draft, NoDraft, Rights};

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
    let draft = Draft::of(path).map_err(|error| match error {
        NoDraft::Taken => ReplaceError::InUse { path: path.to_owned() },
        NoDraft::Io(source) => ReplaceError::Write { path: path.to_owned(), source },
    })?;
    // Asked before the check, as its answer would be about a text that is not wanted any more; and after
    // it, as an editor takes no lock.
    unchanged(path, draft.target(), expected)?;
    check(path, new).map_err(ReplaceError::Check)?;
    let rights = unchanged(path, draft.target(), expected)?;
    draft.replace(new, rights).map_err(|source| ReplaceError::Write { path: path.to_owned(), source })
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

/// The bytes of a file, at most one more than `length`.
fn read(path: &Path, length: usize) -> io::Result<(Vec<u8>, Rights)> {
    // A pipe of this name must not keep us waiting.
    let mut options = OpenOptions::new();
    let file: File = options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let most = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes)?;
    let rights = Rights { mode: metadata.mode() & 0o7777, owner: metadata.uid(), group: metadata.gid() };
    Ok((bytes, rights))
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
