//! What happens before the loop: one daemon and no other, the inbox, the gate, and then whatever may take its time in
//! threads.
//!
//! From the gate on no port is open that should be guarded, and sequences are heard: nothing in here reads a file or waits
//! for a disk.

use std::{io, sync::Arc, time::Duration};

use doors_core::{
    engine::Engine,
    sequence::trie::Conflict,
    time::{Moment, Wall},
};
use doors_firewall::{Choice, Firewall, FirewallError, Kind, choose};
use doors_os::{
    clock::Clock,
    instance_lock::{InstanceLock, InstanceLockError},
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::{
    config::{Config, ConfigError, Hearing, last_good::Keeper},
    inbox::{Inbox, InboxError},
    observe::{Observe, log},
    reload::{Force, Read, Reader},
    sd_notify::Supervisor,
    spa::service::SpaService,
};

/// How long "ready" waits for what clients with keys need. A disk that hangs must not keep the machine from booting.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// All that works together in the loop.
pub(crate) struct Daemon<'a> {
    pub(crate) clock: Clock,
    pub(crate) engine: Engine,
    pub(crate) inbox: Inbox,
    pub(crate) firewall: Firewall,
    pub(crate) service: SpaService,
    pub(crate) control: Control,
    pub(crate) supervisor: Supervisor,
    pub(crate) observe: Observe,
    /// What is in force.
    pub(crate) force: Force<'a>,
    /// When "ready" is said at the latest; `None` if it is said.
    pub(crate) ready_by: Option<Moment>,
    /// No other daemon works here.
    pub(crate) _alone: InstanceLock,
}

/// Sets everything up.
pub(crate) async fn start(
    config: Config,
    load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    last_good: &Keeper,
) -> Result<Daemon<'_>, RunError> {
    let clock = Clock::start();
    // First of all: until then, a signal to reload ends the process.
    let signals = Signals::new().map_err(RunError::Start)?;
    let engine = Engine::new(config.rules.clone())?;
    let alone = InstanceLock::claim()?;
    if let InstanceLock::HeldByOther(user) = alone {
        log::not_locked(user);
    }
    let inbox = open_inbox(&config)?;
    let choice = choose(config.firewall).await?;
    say_what_starts(&config, &choice, clock.wall());
    let firewall = Firewall::start(&choice, config.plan.clone(), clock).await?;
    let (force, config) = Force::begin(config, last_good, clock.now()).map_err(RunError::Start)?;
    let reader = Reader::start(Arc::clone(&config), load).map_err(RunError::Start)?;
    let mut control = Control { signals, reader };
    // Whatever is wrong with keys or state: the doors are guarded, and sequences are heard.
    let mut service = SpaService::new(clock);
    if let Some(access) = &config.key_access {
        service.await_key(Arc::clone(access));
        control.reader.read_key(Arc::clone(access));
    }
    Ok(Daemon {
        clock,
        engine,
        inbox,
        firewall,
        service,
        control,
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

/// Where commands to the daemon come from.
pub(crate) struct Control {
    signals: Signals,
    pub(crate) reader: Reader,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What the daemon is to do.
pub(crate) enum Command {
    /// End in order.
    Stop,
    /// Have the configuration read again.
    Reload,
    /// Take over what was read.
    TakeOver(Read),
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

impl Control {
    /// The next command; `None` if the reader has ended.
    pub(crate) async fn next(&mut self) -> Option<Command> {
        let Self { signals, reader } = self;
        tokio::select! {
            biased;
            _ = signals.terminate.recv() => Some(Command::Stop),
            _ = signals.interrupt.recv() => Some(Command::Stop),
            _ = signals.hangup.recv() => Some(Command::Reload),
            read = reader.next() => read.map(Command::TakeOver),
        }
    }
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another daemon works here.
    #[error(transparent)]
    InstanceLockError(#[from] InstanceLockError),
    /// Knocks cannot be heard.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// There is no firewall to work with.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Two doors that cannot be told apart.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The thread that writes down which knocks were seen is gone.
    #[error("the thread that writes down which knocks were seen has ended")]
    ReplayWriterEnded,
    /// The thread that reads the configuration again is gone.
    #[error("the thread that reads the configuration has ended")]
    ReaderEnded,
    /// The program's own machinery.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// It has stopped, and what should have gone with it may still be there.
    #[error("stopped, and the gate may still be there; to take it away: port-knocking-doors remove-gate")]
    GateStays,
    /// The thread that works on the firewall is gone.
    #[error("the thread that works on the firewall has ended")]
    FirewallEnded,
}

impl RunError {
    /// Whether the configuration is to blame, so that trying again is of no use.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Firewall(error) if error.is_wrong_input())
    }
}
