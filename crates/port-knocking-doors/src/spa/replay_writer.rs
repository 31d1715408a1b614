//! Writes down which requests were accepted, in a thread of its own: a disk may take its time, and knocks
//! are heard meanwhile. Whatever waits is written, and synced, in one go.
//!
//! After a failure the disk knows less than the core. Then only a whole new replay log is written, with all that
//! the core remembers, before anything more is said to be held.
//!
//! ```text
//!   daemon ──► Order ──► replay writer ──► replay log ──► disk
//!      ▲                    │
//!      └──── Recorded ◄─────┘   in the order in which it was asked for
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

/// Records that are written in one go.
const AT_ONCE: usize = 256;

/// Records that may wait here. The others wait in the core, which bounds them for each client.
pub(crate) const WAITING: usize = 4096;

/// What the replay writer is asked to do.
#[derive(Debug)]
enum Order {
    /// Write this behind the others.
    Append(Ticket, Record),
    /// Keep only these, among which are those of the tickets.
    Keep(Vec<Record>, Vec<Ticket>),
}

/// What became of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Recorded {
    /// The records of these tickets are on the disk.
    Held(Vec<Ticket>),
    /// Those of these are not, and why. From here on only [`ReplayWriter::keep`] is done.
    Failed(Vec<Ticket>, String),
    /// After a failure: all that was given to [`ReplayWriter::keep`] is on the disk.
    CaughtUp,
    /// The latest [`ReplayWriter::keep`] is done, or has failed.
    Kept,
    /// Many records are not needed any more: it is time to say which are.
    Long,
}

/// The daemon's side of the queue.
#[derive(Debug)]
pub(crate) struct ReplayWriter {
    thread: Worker<Order>,
    recorded: mpsc::UnboundedReceiver<Recorded>,
    /// Records of which it has not been said yet what became of them.
    waiting: usize,
}

/// Why nothing can be written down.
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
    /// Opens the replay log in this directory, and gives what it holds. If it was not there, or not all of it was
    /// whole, then it holds `if_lost`, too, from here on.
    pub(crate) fn start(directory: &Path, if_lost: &[Record]) -> Result<(Self, Loaded), ReplayWriterError> {
        let (replay_log, loaded) = ReplayLog::open(directory, if_lost)?;
        if let Some(loss) = &loaded.loss {
            log::replay_log_damaged(directory, loss);
        }
        let (outcomes, recorded) = mpsc::unbounded_channel();
        let run = move |orders: &blocking::Receiver<Order>| work(replay_log, orders, &outcomes);
        // Each record of those that wait, what is kept now, and what is kept at the end.
        let thread = Worker::start("replay-writer", WAITING.saturating_add(2), run);
        let thread = thread.map_err(ReplayWriterError::Thread)?;
        Ok((Self { thread, recorded, waiting: 0 }, loaded))
    }

    /// How many more records may be handed over now.
    pub(crate) fn room(&self) -> usize {
        WAITING.saturating_sub(self.waiting)
    }

    /// Writes this down, if there is [room](Self::room).
    pub(crate) fn append(&mut self, ticket: Ticket, record: Record) {
        self.waiting = self.waiting.saturating_add(1);
        // A thread that is gone says so through `next`.
        let _ = self.thread.hand(Order::Append(ticket, record));
    }

    /// Keeps only these, among which are those of the tickets. To be asked for once more only when that is done, or at the
    /// end.
    pub(crate) fn keep(&mut self, records: Vec<Record>, new: Vec<Ticket>) {
        self.waiting = self.waiting.saturating_add(new.len());
        let _ = self.thread.hand(Order::Keep(records, new));
    }

    /// Takes no more orders, and returns when those of before are done.
    pub(crate) async fn end(mut self) {
        drop(self.thread);
        while self.recorded.recv().await.is_some() {}
    }

    /// What became of the oldest order; `None` if the thread has ended.
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
    let mut desk = Desk { replay_log, failed: None, outcomes };
    while let Ok(first) = orders.recv() {
        let mut waiting = vec![first];
        waiting.extend(orders.try_iter().take(AT_ONCE));
        let mut batch = Batch::default();
        for order in waiting {
            match order {
                Order::Append(ticket, record) => {
                    batch.tickets.push(ticket);
                    batch.records.push(record);
                }
                Order::Keep(keep, new) => {
                    desk.append(std::mem::take(&mut batch));
                    desk.keep(&keep, new);
                }
            }
        }
        desk.append(batch);
        if desk.replay_log.wants_compaction() {
            let _ = outcomes.send(Recorded::Long);
        }
    }
}

/// Records that are written in one go.
#[derive(Debug, Default)]
struct Batch {
    tickets: Vec<Ticket>,
    records: Vec<Record>,
}

/// Where the thread writes.
struct Desk<'a> {
    replay_log: ReplayLog,
    /// Why the disk knows less than the core.
    failed: Option<String>,
    outcomes: &'a mpsc::UnboundedSender<Recorded>,
}

impl Desk<'_> {
    fn append(&mut self, Batch { tickets, records }: Batch) {
        if records.is_empty() {
            return;
        }
        if self.failed.is_none() {
            self.failed = self.replay_log.append(&records).err().map(|error| in_one_line(&error));
        }
        self.tell(tickets);
    }

    fn keep(&mut self, records: &[Record], new: Vec<Ticket>) {
        match self.replay_log.compact(records) {
            Ok(()) => {
                if self.failed.take().is_some() {
                    let _ = self.outcomes.send(Recorded::CaughtUp);
                }
            }
            Err(error) if new.is_empty() && self.failed.is_none() => {
                // The old replay log is whole, and goes on.
                log::not_shortened(&error);
            }
            Err(error) => self.failed = Some(in_one_line(&error)),
        }
        if !new.is_empty() {
            self.tell(new);
        }
        let _ = self.outcomes.send(Recorded::Kept);
    }

    fn tell(&self, tickets: Vec<Ticket>) {
        let told = match &self.failed {
            None => Recorded::Held(tickets),
            Some(why) => Recorded::Failed(tickets, why.clone()),
        };
        let _ = self.outcomes.send(told);
    }
}

#[cfg(test)]
pub(crate) mod tests;
