//! Writes the replay log in a thread: a slow disk does not keep the daemon from hearing knocks. Everything that waits
//! is written and synced as one batch.
//!
//! After a failure the log on disk lacks records that the core has. Then the writer confirms nothing more until it
//! has written a new replay log with everything that the core remembers.
//!
//! ```text
//!   daemon ──► Order ──► replay writer ──► replay log ──► disk
//!      ▲                    │
//!      └──── Recorded ◄─────┘   in the order of the requests
//! ```

use std::{io, path::Path, sync::mpsc as blocking};

use doors_core::spa::{replay::Record, server::Ticket};
use doors_os::worker::Worker;
use doors_text::error_chain::in_one_line;
use tokio::sync::mpsc;

use crate::{
    observe::log,
    spa::replay_log::{Loaded, ReplayLog, ReplayLogError},
};

/// The maximum number of records in a batch.
const BATCH_LENGTH: usize = 256;

/// The number of records that may wait here. The others wait in the core, which bounds them for each client.
pub(crate) const QUEUE_LENGTH: usize = 4096;

/// A job for the replay writer.
#[derive(Debug)]
enum Order {
    /// Append this record.
    Append(Ticket, Record),
    /// Write a new log with only these records, which include those of the tickets.
    Keep(Vec<Record>, Vec<Ticket>),
}

/// The result of an order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Recorded {
    /// The records of these tickets are on disk.
    Held(Vec<Ticket>),
    /// The records of these tickets are not, and why. From here on only [`ReplayWriter::keep`] works.
    Failed(Vec<Ticket>, String),
    /// After a failure: everything given to [`ReplayWriter::keep`] is on disk.
    CaughtUp,
    /// The last [`ReplayWriter::keep`] is done or has failed.
    Kept,
    /// The log has grown: it is time to call [`ReplayWriter::keep`].
    Long,
}

/// The daemon's side of the queue.
#[derive(Debug)]
pub(crate) struct ReplayWriter {
    thread: Worker<Order>,
    recorded: mpsc::UnboundedReceiver<Recorded>,
    /// The number of records without a result.
    waiting: usize,
}

/// Why the replay log cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReplayWriterError {
    /// The file.
    #[error("cannot remember which knocks were seen, so no client with a key can be let in")]
    ReplayLog(#[from] ReplayLogError),
    /// The thread.
    #[error("cannot start the thread that writes down which knocks were seen")]
    Thread(#[source] io::Error),
}

impl ReplayWriter {
    /// Opens the replay log in this directory, and returns its records. If it was missing or damaged, it also holds
    /// `if_lost` from here on.
    pub(crate) fn start(directory: &Path, if_lost: &[Record]) -> Result<(Self, Loaded), ReplayWriterError> {
        let (replay_log, loaded) = ReplayLog::open(directory, if_lost)?;
        if let Some(loss) = &loaded.loss {
            log::replay_log_damaged(directory, loss);
        }
        let (outcomes, recorded) = mpsc::unbounded_channel();
        let run = move |orders: &blocking::Receiver<Order>| work(replay_log, orders, &outcomes);
        // Room for every waiting record, one `keep` now, and one at the end.
        let thread = Worker::start("replay-writer", QUEUE_LENGTH.saturating_add(2), run);
        let thread = thread.map_err(ReplayWriterError::Thread)?;
        Ok((Self { thread, recorded, waiting: 0 }, loaded))
    }

    /// The number of records that can be queued now.
    pub(crate) fn room(&self) -> usize {
        QUEUE_LENGTH.saturating_sub(self.waiting)
    }

    /// Appends a record, if there is [room](Self::room).
    pub(crate) fn append(&mut self, ticket: Ticket, record: Record) {
        self.waiting = self.waiting.saturating_add(1);
        // If the thread has ended, `next` reports it.
        let _ = self.thread.hand(Order::Append(ticket, record));
    }

    /// Writes a new log with only these records, which include those of the tickets. Call it again only when that is
    /// done, or at the end.
    pub(crate) fn keep(&mut self, records: Vec<Record>, new: Vec<Ticket>) {
        self.waiting = self.waiting.saturating_add(new.len());
        let _ = self.thread.hand(Order::Keep(records, new));
    }

    /// Closes the queue, and returns when the queued orders are done.
    pub(crate) async fn end(mut self) {
        drop(self.thread);
        while self.recorded.recv().await.is_some() {}
    }

    /// The next result; `None` if the thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Recorded> {
        let recorded = self.recorded.recv().await;
        if let Some(Recorded::Held(tickets) | Recorded::Failed(tickets, _)) = &recorded {
            self.waiting = self.waiting.saturating_sub(tickets.len());
        }
        recorded
    }
}

fn work(
    replay_log: ReplayLog,
    orders: &blocking::Receiver<Order>,
    outcomes: &mpsc::UnboundedSender<Recorded>,
) {
    let mut thread = WriterThread { replay_log, failed: None, outcomes };
    while let Ok(first) = orders.recv() {
        let mut waiting = vec![first];
        waiting.extend(orders.try_iter().take(BATCH_LENGTH));
        let mut batch = Batch::default();
        for order in waiting {
            match order {
                Order::Append(ticket, record) => {
                    batch.tickets.push(ticket);
                    batch.records.push(record);
                }
                Order::Keep(keep, new) => {
                    thread.append(std::mem::take(&mut batch));
                    thread.keep(&keep, new);
                }
            }
        }
        thread.append(batch);
        if thread.replay_log.wants_compaction() {
            let _ = outcomes.send(Recorded::Long);
        }
    }
}

/// Records that are written together.
#[derive(Debug, Default)]
struct Batch {
    tickets: Vec<Ticket>,
    records: Vec<Record>,
}

/// The state of the thread.
struct WriterThread<'a> {
    replay_log: ReplayLog,
    /// Why the log on disk lacks records that the core has.
    failed: Option<String>,
    outcomes: &'a mpsc::UnboundedSender<Recorded>,
}

impl WriterThread<'_> {
    fn append(&mut self, Batch { tickets, records }: Batch) {
        if records.is_empty() {
            return;
        }
        if self.failed.is_none() {
            self.failed = self.replay_log.append(&records).err().map(|error| in_one_line(&error));
        }
        self.report(tickets);
    }

    fn keep(&mut self, records: &[Record], new: Vec<Ticket>) {
        match self.replay_log.compact(records) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    let _ = self.outcomes.send(Recorded::CaughtUp);
                }
            }
            Err(error) if new.is_empty() && self.failed.is_none() => {
                // The old replay log is intact and stays in use.
                log::not_shortened(&error);
            }
            Err(error) => self.failed = Some(in_one_line(&error)),
        }
        if !new.is_empty() {
            self.report(new);
        }
        let _ = self.outcomes.send(Recorded::Kept);
    }

    fn report(&self, tickets: Vec<Ticket>) {
        let result = match &self.failed {
            None => Recorded::Held(tickets),
            Some(why) => Recorded::Failed(tickets, why.clone()),
        };
        let _ = self.outcomes.send(result);
    }
}

#[cfg(test)]
pub(crate) mod tests;
