//! The service for clients with keys: the gateway's key, the memory of what was accepted, and the core's
//! server, put together from the configuration.

use std::{path::PathBuf, sync::Arc, time::Duration};

use doors_core::{
    engine::Engine,
    spa::challenge::RunKey,
    spa::prefilter::{Lasting, Recognition},
    spa::replay::{Record, ReplayGuard},
    spa::server::{ServerConfig, SpaServer, Ticket},
    time::{Moment, Wall},
};
use doors_os::clock::Clock;
use doors_spa::gateway::{Gateway, GatewayKey};
use doors_text::error_chain::in_one_line;
use rand_core::TryRng as _;
use tokio::time::Instant;

use crate::{
    config::KeyAccess,
    observe::log,
    spa::gateway_key::{self, KeyError},
    spa::replay_writer::{Recorded, ReplayWriter, ReplayWriterError},
};

/// Why clients with keys cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum SpaServiceError {
    /// The gateway's key.
    #[error("there are clients with keys, and the gateway's own key cannot be used")]
    Key(#[from] KeyError),
    /// A key that no arithmetic can use.
    #[error("the gateway key {} is no key; make another: port-knocking-doors gateway rotate", .0.display())]
    NoKey(PathBuf),
    /// The state.
    #[error(transparent)]
    ReplayWriter(#[from] ReplayWriterError),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// After a failure, the next try comes this much later.
const AGAIN: Duration = Duration::from_secs(10);

/// What runs for clients with keys.
#[derive(Debug, Default)]
pub(crate) struct SpaService {
    /// Runs from the first client on, until the end.
    replay_writer: Option<ReplayWriter>,
    /// The disk knows less than the core. When it is tried again, if no client comes before.
    behind: Option<Moment>,
    /// The replay writer has been given all that is remembered, and has not said what became of it.
    is_keeping: bool,
    /// What could not be had so far.
    missing: Option<Missing>,
}

/// Clients that are not heard.
#[derive(Debug)]
struct Missing {
    access: Arc<KeyAccess>,
    /// When it is tried again.
    again: Instant,
    /// What was said of it.
    why: String,
}

/// All that can fail has not.
#[derive(Debug)]
pub(crate) struct Prepared {
    config: ServerConfig,
    first: Option<(ReplayWriter, SpaServer)>,
}

/// Gets everything ready that the clients of a configuration need. Nothing changes yet. What is remembered of
/// knocks is read if nothing is `recording` yet.
pub(crate) fn prepare(
    access: Option<&KeyAccess>,
    recording: bool,
    clock: Clock,
) -> Result<Prepared, SpaServiceError> {
    let Some(access) = access else {
        return Ok(Prepared { config: ServerConfig::default(), first: None });
    };
    let config = ServerConfig {
        port: access.port,
        clients: Arc::clone(&access.clients),
        recognition: Recognition::new(&gateways(access)?, &access.clients),
        window: access.window,
    };
    let first = match recording {
        true => None,
        false => Some(begin(access, clock)?),
    };
    Ok(Prepared { config, first })
}

impl SpaService {
    /// Whether what is accepted is written down. From then on it is until the end.
    pub(crate) fn is_recording(&self) -> bool {
        self.replay_writer.is_some()
    }

    /// Listens to these clients from here on. Gives those before: to let go of many takes time.
    pub(crate) fn apply(&mut self, engine: &mut Engine, prepared: Prepared) -> Option<ServerConfig> {
        if let Some((replay_writer, server)) = prepared.first {
            engine.receive_clients(server);
            self.replay_writer = Some(replay_writer);
        }
        let some = !prepared.config.clients.is_empty();
        let before = engine.change_audience(prepared.config);
        if self.missing.take().is_some() && some {
            log::clients_heard();
        }
        before
    }

    /// Listens to these clients if what they need could be had; else says why not, and tries again later. Knocks
    /// of a sequence are heard in any case, and the doors are guarded.
    pub(crate) fn listen(
        &mut self,
        engine: &mut Engine,
        access: Option<&Arc<KeyAccess>>,
        prepared: Result<Prepared, SpaServiceError>,
    ) {
        match prepared {
            Ok(prepared) => {
                self.apply(engine, prepared);
            }
            Err(error) => {
                let why = in_one_line(&error);
                if self.missing.as_ref().is_none_or(|missing| missing.why != why) {
                    log::clients_not_heard(&why);
                }
                let again = Instant::now().checked_add(AGAIN);
                let missing = access.cloned().zip(again);
                self.missing = missing.map(|(access, again)| Missing { access, again, why });
            }
        }
    }

    /// When it is time to try again; `None` if nothing is missing.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.missing.as_ref().map(|missing| missing.again)
    }

    /// The clients that are not heard.
    pub(crate) fn missing(&self) -> Option<Arc<KeyAccess>> {
        self.missing.as_ref().map(|missing| Arc::clone(&missing.access))
    }

    /// When it is time to [`catch_up`](Self::catch_up); `None` if the disk holds all, as far as is known.
    pub(crate) fn catch_up_at(&self) -> Option<Moment> {
        self.behind
    }

    /// Gives the disk once more what it could not take: a knock of which nothing is there could be let in again
    /// after a restart.
    pub(crate) fn catch_up(&mut self, engine: &Engine, now: Moment) {
        self.keep(engine);
        self.behind = Some(now.after(AGAIN));
    }

    /// Has the disk hold all that is remembered, if it is not at that already: of a disk that hangs, copies of all must
    /// not pile up.
    fn keep(&mut self, engine: &Engine) {
        if let (Some(replay_writer), false) = (&self.replay_writer, self.is_keeping) {
            replay_writer.keep(remembered(engine), Vec::new());
            self.is_keeping = true;
        }
    }

    /// Ends in order: what the disk could not take so far is given to it once more.
    pub(crate) async fn end(self, engine: &Engine, patience: Duration) {
        let (Some(replay_writer), Some(_)) = (self.replay_writer, self.behind) else { return };
        replay_writer.keep(remembered(engine), Vec::new());
        // A disk that hangs must not keep the daemon from stopping.
        let _ = tokio::time::timeout(patience, replay_writer.end()).await;
    }

    /// Hands over what has to be on disk.
    pub(crate) fn forward(&mut self, engine: &mut Engine) {
        let Some(replay_writer) = &self.replay_writer else { return };
        let new: Vec<(Ticket, Record)> = std::iter::from_fn(|| engine.poll_record()).collect();
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

    /// The next that the replay writer has to say; never if there is none.
    pub(crate) async fn next(&mut self) -> Option<Recorded> {
        match &mut self.replay_writer {
            Some(replay_writer) => replay_writer.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what the replay writer says.
    pub(crate) fn hear(&mut self, engine: &mut Engine, recorded: Recorded, clock: Clock) {
        match recorded {
            Recorded::Held(tickets) => confirm(engine, tickets, true, clock),
            Recorded::Failed(tickets, why) => {
                log::not_recorded(&why);
                self.behind = self.behind.or_else(|| Some(clock.now().after(AGAIN)));
                confirm(engine, tickets, false, clock);
            }
            Recorded::CaughtUp => self.behind = None,
            Recorded::Kept => self.is_keeping = false,
            Recorded::Long => self.keep(engine),
        }
    }
}

fn confirm(engine: &mut Engine, tickets: Vec<Ticket>, held: bool, clock: Clock) {
    tickets.into_iter().for_each(|ticket| engine.handle_recorded(ticket, held, clock.now(), clock.wall()));
}

/// All that has to be on the disk.
fn remembered(engine: &Engine) -> Vec<Record> {
    engine.server().map(|server| server.replay().records().collect()).unwrap_or_default()
}

/// Begins to remember.
fn begin(access: &KeyAccess, clock: Clock) -> Result<(ReplayWriter, SpaServer), SpaServiceError> {
    let key = run_key()?;
    let (now, wall) = (clock.now(), clock.wall());
    let lost = ReplayGuard::lost(wall);
    let (replay_writer, loaded) = ReplayWriter::start(&access.state_dir, &[lost])?;
    if !loaded.found {
        log::memory_lost(&access.state_dir);
    }
    let replay = ReplayGuard::new(access.window, &loaded.records, now, wall);
    Ok((replay_writer, SpaServer::new(key, replay)))
}

/// The gateway's keys, ready to open knocks.
fn gateways(access: &KeyAccess) -> Result<Vec<Lasting>, SpaServiceError> {
    let keys = gateway_key::load(&access.gateway_key)?;
    let ready = |key: &GatewayKey| {
        let gateway = Gateway::new(key).map(Arc::new);
        gateway.ok_or_else(|| SpaServiceError::NoKey(access.gateway_key.clone()))
    };
    let mut gateways: Vec<Lasting> = vec![(ready(&keys.current)?, None)];
    if let Some((previous, until)) = &keys.previous {
        gateways.push((ready(previous)?, Some(Wall(until.saturating_mul(1000)))));
    }
    Ok(gateways)
}

fn run_key() -> Result<RunKey, SpaServiceError> {
    let mut key = RunKey([0; 32]);
    getrandom::SysRng.try_fill_bytes(&mut key.0).map_err(SpaServiceError::Random)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
