//! Reads the configuration again, with the files that it names, in a thread: a long file or a slow disk delays no
//! knock.
//!
//! ```text
//!   daemon ──► Job ──► reader ──► configuration, authorized_keys, gateway key
//!      ▲                  │
//!      └───── Read ◄──────┘
//! ```
//!
//! The replay log is not read here, but in [`crate::spa::service`]. So a state directory on a hanging disk does not
//! keep a new configuration from coming into force.

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

/// The length of the queue. One read is under way at a time, and each leaves one value to be freed.
const QUEUE_LENGTH: usize = 4;

/// A job for the reader.
enum Job {
    /// Read the configuration. `hearing`: whether clients with keys are heard now.
    Configuration { hearing: bool },
    /// Read the gateway's key for these clients.
    Key(Arc<KeyAccess>),
    /// Free this value, which takes a while with many clients.
    Free(Box<dyn Any + Send>),
}

/// The result of a job.
#[derive(Debug)]
pub(crate) enum Read {
    /// A new configuration; and its file, or the one that has its name now.
    Configuration(Result<Box<New>, ReloadError>, Option<AsRead>),
    /// The server configuration of these clients, whose configuration is already in force.
    Key(Arc<KeyAccess>, Result<ServerConfig, SpaServiceError>),
}

/// A new configuration whose files could be read.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) config: Config,
    /// The server configuration of its clients. It is missing only where no client is heard anyway.
    pub(crate) server: Result<ServerConfig, SpaServiceError>,
    /// The changed settings that take effect only after a restart.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// The daemon's side of the thread.
#[derive(Debug)]
pub(crate) struct Reader {
    thread: Worker<Job>,
    read: mpsc::UnboundedReceiver<Read>,
    busy: bool,
    /// Whether to read the configuration once more: it may have changed after it was read.
    again: bool,
}

impl Reader {
    /// Starts the thread. `load` reads the configuration; `running` is the configuration of the start.
    pub(crate) fn start(
        running: Arc<Config>,
        load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    ) -> io::Result<Self> {
        let (done, read) = mpsc::unbounded_channel();
        let thread = ReaderThread { path: running.path.clone(), running, load };
        let work = move |jobs: &Receiver<Job>| {
            // A failed send means that the daemon has stopped.
            jobs.iter().filter_map(|job| thread.work(job)).for_each(|read| drop(done.send(read)));
        };
        Ok(Self { thread: Worker::start("reader", QUEUE_LENGTH, work)?, read, busy: false, again: false })
    }

    /// Reads the configuration, after the read that is under way, if there is one.
    pub(crate) fn read_configuration(&mut self, hearing: bool) {
        match self.busy {
            true => self.again = true,
            false => self.begin(Job::Configuration { hearing }),
        }
    }

    /// Reads the gateway's key for these clients. Call this only if no read is under way.
    pub(crate) fn read_key(&mut self, access: Arc<KeyAccess>) {
        self.begin(Job::Key(access));
    }

    /// Frees a value in the thread, or here if the thread's queue is full.
    pub(crate) fn free(&self, what: impl Any + Send) {
        drop(self.thread.hand(Job::Free(Box::new(what))));
    }

    /// The next result; `None` if the thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Read> {
        let read = self.read.recv().await;
        self.busy = false;
        read
    }

    /// Whether a read is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Starts the read that was asked for meanwhile. Returns whether one was.
    pub(crate) fn go_on(&mut self, hearing: bool) -> bool {
        let again = std::mem::take(&mut self.again);
        if again {
            self.begin(Job::Configuration { hearing });
        }
        again
    }

    fn begin(&mut self, job: Job) {
        // If the thread has ended, `next` reports it.
        drop(self.thread.hand(job));
        self.busy = true;
    }
}

/// The state of the thread.
struct ReaderThread<L> {
    running: Arc<Config>,
    path: Option<PathBuf>,
    load: L,
}

impl<L: Fn() -> Result<Config, ConfigError>> ReaderThread<L> {
    fn work(&self, job: Job) -> Option<Read> {
        match job {
            Job::Configuration { hearing } => {
                let mut new = self.new_configuration(hearing);
                // Hand the open file over: closing it here would release the daemon's lock on it.
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
            // Clients that are heard now are not locked out because the key cannot be read at this moment.
            Err(error) if hearing => return Err(error.into()),
            server => server,
        };
        let needs_restart = self.running.needs_restart(&config);
        Ok(Box::new(New { config, server, needs_restart }))
    }
}
