//! Writes down which requests were accepted, in a thread of its own: a disk may take its time, and knocks
//! are heard meanwhile. Whatever waits is written, and synced, in one go.
//!
//! ```text
//!   daemon ──► Order ──► recorder ──► journal ──► disk
//!      ▲                    │
//!      └──── Recorded ◄─────┘   in the order in which it was asked for
//! ```

use std::{io, path::Path, sync::mpsc as blocking, thread};

use doorknock::errors::in_one_line;
use doors_core::freshness::Record;
use tokio::sync::mpsc;

use crate::journal::{Journal, JournalError};

/// Records that are written in one go.
const AT_ONCE: usize = 256;

/// What the recorder is asked to do.
#[derive(Debug)]
enum Order {
    /// Write this behind the others.
    Append(Record),
    /// Keep only these.
    Keep(Vec<Record>),
}

/// What became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Recorded {
    /// So many more records are on the disk.
    Held(usize),
    /// So many are not, and why.
    Failed(usize, String),
    /// Many records are not needed any more: it is time to say which are.
    Long,
}

/// The daemon's side of the queue.
#[derive(Debug)]
pub(crate) struct Recorder {
    orders: blocking::Sender<Order>,
    recorded: mpsc::UnboundedReceiver<Recorded>,
}

/// Why nothing can be written down.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The file.
    #[error("cannot remember which knocks were seen, so no client with a key can be let in")]
    Journal(#[from] JournalError),
    /// The thread.
    #[error("cannot start the thread that writes down which knocks were seen")]
    Thread(#[source] io::Error),
}

impl Recorder {
    /// Opens the journal in this directory. Gives what it holds; `None` if it was not there, so that nobody
    /// knows what was accepted before. Then it holds `first` from here on.
    pub(crate) fn start(
        directory: &Path,
        first: &[Record],
    ) -> Result<(Self, Option<Vec<Record>>), RecorderError> {
        let (journal, loaded) = Journal::open(directory, first)?;
        if loaded.torn {
            tracing::warn!("the last record of {} was torn, and is dropped", directory.display());
        }
        let (orders, queue) = blocking::channel();
        let (teller, recorded) = mpsc::unbounded_channel();
        let run = move || work(journal, &queue, &teller);
        thread::Builder::new().name("recorder".to_owned()).spawn(run).map_err(RecorderError::Thread)?;
        Ok((Self { orders, recorded }, loaded.found.then_some(loaded.records)))
    }

    /// Writes this down. The core bounds how much waits.
    pub(crate) fn append(&self, record: Record) {
        // A thread that is gone says so through `next`.
        let _ = self.orders.send(Order::Append(record));
    }

    /// Keeps only these.
    pub(crate) fn keep(&self, records: Vec<Record>) {
        let _ = self.orders.send(Order::Keep(records));
    }

    /// What became of the oldest order; `None` if the thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Recorded> {
        self.recorded.recv().await
    }
}

fn work(mut journal: Journal, orders: &blocking::Receiver<Order>, teller: &mpsc::UnboundedSender<Recorded>) {
    while let Ok(first) = orders.recv() {
        let mut waiting = vec![first];
        waiting.extend(orders.try_iter().take(AT_ONCE));
        let mut records = Vec::new();
        for order in waiting {
            match order {
                Order::Append(record) => records.push(record),
                Order::Keep(keep) => {
                    append(&mut journal, std::mem::take(&mut records), teller);
                    if let Err(error) = journal.compact(&keep) {
                        // The old journal is whole, and goes on.
                        tracing::error!("cannot shorten the journal: {}", in_one_line(&error));
                    }
                }
            }
        }
        append(&mut journal, records, teller);
        if journal.wants_compaction() {
            let _ = teller.send(Recorded::Long);
        }
    }
}

fn append(journal: &mut Journal, records: Vec<Record>, teller: &mpsc::UnboundedSender<Recorded>) {
    if records.is_empty() {
        return;
    }
    let told = match journal.append(&records) {
        Ok(()) => Recorded::Held(records.len()),
        Err(error) => Recorded::Failed(records.len(), in_one_line(&error)),
    };
    let _ = teller.send(told);
}
