//! firewalld, over D-Bus.
//!
//! A grant is a rich rule with firewalld's own timeout, in the zone in which the client's traffic
//! arrives. firewalld takes tens of milliseconds for a call and does one at a time, so we ask for
//! one at a time, too, and know what is left to do. It is never reloaded by us, no address is
//! ever bound to a zone, and no rule but ours is ever touched.
//!
//! ```text
//!   orders ──► Jobs ──► one Task at a time ──► firewalld
//!                ▲                                │
//!                └── reloaded, gone, back ◄───────┘
//! ```

pub(crate) mod bus;
mod held;
mod jobs;
mod leftovers;
mod obstacles;
mod paced;
mod restoring;
mod room;
mod rule;
mod said;
mod session;
mod state;
mod work;
mod zones;

use std::time::Duration;

use tokio::sync::mpsc;

use self::{
    bus::Bus,
    said::in_one_line,
    session::{Ended, Session},
    state::State,
};
pub(crate) use self::{
    obstacles::{obstacles_beside_firewalld, obstacles_with_firewalld},
    session::zone_is_known,
};
use super::{FirewallError, News, Order, plan::Plan};
use crate::clock::Clock;

/// Between two tries to reach the bus.
const BUS_RETRY: Duration = Duration::from_secs(1);

/// Works on orders.
pub(super) struct Worker {
    state: State,
    session: Option<Session>,
}

impl Worker {
    /// Connects to the bus. firewalld itself may come later; a zone that it does not know is an error.
    pub(super) async fn start(
        plan: Plan,
        clock: Clock,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<Self, FirewallError> {
        let bus = Bus::connect().await.map_err(|error| FirewallError::NoBus(in_one_line(&error)))?;
        let mut state = State::new(plan, clock, news);
        let session = Session::open(bus, &mut state).await?;
        Ok(Self { state, session: Some(session) })
    }

    /// Works until the orders end.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut told = false;
        loop {
            if let Some(session) = self.session.take() {
                told = false;
                match session.run(&mut self.state, &mut orders).await {
                    Ended::Orders => return,
                    Ended::Bus => self.state.lost("the system bus is gone"),
                }
            }
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.state.note(order),
                    None => return,
                },
                () = tokio::time::sleep(BUS_RETRY) => {
                    if let Ok(bus) = Bus::connect().await {
                        match Session::open(bus, &mut self.state).await {
                            Ok(session) => self.session = Some(session),
                            Err(error) if !told => {
                                told = true;
                                let what = "work with firewalld again".to_owned();
                                self.state.tell(News::Failed { what, why: in_one_line(&error) });
                            }
                            Err(_) => {}
                        }
                    }
                }
            }
        }
    }
}
