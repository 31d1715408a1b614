//! Writes what has come into force, in a thread of its own: a disk may take its time, and knocks are heard meanwhile.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::Receiver},
    time::Duration,
};

use doors_os::worker::{self, Worker};

use super::Store;
use crate::{config::Texts, observe::log};

/// The daemon's side of the thread.
#[derive(Debug)]
pub struct Keeper(Option<Running>);

#[derive(Debug)]
struct Running {
    /// What is to be written next. Only the last of several is still in force, so no more than that waits.
    next: Arc<Mutex<Option<Texts>>>,
    thread: Worker<()>,
}

impl Keeper {
    /// Keeps nothing: it was not asked for.
    #[must_use]
    pub fn idle() -> Self {
        Self(None)
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel makes none.
    pub fn start(store: Store) -> io::Result<Self> {
        let next: Arc<Mutex<Option<Texts>>> = Arc::default();
        let waiting = Arc::clone(&next);
        let work = move |jobs: &Receiver<()>| {
            for () in jobs {
                let texts = waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(Err(error)) = texts.map(|texts| store.write(&texts)) {
                    log::not_kept(&error);
                }
            }
        };
        Ok(Self(Some(Running { next, thread: Worker::start("last-good", 1, work)? })))
    }

    /// A daemon has begun to run with this file. If it keeps nothing, what was kept is not up to date any more, and is
    /// removed: in a thread, because it may be on a disk that hangs.
    pub(crate) fn begin(&self, file: Option<PathBuf>) -> io::Result<()> {
        match (&self.0, file) {
            (None, Some(file)) => {
                worker::once("forget", move || Store::of_environment().forget(&file)).map(drop)
            }
            (Some(_), _) | (_, None) => Ok(()),
        }
    }

    /// Keeps what has just come into force; `None` if that is what was kept, or no file at all.
    pub(crate) fn keep(&self, texts: Option<Texts>) {
        if let (Some(running), Some(_)) = (&self.0, &texts) {
            *running.next.lock().unwrap_or_else(PoisonError::into_inner) = texts;
            // If there is no room, the thread has not begun with the job that waits, and will find these.
            let _ = running.thread.hand(());
        }
    }

    /// Waits until everything is written, at most `timeout`.
    pub fn end(self, timeout: Duration) {
        if let Some(Running { thread, .. }) = self.0 {
            thread.end(timeout);
        }
    }
}
