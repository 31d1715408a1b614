//! What makes a grant true in the kernel.
//!
//! The firewall works in a thread of its own, behind a queue: however slow it is, knocks are heard.
//!
//! ```text
//!   daemon ──► Order ──► worker ──► nftables (netlink) or firewalld (D-Bus)
//!      ▲                   │
//!      └────── News ◄──────┘
//! ```

mod choice;
pub(crate) mod firewalld;
pub(crate) mod ledger;
pub mod nftables;
pub mod plan;

use std::{io, thread, time::Duration};

use doors_core::{
    door::DoorName,
    doorkeeper::{Change, Report},
    limits,
};
use tokio::sync::{mpsc, oneshot};

pub use self::choice::{Choice, Kind, choose};
pub(crate) use self::choice::{obstacles, possible};
use self::{nftables::GateError, plan::Plan};
use crate::clock::Clock;

/// What the firewall is asked to do.
#[derive(Debug)]
pub(crate) enum Order {
    /// Make this true.
    Change(Change),
    /// Work by another plan.
    Follow(Box<Plan>),
    /// Take away what guards the ports: another firewall does that from here on.
    Retire,
    /// The daemon stops in order; answer when everything before this is done.
    End(oneshot::Sender<()>),
}

/// What the firewall has to say.
#[derive(Debug)]
pub(crate) enum News {
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

/// Why there is no firewall to work with.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The gate cannot be set up.
    #[error("cannot set up the gate")]
    Gate(#[from] GateError),
    /// firewalld was asked for, and there is no bus to reach it.
    #[error("firewall = \"firewalld\", and there is no system bus to reach it: {0}")]
    NoBus(String),
    /// firewalld was asked for, and the bus is there and of no use.
    #[error("firewall = \"firewalld\", and {0}; try: systemctl status dbus")]
    SilentBus(String),
    /// The zone of the configuration is none of firewalld's.
    #[error("zone = {zone:?}, and firewalld has no such zone; it has: {known}")]
    NoZone {
        /// The zone.
        zone: String,
        /// The zones that there are.
        known: String,
    },
    /// A door lets in one connection only, which firewalld cannot do.
    #[error(
        "the door `{0}` has grant = \"once\", which firewalld cannot do; write grant = \"address\", or set firewall = \
         \"nftables\""
    )]
    Once(DoorName),
    /// It does not say whether it works.
    #[error("it does not answer")]
    Silent,
    /// The thread or its runtime.
    #[error("cannot start the thread that works on the firewall")]
    Thread(#[source] io::Error),
}

impl FirewallError {
    /// Whether the configuration is to blame, so that trying again is of no use.
    pub(crate) fn is_wrong_input(&self) -> bool {
        match self {
            Self::NoZone { .. } | Self::Once(_) => true,
            Self::Gate(_) | Self::NoBus(_) | Self::SilentBus(_) | Self::Silent | Self::Thread(_) => false,
        }
    }
}

/// The daemon's side of the queue.
#[derive(Debug)]
pub(crate) struct Firewall {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) news: mpsc::UnboundedReceiver<News>,
    pub(crate) kind: Kind,
    thread: thread::JoinHandle<()>,
}

impl Firewall {
    /// Sets the firewall up, and starts to work on orders in a thread.
    pub(crate) async fn start(choice: &Choice, plan: Plan, clock: Clock) -> Result<Self, FirewallError> {
        can_follow(choice.kind, &plan)?;
        let kind = choice.kind;
        let (orders, queue) = mpsc::channel(limits::GRANTS);
        let (teller, news) = mpsc::unbounded_channel();
        let (ready, set_up) = oneshot::channel();
        let choice = choice.clone();
        let thread = thread::Builder::new()
            .name("firewall".to_owned())
            .spawn(move || {
                work(&choice, plan, clock, queue, teller, ready);
            })
            .map_err(FirewallError::Thread)?;
        match set_up.await {
            Ok(Ok(())) => Ok(Self { orders, news, kind, thread }),
            Ok(Err(error)) => Err(error),
            Err(gone) => Err(FirewallError::Thread(io::Error::other(gone))),
        }
    }

    /// Whether this firewall can do what a plan asks for.
    pub(crate) fn can_follow(&self, plan: &Plan) -> Result<(), FirewallError> {
        can_follow(self.kind, plan)
    }

    /// Another firewall has taken over: takes away what guards the ports. Gives what there is to say.
    pub(crate) async fn retire(self, patience: Duration) -> Vec<News> {
        let _ = self.orders.send(Order::Retire).await;
        self.end(patience).await
    }

    /// Waits until everything that was ordered is done, at most `patience`. Gives what there is to say.
    pub(crate) async fn end(mut self, patience: Duration) -> Vec<News> {
        let (done, is_done) = oneshot::channel();
        let mut told = Vec::new();
        if self.orders.send(Order::End(done)).await.is_ok()
            && tokio::time::timeout(patience, is_done).await.is_err()
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
        Some(door) if kind == Kind::Firewalld => Err(FirewallError::Once(door.name.clone())),
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
    // If nobody waits for it any more, it is not wanted.
    runtime.block_on(async {
        match choice.kind {
            Kind::Nftables => match nftables::Worker::start(plan, clock, news) {
                Ok(worker) => {
                    if ready.send(Ok(())).is_err() {
                        return;
                    }
                    worker.say_what_stands_in_the_way(choice.firewalld_runs);
                    worker.run(orders).await;
                }
                Err(error) => drop(ready.send(Err(error.into()))),
            },
            Kind::Firewalld => match firewalld::Worker::start(plan, clock, news).await {
                Ok(worker) => {
                    if ready.send(Ok(())).is_err() {
                        return;
                    }
                    worker.run(orders).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            },
        }
    });
}
