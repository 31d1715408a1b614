//! What goes between the engine, the firewall and the log, as values.

use core::{net::IpAddr, time::Duration};

use doors_spa::receipt::Answer;

use crate::{
    door::GrantKey, eligible::Ineligible, packet::Link, spa::client::ClientLabel, spa::server::DropReason,
    time::Moment,
};

/// What the firewall has to make true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Let this source in until then; the firewall closes the door by itself.
    Open {
        /// Which door for whom.
        admission: GrantKey,
        /// The interface on which the knocks came.
        link: Link,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<ClientLabel>,
    },
    /// Close the door now.
    Close {
        /// Which door for whom.
        admission: GrantKey,
    },
    /// Another grant for one connection waits behind this one: say soon when it is used up.
    Watch {
        /// Which door for whom.
        admission: GrantKey,
    },
}

impl Change {
    /// Which door for whom.
    #[must_use]
    pub fn admission(&self) -> &GrantKey {
        match self {
            Self::Open { admission, .. } | Self::Close { admission } | Self::Watch { admission } => admission,
        }
    }
}

/// What the firewall has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// The latest [`Change::Open`] for this is true.
    Done {
        /// Which door for whom.
        admission: GrantKey,
    },
    /// The latest [`Change::Close`] for this is true.
    Closed {
        /// Which door for whom.
        admission: GrantKey,
    },
    /// The firewall already lets this source in.
    Found {
        /// Which door for whom.
        admission: GrantKey,
        /// When the firewall closes it.
        until: Moment,
        /// Whose key it was, if the firewall knows.
        by: Option<ClientLabel>,
    },
    /// A grant for one connection is used up.
    Used {
        /// Which door for whom.
        admission: GrantKey,
        /// Until when it would have lasted: a later grant for the same is not meant.
        until: Moment,
    },
    /// Somebody has taken a grant out of the firewall by hand, and nothing else.
    Withdrawn {
        /// Which door for whom.
        admission: GrantKey,
        /// Until when it would have lasted: a later grant for the same is not meant.
        until: Moment,
    },
}

/// What happened, for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A sequence is complete, or a client's request is right, and the firewall has been asked.
    Granted(GrantKey),
    /// The firewall has opened the door.
    Opened {
        /// Which door for whom.
        admission: GrantKey,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<ClientLabel>,
    },
    /// The firewall keeps an open door open for longer.
    Extended {
        /// Which door for whom.
        admission: GrantKey,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<ClientLabel>,
    },
    /// A client has asked for a door that another has open for the same address.
    AlsoOpen {
        /// Which door for whom.
        admission: GrantKey,
        /// When it closes, or, if it is for one connection, until when the client's own lasts behind the other's.
        until: Moment,
        /// Whose key it was.
        by: ClientLabel,
    },
    /// A client gives up its grant for one connection, which was behind another's.
    NotWaiting {
        /// Which door for whom.
        admission: GrantKey,
        /// Whose key it was.
        by: ClientLabel,
    },
    /// The door was open before this program started, and is taken over.
    Adopted {
        /// Which door for whom.
        admission: GrantKey,
        /// When it closes.
        until: Moment,
        /// Whose key it was, if the firewall knows.
        by: Option<ClientLabel>,
    },
    /// The door has closed.
    Closed {
        /// Which door for whom.
        admission: GrantKey,
        /// Whose key had opened it; `None` if it was a sequence, or is not known.
        by: Option<ClientLabel>,
    },
    /// The one connection that a grant was for has been made.
    Used {
        /// Which door for whom.
        admission: GrantKey,
        /// Whose key had opened it; `None` if it was a sequence.
        by: Option<ClientLabel>,
    },
    /// Somebody has closed the door by hand.
    Withdrawn {
        /// Which door for whom.
        admission: GrantKey,
        /// Whose key had opened it; `None` if it was a sequence.
        by: Option<ClientLabel>,
    },
    /// The client that had opened the door is none any more, so it is closed.
    Revoked {
        /// Which door for whom.
        admission: GrantKey,
        /// Whose key had opened it.
        by: Option<ClientLabel>,
    },
    /// The time of a grant is over, and the firewall never made it true.
    NeverOpened(GrantKey),
    /// A source is one knock further.
    Further {
        /// The source, which may be forged.
        source: IpAddr,
        /// How many knocks were right.
        right: u8,
    },
    /// A source knocked while it had to be quiet; its time begins anew.
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
    },
    /// So much more was refused, since the first that was not told.
    MoreWrong(u64),
    /// So much more became of doors that sequences open, since the first that was not told.
    MoreDoors(u64),
    /// A sequence was complete, but too many grants run.
    NoRoom(GrantKey),
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
    /// A datagram that was sealed with our card is nobody's, and nothing was answered.
    Dropped {
        /// Where it came from, which may be forged.
        source: IpAddr,
        /// Why it is nobody's.
        why: DropReason,
        /// Whose key it was, if that is known.
        who: Option<ClientLabel>,
    },
}

impl Event {
    /// Whose key opened the door that this is about; `None` if it is about no door, or a sequence's.
    #[must_use]
    pub fn client(&self) -> Option<&ClientLabel> {
        match self {
            Self::Opened { by, .. }
            | Self::Extended { by, .. }
            | Self::Adopted { by, .. }
            | Self::Closed { by, .. }
            | Self::Used { by, .. }
            | Self::Withdrawn { by, .. }
            | Self::Revoked { by, .. } => by.as_ref(),
            Self::AlsoOpen { by, .. } | Self::NotWaiting { by, .. } => Some(by),
            Self::Granted(_)
            | Self::NeverOpened(_)
            | Self::Further { .. }
            | Self::Waiting { .. }
            | Self::NotAccepted { .. }
            | Self::Wrong { .. }
            | Self::MoreWrong(_)
            | Self::MoreDoors(_)
            | Self::NoRoom(_)
            | Self::Refused { .. }
            | Self::Ineligible { .. }
            | Self::Dropped { .. } => None,
        }
    }
}
