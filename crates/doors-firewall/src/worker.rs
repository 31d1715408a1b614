//! The thread that works on the firewall, and its two halves.

use std::{io, thread, time::Duration};

use doors_core::limits;
use doors_os::clock::Clock;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Choice, FirewallError, Kind, News, Order,
    choice::closed_by_firewalld,
    firewalld::{self, Role},
    nftables,
    plan::Plan,
};

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
        let (tell, news) = mpsc::unbounded_channel();
        let (ready, set_up) = oneshot::channel();
        let choice = choice.clone();
        let thread = thread::Builder::new()
            .name("firewall".to_owned())
            .spawn(move || {
                work(&choice, plan, clock, queue, tell, ready);
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
        // A queue that is full before a thread that hangs takes no order, either.
        let ended = async {
            match self.orders.send(Order::End(done)).await {
                Ok(()) => is_done.await.is_ok(),
                // The thread has ended already.
                Err(_) => true,
            }
        };
        if !matches!(tokio::time::timeout(patience, ended).await, Ok(true)) {
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
pub(crate) fn can_follow(kind: Kind, plan: &Plan) -> Result<(), FirewallError> {
    match plan.doors.iter().find(|door| door.once) {
        _ if kind == Kind::RichRules && plan.mark.is_some() => Err(FirewallError::Mark),
        Some(door) if kind == Kind::RichRules => Err(FirewallError::Once(door.name.clone())),
        _ => Ok(()),
    }
}

/// Sets up, says so, and works until the orders end.
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
        // If the daemon does not wait for it any more, it is not wanted.
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
        let (choice, news) = (choice.clone(), news.clone());
        tokio::spawn(async move {
            for one in closed_by_firewalld(&plan, &choice).await {
                let _ = news.send(News::Warning(one.said));
            }
        });
        Ok(match firewalld {
            Some(firewalld) => Self::Both(gate, Box::new(firewalld), handed_on),
            None => Self::Gate(gate),
        })
    }

    /// Works until the orders end.
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
