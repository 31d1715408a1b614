//! Passes every event to the observers; the log is one of them.
//!
//! ```text
//!   engine ────► Event ──► observe ─┬─► log      one line, or part of a summary
//!   firewall ──► News ─────┤        ├─► facts    counts, and the last of each kind: for `status`
//!   daemon ────► line ─────┘        └─► watch    those who watch
//! ```
//!
//! The engine emits every event; each observer picks the ones that it is for. The network thread logs only through
//! this module, and a thread writes the lines.

pub(crate) mod event_log;
pub(crate) mod facts;
pub(crate) mod log;
mod log_writer;
pub(crate) mod subscriber;
mod throttle;
pub(crate) mod watch;
pub(crate) mod words;

use std::{io, time::Duration};

use doors_core::{engine::Event, spa::client::Clients, time::Moment};
use doors_firewall::News;
use doors_os::clock::Clock;
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;

use self::{
    event_log::EventLog,
    facts::Facts,
    watch::{Seen, Watch, Watched},
};

/// Receives every event. It must not block.
pub(crate) trait Observer {
    /// Handles one event.
    fn event(&mut self, event: &Event, now: Moment);

    /// Handles deadlines that have passed.
    fn handle_timeout(&mut self, _now: Moment) {}

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    fn next_deadline(&self) -> Option<Moment> {
        None
    }
}

/// All observers of the daemon.
#[derive(Debug)]
pub(crate) struct Observe {
    log: EventLog,
    facts: Facts,
    watch: Watch,
    /// The level that was set by command, and until when; for ever for `None`.
    level: Option<(LevelFilter, Option<Moment>)>,
}

impl Observe {
    /// Starts the thread that writes the log.
    pub(crate) fn start(clock: Clock) -> io::Result<Self> {
        Ok(Self { log: EventLog::start()?, facts: Facts::default(), watch: Watch::new(clock), level: None })
    }

    /// What happened since the start.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Tells one more what happens. Returns whether there was room for it.
    pub(crate) fn watch(&mut self, watched: Watched, queue: mpsc::Sender<Seen>, is_root: bool) -> bool {
        self.watch.add(watched, queue, is_root)
    }

    /// These clients are in force.
    pub(crate) fn follow(&mut self, clients: &Clients) {
        self.facts.follow(clients);
    }

    /// Passes news of the firewall to all observers.
    pub(crate) fn news(&mut self, news: News, now: Moment) {
        self.facts.news(&news, now);
        self.watch.news(&news, now);
        self.log.line(move || log::news(&news));
    }

    /// Passes an event to all observers.
    pub(crate) fn event(&mut self, event: &Event, now: Moment) {
        self.observers().for_each(|observer| observer.event(event, now));
    }

    /// Writes a line that does not come from an event of the engine.
    pub(crate) fn line(&mut self, line: impl FnOnce() + Send + 'static) {
        self.log.line(line);
    }

    /// Logs at another level, until it is set again or that moment comes.
    pub(crate) fn set_level(&mut self, level: LevelFilter, until: Option<Moment>, user: u32) {
        self.level = Some((level, until));
        self.line(move || {
            // Before: nothing may be logged any more after.
            log::level_set(level, user);
            subscriber::set_level(Some(level));
        });
    }

    /// The level that was set by command, if one was.
    pub(crate) fn level(&self) -> Option<LevelFilter> {
        self.level.map(|(level, _)| level)
    }

    fn level_ends(&self) -> Option<Moment> {
        self.level.and_then(|(_, until)| until)
    }

    /// Handles deadlines that have passed.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        if self.level_ends().is_some_and(|end| end <= now) {
            self.level = None;
            self.line(|| {
                subscriber::set_level(None);
                log::level_unset();
            });
        }
        self.observers().for_each(|observer| observer.handle_timeout(now));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    pub(crate) fn next_deadline(&mut self) -> Option<Moment> {
        let level_ends = self.level_ends();
        self.observers().filter_map(|observer| observer.next_deadline()).chain(level_ends).min()
    }

    /// Writes the queued lines, waiting at most `timeout`.
    pub(crate) fn end(self, timeout: Duration) {
        self.log.end(timeout);
    }

    /// Add a new observer here.
    fn observers(&mut self) -> impl Iterator<Item = &mut dyn Observer> {
        [&mut self.log as &mut dyn Observer, &mut self.facts, &mut self.watch].into_iter()
    }
}
