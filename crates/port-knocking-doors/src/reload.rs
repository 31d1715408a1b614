//! Reads the configuration again, with all that it names, in a thread of its own: a long file, a slow disk or a
//! replay log of megabytes holds up no knock.
//!
//! ```text
//!   daemon ──► Job ──► reader ──► configuration, authorized_keys, gateway key, replay log
//!      ▲                  │
//!      └───── Read ◄──────┘
//! ```

use std::{
    any::Any,
    fs::File,
    io,
    path::Path,
    sync::{Arc, mpsc as blocking},
    thread,
};

use doors_core::sequence::trie::Conflict;
use doors_firewall::FirewallError;
use doors_os::{clock::Clock, trusted_file};
use tokio::sync::mpsc;

use crate::{
    config::{Config, ConfigError, KeyAccess},
    daemon::RunError,
    spa::service::{self, Prepared, SpaServiceError},
};

/// What the reader is asked to do.
enum Job {
    /// Read the configuration. Whether there is a replay writer already.
    Configuration { recording: bool },
    /// Get ready what these clients need.
    Clients { access: Arc<KeyAccess>, recording: bool },
    /// Free this. It takes a while where there are many clients.
    Free(Box<dyn Any + Send>),
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Read {
    /// A new configuration; and its file, or whatever has its name now.
    Configuration(Result<Box<New>, ReloadError>, Option<Arc<File>>),
    /// What clients need, whose configuration is in force already.
    Clients(Result<Box<Prepared>, SpaServiceError>),
}

/// A new configuration that can be used, as far as files go.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) config: Config,
    pub(crate) prepared: Prepared,
    /// The keys that have changed and take effect only after a restart.
    pub(crate) needs_restart: Vec<&'static str>,
}

/// Why a new configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    SpaService(#[from] SpaServiceError),
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    #[error(transparent)]
    Hearing(Box<RunError>),
    #[error(transparent)]
    Conflict(#[from] Conflict),
}

/// The file that has this name now, to be marked. Waits for no pipe.
pub(crate) fn named(path: &Path) -> Option<Arc<File>> {
    let file = trusted_file::open(path).ok()?;
    trusted_file::regular(&file).is_ok().then(|| Arc::new(file))
}

/// The daemon's side of the queues. One thing is read at a time.
#[derive(Debug)]
pub(crate) struct Reader {
    jobs: blocking::Sender<Job>,
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
        clock: Clock,
    ) -> io::Result<Self> {
        let (jobs, queue) = blocking::channel();
        let (log_writer, read) = mpsc::unbounded_channel();
        let path = running.path.clone();
        let new = move |recording| -> Result<Box<New>, ReloadError> {
            let config = running.same_file(load()?)?;
            let prepared = service::prepare(config.key_access.as_deref(), recording, clock)?;
            let needs_restart = running.needs_restart(&config);
            Ok(Box::new(New { config, prepared, needs_restart }))
        };
        let work = move || {
            for job in queue {
                let read = match job {
                    Job::Configuration { recording } => {
                        let mut new = new(recording);
                        // Closed anywhere else, it would take the daemon's mark away.
                        let opened = new.as_mut().ok().and_then(|new| new.config.opened.take());
                        let opened = opened.or_else(|| path.as_deref().and_then(named));
                        Read::Configuration(new, opened)
                    }
                    Job::Clients { access, recording } => {
                        Read::Clients(service::prepare(Some(&access), recording, clock).map(Box::new))
                    }
                    Job::Free(what) => {
                        drop(what);
                        continue;
                    }
                };
                // The daemon may have stopped.
                let _ = log_writer.send(read);
            }
        };
        thread::Builder::new().name("reader".to_owned()).spawn(work)?;
        Ok(Self { jobs, read, busy: false, again: false })
    }

    /// Reads the configuration; after what is being read, if something is.
    pub(crate) fn configuration(&mut self, recording: bool) {
        match self.busy {
            true => self.again = true,
            false => self.begin(Job::Configuration { recording }),
        }
    }

    /// Gets ready what these clients need. To be called only if nothing is being read.
    pub(crate) fn clients(&mut self, access: Arc<KeyAccess>, recording: bool) {
        self.begin(Job::Clients { access, recording });
    }

    /// Frees something in the thread.
    pub(crate) fn free(&self, what: impl Any + Send) {
        // If the thread is gone, it is freed here.
        let _ = self.jobs.send(Job::Free(Box::new(what)));
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
    pub(crate) fn go_on(&mut self, recording: bool) -> bool {
        let again = std::mem::take(&mut self.again);
        if again {
            self.begin(Job::Configuration { recording });
        }
        again
    }

    fn begin(&mut self, job: Job) {
        // A thread that is gone says so through `next`.
        let _ = self.jobs.send(job);
        self.busy = true;
    }
}
