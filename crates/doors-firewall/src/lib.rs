//! What makes a grant true in the kernel.
//!
//! The firewall works in a thread of its own, behind a queue: however slow it is, knocks are heard.
//!
//! ```text
//!   daemon ──► Order ──► gate ──► nftables (netlink)
//!      ▲                  │
//!      │                  ▼ what the gate has done
//!      └── News ◄── firewalld beside it ──► firewalld (D-Bus), where it would close the port
//! ```
//!
//! Our gate guards the doors on every machine. Where firewalld runs, a grant is an element in the gate, and
//! beside it a rich rule if firewalld's zone would close the port. The gate is changed first, and what it has
//! done is handed on: so a door is open when both say so, and closed when the gate says so.

mod choice;
pub mod firewalld;
pub mod ledger;
pub mod nftables;
pub mod plan;

use std::{io, thread, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    engine::{Change, Report},
    limits,
};
use doors_os::clock::Clock;
use tokio::sync::{mpsc, oneshot};

pub use self::choice::{Choice, FirewallChoice, Kind, choose};
pub use self::choice::{Obstacle, explained, obstacles, possible};
use self::{firewalld::Role, ledger::Standing, nftables::GateError, plan::Plan};

/// What the firewall is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Make this true.
    Change(Change),
    /// This was found true in the gate: see that nothing beside it makes it false. Nobody waits for it.
    Keep(GrantKey, Standing),
    /// Work by another plan.
    Follow(Box<Plan>),
    /// The daemon stops in order; answer when everything before this is done.
    End(oneshot::Sender<()>),
}

/// What the firewall has to say.
#[derive(Debug)]
pub enum News {
    /// What the core has to hear.
    Report(Report),
    /// Something of ours had been taken away, and is back.
    Repaired {
        /// What was missing.
        missing: String,
        /// How long it took to put it back.
        took: Duration,
    },
    /// Something did not work.
    Failed {
        /// What was tried.
        what: String,
        /// What came in the way.
        why: String,
    },
    /// Something that the administrator should know.
    Warning(String),
    /// Something that is good to know.
    Info(String),
}

/// What other firewalls do with the doors' ports.
#[derive(Debug, Default)]
pub struct Obstacles {
    /// What makes knocking pointless.
    pub warnings: Vec<Obstacle>,
    /// What cannot be said.
    pub lines: Vec<String>,
}

impl From<Vec<Obstacle>> for Obstacles {
    fn from(warnings: Vec<Obstacle>) -> Self {
        Self { warnings, lines: Vec::new() }
    }
}

/// Why there is no firewall to work with.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The gate cannot be set up.
    #[error("cannot set up the gate")]
    Gate(#[from] GateError),
    /// The gate cannot be set up, and rich rules without it would be possible.
    #[error(
        "cannot set up the gate beside firewalld; on a kernel without nf_tables, set firewall = \"rich-rules\" (what \
         that does not protect from is in docs/firewalls.md)"
    )]
    GateBeside(#[source] GateError),
    /// firewalld was asked for, and there is no bus to reach it.
    #[error("the configuration wants firewalld, and there is no system bus to reach it: {0}")]
    NoBus(String),
    /// firewalld was asked for, and the bus is there and of no use.
    #[error("the configuration wants firewalld, and {0}; try: systemctl status dbus")]
    SilentBus(String),
    /// The zone of the configuration is none of firewalld's.
    #[error("zone = {zone:?}, and firewalld has no such zone; it has: {known}")]
    NoZone {
        /// The zone.
        zone: String,
        /// The zones that there are.
        known: String,
    },
    /// A door lets in one connection only, which a rich rule cannot do.
    #[error(
        "the door `{0}` has grant = \"once\", which rich rules alone cannot do; write grant = \"address\", or let \
         the gate guard it: firewall = \"auto\""
    )]
    Once(DoorName),
    /// Granted connections are to be marked, which a rich rule cannot do.
    #[error(
        "`mark` needs the gate, which marks what it lets in, and firewalld's rich rules alone have none; leave it out, \
         or let the gate guard the doors: firewall = \"auto\""
    )]
    Mark,
    /// The thread or its runtime.
    #[error("cannot start the thread that works on the firewall")]
    Thread(#[source] io::Error),
}

impl FirewallError {
    /// Whether the configuration is to blame, so that trying again is of no use.
    pub fn is_wrong_input(&self) -> bool {
        match self {
            Self::NoZone { .. } | Self::Once(_) | Self::Mark => true,
            Self::Gate(_) | Self::GateBeside(_) | Self::NoBus(_) | Self::SilentBus(_) | Self::Thread(_) => {
                false
            }
        }
    }
}

/// The daemon's side of the queue.
#[derive(Debug)]
pub struct Firewall {
    /// To it.
    pub orders: mpsc::Sender<Order>,
    /// From it.
    pub news: mpsc::UnboundedReceiver<News>,
    /// Which firewall it is.
    pub kind: Kind,
    thread: thread::JoinHandle<()>,
}

impl Firewall {
    /// Sets the firewall up, and starts to work on orders in a thread.
    pub async fn start(choice: &Choice, plan: Plan, clock: Clock) -> Result<Self, FirewallError> {
        can_follow(choice.kind, &plan)?;
        let kind = choice.kind;
        let (orders, queue) = mpsc::channel(limits::GRANTS);
        let (log_writer, news) = mpsc::unbounded_channel();
        let (ready, set_up) = oneshot::channel();
        let choice = choice.clone();
        let thread = thread::Builder::new()
            .name("firewall".to_owned())
            .spawn(move || {
                work(&choice, plan, clock, queue, log_writer, ready);
            })
            .map_err(FirewallError::Thread)?;
        match set_up.await {
            Ok(Ok(())) => Ok(Self { orders, news, kind, thread }),
            Ok(Err(error)) => Err(error),
            Err(gone) => Err(FirewallError::Thread(io::Error::other(gone))),
        }
    }

    /// Whether this firewall can do what a plan asks for.
    pub fn can_follow(&self, plan: &Plan) -> Result<(), FirewallError> {
        can_follow(self.kind, plan)
    }

    /// Waits until everything that was ordered is done, at most `patience`. Gives what there is to say.
    pub async fn end(mut self, patience: Duration) -> Vec<News> {
        let (done, is_done) = oneshot::channel();
        let mut told = Vec::new();
        if self.orders.send(Order::End(done)).await.is_ok()
            && !matches!(tokio::time::timeout(patience, is_done).await, Ok(Ok(())))
        {
            let what = "finish everything that the firewall was asked for".to_owned();
            told.push(News::Failed { what, why: "it takes too long".to_owned() });
        }
        drop(self.orders);
        told.extend(std::iter::from_fn(|| self.news.try_recv().ok()));
        // A thread that hangs ends with the process.
        if self.thread.is_finished() {
            let _ = self.thread.join();
        }
        told
    }
}

/// Whether a firewall of this kind can do what a plan asks for.
fn can_follow(kind: Kind, plan: &Plan) -> Result<(), FirewallError> {
    match plan.doors.iter().find(|door| door.once) {
        _ if kind == Kind::RichRules && plan.mark.is_some() => Err(FirewallError::Mark),
        Some(door) if kind == Kind::RichRules => Err(FirewallError::Once(door.name.clone())),
        _ => Ok(()),
    }
}

/// Sets up, says so, and works until nobody orders any more.
fn work(
    choice: &Choice,
    plan: Plan,
    clock: Clock,
    orders: mpsc::Receiver<Order>,
    news: mpsc::UnboundedSender<News>,
    ready: oneshot::Sender<Result<(), FirewallError>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(FirewallError::Thread(error)))),
    };
    runtime.block_on(async {
        let workers = match Workers::start(choice, plan, clock, &news).await {
            Ok(workers) => workers,
            Err(error) => return drop(ready.send(Err(error))),
        };
        // If nobody waits for it any more, it is not wanted.
        if ready.send(Ok(())).is_ok() {
            workers.run(orders).await;
        }
    });
}

/// What works on the firewall.
enum Workers {
    /// The gate alone.
    Gate(nftables::Worker),
    /// The gate, and firewalld beside it, which may come and go.
    Both(nftables::Worker, Box<firewalld::Worker>, mpsc::Receiver<Order>),
    /// firewalld alone.
    RichRules(Box<firewalld::Worker>),
}

impl Workers {
    /// Sets up. firewalld is asked first: a start that fails leaves no gate behind.
    async fn start(
        choice: &Choice,
        plan: Plan,
        clock: Clock,
        news: &mpsc::UnboundedSender<News>,
    ) -> Result<Self, FirewallError> {
        let state = |role| firewalld::State::new(role, plan.clone(), clock, news.clone());
        let firewalld = match choice.kind {
            Kind::RichRules => {
                let worker = firewalld::Worker::start(state(Role::Alone)).await?;
                return Ok(Self::RichRules(Box::new(worker)));
            }
            Kind::Firewalld => Some(firewalld::Worker::start(state(Role::BesideGate)).await?),
            Kind::Nftables if choice.firewalld_may_come => {
                Some(firewalld::Worker::waiting(state(Role::BesideGate)))
            }
            Kind::Nftables => None,
        };
        let (hand_on, handed_on) = mpsc::channel(limits::GRANTS);
        let beside = firewalld.as_ref().map(|_| hand_on);
        let gate = nftables::Worker::start(plan.clone(), clock, news.clone(), beside);
        let gate = gate.map_err(|error| match choice.kind {
            Kind::Firewalld => FirewallError::GateBeside(error),
            Kind::Nftables | Kind::RichRules => FirewallError::Gate(error),
        })?;
        gate.say_what_stands_in_the_way(choice);
        Ok(match firewalld {
            Some(firewalld) => Self::Both(gate, Box::new(firewalld), handed_on),
            None => Self::Gate(gate),
        })
    }

    /// Works until nobody orders any more.
    async fn run(self, orders: mpsc::Receiver<Order>) {
        match self {
            Self::Gate(gate) => gate.run(orders).await,
            Self::Both(gate, firewalld, handed_on) => {
                tokio::join!(gate.run(orders), firewalld.run(handed_on));
            }
            Self::RichRules(firewalld) => firewalld.run(orders).await,
        }
    }
}
