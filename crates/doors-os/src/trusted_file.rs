//! Reads the files that say which clients get in. A file is trusted only if no other user can have written it.
//!
//! ```text
//!   open once, without blocking ──► check the open file ──► read, up to a bound
//!                                    regular? owner? who may write?
//! ```
//!
//! | file                             | who may write                    | who may read | a link            |
//! |----------------------------------|----------------------------------|--------------|-------------------|
//! | the configuration                | owner, and the owner's own group | all          | its target counts |
//! | `authorized_keys`                | owner                            | all          | its target counts |
//! | `clients.d`, and the files in it | owner                            | all          | its target counts |
//! | the gateway's key                | owner                            | owner        | its target counts |
//! | the replay log                   | owner                            | all          | never             |
//! | the last good config             | owner                            | all          | never             |
//!
//! The owner is root or our own user. What is wrong is a value; each caller has its own message for it, with the
//! command that fixes it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::atomic_file::Rights;

/// What a file has to be to be trusted.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// The maximum length in bytes.
    pub longest: usize,
    /// What others must not be allowed to do, as the last three permission bits.
    pub denied: u32,
    /// Whether the owner's own group counts as the owner. Configuration files of 1.1.2 may have mode 664, as some
    /// systems create them.
    pub own_group: bool,
}

impl Demands {
    /// For a file that others may read but not write.
    pub const fn public(longest: usize) -> Self {
        Self { longest, denied: 0o2, own_group: false }
    }

    /// For a file that others may not even read.
    pub const fn secret(longest: usize) -> Self {
        Self { longest, denied: 0o7, own_group: false }
    }
}

/// A file that no other user can have written.
#[derive(Debug)]
pub struct TrustedFile {
    /// Its contents.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Its owner, group and mode.
    pub rights: Rights,
}

/// Why a file is not trusted, or not read.
#[derive(Debug)]
pub enum Untrusted {
    /// It does not exist.
    Missing,
    /// It is a symbolic link to a path that does not exist.
    Dangling,
    /// The kernel refuses to open or read it.
    Unreadable(io::Error),
    /// It is a directory, a pipe or a device.
    Kind,
    /// Another user owns it, and can change it at any time.
    Owner {
        /// The owner.
        owner: u32,
        /// Our own user.
        we: u32,
    },
    /// Its mode grants others rights that they must not have.
    Mode(u32),
    /// It exceeds the maximum length.
    Long,
}

impl From<Untrusted> for io::Error {
    /// For callers that only inspect a file and do not trust it.
    fn from(untrusted: Untrusted) -> Self {
        match untrusted {
            Untrusted::Missing | Untrusted::Dangling => io::ErrorKind::NotFound.into(),
            Untrusted::Unreadable(error) => error,
            Untrusted::Kind => Self::other("it is not a regular file"),
            Untrusted::Long => Self::other("it exceeds the maximum length"),
            Untrusted::Owner { .. } | Untrusted::Mode(_) => io::ErrorKind::PermissionDenied.into(),
        }
    }
}

/// Reads a file. Follows a symbolic link.
pub fn read(path: &Path, demands: &Demands) -> Result<TrustedFile, Untrusted> {
    read_opened(&open(path)?, demands)
}

/// Opens a file, and does not block on a pipe without a writer. [`judge`] says whether it is a regular file.
pub fn open(path: &Path) -> Result<File, Untrusted> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if path.is_symlink() => Untrusted::Dangling,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Untrusted::Missing,
        _ => Untrusted::Unreadable(error),
    })
}

/// Reads an open file from its beginning.
pub fn read_opened(file: &File, demands: &Demands) -> Result<TrustedFile, Untrusted> {
    let metadata = judge(file, demands)?;
    let is_secret = demands.denied & 0o4 != 0;
    let length = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    // With the full capacity from the start, a secret is never reallocated, which would leave a copy in memory.
    let room = if is_secret { demands.longest } else { length.min(demands.longest) };
    let mut bytes = Zeroizing::new(Vec::with_capacity(room.saturating_add(1)));
    read_up_to(file, demands.longest, &mut bytes)?;
    Ok(TrustedFile { bytes, rights: Rights::of(&metadata) })
}

/// Reads a whole file, unless it is longer than `longest`.
pub fn read_up_to(file: &File, longest: usize, bytes: &mut Vec<u8>) -> Result<(), Untrusted> {
    let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(bytes).map_err(Untrusted::Unreadable)?;
    if bytes.len() > longest { Err(Untrusted::Long) } else { Ok(()) }
}

/// Checks that an open file is regular and meets the demands. It checks the open file and not the path, so that no
/// other file can be put in its place in between.
pub fn judge(file: &File, demands: &Demands) -> Result<Metadata, Untrusted> {
    let metadata = regular(file)?;
    judge_rights(file, &metadata, demands)?;
    Ok(metadata)
}

/// Checks an open directory: only its owner may create files in it.
pub fn judge_directory(directory: &File) -> Result<(), Untrusted> {
    let metadata = directory.metadata().map_err(Untrusted::Unreadable)?;
    judge_rights(directory, &metadata, &Demands::public(0))
}

/// Checks that an open file is regular, regardless of its owner.
pub fn regular(file: &File) -> Result<Metadata, Untrusted> {
    let metadata = file.metadata().map_err(Untrusted::Unreadable)?;
    if metadata.is_file() { Ok(metadata) } else { Err(Untrusted::Kind) }
}

fn judge_rights(file: &File, metadata: &Metadata, demands: &Demands) -> Result<(), Untrusted> {
    let (owner, we) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != we && owner != 0 {
        return Err(Untrusted::Owner { owner, we });
    }
    match others(file, metadata, demands.own_group) & demands.denied {
        0 => Ok(()),
        _ => Err(Untrusted::Mode(metadata.mode() & 0o7777)),
    }
}

/// What users other than the owner may do, as three permission bits. The owner's own group is the one whose id equals
/// the owner's. With an access control list the group bits are the mask of all its entries (acl(5)).
fn others(file: &File, metadata: &Metadata, own_group: bool) -> u32 {
    let (mode, group) = (metadata.mode(), (metadata.mode() >> 3) & 0o7);
    let is_own = own_group && metadata.gid() == metadata.uid() && !has_list(file);
    mode & 0o7 | if is_own { 0 } else { group }
}

fn has_list(file: &File) -> bool {
    let mut head = [0_u8; 64];
    match rustix::fs::fgetxattr(file, "system.posix_acl_access", &mut head) {
        Ok(length) => length > 0,
        Err(error) => error == rustix::io::Errno::RANGE,
    }
}

/// A directory in which another user can replace a file that we trust.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaceable {
    /// The directory.
    pub directory: PathBuf,
    /// Its owner, if that is another user.
    pub owner: Option<u32>,
    /// Its permission bits.
    pub mode: u32,
}

/// The overflow uid: the owner of a file whose owner has no id in our user namespace. There, that is what root of the
/// machine created.
const UNMAPPED: u32 = 65534;

/// The first directory on the path in which another user can replace the next component. In a directory with the
/// sticky bit, users can replace only their own files.
pub fn replaceable(path: &Path) -> Option<Replaceable> {
    // A link can also be replaced in its own directory.
    let here = path.is_symlink().then(|| path.parent().and_then(|parent| fs::canonicalize(parent).ok()));
    let there = fs::canonicalize(path).ok()?;
    let we = rustix::process::geteuid().as_raw();
    there.ancestors().skip(1).chain(here.flatten().iter().flat_map(|here| here.ancestors())).find_map(
        |directory| {
            let file = File::open(directory).ok()?;
            let metadata = file.metadata().ok()?;
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
            let is_foreign = ![0, we, UNMAPPED].contains(&owner);
            let is_open = mode & 0o1000 == 0 && others(&file, &metadata, true) & 0o2 != 0;
            (is_foreign || is_open).then(|| Replaceable {
                directory: directory.to_owned(),
                owner: is_foreign.then_some(owner),
                mode,
            })
        },
    )
}

#[cfg(test)]
mod tests;
