//! What happens before the loop: one daemon and no other, the inbox, the gate, and then whatever may take its time in
//! threads.
//!
//! From the gate on no port is open that should be guarded, and sequences are heard: nothing in here reads a file or waits
//! for a disk.

use std::{io, sync::Arc};

use doors_core::{engine::Engine, time::Wall};
use doors_firewall::{Choice, Firewall, Kind, choose};
use doors_os::{clock::Clock, instance_lock::InstanceLock};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use super::{
    Control, Daemon, READY_TIMEOUT, RunError,
    reload::{Force, Reader},
};
use crate::{
    config::{Config, ConfigError, Hearing, last_good::Keeper},
    inbox::{Inbox, InboxError},
    observe::{Observe, log},
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
    say_what_starts(&config, &choice, clock.wall());
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

/// The first lines: what runs here, and how.
fn say_what_starts(config: &Config, choice: &Choice, now: Wall) {
    info!("port-knocking-doors {}, configuration: {}", env!("CARGO_PKG_VERSION"), config.source());
    if let (Some(path), Some(why)) = (&config.path, &config.instead_of) {
        log::runs_with_last_good(path, why);
    }
    info!(firewall = %choice.kind, "firewall: {}, because {}", choice.kind, choice.why);
    if choice.kind == Kind::RichRules {
        warn!(
            "no gate guards the doors: strangers get in without a knock where a port is published by a container \
             engine or forwarded, where a rule, a service or a policy of firewalld lets them, and on addresses and \
             ports of a connection that is still remembered; firewall = \"auto\" guards against all of that"
        );
    }
    let hearing = match config.hearing {
        Hearing::Capture => "capture",
        Hearing::Sockets => "sockets",
    };
    for door in &config.plan.doors {
        let ports: Vec<String> = door.ports.iter().map(ToString::to_string).collect();
        info!(
            door = %door.name, listen = hearing,
            "door {}: {} for {}, knocks heard with {hearing}",
            door.name,
            ports.join(" "),
            log::seconds(door.open_for),
        );
    }
    if let Some(access) = &config.key_access {
        let (count, port) = (access.clients.len(), access.port);
        info!(port, "clients with a key: {count}, on UDP port {port}");
    }
    for warning in config.warnings_with(choice.kind, now) {
        warn!("{warning}");
    }
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
