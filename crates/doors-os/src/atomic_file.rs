//! The next contents of a file: nobody sees them before they are whole.
//!
//! ```text
//!   .name.new   made, locked ──► written, synced ──► renamed to `name`, directory synced
//!                                     └─ an error ──► removed
//! ```
//!
//! The draft is the lock too: who changes the file has to hold it. A process that is killed leaves a draft
//! that is not locked, and the next one takes it over.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags};

/// A draft, and the only one for its file.
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
    /// Another process has it.
    Taken,
    /// It cannot be made.
    Io(io::Error),
}

/// Who may do what with the file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Its permission bits.
    pub mode: u32,
    /// The number of the user who owns it.
    pub owner: u32,
    /// The number of its group.
    pub group: u32,
}

impl Rights {
    /// For a file of ours that only we may read.
    pub fn private() -> Self {
        let (owner, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { mode: 0o600, owner, group }
    }

    /// Those of a file that is there.
    pub fn of(metadata: &Metadata) -> Self {
        Self { mode: metadata.mode() & 0o7777, owner: metadata.uid(), group: metadata.gid() }
    }
}

impl AtomicFile {
    /// Makes a draft for a file. If the path is a symbolic link, for the file to which it leads.
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

    /// The file, without symbolic links on the way.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Puts the draft in the place of the file. After an error the file is the old one, unless only the way
    /// of its name to the disk failed.
    pub fn replace(self, contents: &[u8], rights: Rights) -> io::Result<()> {
        self.publish(contents, rights, RenameFlags::empty())
    }

    /// Makes a file that only its owner may read.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, whatever it is.
    pub fn create(self, text: &str) -> io::Result<()> {
        self.create_with(text, 0o600)
    }

    /// Makes a file with these permission bits.
    ///
    /// # Errors
    /// `AlreadyExists` if there is one, whatever it is.
    pub fn create_with(self, text: &str, mode: u32) -> io::Result<()> {
        let made = self.file.metadata()?;
        let rights = Rights { mode, owner: made.uid(), group: made.gid() };
        self.publish(text.as_bytes(), rights, RenameFlags::NOREPLACE)
    }

    fn publish(mut self, contents: &[u8], rights: Rights, flags: RenameFlags) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(contents)?;
        // The owner first: with him go the bits that a new owner must not inherit.
        fchown(&self.file, Some(rights.owner), Some(rights.group))?;
        self.file.set_permissions(fs::Permissions::from_mode(rights.mode))?;
        self.file.sync_all()?;
        rustix::fs::renameat_with(CWD, &self.draft, CWD, &self.target, flags)?;
        self.used = true;
        match self.target.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.used {
            // While it is locked, it is ours. If it stays, the next one takes it over.
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Makes, or takes over, the file at this path, and locks it.
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
    // Between the open and the lock, whoever had it may have given it its name, or removed it.
    match fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
        Ok(_) => return Err(AtomicFileError::Taken),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AtomicFileError::Taken),
        Err(error) => return Err(AtomicFileError::Io(error)),
    }
    // Somebody else's would be his to change, and a second name would be another's file.
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
    fn a_draft_that_was_left_behind_is_taken_over_and_one_in_use_is_not() {
        let place = tempfile::tempdir().unwrap();
        let (path, draft) = (place.path().join("file"), place.path().join(".file.new"));
        fs::write(&draft, "a long text that a killed process has left").unwrap();
        let first = AtomicFile::of(&path).unwrap();
        assert!(matches!(AtomicFile::of(&path), Err(AtomicFileError::Taken)));
        first.create("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(!draft.exists());
    }

    #[test]
    fn a_draft_leads_to_no_other_file() {
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
    fn what_exists_is_not_made_and_no_draft_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        fs::write(&path, "old").unwrap();
        let error = AtomicFile::of(&path).unwrap().create("new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }
}
