//! Writes the log of what comes from outside, in a thread of its own: a journal or a pipe that takes nothing
//! for a while holds up no knock.
//!
//! ```text
//!   daemon ──► lines, so many and no more ──► log writer ──► journal, or standard error
//! ```

use std::{io, sync::mpsc, time::Duration};

use doors_os::worker::Worker;

use super::log;

/// Lines that may wait. More than the core tells in some minutes, whatever strangers do.
const WAITING: usize = 4096;

/// A line that is going to be written.
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
        Ok(Self { thread: Worker::start("log", WAITING, write)?, lost: 0 })
    }

    /// Has a line written, behind the others. If too many wait, it is only counted.
    pub(crate) fn tell(&mut self, line: impl FnOnce() + Send + 'static) {
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

    /// Waits until everything is written, at most `timeout`.
    pub(crate) fn end(self, timeout: Duration) {
        self.thread.end(timeout);
    }
}
