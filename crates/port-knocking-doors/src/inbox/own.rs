//! Keeps this machine's own addresses up to date while interfaces come and go.

use std::time::Duration;

use doors_core::eligible::Own;
use doors_os::{async_fd::watch, netlink::socket::Socket};
use tokio::{io::unix::AsyncFd, time::Instant};

use super::{
    InboxError,
    addresses::Addresses,
    notes::{Note, Notes},
};

/// While addresses change all the time, each reading is followed by a pause, so that reading takes one part in five
/// of the time and the rest is left for knocks.
const COST_FACTOR: u32 = 5;

/// Unused reading time is credited up to this: a few changes are read at once, so that a new address applies to the
/// first knock sent to it.
const MAX_CREDIT: Duration = Duration::from_secs(1);

/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The addresses as last read, and a socket that is notified of changes.
#[derive(Debug)]
pub(super) struct WatchedAddresses {
    changes: AsyncFd<Socket>,
    addresses: Addresses,
    /// Whether something has changed since the addresses were read.
    stale: bool,
    /// When they may be read again.
    not_before: Instant,
    /// Whether they were read since `news` last returned them.
    news: bool,
    notes: Notes,
}

impl WatchedAddresses {
    /// Reads the addresses, and starts to watch. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, InboxError> {
        // Watch before reading, so that no change is missed in between.
        let changes = Addresses::watch().map_err(InboxError::Addresses)?;
        let now = Instant::now();
        Ok(Self {
            changes: watch(changes).map_err(InboxError::Socket)?,
            addresses: Addresses::read().map_err(InboxError::Addresses)?,
            stale: false,
            // Start with the full credit.
            not_before: now.checked_sub(MAX_CREDIT).unwrap_or(now),
            news: true,
            notes: Notes::default(),
        })
    }

    /// Returns when something has changed or was read again. Safe to drop and call again.
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

    /// The current addresses, if they were read again since the last call.
    pub(super) fn news(&mut self) -> Result<Option<Own>, InboxError> {
        self.hear_changes()?;
        if self.stale && Instant::now() >= self.not_before {
            self.refresh();
        }
        let news = std::mem::take(&mut self.news);
        Ok(news.then(|| self.own().clone()))
    }

    /// Notes for the administrator.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    /// The addresses as last read.
    pub(super) fn own(&self) -> &Own {
        self.addresses.own()
    }

    /// Reads all notifications of changes.
    fn hear_changes(&mut self) -> Result<(), InboxError> {
        loop {
            match self.changes.get_mut().notifications(|_| {}) {
                Ok(Some(())) => self.stale = true,
                Ok(None) => return Ok(()),
                // The socket's buffer has overflowed.
                Err(error) if error.number() == Some(libc::ENOBUFS) => self.stale = true,
                Err(error) => return Err(InboxError::Addresses(error)),
            }
        }
    }

    /// Reads the addresses again. After an error the old ones stay until the next try.
    fn refresh(&mut self) {
        let began = Instant::now();
        match self.addresses.refresh() {
            Ok(()) => {
                (self.stale, self.news) = (false, true);
                self.not_before = next_reading(self.not_before, began, began.elapsed());
            }
            Err(error) => {
                self.notes.add(Note::OwnAddresses(error));
                self.not_before = began.checked_add(RETRY_AFTER).unwrap_or(began);
            }
        }
    }
}

/// When the addresses may be read again, after a reading that started at `began` and lasted `took`.
fn next_reading(not_before: Instant, began: Instant, took: Duration) -> Instant {
    let from = began.checked_sub(MAX_CREDIT).map_or(not_before, |earliest| earliest.max(not_before));
    from.checked_add(took.saturating_mul(COST_FACTOR)).unwrap_or(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_millis(10);

    #[test]
    fn a_few_changes_are_read_at_once() {
        let mut now = Instant::now();
        let mut not_before = now.checked_sub(MAX_CREDIT).unwrap();
        for number in 0..20 {
            assert!(not_before <= now, "{number}");
            not_before = next_reading(not_before, now, TOOK);
            now += TOOK;
        }
        // The credit is bounded, however long nothing has changed.
        not_before = next_reading(not_before, now + Duration::from_secs(3600), Duration::from_secs(1));
        assert_eq!(not_before, now + Duration::from_secs(3604));
    }

    #[test]
    fn endless_changes_take_a_fifth_of_the_time() {
        let began = Instant::now();
        let (mut now, mut not_before, mut read) = (began, began, Duration::ZERO);
        while now < began + Duration::from_secs(100) {
            not_before = next_reading(not_before, now, TOOK);
            read += TOOK;
            now = not_before.max(now + TOOK);
        }
        assert!(read <= Duration::from_secs(21), "{read:?}");
    }
}
