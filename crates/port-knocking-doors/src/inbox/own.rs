//! Keeps what is known of this machine's own addresses true while interfaces come and go.

use std::time::Duration;

use doorknock::errors::in_one_line;
use doors_core::eligible::Own;
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{InboxError, addresses::Addresses};
use crate::{netlink::socket::Socket, readiness::watch};

/// After a reading of the addresses, so many times its own time passes before the next: however many
/// addresses change, most of the time is left for knocks.
const REST: u32 = 4;

/// After a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The addresses as they were last read, and a socket that hears when they change.
#[derive(Debug)]
pub(super) struct Watched {
    changes: AsyncFd<Socket>,
    addresses: Addresses,
    /// Whether something has changed since the addresses were read.
    stale: bool,
    /// When they may be read again.
    not_before: Instant,
    /// Whether they were read since they were last given away.
    news: bool,
}

impl Watched {
    /// Reads them, and begins to watch. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, InboxError> {
        // Watching begins before reading, so that no change falls between.
        let changes = Addresses::watch().map_err(InboxError::Addresses)?;
        Ok(Self {
            changes: watch(changes).map_err(InboxError::Socket)?,
            addresses: Addresses::read().map_err(InboxError::Addresses)?,
            stale: false,
            not_before: Instant::now(),
            news: true,
        })
    }

    /// Returns when something has changed, or was read again. Safe to drop and call again.
    pub(super) async fn changed(&mut self) -> Result<(), InboxError> {
        tokio::select! {
            changed = self.changes.readable_mut() => {
                changed.map_err(InboxError::Socket)?.clear_ready();
                self.hear_changes()
            }
            () = tokio::time::sleep_until(self.not_before), if self.stale => {
                self.refresh();
                Ok(())
            }
        }
    }

    /// The addresses at this moment, if they are others than they were at the last call.
    pub(super) fn news(&mut self) -> Result<Option<Own>, InboxError> {
        self.hear_changes()?;
        if self.stale && Instant::now() >= self.not_before {
            self.refresh();
        }
        let news = std::mem::take(&mut self.news);
        Ok(news.then(|| self.own().clone()))
    }

    /// The addresses that were read last.
    pub(super) fn own(&self) -> &Own {
        self.addresses.own()
    }

    /// Takes all announcements of changes.
    fn hear_changes(&mut self) -> Result<(), InboxError> {
        loop {
            match self.changes.get_mut().notifications(|_| {}) {
                Ok(Some(())) => self.stale = true,
                Ok(None) => return Ok(()),
                // More has changed than the socket could hold.
                Err(error) if error.number() == Some(libc::ENOBUFS) => self.stale = true,
                Err(error) => return Err(InboxError::Addresses(error)),
            }
        }
    }

    /// Reads the addresses again. If that fails, the old ones have to do until the next try.
    fn refresh(&mut self) {
        let began = Instant::now();
        let pause = match self.addresses.refresh() {
            Ok(()) => {
                (self.stale, self.news) = (false, true);
                began.elapsed().saturating_mul(REST)
            }
            Err(error) => {
                tracing::warn!("cannot read this machine's own addresses: {}", in_one_line(&error));
                RETRY_AFTER
            }
        };
        let now = Instant::now();
        self.not_before = now.checked_add(pause).unwrap_or(now);
    }
}
