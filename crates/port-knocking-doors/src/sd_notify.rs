//! Tells systemd, or whoever speaks its protocol, how we are. Says nothing if nobody asked.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::time::Duration;

use doors_core::time::Moment;
use sd_notify::NotifyState;

use crate::observe::{Observe, log};

/// The supervisor's view of this process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Half of what the supervisor allows between two signs of life.
    period: Option<Duration>,
    /// When the next one is due.
    due: Moment,
}

impl Supervisor {
    /// Asks what the supervisor wants to hear.
    pub(crate) fn new(now: Moment) -> Self {
        let period = sd_notify::watchdog_enabled().and_then(|allowed| allowed.checked_div(2));
        Self { period, due: now }
    }

    /// Everything is set up.
    pub(crate) fn ready(&self, observe: &mut Observe) {
        tell(&[NotifyState::Ready], observe);
    }

    /// When the next sign of life is due; `None` if nobody waits for one.
    pub(crate) fn next_deadline(&self) -> Option<Moment> {
        self.period.map(|_| self.due)
    }

    /// Gives a sign of life, if one is due.
    pub(crate) fn handle_timeout(&mut self, now: Moment, observe: &mut Observe) {
        if let Some(period) = self.period.filter(|_| self.due <= now) {
            tell(&[NotifyState::Watchdog], observe);
            self.due = now.after(period);
        }
    }

    /// The configuration is being read again.
    pub(crate) fn reloading(&self, observe: &mut Observe) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now], observe);
        }
    }

    /// The configuration has been read again.
    pub(crate) fn reloaded(&self, observe: &mut Observe) {
        tell(&[NotifyState::Ready], observe);
    }

    /// The end has begun.
    pub(crate) fn stopping(&self, observe: &mut Observe) {
        tell(&[NotifyState::Stopping], observe);
    }
}

fn tell(state: &[NotifyState<'_>], observe: &mut Observe) {
    if let Err(error) = sd_notify::notify(state) {
        observe.line(move || log::supervisor_not_told(&error));
    }
}
