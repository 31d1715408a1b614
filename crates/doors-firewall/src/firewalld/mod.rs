//! firewalld, over D-Bus.
//!
//! A grant is a rich rule with firewalld's own timeout, in the zone in which the client's traffic
//! arrives. firewalld takes tens of milliseconds for a call and does one at a time, so we ask for
//! one at a time, too, and know what is left to do. It is never reloaded by us, no address is
//! ever bound to a zone, and no rule but ours is ever touched.
//!
//! ```text
//!   orders ──► does firewalld close the port? ─ no ──► done
//!                        │ yes
//!                        ▼
//!                      Jobs ──► one Task at a time ──► firewalld
//!                        ▲                                │
//!                        └── reloaded, gone, back ◄───────┘
//! ```
//!
//! Beside the gate, firewalld is asked only for what it would close: a zone that lets the port through, and
//! a firewalld that does not run, need no rule. What each zone lets through is known before the first knock,
//! and learnt again whenever firewalld says that something has changed.

pub mod bus;
mod connection;
mod debounce;
mod installed;
mod open_ports;
mod operation;
mod preflight;
mod queue;
mod quota;
mod restore;
mod rule;
mod sanitize;
mod settings;
mod stale_rules;
mod state;
mod zones;

use std::time::Duration;

use tokio::sync::mpsc;

pub(super) use self::state::State;
use self::{
    bus::Bus,
    connection::{Ended, Session},
    sanitize::in_one_line,
};
pub use self::{
    connection::zone_is_known,
    preflight::{Explained, explained, obstacles_beside_firewalld, obstacles_with_rich_rules},
};
use super::{FirewallError, Order};

/// What firewalld is to us.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// The only firewall.
    Alone,
    /// The gate guards the doors, and firewalld must not close what that opens.
    BesideGate,
}

/// Between two tries to reach the bus there is at least this, and twice as much after each that fails.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// No more than this. Where there is no bus at all, there will hardly be one.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// A bus that is there and hangs is not waited for any longer: orders come meanwhile.
const BUS_PATIENCE: Duration = Duration::from_secs(5);

/// Works on orders.
pub(super) struct Worker {
    state: State,
    session: Option<Session>,
}

impl Worker {
    /// Connects to the bus. firewalld itself may come later; a zone that it does not know is an error.
    pub(super) async fn start(mut state: State) -> Result<Self, FirewallError> {
        let bus = Bus::connect().await.map_err(|error| FirewallError::NoBus(in_one_line(&error)))?;
        let session = Session::open(bus, &mut state).await?;
        Ok(Self { state, session: Some(session) })
    }

    /// Looks for the bus and for firewalld later, and again and again.
    pub(super) fn waiting(mut state: State) -> Self {
        state.is_expected = false;
        state.see_nothing();
        Self { state, session: None }
    }

    /// Works until the orders end.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let (mut told, mut wait) = (false, FIRST_RETRY);
        let mut next_try = in_a_while(Duration::ZERO);
        loop {
            if let Some(session) = self.session.take() {
                (told, wait) = (false, FIRST_RETRY);
                match session.run(&mut self.state, &mut orders).await {
                    Ended::Orders => return,
                    Ended::Bus => self.state.lost("the system bus is gone"),
                }
                next_try = in_a_while(FIRST_RETRY);
            }
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => {
                        self.state.note(order);
                        self.state.answer_end();
                    }
                    None => return,
                },
                () = tokio::time::sleep_until(next_try) => {
                    let opened = tokio::time::timeout(BUS_PATIENCE, open(&mut self.state)).await;
                    match opened.unwrap_or_else(|_| Err("the system bus does not answer".to_owned())) {
                        Ok(session) => self.session = Some(session),
                        Err(why) => {
                            self.state.see_nothing();
                            if !std::mem::replace(&mut told, true) {
                                self.state.cannot_be_reached(&why);
                            }
                        }
                    }
                    wait = wait.saturating_mul(2).min(LAST_RETRY);
                    next_try = in_a_while(wait);
                }
            }
        }
    }
}

/// Reaches the bus.
async fn open(state: &mut State) -> Result<Session, String> {
    let bus = Bus::connect().await.map_err(|error| in_one_line(&error))?;
    Session::open(bus, state).await.map_err(|error| in_one_line(&error))
}

fn in_a_while(wait: Duration) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now.checked_add(wait).unwrap_or(now)
}
