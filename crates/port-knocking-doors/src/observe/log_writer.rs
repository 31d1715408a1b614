//! Writes the log in a thread: a journal or a pipe that blocks for a while delays no knock.
//!
//! ```text
//!   daemon ──► bounded queue of lines ──► log writer ──► journal, or standard error
//! ```

use std::{io, sync::mpsc, time::Duration};

use doors_os::worker::Worker;

use super::log;

/// The length of the queue: more lines than the daemon logs in some minutes, whatever strangers send.
const QUEUE_LENGTH: usize = 4096;

/// A line to be written.
type Line = Box<dyn FnOnce() + Send>;

/// The daemon's side of the queue.
#[derive(Debug)]
pub(crate) struct LogWriter {
    thread: Worker<Line>,
    lost: u64,
}

impl LogWriter {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let write = |lines: &mpsc::Receiver<Line>| lines.iter().for_each(|line| line());
        Ok(Self { thread: Worker::start("log", QUEUE_LENGTH, write)?, lost: 0 })
    }

    /// Queues a line. If the queue is full, the line is only counted.
    pub(crate) fn write(&mut self, line: impl FnOnce() + Send + 'static) {
        if self.lost > 0 {
            let lost = self.lost;
            if self.thread.hand(Box::new(move || log::lines_lost(lost))).is_ok() {
                self.lost = 0;
            }
        }
        if self.lost > 0 || self.thread.hand(Box::new(line)).is_err() {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Writes the queued lines, waiting at most `timeout`.
    pub(crate) fn end(self, timeout: Duration) {
        self.thread.end(timeout);
    }
}
