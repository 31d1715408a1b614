//! Writes what has come into force, in a thread of its own: a disk may take its time, and knocks are heard meanwhile.

use std::{io, path::Path, sync::mpsc, thread, time::Duration};

use super::Store;
use crate::{config::Texts, observe::log};

/// The daemon's side of the queue.
#[derive(Debug)]
pub struct Keeper(Option<Running>);

#[derive(Debug)]
struct Running {
    orders: mpsc::Sender<Texts>,
    ended: mpsc::Receiver<()>,
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
        let (orders, waiting) = mpsc::channel::<Texts>();
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name("last-good".to_owned()).spawn(move || {
            while let Ok(first) = waiting.recv() {
                // Only the last of them is still in force.
                let texts = waiting.try_iter().last().unwrap_or(first);
                if let Err(error) = store.write(&texts) {
                    log::not_kept(&error);
                }
            }
            drop(end);
        })?;
        Ok(Self(Some(Running { orders, ended })))
    }

    /// A daemon has begun to run with this file. If it keeps nothing, what was kept is not up to date any more.
    pub(crate) fn begin(&self, file: Option<&Path>) {
        if let (None, Some(file)) = (&self.0, file) {
            Store::of_environment().forget(file);
        }
    }

    /// Keeps what has just come into force; `None` if that is what was kept, or no file at all.
    pub(crate) fn keep(&self, texts: Option<Texts>) {
        if let (Some(running), Some(texts)) = (&self.0, texts) {
            // A thread that is gone has said why.
            let _ = running.orders.send(texts);
        }
    }

    /// Waits until everything is written, at most `patience`.
    pub fn end(self, patience: Duration) {
        if let Some(Running { orders, ended }) = self.0 {
            drop(orders);
            let _ = ended.recv_timeout(patience);
        }
    }
}
