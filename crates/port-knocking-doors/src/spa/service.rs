//! The entrance for clients with keys: the gateway's key, the memory of what was accepted, and the core's
//! reception, put together from the configuration.

use std::{path::PathBuf, sync::Arc, time::Duration};

use doors_core::{
    engine::Doorkeeper,
    spa::challenge::RunKey,
    spa::prefilter::{Lasting, Recognition},
    spa::replay::{Freshness, Record},
    spa::server::{Audience, Reception},
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
    spa::replay_writer::{Recorded, Recorder, RecorderError},
};

/// Why clients with keys cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The gateway's key.
    #[error("there are clients with keys, and the gateway's own key cannot be used")]
    Key(#[from] KeyError),
    /// A key that no arithmetic can use.
    #[error("the gateway key {} is no key; make another: port-knocking-doors gateway rotate", .0.display())]
    NoKey(PathBuf),
    /// The state.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
}

/// After a failure, the next try comes this much later.
const AGAIN: Duration = Duration::from_secs(10);

/// What runs for clients with keys.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// Runs from the first client on, until the end.
    recorder: Option<Recorder>,
    /// The disk knows less than the core. When it is tried again, if no client comes before.
    behind: Option<Moment>,
    /// The recorder has been given all that is remembered, and has not said what became of it.
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
    audience: Audience,
    first: Option<(Recorder, Reception)>,
}

/// Gets everything ready that the clients of a configuration need. Nothing changes yet. What is remembered of
/// knocks is read if nothing is `recording` yet.
pub(crate) fn prepare(
    access: Option<&KeyAccess>,
    recording: bool,
    clock: Clock,
) -> Result<Prepared, EntranceError> {
    let Some(access) = access else {
        return Ok(Prepared { audience: Audience::default(), first: None });
    };
    let audience = Audience {
        port: access.port,
        clients: Arc::clone(&access.clients),
        recognition: Recognition::new(&gateways(access)?, &access.clients),
        window: access.window,
    };
    let first = match recording {
        true => None,
        false => Some(begin(access, clock)?),
    };
    Ok(Prepared { audience, first })
}

impl Entrance {
    /// Whether what is accepted is written down. From then on it is until the end.
    pub(crate) fn is_recording(&self) -> bool {
        self.recorder.is_some()
    }

    /// Listens to these clients from here on. Gives those before: to let go of many takes time.
    pub(crate) fn apply(
        &mut self,
        keeper: &mut Doorkeeper,
        prepared: Prepared,
        now: Moment,
    ) -> Option<Audience> {
        if let Some((recorder, reception)) = prepared.first {
            keeper.receive_clients(reception);
            self.recorder = Some(recorder);
        }
        let some = !prepared.audience.clients.is_empty();
        let before = keeper.change_audience(prepared.audience, now);
        if self.missing.take().is_some() && some {
            log::clients_heard();
        }
        before
    }

    /// Listens to these clients if what they need could be had; else says why not, and tries again later. Knocks
    /// of a sequence are heard in any case, and the doors are guarded.
    pub(crate) fn listen(
        &mut self,
        keeper: &mut Doorkeeper,
        access: Option<&Arc<KeyAccess>>,
        prepared: Result<Prepared, EntranceError>,
        now: Moment,
    ) {
        match prepared {
            Ok(prepared) => {
                self.apply(keeper, prepared, now);
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
    pub(crate) fn catch_up(&mut self, keeper: &Doorkeeper, now: Moment) {
        self.keep(keeper);
        self.behind = Some(now.after(AGAIN));
    }

    /// Has the disk hold all that is remembered, if it is not at that already: of a disk that hangs, copies of all must
    /// not pile up.
    fn keep(&mut self, keeper: &Doorkeeper) {
        if let (Some(recorder), false) = (&self.recorder, self.is_keeping) {
            recorder.keep(remembered(keeper), 0);
            self.is_keeping = true;
        }
    }

    /// Ends in order: what the disk could not take so far is given to it once more.
    pub(crate) async fn end(self, keeper: &Doorkeeper, patience: Duration) {
        let (Some(recorder), Some(_)) = (self.recorder, self.behind) else { return };
        recorder.keep(remembered(keeper), 0);
        // A disk that hangs must not keep the daemon from stopping.
        let _ = tokio::time::timeout(patience, recorder.end()).await;
    }

    /// Hands over what has to be on disk.
    pub(crate) fn forward(&mut self, keeper: &mut Doorkeeper) {
        let Some(recorder) = &self.recorder else { return };
        let new: Vec<Record> = std::iter::from_fn(|| keeper.poll_record()).collect();
        if new.is_empty() {
            return;
        }
        match self.behind.is_some() && !self.is_keeping {
            // With these comes all that the disk has not taken before.
            true => {
                recorder.keep(remembered(keeper), new.len());
                self.is_keeping = true;
            }
            // They come after what the disk is given already.
            false => new.into_iter().for_each(|record| recorder.append(record)),
        }
    }

    /// The next that the recorder has to say; never if there is none.
    pub(crate) async fn next(&mut self) -> Option<Recorded> {
        match &mut self.recorder {
            Some(recorder) => recorder.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes what the recorder says.
    pub(crate) fn hear(&mut self, keeper: &mut Doorkeeper, recorded: Recorded, clock: Clock) {
        match recorded {
            Recorded::Held(count) => {
                (0..count).for_each(|_| keeper.handle_recorded(true, clock.now(), clock.wall()))
            }
            Recorded::Failed(count, why) => {
                log::not_recorded(&why);
                self.behind = self.behind.or_else(|| Some(clock.now().after(AGAIN)));
                (0..count).for_each(|_| keeper.handle_recorded(false, clock.now(), clock.wall()));
            }
            Recorded::CaughtUp => self.behind = None,
            Recorded::Kept => self.is_keeping = false,
            Recorded::Long => self.keep(keeper),
        }
    }
}

/// All that has to be on the disk.
fn remembered(keeper: &Doorkeeper) -> Vec<Record> {
    keeper.reception().map(|reception| reception.freshness().records().collect()).unwrap_or_default()
}

/// Begins to remember.
fn begin(access: &KeyAccess, clock: Clock) -> Result<(Recorder, Reception), EntranceError> {
    let key = run_key()?;
    let (now, wall) = (clock.now(), clock.wall());
    let lost = Freshness::lost(wall);
    let (recorder, loaded) = Recorder::start(&access.state_dir, &[lost])?;
    if !loaded.found {
        log::memory_lost(&access.state_dir);
    }
    let freshness = Freshness::new(access.window, &loaded.records, now, wall);
    Ok((recorder, Reception::new(key, freshness)))
}

/// The gateway's keys, ready to open knocks.
fn gateways(access: &KeyAccess) -> Result<Vec<Lasting>, EntranceError> {
    let keys = gateway_key::load(&access.gateway_key)?;
    let ready = |key: &GatewayKey| {
        let gateway = Gateway::new(key).map(Arc::new);
        gateway.ok_or_else(|| EntranceError::NoKey(access.gateway_key.clone()))
    };
    let mut gateways: Vec<Lasting> = vec![(ready(&keys.current)?, None)];
    if let Some((previous, until)) = &keys.previous {
        gateways.push((ready(previous)?, Some(Wall(until.saturating_mul(1000)))));
    }
    Ok(gateways)
}

fn run_key() -> Result<RunKey, EntranceError> {
    let mut key = RunKey([0; 32]);
    getrandom::SysRng.try_fill_bytes(&mut key.0).map_err(EntranceError::Random)?;
    Ok(key)
}

#[cfg(test)]
mod tests;
