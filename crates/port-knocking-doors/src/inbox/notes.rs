//! Notes for the administrator on how knocks are heard. The inbox does not log: it runs on the network thread, and
//! writing a log line may block.

use std::{io, net::IpAddr};

use doors_os::netlink::socket::NetlinkError;

/// A problem that keeps no knock out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Note {
    /// Until the next try, the addresses as last read are used.
    #[error("cannot read this machine's own addresses")]
    OwnAddresses(#[source] NetlinkError),
    /// The knock counts, though the kernel may drop packets like it.
    #[error("cannot ask the kernel for the way back to {0}")]
    WayBack(IpAddr, #[source] NetlinkError),
    /// An ICMP message of another host left an error on a socket.
    #[error("an error was left on port {0}")]
    Left(u16, #[source] io::Error),
    /// The machine has no IPv6.
    #[error("this machine has no IPv6: knocks are heard over IPv4 only")]
    OnlyIpv4,
    /// The order of the first datagrams is unknown.
    #[error("the kernel stamps no datagrams yet; the first may be judged out of order")]
    NotStamped(#[source] io::Error),
}

impl Note {
    /// Whether it matters only for debugging.
    pub(crate) fn is_detail(&self) -> bool {
        matches!(self, Self::WayBack(..) | Self::Left(..))
    }
}

/// Notes that wait to be read. Notes beyond the maximum are dropped, since they are all alike.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

/// The maximum number of notes that wait.
const MAX_NOTES: usize = 8;

impl Notes {
    pub(super) fn add(&mut self, note: Note) {
        if self.0.len() < MAX_NOTES {
            self.0.push(note);
        }
    }

    pub(super) fn take(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unread_notes_are_bounded() {
        let mut notes = Notes::default();
        (0..1000).for_each(|_| notes.add(Note::OnlyIpv4));
        assert_eq!(notes.take().len(), MAX_NOTES);
        assert!(notes.take().is_empty());
    }
}
