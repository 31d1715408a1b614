//! The daemon: one loop, short enough to see whole.

use std::{fs::File, io, sync::Arc, time::Duration};

use doors_core::{engine::Engine, sequence::trie::Conflict};
use doors_firewall::{Firewall, FirewallError, Kind, News, Order, choose, plan::Plan};
use doors_os::{
    clock::Clock,
    instance_lock::{InstanceLock, InstanceLockError},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    config::last_good::{Keeper, Reminder},
    config::{Config, ConfigError, Hearing},
    control::running::Mark,
    inbox::{Inbox, InboxError},
    observe::{Observe, log},
    reload::{self, New, Read, Reader, ReloadError},
    sd_notify::Supervisor,
    spa::service::{self, SpaService},
};

/// How long an orderly stop waits for the firewall.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another daemon works here.
    #[error(transparent)]
    InstanceLockError(#[from] InstanceLockError),
    /// Knocks cannot be heard.
    #[error(transparent)]
    Inbox(InboxError),
    /// A knock port that is not for everybody.
    #[error(
        "may not bind UDP port {port}; give the daemon the capability CAP_NET_BIND_SERVICE, choose knock ports from \
         1024, or set listen = \"capture\""
    )]
    Reserved {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no firewall to work with.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Two doors that cannot be told apart.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The thread that writes down which knocks were seen is gone.
    #[error("the thread that writes down which knocks were seen has ended")]
    RecorderEnded,
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

impl From<InboxError> for RunError {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Bind { port, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Self::Reserved { port, source }
            }
            other => Self::Inbox(other),
        }
    }
}

impl RunError {
    /// Whether the configuration is to blame, so that trying again is of no use.
    pub(crate) fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Firewall(error) if error.is_wrong_input())
    }
}

/// Runs until asked to stop. `load` reads the configuration again; `last_good` keeps what comes into force.
///
/// # Errors
/// [`RunError`] if it cannot start, or cannot go on.
pub async fn run(
    mut config: Config,
    load: impl Fn() -> Result<Config, ConfigError> + Send + 'static,
    last_good: &Keeper,
) -> Result<(), RunError> {
    let clock = Clock::start();
    let (opened, texts) = (config.opened.take(), config.texts.take());
    let config = Arc::new(config);
    let mut signals = Signals::new().map_err(RunError::Start)?;
    let mut engine = Engine::new(config.rules.clone())?;
    let _alone = InstanceLock::claim()?;
    let mut inbox = open_inbox(&config)?;
    let choice = choose(config.firewall).await?;
    log::starting(&config, &choice);
    let mut plan = config.plan.clone();
    let mut firewall = Firewall::start(&choice, plan.clone(), clock).await?;
    // Whatever is wrong with keys or state: the doors are guarded, and sequences are heard.
    let mut service = SpaService::default();
    let prepared = service::prepare(config.key_access.as_deref(), false, clock);
    service.listen(&mut engine, config.key_access.as_ref(), prepared);
    let opened = opened.or_else(|| config.path.as_deref().and_then(reload::named));
    let mut mark = mark(&config, opened, config.instead_of.is_none());
    let mut reader = Reader::start(Arc::clone(&config), load, clock).map_err(RunError::Start)?;
    let mut reminder = Reminder::new(config.instead_of.clone(), clock.now());
    last_good.begin(config.path.as_deref());
    last_good.keep(texts);
    let mut supervisor = Supervisor::ready();
    let mut observe = Observe::start().map_err(RunError::Start)?;
    let is_door = !plan.doors.is_empty();
    observe.line(move || log::ready(is_door));

    loop {
        engine.handle_timeout(clock.now(), clock.wall());
        observe.handle_timeout(clock.now());
        service.forward(&mut engine);
        let full = !forward(&mut engine, &firewall.orders);
        while let Some(receipt) = engine.poll_receipt(clock.now(), clock.wall()) {
            if let Err(error) = inbox.send(&receipt) {
                observe.line(move || log::not_sent(&receipt.way, &error));
            }
        }
        while let Some(event) = engine.poll_event() {
            observe.event(&event, clock.now());
        }

        let retry_at = service.retry_at().filter(|_| !reader.is_busy());
        let catch_up_at = service.catch_up_at().map(|moment| clock.instant(moment));
        let deadlines = [engine.next_deadline(), observe.next_deadline()];
        let deadline = deadlines.into_iter().flatten().min().map(|moment| clock.instant(moment));
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => {
                    supervisor.reloading();
                    reader.configuration(service.is_recording());
                }
            },
            read = reader.next() => {
                match read {
                    Some(Read::Configuration(new, opened)) => {
                        let (engine, inbox, service) = (&mut engine, &mut inbox, &mut service);
                        let mut taken = Taken { engine, inbox, service, last_good };
                        let new = match new {
                            Ok(new) => taken.take(*new, &firewall, &reader, &mut observe, clock).await,
                            Err(error) => Err(error),
                        };
                        // Letting go of the old one would take the new one away.
                        drop(mark.take());
                        mark = self::mark(&config, opened, new.is_ok());
                        match new {
                            Ok(new) => {
                                reminder.end();
                                plan = new;
                            }
                            Err(error) => observe.line(move || log::not_reloaded(&error)),
                        }
                    }
                    Some(Read::Clients(prepared)) => {
                        let missing = service.missing();
                        service.listen(&mut engine, missing.as_ref(), prepared.map(|it| *it));
                    }
                    None => return Err(RunError::ReaderEnded),
                }
                if !reader.go_on(service.is_recording()) {
                    supervisor.reloaded();
                }
            }
            news = firewall.news.recv() => match news {
                Some(News::Report(report)) => engine.handle_report(report, clock.now(), clock.wall()),
                Some(news) => observe.line(move || log::news(&news)),
                None => return Err(RunError::FirewallEnded),
            },
            recorded = service.next() => match recorded {
                Some(recorded) => service.hear(&mut engine, recorded, clock),
                None => return Err(RunError::RecorderEnded),
            },
            () = sleep_until(retry_at) => if let Some(access) = service.missing() {
                reader.clients(access, service.is_recording());
            },
            () = sleep_until(catch_up_at) => {
                service.catch_up(&engine, clock.now());
            }
            () = sleep_until(reminder.deadline().map(|moment| clock.instant(moment))) => {
                if let (Some(why), Some(path)) = (reminder.take(clock.now()), config.path.clone()) {
                    observe.line(move || log::runs_with_last_good(&path, &why));
                }
            }
            () = supervisor.due() => supervisor.alive(),
            () = has_room(&firewall.orders), if full => {}
            ready = inbox.ready(), if !full => {
                ready?;
                if let Some(own) = inbox.own()? {
                    engine.know_own(own);
                }
                inbox.drain(|packet, routes| {
                    engine.handle_packet(packet, clock.now(), clock.wall(), routes);
                })?;
            }
            () = sleep_until(deadline) => {}
        }
    }

    drop(mark);
    supervisor.stopping();
    service.end(&engine, PATIENCE).await;
    let told = firewall.end(PATIENCE).await;
    let failed = told.iter().any(|news| matches!(news, News::Failed { .. }));
    for news in told {
        observe.line(move || log::news(&news));
    }
    if failed && choice.kind != Kind::RichRules && plan.remove_on_exit {
        observe.end(PATIENCE);
        return Err(RunError::GateStays);
    }
    observe.line(move || log::stopped(choice.kind, &plan));
    observe.end(PATIENCE);
    Ok(())
}

/// Marks the file that was read, or whatever has its name now, so that the commands about clients find this process.
fn mark(config: &Config, opened: Option<Arc<File>>, in_force: bool) -> Option<Mark> {
    let path = config.path.as_ref()?;
    let marked = Mark::set(opened?, in_force);
    marked.inspect_err(|error| log::not_marked(path, error)).ok()
}

fn open_inbox(config: &Config) -> Result<Inbox, InboxError> {
    match config.hearing {
        Hearing::Capture => Inbox::capture(config.spa_port()),
        Hearing::Sockets => Inbox::sockets(&config.knock_ports(), config.spa_port()),
    }
}

/// Hands the changes over. Says whether all found room; if not, nothing more is heard until they do,
/// and the kernel keeps a bounded number of knocks for us.
fn forward(engine: &mut Engine, orders: &mpsc::Sender<Order>) -> bool {
    while let Ok(permit) = orders.try_reserve() {
        match engine.poll_change() {
            Some(change) => permit.send(Order::Change(change)),
            None => return true,
        }
    }
    false
}

/// Returns when the queue has room. If nobody takes from it any more, the news say so.
async fn has_room(orders: &mpsc::Sender<Order>) {
    let _ = orders.reserve().await;
}

/// What a new configuration is taken into.
struct Taken<'a> {
    engine: &'a mut Engine,
    inbox: &'a mut Inbox,
    service: &'a mut SpaService,
    last_good: &'a Keeper,
}

impl Taken<'_> {
    /// Takes over a new configuration, and gives the plan that is in force; one that cannot be used changes nothing.
    async fn take(
        &mut self,
        new: New,
        firewall: &Firewall,
        reader: &Reader,
        observe: &mut Observe,
        clock: Clock,
    ) -> Result<Plan, ReloadError> {
        let New { mut config, prepared, needs_restart } = new;
        firewall.can_follow(&config.plan)?;
        // Nothing is in force that cannot be heard: the ports come before the rules.
        let followed = self.inbox.follow(&config.knock_ports(), config.spa_port());
        followed.map_err(|error| ReloadError::Hearing(Box::new(error.into())))?;
        self.engine.change_rules(config.rules.clone(), clock.now(), clock.wall())?;
        let before = self.service.apply(self.engine, prepared);
        self.last_good.keep(config.texts.take());
        let (plan, kind, config) = (config.plan.clone(), firewall.kind, Arc::new(config));
        let told = Arc::clone(&config);
        observe.line(move || {
            needs_restart.iter().for_each(|key| log::needs_restart(key));
            log::reloaded(&told, kind);
        });
        reader.free((before, config));
        // The order of both matters: what closes is closed before the new plan forgets its doors.
        forward(self.engine, &firewall.orders);
        let _ = firewall.orders.send(Order::Follow(Box::new(plan.clone()))).await;
        Ok(plan)
    }
}

/// What the supervisor or the administrator wishes.
enum Wish {
    Stop,
    Reload,
}

struct Signals {
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

    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
