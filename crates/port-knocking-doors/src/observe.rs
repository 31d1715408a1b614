//! What happened, and who is told of it.
//!
//! ```text
//!   engine ──► Event ──► observe ─┬─► log        a line, or one of many in a sum
//!   daemon ──► line ──────────────┘
//! ```
//!
//! The engine emits everything that happens; each observer takes what it is for. Nothing logs on the network thread
//! but through this: lines are written by a thread of their own.

pub(crate) mod event_log;
pub(crate) mod log;
mod log_writer;
pub(crate) mod subscriber;
mod throttle;

use std::{io, time::Duration};

use doors_core::{engine::Event, time::Moment};

use self::event_log::EventLog;

/// Is told of everything that happens. What it does with it must not block.
pub(crate) trait Observer {
    /// This has happened.
    fn event(&mut self, event: &Event, now: Moment);

    /// Lets time pass.
    fn handle_timeout(&mut self, now: Moment);

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    fn next_deadline(&self) -> Option<Moment>;
}

/// All observers.
#[derive(Debug)]
pub(crate) struct Observe {
    log: EventLog,
}

impl Observe {
    /// Starts the thread that writes the log.
    pub(crate) fn start() -> io::Result<Self> {
        Ok(Self { log: EventLog::start()? })
    }

    /// Tells all observers.
    pub(crate) fn event(&mut self, event: &Event, now: Moment) {
        self.observers().for_each(|observer| observer.event(event, now));
    }

    /// Writes a line that is about no event of the engine.
    pub(crate) fn line(&mut self, line: impl FnOnce() + Send + 'static) {
        self.log.line(line);
    }

    /// Lets time pass.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        self.observers().for_each(|observer| observer.handle_timeout(now));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    pub(crate) fn next_deadline(&mut self) -> Option<Moment> {
        self.observers().filter_map(|observer| observer.next_deadline()).min()
    }

    /// Writes what waits, for at most so long.
    pub(crate) fn end(self, patience: Duration) {
        self.log.end(patience);
    }

    /// A new one is added here.
    fn observers(&mut self) -> impl Iterator<Item = &mut dyn Observer> {
        [&mut self.log as &mut dyn Observer].into_iter()
    }
}
