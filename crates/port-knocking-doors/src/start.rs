//! What happens before the loop: one daemon and no other, the inbox, the gate, and then whatever may take its time in
//! threads.
//!
//! From the gate on no port is open that should be guarded, and sequences are heard: nothing in here reads a file or waits
//! for a disk.

use std::{io, sync::Arc};

use doors_core::engine::Engine;
use doors_firewall::{Firewall, choose};
use doors_os::{clock::Clock, instance_lock::InstanceLock};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{Config, ConfigError, Hearing, last_good::Keeper},
    daemon::{Control, Daemon, READY_TIMEOUT, RunError},
    inbox::{Inbox, InboxError},
    observe::{Observe, log},
    reload::{Force, Reader},
    sd_notify::Supervisor,
    spa::service::SpaService,
};

/// Sets everything up.
pub(crate) async fn start(
    config: Config,
    load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    last_good: &Keeper,
) -> Result<Daemon<'_>, RunError> {
    let clock = Clock::start();
    let signals = Signals::new().map_err(RunError::Start)?;
    let engine = Engine::new(config.rules.clone())?;
    let alone = InstanceLock::claim()?;
    let inbox = open_inbox(&config)?;
    let choice = choose(config.firewall).await?;
    log::starting(&config, &choice, clock.wall());
    let firewall = Firewall::start(&choice, config.plan.clone(), clock).await?;
    let (force, config) = Force::begin(config, last_good, clock.now()).map_err(RunError::Start)?;
    let mut reader = Reader::start(Arc::clone(&config), load).map_err(RunError::Start)?;
    // Whatever is wrong with keys or state: the doors are guarded, and sequences are heard.
    let mut service = SpaService::new(clock);
    if let Some(access) = &config.key_access {
        service.await_key(Arc::clone(access));
        reader.read_key(Arc::clone(access));
    }
    Ok(Daemon {
        clock,
        engine,
        inbox,
        firewall,
        service,
        control: Control { signals, reader },
        supervisor: Supervisor::new(clock.now()),
        observe: Observe::start().map_err(RunError::Start)?,
        force,
        ready_by: Some(clock.now().after(READY_TIMEOUT)),
        _alone: alone,
    })
}

fn open_inbox(config: &Config) -> Result<Inbox, InboxError> {
    match config.hearing {
        Hearing::Capture => Inbox::capture(config.spa_port()),
        Hearing::Sockets => Inbox::sockets(&config.knock_ports(), config.spa_port()),
    }
}

/// What the supervisor or the administrator wants.
pub(crate) enum Wish {
    Stop,
    Reload,
}

/// The signals that say it.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next wish.
    pub(crate) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
