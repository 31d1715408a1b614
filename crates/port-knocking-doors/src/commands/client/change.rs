//! One change to the files of clients: no other command makes one at the same time, and the running daemon takes
//! it over.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use doors_os::{
    atomic_file::{AtomicFile, AtomicFileError, sync_directory_of},
    trusted_file,
};
use doors_spa::identity::ClientKey;

use super::ClientError;
use crate::{
    config::{self, Config, ConfigError, Inputs, Place, Texts, last_good::Store},
    control::running::{self, Takeover},
    spa::gateway_key::{self, KeyError},
};

/// How long it is waited for another change: that has its daemon read everything again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(90);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// The right to change the files, and the configuration as it is.
pub(super) struct Change<'a> {
    inputs: &'a Inputs,
    /// Where the files are, or would be.
    pub(super) directory: PathBuf,
    pub(super) config: Config,
    /// What stands in the files.
    pub(super) texts: Texts,
    places: Vec<Place>,
    /// `None` if there is no directory, and so nothing to remove.
    lock: Option<File>,
}

impl<'a> Change<'a> {
    /// Waits for its turn, and reads the configuration. Makes the directory if asked to.
    pub(super) fn begin(inputs: &'a Inputs, make: bool) -> Result<Self, ClientError> {
        let directory = config::clients_dir_of(inputs)?.ok_or(ClientError::NoFile)?;
        let unusable = |source| ClientError::Unusable { path: directory.clone(), source };
        if make {
            make_directory(&directory).map_err(unusable)?;
        }
        let lock = match trusted_file::open(&directory) {
            Ok(opened) => Some(lock(&directory, opened)?),
            Err(trusted_file::Untrusted::Missing) => None,
            // The configuration says better what is wrong with it.
            Err(untrusted) => {
                Config::load(inputs)?;
                return Err(unusable(untrusted.into()));
            }
        };
        let mut config = Config::load(inputs)?;
        let texts = config.texts.take().ok_or(ClientError::NoFile)?;
        let places = config::places(&texts)?;
        Ok(Self { inputs, directory, config, texts, places, lock })
    }

    /// The client of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| *place.name == *name)
    }

    /// The client with this key.
    pub(super) fn with_key(&self, key: &ClientKey) -> Option<&Place> {
        self.places.iter().find(|place| place.key == *key)
    }

    /// The names of all clients.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| &*place.name)
    }

    /// Whether the configuration would be good with these texts.
    pub(super) fn check(&self, texts: &Texts) -> Result<(), ConfigError> {
        Config::of_texts(self.inputs, texts).map(drop)
    }

    /// After the change of a file: it has to be there after a crash, too.
    pub(super) fn synced(&self) -> io::Result<()> {
        self.lock.as_ref().map_or(Ok(()), File::sync_all)
    }

    /// Nothing is to be changed, because it `is` so already. Sees to it that the daemon and the copy have it, too.
    pub(super) fn settle(self, is: String) -> Result<String, ClientError> {
        match self.is_daemon_behind() {
            Ok(false) => self.keep().map(|()| is + "\n"),
            Ok(true) => self.finish(is),
            Err(source) => Err(ClientError::Daemon { done: is, source }),
        }
    }

    /// Whether a daemon runs with something else than what stands in the files.
    pub(super) fn is_daemon_behind(&self) -> io::Result<bool> {
        let path = &self.texts.path;
        match running::daemon_of(path)? {
            Some(daemon) => Ok(!running::runs_with(path, daemon, self.config.version)?),
            None => Ok(false),
        }
    }

    /// What stands in the files is what a start with the copy of them gets, too: an administrator may have written it while
    /// no daemon ran, or a command may have been cut short.
    fn keep(&self) -> Result<(), ClientError> {
        let done = "nothing was to be changed".to_owned();
        Store::of_environment().follow(&self.texts).map_err(|source| ClientError::Kept { done, source })
    }

    /// Whether the copy of what was last in force has a client of this name.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        let kept = Store::of_environment().read(&self.texts.path);
        matches!(kept, Ok(Some(kept)) if kept.clients.text_of(name).is_some())
    }

    /// Lets the running daemon take the change over, and says so behind what is `done`.
    pub(super) fn finish(self, done: String) -> Result<String, ClientError> {
        let daemon_error = |source| ClientError::Daemon { done: done.clone(), source };
        let store = Store::of_environment();
        let changed = Config::load(self.inputs).map_err(|source| {
            // A start in this state runs with the copy.
            match store.follow(&self.texts) {
                Ok(()) => ClientError::Meanwhile { done: done.clone(), source },
                Err(source) => ClientError::Kept { done: done.clone(), source },
            }
        })?;
        let path = &self.texts.path;
        let daemon = running::daemon_of(path).map_err(daemon_error)?;
        let taken = running::take_over(path, daemon, changed.version);
        let kept = changed.texts.as_ref().map(|texts| match &taken {
            // A daemon that has taken it over sees to the copy itself, if its disk lets it.
            Ok(Takeover::Done) => store.await_kept(texts),
            Ok(_) | Err(_) => store.follow(texts),
        });
        let kept = kept.transpose().map_err(|source| ClientError::Kept { done: done.clone(), source });
        // What runs now comes before what a later start would do.
        match taken.map_err(daemon_error)? {
            Takeover::Done | Takeover::NoDaemon | Takeover::Ended if kept.is_err() => {
                kept.map(|_| String::new())
            }
            Takeover::Done => Ok(format!("{done}\nthe running daemon has taken it over\n")),
            Takeover::NoDaemon => Ok(format!("{done}\nno daemon runs with this file\n")),
            Takeover::Ended => Ok(format!("{done}\nthe daemon that ran with this file has ended\n")),
            Takeover::Refused => Err(match gateway_key::load(&changed.gateway_key) {
                Err(KeyError::Missing { .. }) => ClientError::NoGatewayKey { done },
                _ => ClientError::Refused(done),
            }),
            Takeover::Slow => Err(ClientError::Slow(done)),
        }
    }
}

/// A draft of a client's file.
pub(super) fn draft(path: &Path) -> Result<AtomicFile, ClientError> {
    AtomicFile::of(path).map_err(|error| match error {
        AtomicFileError::Taken => ClientError::InUse(path.to_owned()),
        AtomicFileError::Io(source) => ClientError::Write { path: path.to_owned(), source },
    })
}

/// Every user may look at it: what is in it is no secret, and a daemon that is not root has to read it.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.symlink_metadata().is_ok() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    sync_directory_of(directory)
}

/// Locks the directory. A process that is killed leaves no lock behind.
fn lock(directory: &Path, opened: File) -> Result<File, ClientError> {
    let begun = Instant::now();
    loop {
        match opened.try_lock() {
            Ok(()) => return Ok(opened),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_TIMEOUT => thread::sleep(BETWEEN_TRIES),
            Err(TryLockError::WouldBlock) => return Err(ClientError::InUse(directory.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(ClientError::Unusable { path: directory.to_owned(), source });
            }
        }
    }
}
