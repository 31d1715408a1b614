//! What happens before the loop, in this order: handle signals, take the instance lock, open the inbox, install the
//! gate, then start the threads for everything that may take longer.
//!
//! Once the gate is installed, no guarded port is open and sequences are heard. Nothing in here waits for a disk, or reads a
//! file but /etc/group.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc, time::Duration};

use doors_core::{
    door::GrantKey,
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
    config::{self, Config, ConfigError, Hearing, last_good::Keeper},
    control::{
        interface::ReloadReply,
        request::{Answer, Unconfirmed},
        server::{Groups, Server, Settings},
    },
    inbox::{Inbox, InboxError},
    observe::{Observe, facts::LastSeen, log, words},
    reload::{Force, Read, Reader},
    sd_notify::Supervisor,
    spa::service::SpaService,
};

/// How long "ready" waits for what clients with keys need. A disk that hangs must not keep the machine from booting.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Everything that the loop works with.
pub(crate) struct Daemon<'a> {
    pub(crate) clock: Clock,
    pub(crate) engine: Engine,
    pub(crate) inbox: Inbox,
    pub(crate) firewall: Firewall,
    pub(crate) service: SpaService,
    pub(crate) control: Control,
    pub(crate) supervisor: Supervisor,
    pub(crate) observe: Observe,
    /// Why this firewall.
    pub(crate) firewall_why: String,
    /// Where requests come from; `None` if there is no control socket, and the log says why.
    pub(crate) server: Option<Server>,
    /// Connections that are to be ended, behind the closing of their doors.
    pub(crate) cuts: VecDeque<Cut>,
    /// Requests that wait for the firewall.
    pub(crate) unconfirmed: Unconfirmed,
    /// Requests that wait for a reload.
    pub(crate) reloads: Reloads,
    /// The configuration in force.
    pub(crate) force: Force<'a>,
    /// The latest moment for saying "ready"; `None` once it has been said.
    pub(crate) ready_by: Option<Moment>,
    /// Keeps a second daemon out of this network namespace.
    pub(crate) _instance_lock: InstanceLock,
}

/// Sets up everything for the loop.
pub(crate) async fn start(
    config: Config,
    load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    last_good: &Keeper,
    control_socket: PathBuf,
) -> Result<Daemon<'_>, RunError> {
    let clock = Clock::start();
    // Before everything else: until signals are handled, a signal to reload ends the process.
    let signals = Signals::new().map_err(RunError::Start)?;
    let engine = Engine::new(config.rules.clone())?;
    let instance_lock = InstanceLock::claim()?;
    if let InstanceLock::HeldByOther(user) = instance_lock {
        log::not_locked(user);
    }
    let inbox = open_inbox(&config)?;
    let choice = choose(config.firewall).await?;
    say_what_starts(&config, &choice, clock.wall());
    let firewall = Firewall::start(&choice, config.plan.clone(), clock).await?;
    let (force, config) = Force::begin(config, last_good, clock.now()).map_err(RunError::Start)?;
    let reader = Reader::start(Arc::clone(&config), load).map_err(RunError::Start)?;
    let observe = Observe::start(clock).map_err(RunError::Start)?;
    let [change, read] =
        config.control_groups.each_ref().map(|group| group.as_deref().and_then(config::group_number));
    let settings = Settings { path: control_socket, groups: Groups { read, change } };
    let server = Server::start(&settings, clock, LastSeen::clone(&observe.facts().last_seen));
    // A daemon that opens doors without it is better than none.
    let server = server.map_err(|error| log::no_control_socket(&error)).ok();
    let mut control = Control { signals, reader };
    // A problem with keys or state does not stop the start: the doors are guarded, and sequences are heard.
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
        observe,
        firewall_why: choice.why.to_string(),
        server,
        cuts: VecDeque::new(),
        unconfirmed: Unconfirmed::default(),
        reloads: Reloads::default(),
        force,
        ready_by: Some(clock.now().after(READY_TIMEOUT)),
        _instance_lock: instance_lock,
    })
}

/// Logs the first lines: what runs, and how.
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
    let hearing = config.hearing;
    for door in &config.plan.doors {
        let ports: Vec<String> = door.ports.iter().map(ToString::to_string).collect();
        info!(
            door = %door.name, listen = %hearing,
            "door {}: {} for {}, knocks heard with {hearing}",
            door.name,
            ports.join(" "),
            words::seconds(door.open_for),
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

/// The sources of commands to the daemon.
pub(crate) struct Control {
    signals: Signals,
    pub(crate) reader: Reader,
}

/// Which connections are to be ended, and who wants to know how many there were.
pub(crate) type Cut = (Vec<GrantKey>, Answer<Result<usize, String>>);

/// Gets the outcome of a reload.
pub(crate) type ReloadAnswer = Answer<Result<ReloadReply, String>>;

/// Who waits for the outcome of a reload.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    /// Of the one under way.
    pub(crate) present: Vec<ReloadAnswer>,
    /// Of the one after it.
    pub(crate) next: Vec<ReloadAnswer>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// A command to the daemon.
pub(crate) enum Command {
    /// Stop in order.
    Stop,
    /// Read the configuration again.
    Reload,
    /// Apply what the reader has read.
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
    /// Another daemon runs in this network namespace.
    #[error(transparent)]
    InstanceLockError(#[from] InstanceLockError),
    /// Knocks cannot be heard.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// The firewall cannot be used.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Two doors have sequences that conflict.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The thread that writes the replay log has ended.
    #[error("the thread that writes down which knocks were seen has ended")]
    ReplayWriterEnded,
    /// The thread that reads the configuration has ended.
    #[error("the thread that reads the configuration has ended")]
    ReaderEnded,
    /// The program could not set up a thread or a signal handler.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The daemon has stopped, and the gate that it should have removed may still be there.
    #[error("stopped, and the gate may still be there; to take it away: port-knocking-doors remove-gate")]
    GateStays,
    /// The thread that works on the firewall has ended.
    #[error("the thread that works on the firewall has ended")]
    FirewallEnded,
}

impl RunError {
    /// Whether the configuration is the cause, so that a retry is pointless.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Firewall(error) if error.is_wrong_input())
    }
}
