//! Prepares the service: reads the gateway's key and opens the replay log. Both wait for a disk, so threads call
//! this, and the loop never does.

use std::{path::PathBuf, sync::Arc};

use doors_core::{
    spa::challenge::RunKey,
    spa::prefilter::{ExpiringGateway, Recognition},
    spa::replay::ReplayGuard,
    spa::server::{ServerConfig, SpaServer},
    time::Wall,
};
use doors_os::clock::Clock;
use doors_spa::gateway::{Gateway, GatewayKey};
use rand_core::TryRng as _;

use crate::{
    config::KeyAccess,
    observe::log,
    spa::gateway_key::{self, KeyError},
    spa::replay_writer::{ReplayWriter, ReplayWriterError},
};

/// An open replay log, and the core's server that was made from its records.
pub(crate) type Begun = (ReplayWriter, SpaServer);

/// Builds the configuration by which the core recognizes the datagrams of these clients. Reads the gateway's key.
pub(crate) fn prepare(access: Option<&KeyAccess>) -> Result<ServerConfig, SpaServiceError> {
    let Some(access) = access else { return Ok(ServerConfig::default()) };
    Ok(ServerConfig {
        port: access.port,
        clients: Arc::clone(&access.clients),
        recognition: Recognition::new(&gateways(access)?, &access.clients),
        window: access.window,
    })
}

/// Opens the replay log, and builds the core's server from it.
pub(super) fn begin(access: &KeyAccess, clock: Clock) -> Result<Begun, SpaServiceError> {
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

/// The gateway's keys, ready to decrypt knocks.
fn gateways(access: &KeyAccess) -> Result<Vec<ExpiringGateway>, SpaServiceError> {
    let keys = gateway_key::load(&access.gateway_key)?;
    let ready = |key: &GatewayKey| {
        let gateway = Gateway::new(key).map(Arc::new);
        gateway.ok_or_else(|| SpaServiceError::NoKey(access.gateway_key.clone()))
    };
    let mut gateways: Vec<ExpiringGateway> = vec![(ready(&keys.current)?, None)];
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

/// Why clients with keys cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum SpaServiceError {
    /// The gateway's key cannot be used.
    #[error("there are clients with keys, and the gateway's own key cannot be used")]
    Key(#[from] KeyError),
    /// The key is mathematically invalid.
    #[error("the gateway key {} is not valid; make another: port-knocking-doors gateway rotate", .0.display())]
    NoKey(PathBuf),
    /// The replay log cannot be used.
    #[error(transparent)]
    ReplayWriter(#[from] ReplayWriterError),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes")]
    Random(#[source] getrandom::Error),
}
