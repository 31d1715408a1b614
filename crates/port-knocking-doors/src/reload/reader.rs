//! Reads the configuration again, with what it names, in a thread of its own: a long file or a slow disk holds up no knock.
//!
//! ```text
//!   daemon ──► Job ──► reader ──► configuration, authorized_keys, gateway key
//!      ▲                  │
//!      └───── Read ◄──────┘
//! ```
//!
//! The replay log is not read here: see [`crate::spa::service`]. So a state directory on a disk that hangs does not keep a
//! new configuration from coming into force.

use std::{any::Any, io, path::PathBuf, sync::Arc, sync::mpsc::Receiver};

use doors_core::spa::server::ServerConfig;
use doors_os::worker::Worker;
use tokio::sync::mpsc;

use super::ReloadError;
use crate::{
    config::{Config, ConfigError, KeyAccess},
    control::running::AsRead,
    spa::service::{self, SpaServiceError},
};

/// Jobs that may wait: one thing is read at a time, and each leaves one thing to be freed.
const WAITING: usize = 4;

/// What the reader is asked to do.
enum Job {
    /// Read the configuration. Whether clients with keys are heard now.
    Configuration { hearing: bool },
    /// Read the gateway's key for these clients.
    Key(Arc<KeyAccess>),
    /// Free this. It takes a while where there are many clients.
    Free(Box<dyn Any + Send>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Read {
    /// A new configuration; and its file, or whatever has its name now.
    Configuration(Result<Box<New>, ReloadError>, Option<AsRead>),
    /// What clients are known by, whose configuration is in force already.
    Key(Arc<KeyAccess>, Result<ServerConfig, SpaServiceError>),
}

/// A new configuration that can be used, as far as files go.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) config: Config,
    /// What its clients are known by. It is missing only where no client is heard anyway.
    pub(crate) server: Result<ServerConfig, SpaServiceError>,
    /// The keys that have changed and take effect only after a restart.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// The daemon's side of the thread.
#[derive(Debug)]
pub(crate) struct Reader {
    thread: Worker<Job>,
    read: mpsc::UnboundedReceiver<Read>,
    busy: bool,
    /// The configuration is to be read once more: it may have changed after it was read.
    again: bool,
}

impl Reader {
    /// Starts the thread. `load` reads the configuration, and `running` is the one from the start.
    pub(crate) fn start(
        running: Arc<Config>,
        load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> io::Result<Self> {
        let (done, read) = mpsc::unbounded_channel();
        let desk = Desk { path: running.path.clone(), running, load };
        let work = move |jobs: &Receiver<Job>| {
            // If nobody hears it, the daemon has stopped.
            jobs.iter().filter_map(|job| desk.work(job)).for_each(|read| drop(done.send(read)));
        };
        Ok(Self { thread: Worker::start("reader", WAITING, work)?, read, busy: false, again: false })
    }

    /// Reads the configuration; after what is being read, if something is.
    pub(crate) fn read_configuration(&mut self, hearing: bool) {
        match self.busy {
            true => self.again = true,
            false => self.begin(Job::Configuration { hearing }),
        }
    }

    /// Reads the gateway's key for these clients. To be called only if nothing is being read.
    pub(crate) fn read_key(&mut self, access: Arc<KeyAccess>) {
        self.begin(Job::Key(access));
    }

    /// Frees something in the thread, or here if that has too much to do.
    pub(crate) fn free(&self, what: impl Any + Send) {
        drop(self.thread.hand(Job::Free(Box::new(what))));
    }

    /// What was read; `None` if the thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Read> {
        let read = self.read.recv().await;
        self.busy = false;
        read
    }

    /// Whether something is being read.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Begins what was asked for meanwhile. Says whether something was.
    pub(crate) fn go_on(&mut self, hearing: bool) -> bool {
        let again = std::mem::take(&mut self.again);
        if again {
            self.begin(Job::Configuration { hearing });
        }
        again
    }

    fn begin(&mut self, job: Job) {
        // A thread that is gone says so through `next`.
        drop(self.thread.hand(job));
        self.busy = true;
    }
}

/// What the thread works with.
struct Desk<L> {
    running: Arc<Config>,
    path: Option<PathBuf>,
    load: L,
}

impl<L: Fn() -> Result<Config, ConfigError>> Desk<L> {
    fn work(&self, job: Job) -> Option<Read> {
        match job {
            Job::Configuration { hearing } => {
                let mut new = self.new_configuration(hearing);
                // Closed anywhere else, it would take the daemon's mark away.
                let opened = new
                    .as_mut()
                    .ok()
                    .and_then(|new| Some(AsRead::new(new.config.opened.take()?, new.config.version)));
                let opened = opened.or_else(|| self.path.as_deref().and_then(AsRead::named));
                Some(Read::Configuration(new, opened))
            }
            Job::Key(access) => {
                let server = service::prepare(Some(&access));
                Some(Read::Key(access, server))
            }
            Job::Free(what) => {
                drop(what);
                None
            }
        }
    }

    fn new_configuration(&self, hearing: bool) -> Result<Box<New>, ReloadError> {
        let config = self.running.same_file((self.load)()?)?;
        let server = match service::prepare(config.key_access.as_deref()) {
            // Clients that are heard are not shut out because of a key that cannot be read now.
            Err(error) if hearing => return Err(error.into()),
            server => server,
        };
        let needs_restart = self.running.needs_restart(&config);
        Ok(Box::new(New { config, server, needs_restart }))
    }
}
