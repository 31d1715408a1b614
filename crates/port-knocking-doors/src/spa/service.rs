//! The service for clients with keys: it puts together the gateway's key, the replay log and the core's server, from
//! the configuration.

mod prepare;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc, time::Duration};

use doors_core::{
    engine::Engine,
    spa::replay::Record,
    spa::server::{ServerConfig, Ticket},
    time::Moment,
};
use doors_os::{clock::Clock, worker};
use doors_text::error_chain::in_one_line;
use tokio::sync::oneshot;

pub use self::prepare::SpaServiceError;
pub(crate) use self::prepare::prepare;
use self::prepare::{Begun, begin};
use crate::{
    config::KeyAccess,
    observe::{Observe, log},
    spa::replay_writer::{Recorded, ReplayWriter, ReplayWriterError},
};

/// The pause before a retry after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// The log names a disk that has not answered for this long.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// The state of the service. No method waits for a disk: threads do, and sequences are heard meanwhile.
///
/// ```text
///   Key, by the reader ──► ReplayLog, by a thread of its own ──► Settled: clients are heard
///        └──────────► Missing, and ten seconds later again ◄──┘
/// ```
#[derive(Debug)]
pub(crate) struct SpaService {
    clock: Clock,
    stage: Stage,
    /// Runs from the first client until the daemon stops.
    replay_writer: Option<ReplayWriter>,
    /// Set while the log on disk lacks records that the core has: when to retry, unless a client comes earlier.
    behind: Option<Moment>,
    /// Whether the replay writer is writing a new log and has not reported the result.
    is_keeping: bool,
    /// The last reason in the log for why clients are not heard; `None` if they are.
    logged: Option<String>,
}

/// The progress towards hearing the clients of the configuration in force.
#[derive(Debug)]
enum Stage {
    /// They are heard, or there are none.
    Settled,
    /// The gateway's key is being read.
    Key(Pending),
    /// The replay log is being opened for this server configuration.
    ReplayLog(Pending, ServerConfig, oneshot::Receiver<Result<Begun, SpaServiceError>>),
    /// The gateway's key could not be read or, with a server configuration, the replay log not opened. The moment of
    /// the next try.
    Missing(Arc<KeyAccess>, Option<ServerConfig>, Moment),
}

/// A read that a disk has not answered yet.
#[derive(Debug)]
struct Pending {
    access: Arc<KeyAccess>,
    /// Since when, until the log has reported it.
    unlogged_since: Option<Moment>,
}

/// News from the replay log.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It is open, or could not be opened.
    Opened(Result<Box<Begun>, SpaServiceError>),
    /// The result of a write.
    Recorded(Recorded),
}

/// How clients with keys stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyStatus {
    /// They are heard, or there are none.
    Heard,
    /// A disk has not answered yet.
    Pending,
    /// They are not heard, and the log says why.
    Missing,
}

impl SpaService {
    /// A service without clients.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            stage: Stage::Settled,
            replay_writer: None,
            behind: None,
            is_keeping: false,
            logged: None,
        }
    }

    /// Notes that the gateway's key is being read for these clients; [`listen`](Self::listen) takes the result.
    pub(crate) fn await_key(&mut self, access: Arc<KeyAccess>) {
        self.stage = Stage::Key(Pending { access, unlogged_since: Some(self.clock.now()) });
    }

    /// Whether accepted requests are written down. Once true, it stays true.
    pub(crate) fn is_recording(&self) -> bool {
        self.replay_writer.is_some()
    }

    /// How clients with keys stand.
    pub(crate) fn status(&self) -> KeyStatus {
        match self.stage {
            Stage::Settled => KeyStatus::Heard,
            Stage::Key(_) | Stage::ReplayLog(..) => KeyStatus::Pending,
            Stage::Missing(..) => KeyStatus::Missing,
        }
    }

    /// Makes the log give the reason again while clients are not heard.
    pub(crate) fn say_again(&mut self) {
        self.logged = self.logged.take().map(|_| String::new());
    }

    /// Hears these clients as soon as the key and the replay log are ready; logs a failure, and retries later.
    /// Sequences are heard and the doors are guarded all the while. Returns the previous configuration, because
    /// dropping many clients takes time.
    pub(crate) fn listen(
        &mut self,
        engine: &mut Engine,
        access: Option<Arc<KeyAccess>>,
        prepared: Result<ServerConfig, SpaServiceError>,
        observe: &mut Observe,
    ) -> Option<ServerConfig> {
        match (prepared, access) {
            (Ok(config), Some(access)) if !self.is_recording() => {
                self.open(access, config, observe);
                None
            }
            (Ok(config), _) => self.apply(engine, config, observe),
            (Err(error), access) => {
                if let Some(access) = access {
                    self.miss(access, None, &error, observe);
                }
                engine.set_server_config(ServerConfig::default())
            }
        }
    }

    /// Opens the replay log in a thread, to hear these clients afterwards. If it is being opened already, only
    /// replaces the clients.
    fn open(&mut self, access: Arc<KeyAccess>, config: ServerConfig, observe: &mut Observe) {
        if let Stage::ReplayLog(pending, waiting, _) = &mut self.stage
            && pending.access.state_dir == access.state_dir
        {
            (pending.access, *waiting) = (access, config);
            return;
        }
        let (for_thread, clock) = (Arc::clone(&access), self.clock);
        match worker::once("replay-log", move || begin(&for_thread, clock)) {
            Ok(opened) => {
                let pending = Pending { access, unlogged_since: Some(self.clock.now()) };
                self.stage = Stage::ReplayLog(pending, config, opened);
            }
            Err(error) => {
                let error = ReplayWriterError::Thread(error).into();
                self.miss(access, Some(config), &error, observe);
            }
        }
    }

    /// Makes the engine hear these clients.
    fn apply(
        &mut self,
        engine: &mut Engine,
        config: ServerConfig,
        observe: &mut Observe,
    ) -> Option<ServerConfig> {
        self.stage = Stage::Settled;
        if self.logged.take().is_some() && !config.clients.is_empty() {
            observe.line(log::clients_heard);
        }
        engine.set_server_config(config)
    }

    fn miss(
        &mut self,
        access: Arc<KeyAccess>,
        config: Option<ServerConfig>,
        error: &SpaServiceError,
        observe: &mut Observe,
    ) {
        let why = in_one_line(error);
        if self.logged.as_ref() != Some(&why) {
            let why = why.clone();
            observe.line(move || log::clients_not_heard(&why));
        }
        self.logged = Some(why);
        self.stage = Stage::Missing(access, config, self.clock.now().after(RETRY_AFTER));
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due. Keys can be read only while the reader is free.
    pub(crate) fn next_deadline(&self, is_reader_free: bool) -> Option<Moment> {
        let stage = match &self.stage {
            Stage::Settled => None,
            Stage::Key(pending) | Stage::ReplayLog(pending, ..) => {
                pending.unlogged_since.map(|since| since.after(SLOW_AFTER))
            }
            Stage::Missing(_, config, again) => (config.is_some() || is_reader_free).then_some(*again),
        };
        stage.into_iter().chain(self.behind).min()
    }

    /// Retries what has failed, and logs a disk that does not answer. If the gateway's key is missing and the reader
    /// is free, returns the clients for which to read it.
    pub(crate) fn handle_timeout(
        &mut self,
        engine: &Engine,
        is_reader_free: bool,
        observe: &mut Observe,
    ) -> Option<Arc<KeyAccess>> {
        let now = self.clock.now();
        if self.behind.is_some_and(|at| at <= now) {
            self.catch_up(engine, now);
        }
        if let Some(path) = self.slow(now) {
            self.logged.get_or_insert_default();
            observe.line(move || log::clients_not_heard_yet(&path, SLOW_AFTER));
        }
        match std::mem::replace(&mut self.stage, Stage::Settled) {
            Stage::Missing(access, Some(config), again) if again <= now => {
                self.open(access, config, observe);
            }
            Stage::Missing(access, None, again) if again <= now && is_reader_free => {
                self.await_key(Arc::clone(&access));
                return Some(access);
            }
            stage => self.stage = stage,
        }
        None
    }

    /// The path that has not been readable for too long; each read is reported once.
    fn slow(&mut self, now: Moment) -> Option<PathBuf> {
        let (pending, path): (_, fn(&KeyAccess) -> &PathBuf) = match &mut self.stage {
            Stage::Settled | Stage::Missing(..) => return None,
            Stage::Key(pending) => (pending, |access| &access.gateway_key),
            Stage::ReplayLog(pending, ..) => (pending, |access| &access.state_dir),
        };
        pending.unlogged_since.take_if(|since| since.after(SLOW_AFTER) <= now)?;
        Some(path(&pending.access).clone())
    }

    /// Retries the write that failed: a knock that is not on disk could be replayed after a restart.
    fn catch_up(&mut self, engine: &Engine, now: Moment) {
        self.keep(engine);
        self.behind = Some(now.after(RETRY_AFTER));
    }

    /// Writes a new log with everything that is remembered, unless one is being written: on a hanging disk, copies
    /// must not pile up.
    fn keep(&mut self, engine: &Engine) {
        if let (Some(replay_writer), false) = (&mut self.replay_writer, self.is_keeping) {
            replay_writer.keep(remembered(engine), Vec::new());
            self.is_keeping = true;
        }
    }

    /// Stops in order: retries the write that failed.
    pub(crate) async fn end(self, engine: &Engine, timeout: Duration) {
        let (Some(mut replay_writer), Some(_)) = (self.replay_writer, self.behind) else { return };
        replay_writer.keep(remembered(engine), Vec::new());
        // A disk that hangs must not keep the daemon from stopping.
        let _ = tokio::time::timeout(timeout, replay_writer.end()).await;
    }

    /// Passes records to the replay writer. The rest stays in the core until there is room.
    pub(crate) fn forward(&mut self, engine: &mut Engine) {
        let Some(replay_writer) = &mut self.replay_writer else { return };
        let next = || engine.poll_record();
        let new: Vec<(Ticket, Record)> = std::iter::from_fn(next).take(replay_writer.room()).collect();
        if new.is_empty() {
            return;
        }
        match self.behind.is_some() && !self.is_keeping {
            // Write a new log with everything that is missing on disk, including these records.
            true => {
                let tickets = new.into_iter().map(|(ticket, _)| ticket).collect();
                replay_writer.keep(remembered(engine), tickets);
                self.is_keeping = true;
            }
            // They follow what the writer already has.
            false => new.into_iter().for_each(|(ticket, record)| replay_writer.append(ticket, record)),
        }
    }

    /// The next news from the replay log; waits for ever without one. `None` if its thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        match (&mut self.stage, &mut self.replay_writer) {
            (Stage::ReplayLog(_, _, opened), _) => Some(Heard::Opened(opened.await.ok()?.map(Box::new))),
            (_, Some(replay_writer)) => replay_writer.next().await.map(Heard::Recorded),
            (_, None) => std::future::pending().await,
        }
    }

    /// Handles news from the replay log.
    pub(crate) fn hear(&mut self, engine: &mut Engine, heard: Heard, observe: &mut Observe) {
        match heard {
            Heard::Opened(opened) => self.opened(engine, opened, observe),
            Heard::Recorded(recorded) => self.recorded(engine, recorded, observe),
        }
    }

    fn opened(
        &mut self,
        engine: &mut Engine,
        opened: Result<Box<Begun>, SpaServiceError>,
        observe: &mut Observe,
    ) {
        let stage = std::mem::replace(&mut self.stage, Stage::Settled);
        let Stage::ReplayLog(Pending { access, .. }, config, _) = stage else { return };
        match opened.map(|begun| *begun) {
            Ok((replay_writer, server)) => {
                engine.set_server(server);
                self.replay_writer = Some(replay_writer);
                self.apply(engine, config, observe);
            }
            Err(error) => self.miss(access, Some(config), &error, observe),
        }
    }

    fn recorded(&mut self, engine: &mut Engine, recorded: Recorded, observe: &mut Observe) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let mut confirm = |tickets: Vec<Ticket>, held| {
            tickets.into_iter().for_each(|ticket| engine.handle_recorded(ticket, held, now, wall));
        };
        match recorded {
            Recorded::Held(tickets) => confirm(tickets, true),
            Recorded::Failed(tickets, why) => {
                observe.line(move || log::not_recorded(&why));
                self.behind = self.behind.or_else(|| Some(now.after(RETRY_AFTER)));
                confirm(tickets, false);
            }
            Recorded::CaughtUp => self.behind = None,
            Recorded::Kept => self.is_keeping = false,
            Recorded::Long => self.keep(engine),
        }
    }
}

/// All records that have to be on disk.
fn remembered(engine: &Engine) -> Vec<Record> {
    engine.server().map(|server| server.replay().records().collect()).unwrap_or_default()
}
