//! The entrance for clients with keys: the gateway's key, the memory of what was accepted, and the core's
//! reception, put together from the configuration.

use std::{path::PathBuf, sync::Arc};

use doors_core::{
    challenge::RunKey,
    doorbell::Lasting,
    doorkeeper::Doorkeeper,
    freshness::Freshness,
    reception::{Audience, Reception},
    time::Wall,
};
use doors_spa::gateway::{Gateway, GatewayKey};
use rand_core::TryRng as _;

use crate::{
    clock::Clock,
    config::KeyAccess,
    gateway_key::{self, KeyError},
    recorder::{Recorded, Recorder, RecorderError},
    report,
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

/// What runs for clients with keys.
#[derive(Debug, Default)]
pub(crate) struct Entrance {
    /// Runs from the first client on, until the end.
    recorder: Option<Recorder>,
}

impl Entrance {
    /// Listens to the clients of this configuration from here on. If that cannot be, nothing changes.
    pub(crate) fn listen(
        &mut self,
        keeper: &mut Doorkeeper,
        access: Option<&KeyAccess>,
        clock: Clock,
    ) -> Result<(), EntranceError> {
        let Some(access) = access else {
            keeper.change_audience(Audience::default());
            return Ok(());
        };
        let audience = Audience {
            port: access.port,
            clients: access.clients.clone(),
            gateways: gateways(access)?,
            window: access.window,
        };
        if self.recorder.is_none() {
            let key = run_key()?;
            let (recorder, found) = Recorder::start(&access.state_dir)?;
            let (now, wall) = (clock.now(), clock.wall());
            let freshness = Freshness::new(access.window, found.as_deref(), now, wall);
            if found.is_none() {
                report::memory_lost(&access.state_dir);
                // From here on the time of this start is the floor, over every later restart.
                recorder.keep(freshness.records().collect());
            }
            keeper.receive_clients(Reception::new(key, freshness));
            self.recorder = Some(recorder);
        }
        keeper.change_audience(audience);
        Ok(())
    }

    /// Hands over what has to be on disk.
    pub(crate) fn forward(&self, keeper: &mut Doorkeeper) {
        let Some(recorder) = &self.recorder else { return };
        while let Some(record) = keeper.poll_record() {
            recorder.append(record);
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
    pub(crate) fn hear(&self, keeper: &mut Doorkeeper, recorded: Recorded, clock: Clock) {
        match recorded {
            Recorded::Held(count) => {
                (0..count).for_each(|_| keeper.handle_recorded(true, clock.now(), clock.wall()))
            }
            Recorded::Failed(count, why) => {
                report::not_recorded(&why);
                (0..count).for_each(|_| keeper.handle_recorded(false, clock.now(), clock.wall()));
            }
            Recorded::Long => {
                let records = keeper.reception().map(|reception| reception.freshness().records().collect());
                if let (Some(recorder), Some(records)) = (&self.recorder, records) {
                    recorder.keep(records);
                }
            }
        }
    }
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
