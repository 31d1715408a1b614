//! The service for clients with keys: the gateway's key, the memory of what was accepted, and the core's
//! server, put together from the configuration.

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

/// After a failure, the next try comes this much later.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A disk that has not answered for so long is named in the log.
const SLOW_AFTER: Duration = Duration::from_secs(3);

/// What runs for clients with keys. Nothing in here waits for a disk: threads do, and sequences are heard meanwhile.
///
/// ```text
///   Key, by the reader ──► ReplayLog, by a thread of its own ──► Settled: clients are heard
///        └──────────► Missing, and ten seconds later again ◄──┘
/// ```
#[derive(Debug)]
pub(crate) struct SpaService {
    clock: Clock,
    stage: Stage,
    /// Runs from the first client on, until the end.
    replay_writer: Option<ReplayWriter>,
    /// Whether the clients in force are heard, and not only none.
    has_clients: bool,
    /// The disk knows less than the core. When it is tried again, if no client comes before.
    behind: Option<Moment>,
    /// The replay writer has been given all that is remembered, and has not said what became of it.
    is_keeping: bool,
    /// Why clients are not heard, as the log says; `None` if they are.
    said: Option<String>,
}

/// How far the clients of the configuration in force have come.
#[derive(Debug)]
enum Stage {
    /// They are heard, or there are none.
    Settled,
    /// The gateway's key is being read.
    Key(Pending),
    /// The replay log is being opened, for these to be heard.
    ReplayLog(Pending, ServerConfig, oneshot::Receiver<Result<Begun, SpaServiceError>>),
    /// One of both could not be had; the replay log, if there is a configuration. When it is tried again.
    Missing(Arc<KeyAccess>, Option<ServerConfig>, Moment),
}

/// What a disk has not given yet.
#[derive(Debug)]
struct Pending {
    access: Arc<KeyAccess>,
    /// Since when, while the log has not said it.
    unsaid_since: Option<Moment>,
}

/// What there is to hear from the replay log.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It is open, or cannot be opened.
    Opened(Result<Box<Begun>, SpaServiceError>),
    /// What became of what was written.
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
    /// Without any clients.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            stage: Stage::Settled,
            replay_writer: None,
            has_clients: false,
            behind: None,
            is_keeping: false,
            said: None,
        }
    }

    /// The gateway's key is being read for these clients, for [`listen`](Self::listen).
    pub(crate) fn await_key(&mut self, access: Arc<KeyAccess>) {
        self.stage = Stage::Key(Pending { access, unsaid_since: Some(self.clock.now()) });
    }

    /// Whether what is accepted is written down. From then on it is until the end.
    pub(crate) fn is_recording(&self) -> bool {
        self.replay_writer.is_some()
    }

    /// Whether clients are heard.
    pub(crate) fn is_hearing(&self) -> bool {
        self.has_clients
    }

    /// How clients with keys stand.
    pub(crate) fn status(&self) -> KeyStatus {
        match self.stage {
            Stage::Settled => KeyStatus::Heard,
            Stage::Key(_) | Stage::ReplayLog(..) => KeyStatus::Pending,
            Stage::Missing(..) => KeyStatus::Missing,
        }
    }

    /// If clients are not heard, the log says why once more.
    pub(crate) fn say_again(&mut self) {
        self.said = self.said.take().map(|_| String::new());
    }

    /// Listens to these clients as soon as what they need is there; says if it cannot be had, and tries again later.
    /// Knocks of a sequence are heard in any case, and the doors are guarded. Gives the clients before: to let go of
    /// many takes time.
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
                self.has_clients = false;
                engine.set_server_config(ServerConfig::default())
            }
        }
    }

    /// Opens the replay log, then to listen to these clients. If it is being opened, that is what is waited for.
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
                let pending = Pending { access, unsaid_since: Some(self.clock.now()) };
                self.stage = Stage::ReplayLog(pending, config, opened);
            }
            Err(error) => {
                let error = ReplayWriterError::Thread(error).into();
                self.miss(access, Some(config), &error, observe);
            }
        }
    }

    /// Listens to these clients from here on.
    fn apply(
        &mut self,
        engine: &mut Engine,
        config: ServerConfig,
        observe: &mut Observe,
    ) -> Option<ServerConfig> {
        self.stage = Stage::Settled;
        self.has_clients = !config.clients.is_empty();
        if self.said.take().is_some() && self.has_clients {
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
        if self.said.as_ref() != Some(&why) {
            let why = why.clone();
            observe.line(move || log::clients_not_heard(&why));
        }
        self.said = Some(why);
        self.stage = Stage::Missing(access, config, self.clock.now().after(RETRY_AFTER));
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do. Keys can be read only if the reader is free.
    pub(crate) fn next_deadline(&self, is_reader_free: bool) -> Option<Moment> {
        let stage = match &self.stage {
            Stage::Settled => None,
            Stage::Key(pending) | Stage::ReplayLog(pending, ..) => {
                pending.unsaid_since.map(|since| since.after(SLOW_AFTER))
            }
            Stage::Missing(_, config, again) => (config.is_some() || is_reader_free).then_some(*again),
        };
        stage.into_iter().chain(self.behind).min()
    }

    /// Tries again what has failed, and says which disk does not answer. Gives the clients for which the gateway's key is
    /// to be read now, if that is what is missing and the reader is free.
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
            self.said.get_or_insert_default();
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

    /// What has not answered for too long, once.
    fn slow(&mut self, now: Moment) -> Option<PathBuf> {
        let (pending, path): (_, fn(&KeyAccess) -> &PathBuf) = match &mut self.stage {
            Stage::Settled | Stage::Missing(..) => return None,
            Stage::Key(pending) => (pending, |access| &access.gateway_key),
            Stage::ReplayLog(pending, ..) => (pending, |access| &access.state_dir),
        };
        pending.unsaid_since.take_if(|since| since.after(SLOW_AFTER) <= now)?;
        Some(path(&pending.access).clone())
    }

    /// Gives the disk once more what it could not take: a knock of which nothing is there could be let in again
    /// after a restart.
    fn catch_up(&mut self, engine: &Engine, now: Moment) {
        self.keep(engine);
        self.behind = Some(now.after(RETRY_AFTER));
    }

    /// Has the disk hold all that is remembered, if it is not at that already: of a disk that hangs, copies of all must
    /// not pile up.
    fn keep(&mut self, engine: &Engine) {
        if let (Some(replay_writer), false) = (&mut self.replay_writer, self.is_keeping) {
            replay_writer.keep(remembered(engine), Vec::new());
            self.is_keeping = true;
        }
    }

    /// Ends in order: what the disk could not take so far is given to it once more.
    pub(crate) async fn end(self, engine: &Engine, timeout: Duration) {
        let (Some(mut replay_writer), Some(_)) = (self.replay_writer, self.behind) else { return };
        replay_writer.keep(remembered(engine), Vec::new());
        // A disk that hangs must not keep the daemon from stopping.
        let _ = tokio::time::timeout(timeout, replay_writer.end()).await;
    }

    /// Hands over what has to be on disk. The rest stays in the core until there is room.
    pub(crate) fn forward(&mut self, engine: &mut Engine) {
        let Some(replay_writer) = &mut self.replay_writer else { return };
        let next = || engine.poll_record();
        let new: Vec<(Ticket, Record)> = std::iter::from_fn(next).take(replay_writer.room()).collect();
        if new.is_empty() {
            return;
        }
        match self.behind.is_some() && !self.is_keeping {
            // With these comes all that the disk has not taken before.
            true => {
                let tickets = new.into_iter().map(|(ticket, _)| ticket).collect();
                replay_writer.keep(remembered(engine), tickets);
                self.is_keeping = true;
            }
            // They come after what the disk is given already.
            false => new.into_iter().for_each(|(ticket, record)| replay_writer.append(ticket, record)),
        }
    }

    /// The next that there is to hear from the replay log; never if there is none. `None` if its thread has ended.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        match (&mut self.stage, &mut self.replay_writer) {
            (Stage::ReplayLog(_, _, opened), _) => Some(Heard::Opened(opened.await.ok()?.map(Box::new))),
            (_, Some(replay_writer)) => replay_writer.next().await.map(Heard::Recorded),
            (_, None) => std::future::pending().await,
        }
    }

    /// Takes what there is to hear from the replay log.
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

/// All that has to be on the disk.
fn remembered(engine: &Engine) -> Vec<Record> {
    engine.server().map(|server| server.replay().records().collect()).unwrap_or_default()
}
