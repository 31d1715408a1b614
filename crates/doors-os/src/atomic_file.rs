//! Replaces a file atomically: a reader sees either the old contents or all of the new ones.
//!
//! ```text
//!   .name.new   made, locked ──► written, synced ──► renamed to `name`, directory synced
//!                                     └─ an error ──► removed
//! ```
//!
//! The draft is also the lock: a process that changes the file has to hold it. A killed process leaves an unlocked
//! draft, and the next process takes it over.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags};

/// The draft of a file. Only one process at a time holds it.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    draft: PathBuf,
    target: PathBuf,
    used: bool,
}

/// Why there is no draft.
#[derive(Debug)]
pub enum AtomicFileError {
    /// Another process holds it.
    Taken,
    /// It cannot be created.
    Io(io::Error),
}

/// Owner, group and permission bits of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Its permission bits.
    pub mode: u32,
    /// The user id of its owner.
    pub owner: u32,
    /// The id of its group.
    pub group: u32,
}

impl Rights {
    /// For a file that only this process's user may read.
    pub fn private() -> Self {
        let (owner, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { mode: 0o600, owner, group }
    }

    /// The rights of an existing file.
    pub fn of(metadata: &Metadata) -> Self {
        Self { mode: metadata.mode() & 0o7777, owner: metadata.uid(), group: metadata.gid() }
    }
}

impl AtomicFile {
    /// Creates the draft of a file. If the path is a symbolic link, the draft is for the link's target.
    pub fn of(path: &Path) -> Result<Self, AtomicFileError> {
        let target = match fs::canonicalize(path) {
            Ok(target) => target,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(AtomicFileError::Io(error)),
        };
        let no_name = || AtomicFileError::Io(io::ErrorKind::InvalidFilename.into());
        let name = target.file_name().ok_or_else(no_name)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(".new");
        let draft = target.with_file_name(hidden);
        let file = take(&draft)?;
        Ok(Self { file, draft, target, used: false })
    }

    /// The path of the file, with symbolic links resolved.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Replaces the file with the draft. After an error the old file is still in place, unless only syncing the
    /// directory failed.
    pub fn replace(self, contents: &[u8], rights: Rights) -> io::Result<()> {
        self.publish(contents, rights, RenameFlags::empty())
    }

    /// Creates a file that only its owner may read.
    ///
    /// # Errors
    /// `AlreadyExists` if the path exists, whatever it is.
    pub fn create(self, text: &str) -> io::Result<()> {
        self.create_with(text, 0o600)
    }

    /// Creates a file with these permission bits.
    ///
    /// # Errors
    /// `AlreadyExists` if the path exists, whatever it is.
    pub fn create_with(self, text: &str, mode: u32) -> io::Result<()> {
        let made = self.file.metadata()?;
        let rights = Rights { mode, owner: made.uid(), group: made.gid() };
        self.publish(text.as_bytes(), rights, RenameFlags::NOREPLACE)
    }

    fn publish(mut self, contents: &[u8], rights: Rights, flags: RenameFlags) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(contents)?;
        // The owner first: changing it clears the setuid and setgid bits, which a new owner must not inherit.
        fchown(&self.file, Some(rights.owner), Some(rights.group))?;
        self.file.set_permissions(fs::Permissions::from_mode(rights.mode))?;
        self.file.sync_all()?;
        rustix::fs::renameat_with(CWD, &self.draft, CWD, &self.target, flags)?;
        self.used = true;
        sync_directory_of(&self.target)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.used {
            // The lock is still held, so the draft is ours. If removing it fails, the next process takes it over.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Has the disk hold the directory entry of a file or directory that was made, renamed or removed.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        // A name alone stands in the current directory.
        Some(directory) if directory.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Creates the draft at this path, or takes over the one that is there, and locks it.
fn take(path: &Path) -> Result<File, AtomicFileError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = options.custom_flags(flags).open(path).map_err(AtomicFileError::Io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(AtomicFileError::Taken),
        Err(TryLockError::Error(error)) => return Err(AtomicFileError::Io(error)),
    }
    let ours = file.metadata().map_err(AtomicFileError::Io)?;
    // Between the open and the lock, the previous holder may have renamed or removed the file.
    match fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
        Ok(_) => return Err(AtomicFileError::Taken),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AtomicFileError::Taken),
        Err(error) => return Err(AtomicFileError::Io(error)),
    }
    // The owner of a foreign file could change it at any time, and a second name means that another file is changed
    // too.
    let we = rustix::process::geteuid().as_raw();
    if !ours.is_file() || ours.uid() != we || ours.nlink() != 1 {
        let error = io::Error::other(format!("{} stands in the way; remove it", path.display()));
        return Err(AtomicFileError::Io(error));
    }
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(AtomicFileError::Io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_draft_is_taken_over_and_one_in_use_is_not() {
        let place = tempfile::tempdir().unwrap();
        let (path, draft) = (place.path().join("file"), place.path().join(".file.new"));
        fs::write(&draft, "a long text that a killed process left").unwrap();
        let first = AtomicFile::of(&path).unwrap();
        assert!(matches!(AtomicFile::of(&path), Err(AtomicFileError::Taken)));
        first.create("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(!draft.exists());
    }

    #[test]
    fn a_draft_that_is_a_link_is_refused_and_its_target_unchanged() {
        let place = tempfile::tempdir().unwrap();
        let (path, draft) = (place.path().join("file"), place.path().join(".file.new"));
        let other = place.path().join("other");
        fs::write(&other, "other").unwrap();
        std::os::unix::fs::symlink(&other, &draft).unwrap();
        assert!(matches!(AtomicFile::of(&path), Err(AtomicFileError::Io(_))));
        fs::remove_file(&draft).unwrap();
        fs::hard_link(&other, &draft).unwrap();
        assert!(matches!(AtomicFile::of(&path), Err(AtomicFileError::Io(_))));
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
    }

    #[test]
    fn create_refuses_an_existing_file_and_leaves_no_draft() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "old").unwrap();
        let error = AtomicFile::of(&path).unwrap().create("new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
