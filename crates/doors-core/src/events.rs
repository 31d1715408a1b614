//! What goes between the engine, the firewall and whoever wants to know what happened, as values.

use core::{net::IpAddr, time::Duration};

use doors_spa::receipt::Answer;

use crate::{
    door::GrantKey,
    eligible::Ineligible,
    lease::Lease,
    packet::Link,
    spa::{client::ClientLabel, server::DropReason},
};

/// What the firewall has to make true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Let this source in until then; the firewall closes the door by itself.
    Open(Lease),
    /// Close the door now.
    Close(GrantKey),
    /// Report soon when this grant for one connection is used up.
    Watch(GrantKey),
}

impl Change {
    /// Which door for whom.
    #[must_use]
    pub fn key(&self) -> &GrantKey {
        match self {
            Self::Open(lease) => &lease.key,
            Self::Close(key) | Self::Watch(key) => key,
        }
    }
}

/// What the firewall reports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// The latest [`Change::Open`] for this is true.
    Done(GrantKey),
    /// The latest [`Change::Close`] for this is true.
    Closed(GrantKey),
    /// The firewall already lets this source in.
    Found(Lease),
    /// A grant for one connection is used up. A later lease for the same is not meant.
    Used(Lease),
    /// Another hand has taken this out of the firewall, and nothing else. A later lease for the same is not meant.
    Withdrawn(Lease),
}

/// What happened. The engine emits all of it, as often as it happens: which of it is worth a line in a log is for the
/// log to decide.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A sequence is complete, or a client's request is right, and the firewall has been asked.
    Granted(Lease),
    /// The firewall has opened the door.
    Opened(Lease),
    /// The firewall keeps an open door open for longer.
    Extended(Lease),
    /// The door is open for the same address already, by another. This is what the new one has of its own: it is open
    /// as long as the one that ends last; or, if it is for one connection, each has its turn.
    AlsoOpen {
        /// What the new one has.
        lease: Lease,
        /// Whose key had opened it before; `None` if it was a sequence, or is not known.
        before: Option<ClientLabel>,
    },
    /// A knock for a door that is open as long already, by the same.
    StillOpen(Lease),
    /// A client has given up what it had. Others still have the door open behind the same address.
    GivenUp(Lease),
    /// The door was open before this program started, and is taken over.
    Adopted(Lease),
    /// The door was open before this program started, and is closed: it could not be opened now.
    NotAdopted(Lease),
    /// The door has closed.
    Closed(Lease),
    /// The one connection that a grant was for has been made.
    Used(Lease),
    /// Another hand has closed the door.
    Withdrawn(Lease),
    /// Its client has lost its key or its permission, or the door is gone, so it is closed.
    Revoked(Lease),
    /// The same, but others have asked for it, too, so it stays open for them.
    Reduced {
        /// What was taken back.
        gone: Lease,
        /// What is left.
        now: Lease,
    },
    /// The time of a grant is over, and the firewall never made it true.
    NeverOpened(Lease),
    /// A client waited for the firewall in vain, and has been told so.
    NotInTime(GrantKey),
    /// A source is one knock further.
    Further {
        /// The source, which may be forged.
        source: IpAddr,
        /// How many knocks were right.
        right: u8,
    },
    /// The knock just accepted came again, and counts for nothing.
    Repeated {
        /// The source, which may be forged.
        source: IpAddr,
    },
    /// A source knocked while it was in its quiet period, which starts again.
    Waiting {
        /// The source, which may be forged.
        source: IpAddr,
    },
    /// A knock counted for nothing, because the kernel throws away what comes from its source like that.
    NotAccepted {
        /// The source, which is forged.
        source: IpAddr,
        /// The interface on which the knock came.
        link: Link,
    },
    /// A source knocked wrong and has to be quiet.
    Wrong {
        /// The source, which may be forged.
        source: IpAddr,
        /// The port on which it knocked.
        port: u16,
        /// How many knocks had been right.
        after: u8,
        /// How long it has to be quiet.
        quiet: Duration,
        /// Whether the kernel was asked, and would take a packet from this source. It is asked of a few only, so a
        /// flood costs no questions.
        checked: bool,
    },
    /// A sequence was complete, but too many grants run.
    NoRoom(Lease),
    /// A client's request was refused, and the client has been told.
    Refused {
        /// Whose key it was.
        who: ClientLabel,
        /// Where it came from.
        source: IpAddr,
        /// What the client was told.
        why: Answer,
        /// Why no grant is for the address, if that is why.
        address: Option<Ineligible>,
    },
    /// A sequence was complete, and no grant can be for its source.
    Ineligible {
        /// The source.
        source: IpAddr,
        /// Why.
        why: Ineligible,
    },
    /// A datagram to the port of single packet authorization was dropped, and nothing was answered.
    Dropped {
        /// Where it came from, which may be forged.
        source: IpAddr,
        /// Why.
        why: DropReason,
        /// Whose key it was, if that is known.
        who: Option<ClientLabel>,
    },
}

impl Event {
    /// What became of a door, if this is about one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self {
            Self::Granted(lease)
            | Self::Opened(lease)
            | Self::Extended(lease)
            | Self::AlsoOpen { lease, .. }
            | Self::StillOpen(lease)
            | Self::GivenUp(lease)
            | Self::Adopted(lease)
            | Self::NotAdopted(lease)
            | Self::Closed(lease)
            | Self::Used(lease)
            | Self::Withdrawn(lease)
            | Self::Revoked(lease)
            | Self::Reduced { gone: lease, .. }
            | Self::NeverOpened(lease)
            | Self::NoRoom(lease) => Some(lease),
            Self::NotInTime(_)
            | Self::Further { .. }
            | Self::Repeated { .. }
            | Self::Waiting { .. }
            | Self::NotAccepted { .. }
            | Self::Wrong { .. }
            | Self::Refused { .. }
            | Self::Ineligible { .. }
            | Self::Dropped { .. } => None,
        }
    }
}
