//! Reads the files that say who gets in. They are believed only if no other user can have written them.
//!
//! ```text
//!   open once, wait for no pipe ──► judge what was opened ──► read, up to a bound
//!                                     regular? whose? who may write?
//! ```
//!
//! | file                    | who may write | who may read | a link        |
//! |-------------------------|---------------|--------------|---------------|
//! | the configuration       | owner, and the owner's own group | all | its target counts |
//! | `authorized_keys`       | owner         | all          | its target counts |
//! | `clients.d`, and the files in it | owner | all          | its target counts |
//! | the gateway's key       | owner         | owner        | its target counts |
//! | the journal             | owner         | all          | never         |
//! | what was last in force  | owner         | all          | never         |
//!
//! The owner is root, or the user that we are. What is wrong is a value; each caller has its own words for it, with
//! the command that mends it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::atomic_file::Rights;

/// What a file has to be like.
#[derive(Clone, Copy, Debug)]
pub struct Demands {
    /// No file of its kind is longer, in bytes.
    pub longest: usize,
    /// What others must not be allowed, as the last three permission bits.
    pub denied: u32,
    /// The owner's own group counts as its owner. Files of 1.1.2 may have mode 664, as some systems make them.
    pub own_group: bool,
}

impl Demands {
    /// A file that others may read, and not write.
    pub const fn public(longest: usize) -> Self {
        Self { longest, denied: 0o2, own_group: false }
    }

    /// A file that others may not even read.
    pub const fn secret(longest: usize) -> Self {
        Self { longest, denied: 0o7, own_group: false }
    }
}

/// A file that no other user can have written.
#[derive(Debug)]
pub struct TrustedFile {
    /// What is in it.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whose it is.
    pub rights: Rights,
}

/// Why a file is not believed, or not read.
#[derive(Debug)]
pub enum Untrusted {
    /// There is none.
    Missing,
    /// It is a symbolic link that leads to nothing.
    Dangling,
    /// The kernel does not let us.
    Unreadable(io::Error),
    /// It is a directory, a pipe, a device.
    Kind,
    /// Another user can change it at any time.
    Owner {
        /// That user.
        owner: u32,
        /// The user that we are.
        we: u32,
    },
    /// Others have rights that they must not have.
    Mode(u32),
    /// It is longer than any of its kind.
    Long,
}

impl From<Untrusted> for io::Error {
    /// For files that are only looked at, and not believed.
    fn from(untrusted: Untrusted) -> Self {
        match untrusted {
            Untrusted::Missing | Untrusted::Dangling => io::ErrorKind::NotFound.into(),
            Untrusted::Unreadable(error) => error,
            Untrusted::Kind => Self::other("it is no regular file"),
            Untrusted::Long => Self::other("it is longer than it can be"),
            Untrusted::Owner { .. } | Untrusted::Mode(_) => io::ErrorKind::PermissionDenied.into(),
        }
    }
}

/// Reads a file, or that to which a symbolic link leads.
pub fn read(path: &Path, demands: &Demands) -> Result<TrustedFile, Untrusted> {
    read_opened(&open(path)?, demands)
}

/// Opens a file, and waits for nobody. That it is a regular one is for [`judge`] to say.
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
    // With room for all of a secret, it never moves, and leaves no copy behind in memory.
    let room = if is_secret { demands.longest } else { length.min(demands.longest) };
    let mut bytes = Zeroizing::new(Vec::with_capacity(room.saturating_add(1)));
    read_up_to(file, demands.longest, &mut bytes)?;
    Ok(TrustedFile { bytes, rights: Rights::of(&metadata) })
}

/// Reads a whole file, if it is not longer than this.
pub fn read_up_to(file: &File, longest: usize, bytes: &mut Vec<u8>) -> Result<(), Untrusted> {
    let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(bytes).map_err(Untrusted::Unreadable)?;
    if bytes.len() > longest { Err(Untrusted::Long) } else { Ok(()) }
}

/// Judges an open file: a regular one that is as it has to be. Asked of what was opened, so that no other can be put
/// in its place in between.
pub fn judge(file: &File, demands: &Demands) -> Result<Metadata, Untrusted> {
    let metadata = regular(file)?;
    judge_rights(file, &metadata, demands)?;
    Ok(metadata)
}

/// Judges an open directory: only its owner can put anything there.
pub fn judge_directory(directory: &File) -> Result<(), Untrusted> {
    let metadata = directory.metadata().map_err(Untrusted::Unreadable)?;
    judge_rights(directory, &metadata, &Demands::public(0))
}

/// Whether an open file is a regular one, whosever it is.
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

/// What others than the owner may do, as three permission bits. The owner's own group is the one with the owner's
/// number. With an access control list the bits of the group stand for everybody who is named in it (acl(5)).
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

/// A directory in which another user can put another file in the place of one that we believe.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replaceable {
    /// The directory.
    pub directory: PathBuf,
    /// The user that it belongs to, if that is another.
    pub owner: Option<u32>,
    /// Its permission bits.
    pub mode: u32,
}

/// The owner of what belongs to nobody in our user namespace: there, that is what root of the machine made.
const UNMAPPED: u32 = 65534;

/// The first directory on the way to a file in which another user can replace what comes next. In one with the
/// sticky bit they can replace only what is theirs.
pub fn replaceable(path: &Path) -> Option<Replaceable> {
    // A link can be replaced where it stands, too.
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
