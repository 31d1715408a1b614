//! Reports the daemon's state to systemd, or to another supervisor with the same protocol. Without a supervisor it
//! sends nothing.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::time::Duration;

use doors_core::time::Moment;
use sd_notify::NotifyState;

use crate::observe::{Observe, log};

/// The connection to the supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Half of the supervisor's watchdog timeout.
    period: Option<Duration>,
    /// When the next watchdog message is due.
    due: Moment,
}

impl Supervisor {
    /// Reads from the environment what the supervisor wants.
    pub(crate) fn new(now: Moment) -> Self {
        let period = sd_notify::watchdog_enabled().and_then(|allowed| allowed.checked_div(2));
        Self { period, due: now }
    }

    /// Everything is set up.
    pub(crate) fn ready(&self, observe: &mut Observe) {
        notify(&[NotifyState::Ready], observe);
    }

    /// When the next watchdog message is due; `None` if the supervisor wants none.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.period.map(|_| self.due)
    }

    /// Sends a watchdog message, if one is due.
    pub(crate) fn handle_timeout(&mut self, now: Moment, observe: &mut Observe) {
        if let Some(period) = self.period.filter(|_| self.due <= now) {
            notify(&[NotifyState::Watchdog], observe);
            self.due = now.after(period);
        }
    }

    /// The configuration is being read again.
    pub(crate) fn reloading(&self, observe: &mut Observe) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now], observe);
        }
    }

    /// The configuration has been read again.
    pub(crate) fn reloaded(&self, observe: &mut Observe) {
        notify(&[NotifyState::Ready], observe);
    }

    /// The daemon is stopping.
    pub(crate) fn stopping(&self, observe: &mut Observe) {
        notify(&[NotifyState::Stopping], observe);
    }
}

fn notify(state: &[NotifyState<'_>], observe: &mut Observe) {
    if let Err(error) = sd_notify::notify(state) {
        observe.line(move || log::supervisor_not_told(&error));
    }
}
