//! Tells systemd, or whoever speaks its protocol, how we are. Says nothing if nobody asked.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

/// The supervisor's view of this process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    /// Half of what the supervisor allows between two signs of life.
    period: Option<Duration>,
    due: Instant,
}

impl Supervisor {
    /// Everything is set up.
    pub(crate) fn ready() -> Self {
        let period = sd_notify::watchdog_enabled().and_then(|allowed| allowed.checked_div(2));
        tell(&[NotifyState::Ready]);
        Self { period, due: Instant::now() }
    }

    /// Returns when the next sign of life is due; never if nobody waits for one.
    pub(crate) async fn due(&self) {
        match self.period {
            Some(_) => tokio::time::sleep_until(self.due).await,
            None => std::future::pending().await,
        }
    }

    /// Gives a sign of life.
    pub(crate) fn alive(&mut self) {
        tell(&[NotifyState::Watchdog]);
        if let Some(period) = self.period {
            self.due = Instant::now().checked_add(period).unwrap_or(self.due);
        }
    }

    /// The configuration is being read again.
    pub(crate) fn reloading(&self) {
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    /// The configuration has been read again.
    pub(crate) fn reloaded(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The end has begun.
    pub(crate) fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("cannot tell the supervisor how we are: {error}");
    }
}
