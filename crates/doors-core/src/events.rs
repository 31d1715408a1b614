//! The values that the engine, the firewall and the observers exchange.

use core::{net::IpAddr, time::Duration};

use doors_spa::receipt::Answer;

use crate::{
    door::{DoorName, GrantKey},
    eligible::Ineligible,
    lease::{GrantedTo, Lease},
    packet::Link,
    spa::{client::ClientLabel, server::DropReason},
};

/// A change that the firewall has to make.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Let this source in until the end of the lease. The firewall closes the door by itself.
    Open(Lease),
    /// Close the door now.
    Close(GrantKey),
    /// Watch this single-connection grant, and report soon after it is used up.
    Watch(GrantKey),
}

impl Change {
    /// The grant that it is about.
    #[must_use]
    pub fn key(&self) -> &GrantKey {
        match self {
            Self::Open(lease) => &lease.key,
            Self::Close(key) | Self::Watch(key) => key,
        }
    }
}

/// A report from the firewall.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// The latest [`Change::Open`] for this grant is done.
    Done(GrantKey),
    /// The latest [`Change::Close`] for this grant is done.
    Closed(GrantKey),
    /// The firewall held this lease before the daemon started.
    Found(Lease),
    /// A single-connection lease is used up. Does not apply to a later lease of the same grant.
    Used(Lease),
    /// A single-connection lease is gone with the whole table, and is not put back; it may have been used before. Does
    /// not apply to a later lease of the same grant.
    Lost(Lease),
    /// Another program or an administrator removed this lease from the firewall, and only this. Does not
    /// apply to a later lease of the same grant.
    Withdrawn(Lease),
}

/// Something that happened. The engine emits every occurrence; the log decides which are worth a line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A sequence is complete or a client's request is accepted, and the firewall has been asked to open the
    /// door.
    Granted(Lease),
    /// The firewall has opened the door.
    Opened(Lease),
    /// The firewall has extended an open door.
    Extended(Lease),
    /// The door is already open for the same address, because of another client or a sequence. A door stays
    /// open until the last of its leases ends; single-connection leases take turns.
    AlsoOpen {
        /// The new lease.
        lease: Lease,
        /// By what right it was open before.
        before: GrantedTo,
    },
    /// The same client or sequence asked again, for no longer than the door is open already.
    StillOpen(Lease),
    /// A client has closed its own lease. The door stays open for others behind the same address.
    GivenUp(Lease),
    /// The door was open before the daemon started, and the engine has adopted its lease.
    Adopted(Lease),
    /// The door was open before the daemon started, but the rules no longer permit it, so it is closed.
    NotAdopted(Lease),
    /// The door has closed.
    Closed(Lease),
    /// The single connection of this lease has been made.
    Used(Lease),
    /// A single-connection lease is gone with the gate, and is not put back; it may have been used before.
    Lost(Lease),
    /// Another program or an administrator has closed the door.
    Withdrawn(Lease),
    /// An administrator has closed the door by a command.
    ClosedByHand {
        /// The lease that ended.
        lease: Lease,
        /// The lease that keeps the door open for others behind the same address.
        rest: Option<Lease>,
    },
    /// The door is closed because it was removed, or because its client lost its key or its permission.
    Revoked(Lease),
    /// The lease was revoked as above, but the door stays open for others who asked for it.
    Reduced {
        /// The revoked lease.
        gone: Lease,
        /// The lease that is now in force.
        now: Lease,
    },
    /// The rules permit a client less time than it had: this is the lease that is now in force.
    Shortened(Lease),
    /// A lease ended before the firewall had opened the door.
    NeverOpened(Lease),
    /// A client waited for the firewall in vain, and has been told.
    NotInTime(GrantKey),
    /// A source is one knock further in a sequence.
    Further {
        /// The source, which may be forged.
        source: IpAddr,
        /// The number of right knocks so far.
        right: u8,
    },
    /// The same datagram came again. It is ignored.
    Repeated {
        /// The source, which may be forged.
        source: IpAddr,
    },
    /// Ignored: the source is in its quiet period, which starts again.
    Waiting {
        /// The source, which may be forged.
        source: IpAddr,
    },
    /// Ignored: the kernel drops packets from this source on this interface.
    NotAccepted {
        /// The source, which is forged.
        source: IpAddr,
        /// The interface on which the knock came.
        link: Link,
    },
    /// A source knocked wrong. Its quiet period starts.
    Wrong {
        /// The source, which may be forged.
        source: IpAddr,
        /// The port on which it knocked.
        port: u16,
        /// The number of right knocks before it.
        after: u8,
        /// The length of the quiet period.
        quiet: Duration,
        /// Whether the kernel was asked and would accept a packet from this source. It is asked for few
        /// knocks, so that a flood causes no queries.
        checked: bool,
    },
    /// A sequence was completed, but too many grants are open.
    NoRoom(Lease),
    /// A client's request was refused, and the client is told.
    Refused {
        /// The client.
        who: ClientLabel,
        /// The source of the request.
        source: IpAddr,
        /// What the client was told.
        why: Answer,
        /// Why no grant can be made for the address, if that is the reason.
        address: Option<Ineligible>,
    },
    /// A sequence was completed, but no grant can be made for its source.
    Ineligible {
        /// The source.
        source: IpAddr,
        /// Why.
        why: Ineligible,
    },
    /// A datagram to the port of single packet authorization was dropped without an answer.
    Dropped {
        /// The source, which may be forged.
        source: IpAddr,
        /// Why.
        why: DropReason,
        /// The client that it claims to be from, if that is known.
        who: Option<ClientLabel>,
    },
}

/// What an event is about.
enum Subject<'a> {
    Lease(&'a Lease),
    Key(&'a GrantKey),
    Source(IpAddr),
}

impl Event {
    /// The lease that this event is about, if there is one.
    #[must_use]
    pub fn lease(&self) -> Option<&Lease> {
        match self.subject() {
            Subject::Lease(lease) => Some(lease),
            Subject::Key(_) | Subject::Source(_) => None,
        }
    }

    /// The door that this event is about, if there is one.
    #[must_use]
    pub fn door(&self) -> Option<&DoorName> {
        match self.subject() {
            Subject::Lease(lease) => Some(&lease.key.door),
            Subject::Key(key) => Some(&key.door),
            Subject::Source(_) => None,
        }
    }

    /// The source of the knock or request, or the address for which the door is.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match self.subject() {
            Subject::Lease(lease) => lease.key.source,
            Subject::Key(key) => key.source,
            Subject::Source(source) => source,
        }
    }

    /// The client that asked, or in whose name a datagram came.
    #[must_use]
    pub fn client(&self) -> Option<&ClientLabel> {
        if let Self::Refused { who, .. } | Self::Dropped { who: Some(who), .. } = self {
            return Some(who);
        }
        self.lease()?.granted_to.client()
    }

    fn subject(&self) -> Subject<'_> {
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
            | Self::Lost(lease)
            | Self::Withdrawn(lease)
            | Self::Revoked(lease)
            | Self::Shortened(lease)
            | Self::ClosedByHand { lease, .. }
            | Self::Reduced { gone: lease, .. }
            | Self::NeverOpened(lease)
            | Self::NoRoom(lease) => Subject::Lease(lease),
            Self::NotInTime(key) => Subject::Key(key),
            Self::Further { source, .. }
            | Self::Repeated { source }
            | Self::Waiting { source }
            | Self::NotAccepted { source, .. }
            | Self::Wrong { source, .. }
            | Self::Refused { source, .. }
            | Self::Ineligible { source, .. }
            | Self::Dropped { source, .. } => Subject::Source(*source),
        }
    }
}
