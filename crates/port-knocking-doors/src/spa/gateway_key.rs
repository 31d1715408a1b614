//! Manages the file of the gateway key, the only secret of a gateway.
//!
//! ```text
//!   init ──► current ── rotate ──► previous, accepted until a stated time
//!               │
//!               └──► card, for the clients
//! ```
//!
//! Only [`rotate`] replaces a key, and it keeps the old one for a while. A key is never read from a file that other
//! users may read.

mod file;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use doors_os::{
    atomic_file::{AtomicFile, AtomicFileError, Rights, sync_directory_of},
    trusted_file::{self, Demands, Untrusted},
};
use doors_spa::gateway::GatewayKey;
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// The directory that other users may list: the configuration is there, too.
const SHARED: &str = "/etc/port-knocking-doors";
/// The maximum length of a key file.
const MAX_LENGTH: usize = 16 * 1024;

/// The keys that a gateway accepts.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The key whose card clients get.
    pub current: GatewayKey,
    /// The previous key, and until when it is accepted, in seconds since 1970.
    pub previous: Option<(GatewayKey, u64)>,
}

/// Generates a key and creates a file for it.
///
/// # Errors
/// [`KeyError::Exists`] if the file exists; [`KeyError::Write`] or [`KeyError::InUse`].
pub fn init(path: &Path, random: &mut impl CryptoRng) -> Result<GatewayKey, KeyError> {
    let write = |source| KeyError::Write { path: path.to_owned(), source };
    // Through a dangling link the file would be created elsewhere.
    if fs::symlink_metadata(path).is_ok() {
        return Err(KeyError::Exists { path: path.to_owned() });
    }
    make_directory(path).map_err(write)?;
    let key = GatewayKey::generate(random);
    let keys = Keys { current: key, previous: None };
    match draft(path)?.create(&file::write(&keys)) {
        Ok(()) => Ok(keys.current),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(KeyError::Exists { path: path.to_owned() })
        }
        Err(error) => Err(write(error)),
    }
}

/// Reads the keys.
///
/// # Errors
/// [`KeyError`] if the file is missing or invalid, or others may read it.
pub fn load(path: &Path) -> Result<Keys, KeyError> {
    let (text, _) = read(path)?;
    file::parse(path, &text)
}

/// Generates a new key. The previous key is accepted for `keep_for` from `now`, in seconds since 1970; the one before
/// it is dropped.
///
/// # Errors
/// [`KeyError`] as in [`load`], [`KeyError::Write`] or [`KeyError::InUse`]. Then the old keys stay.
pub fn rotate(
    path: &Path,
    random: &mut impl CryptoRng,
    now: u64,
    keep_for: Duration,
) -> Result<Keys, KeyError> {
    // Load first: its errors are clearer.
    load(path)?;
    let draft = draft(path)?;
    let (text, rights) = read(draft.target())?;
    let old = file::parse(path, &text)?.current;
    let until = now.saturating_add(keep_for.as_secs());
    let previous = (!keep_for.is_zero()).then_some((old, until));
    let keys = Keys { current: GatewayKey::generate(random), previous };
    let written = draft.replace(file::write(&keys).as_bytes(), rights);
    written.map_err(|source| KeyError::Write { path: path.to_owned(), source })?;
    Ok(keys)
}

/// The card that clients get.
#[must_use]
pub fn card_text(keys: &Keys) -> Zeroizing<String> {
    keys.current.card().to_text()
}

/// Renders a text as a QR code for a terminal; `None` if the text is too long for one.
///
/// A phone expects dark on light, and not every terminal has a light background. So both colours are set, to two that
/// no theme changes. If a program strips the colours, the code is right on a dark background.
#[must_use]
pub fn qr(text: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    // The characters draw the light modules.
    let picture = code.render().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    Some(picture.lines().map(|line| format!("\u{1b}[38;5;231;48;5;16m{line}\u{1b}[0m\n")).collect())
}

fn draft(path: &Path) -> Result<AtomicFile, KeyError> {
    AtomicFile::of(path).map_err(|error| match error {
        AtomicFileError::Taken => KeyError::InUse { path: path.to_owned() },
        AtomicFileError::Io(source) => KeyError::Write { path: path.to_owned(), source },
    })
}

fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    let mode = if directory == Path::new(SHARED) { 0o755 } else { 0o700 };
    match DirBuilder::new().mode(mode).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => Ok(()),
        // The new directory has to survive a crash, as the file in it does.
        Ok(()) => sync_directory_of(directory),
    }
}

/// Reads the text of the file, unless another user may read it.
fn read(path: &Path) -> Result<(Zeroizing<String>, Rights), KeyError> {
    let no_key = |what| KeyError::NoKeyFile { path: path.to_owned(), what };
    let file = trusted_file::read(path, &Demands::secret(MAX_LENGTH)).map_err(|untrusted| {
        let path = path.to_owned();
        match untrusted {
            Untrusted::Missing => KeyError::Missing { path },
            Untrusted::Dangling => no_key("it is a dangling link; restore its target, or remove the link"),
            Untrusted::Unreadable(source) => KeyError::Read { path, source },
            Untrusted::Kind => no_key("it is not a regular file"),
            Untrusted::Owner { owner, we } => KeyError::Owner { path, owner, we },
            Untrusted::Mode(mode) => KeyError::Exposed { path, mode },
            Untrusted::Long => no_key("it is larger than 16 kilobytes"),
        }
    })?;
    let text = std::str::from_utf8(&file.bytes).map_err(|_| no_key("it is not UTF-8 text"))?;
    Ok((Zeroizing::new(text.to_owned()), file.rights))
}

/// Why the gateway key cannot be used. The message never contains the file's contents.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file does not exist.
    #[error("there is no gateway key {}; make one: port-knocking-doors gateway init", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file exists already.
    #[error(
        "there is a gateway key {} already, and clients know it; to change it: port-knocking-doors gateway \
         rotate",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the gateway key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Others may read or change the file.
    #[error(
        "the gateway key {0} can be read or changed by others (mode {mode:03o}); try: chmod go= {0}, and if \
         others may have read it: port-knocking-doors gateway rotate",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns the file.
    #[error(
        "the gateway key {0} belongs to another user ({owner}); try: chown {we} {0}",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our own user.
        we: u32,
    },
    /// The file cannot hold a key.
    #[error("cannot use the gateway key {}: {what}", path.display())]
    NoKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A line of the file is wrong.
    #[error(
        "{0}:{line}: {what}; put a copy of the key back, or move {0} away and make another with gateway init: then \
         every client needs the new card",
        path.display()
    )]
    InFile {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        what: String,
    },
    /// Another process is changing the file.
    #[error("another process changes the gateway key {} at this moment; try again", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write the gateway key {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}
