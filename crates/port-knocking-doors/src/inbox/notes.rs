//! What an administrator should know of how knocks are heard. The inbox does not log: it is read on the network thread,
//! and a log may take its time.

use std::{io, net::IpAddr};

use doors_os::netlink::socket::NetlinkError;

/// Something that did not work, and keeps no knock out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Note {
    /// Knocks are judged by the addresses of before until the next try.
    #[error("cannot read this machine's own addresses")]
    OwnAddresses(#[source] NetlinkError),
    /// A knock counts, though the kernel may throw away what comes like it.
    #[error("cannot ask the kernel for the way back to {0}")]
    WayBack(IpAddr, #[source] NetlinkError),
    /// What an ICMP message of another host left on a socket.
    #[error("an error was left on port {0}")]
    Left(u16, #[source] io::Error),
    /// The machine has one family only.
    #[error("this machine has no IPv6: knocks are heard over IPv4 only")]
    OnlyIpv4,
    /// The order of the first datagrams is not known.
    #[error("the kernel stamps no datagrams yet; the first may be judged out of order")]
    NotStamped(#[source] io::Error),
}

impl Note {
    /// Whether it matters only to an administrator who looks for a fault.
    pub(crate) fn is_detail(&self) -> bool {
        matches!(self, Self::WayBack(..) | Self::Left(..))
    }
}

/// Notes that wait to be read: so many, and the rest is dropped, since they are all alike.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<Note>);

/// Notes that may wait.
const AT_MOST: usize = 8;

impl Notes {
    pub(super) fn add(&mut self, note: Note) {
        if self.0.len() < AT_MOST {
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
    fn notes_that_are_not_read_take_no_more_than_their_room() {
        let mut notes = Notes::default();
        (0..1000).for_each(|_| notes.add(Note::OnlyIpv4));
        assert_eq!(notes.take().len(), AT_MOST);
        assert!(notes.take().is_empty());
    }
}
