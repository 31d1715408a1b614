//! The daemon: one loop, short enough to see whole.

use std::{io, time::Duration};

use doors_core::{
    doorkeeper::{Change, Doorkeeper, Report},
    sequences::Conflict,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    clock::Clock,
    config::{Config, ConfigError, Hearing},
    firewall::{Firewall, FirewallError, News, Order, choose},
    inbox::{Inbox, InboxError},
    report::{self, Told},
    supervisor::Supervisor,
};

/// How long an orderly stop waits for the firewall.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Knocks cannot be heard.
    #[error(transparent)]
    Inbox(#[from] InboxError),
    /// There is no firewall to work with.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// Two doors that cannot be told apart.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The program's own machinery.
    #[error("cannot start")]
    Start(#[source] io::Error),
    /// The thread that works on the firewall is gone.
    #[error("the thread that works on the firewall has ended")]
    FirewallEnded,
}

/// Runs until asked to stop. `reload` reads the configuration again.
///
/// # Errors
/// [`RunError`] if it cannot start, or cannot go on.
pub async fn run(config: Config, reload: impl Fn() -> Result<Config, ConfigError>) -> Result<(), RunError> {
    let clock = Clock::start();
    let mut signals = Signals::new().map_err(RunError::Start)?;
    let mut keeper = Doorkeeper::new(config.rules.clone())?;
    let mut inbox = open_inbox(&config)?;
    let choice = choose(&config).await?;
    report::starting(&config, &choice);
    let mut firewall = Firewall::start(&choice, config.plan.clone(), clock)?;
    let mut supervisor = Supervisor::ready();
    report::ready();

    loop {
        keeper.handle_timeout(clock.now());
        let full = !forward(&mut keeper, &firewall.orders);
        while let Some(event) = keeper.poll_event() {
            report::event(&event, clock.now());
        }

        let deadline = keeper.next_deadline().map(|moment| clock.instant(moment));
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::Stop => break,
                Wish::Reload => {
                    supervisor.reloading();
                    reload_into(&mut keeper, &firewall, &config, &reload).await;
                    supervisor.reloaded();
                }
            },
            news = firewall.news.recv() => match news {
                Some(news) => hear_firewall(&mut keeper, news, clock),
                None => return Err(RunError::FirewallEnded),
            },
            () = supervisor.due() => supervisor.alive(),
            _ = firewall.orders.reserve(), if full => {}
            ready = inbox.ready(), if !full => {
                ready?;
                inbox.drain(|packet| keeper.handle_packet(packet, clock.now()))?;
            }
            () = sleep_until(deadline) => {}
        }
    }

    supervisor.stopping();
    firewall.end(PATIENCE).await;
    Ok(())
}

fn open_inbox(config: &Config) -> Result<Inbox, InboxError> {
    match config.hearing {
        Hearing::Capture => Inbox::capture(),
        Hearing::Sockets => Inbox::sockets(config.knock_ports()),
    }
}

/// Hands the changes over. Says whether all found room; if not, nothing more is heard until they do,
/// and the kernel keeps a bounded number of knocks for us.
fn forward(keeper: &mut Doorkeeper, orders: &mpsc::Sender<Order>) -> bool {
    while let Ok(permit) = orders.try_reserve() {
        match keeper.poll_change() {
            Some(Change::Open { admission, link, until }) => {
                permit.send(Order::Open { admission, link, until });
            }
            Some(Change::Close { admission }) => permit.send(Order::Close { admission }),
            None => return true,
        }
    }
    false
}

fn hear_firewall(keeper: &mut Doorkeeper, news: News, clock: Clock) {
    match report::news(news) {
        Told::Done { admission } => keeper.handle_report(Report::Done { admission }, clock.now()),
        Told::Found { admission, until } => {
            keeper.handle_report(Report::Found { admission, until }, clock.now());
        }
        Told::Nothing => {}
    }
}

/// Takes over a new configuration; a bad one changes nothing.
async fn reload_into(
    keeper: &mut Doorkeeper,
    firewall: &Firewall,
    running: &Config,
    reload: impl Fn() -> Result<Config, ConfigError>,
) {
    let config = match reload() {
        Ok(config) => config,
        Err(error) => return report::not_reloaded(&error),
    };
    for setting in running.needs_restart(&config) {
        report::needs_restart(setting);
    }
    if let Err(conflict) = keeper.change_rules(config.rules.clone()) {
        return report::not_reloaded(&conflict);
    }
    report::reloaded(&config);
    // The order of both matters: what closes is closed before the new plan forgets its doors.
    forward(keeper, &firewall.orders);
    let _ = firewall.orders.send(Order::Follow(Box::new(config.plan))).await;
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
