//! What goes between the doorkeeper, the firewall and the log, as values.

use core::{net::IpAddr, time::Duration};

use doors_spa::receipt::Answer;

use crate::{
    door::Admission, eligible::Ineligible, packet::Link, spa::client::Who, spa::server::Stranger,
    time::Moment,
};

/// What the firewall has to make true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Let this source in until then; the firewall closes the door by itself.
    Open {
        /// Which door for whom.
        admission: Admission,
        /// The interface on which the knocks came.
        link: Link,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<Who>,
    },
    /// Close the door now.
    Close {
        /// Which door for whom.
        admission: Admission,
    },
    /// Another grant for one connection waits behind this one: say soon when it is used up.
    Watch {
        /// Which door for whom.
        admission: Admission,
    },
}

impl Change {
    /// Which door for whom.
    #[must_use]
    pub fn admission(&self) -> &Admission {
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
        admission: Admission,
    },
    /// The latest [`Change::Close`] for this is true.
    Closed {
        /// Which door for whom.
        admission: Admission,
    },
    /// The firewall already lets this source in.
    Found {
        /// Which door for whom.
        admission: Admission,
        /// When the firewall closes it.
        until: Moment,
        /// Whose key it was, if the firewall knows.
        by: Option<Who>,
    },
    /// A grant for one connection is used up.
    Used {
        /// Which door for whom.
        admission: Admission,
        /// Until when it would have lasted: a later grant for the same is not meant.
        until: Moment,
    },
    /// Somebody has taken a grant out of the firewall by hand, and nothing else.
    Withdrawn {
        /// Which door for whom.
        admission: Admission,
        /// Until when it would have lasted: a later grant for the same is not meant.
        until: Moment,
    },
}

/// What happened, for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A sequence is complete, or a client's request is right, and the firewall has been asked.
    Granted(Admission),
    /// The firewall has opened the door.
    Opened {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<Who>,
    },
    /// The firewall keeps an open door open for longer.
    Extended {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
        /// Whose key it was; `None` if it was a sequence.
        by: Option<Who>,
    },
    /// A client has asked for a door that another has open for the same address.
    AlsoOpen {
        /// Which door for whom.
        admission: Admission,
        /// When it closes, or, if it is for one connection, until when the client's own lasts behind the other's.
        until: Moment,
        /// Whose key it was.
        by: Who,
    },
    /// A client gives up its grant for one connection, which was behind another's.
    NotWaiting {
        /// Which door for whom.
        admission: Admission,
        /// Whose key it was.
        by: Who,
    },
    /// The door was open before this program started, and is taken over.
    Adopted {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
        /// Whose key it was, if the firewall knows.
        by: Option<Who>,
    },
    /// The door has closed.
    Closed {
        /// Which door for whom.
        admission: Admission,
        /// Whose key had opened it; `None` if it was a sequence, or is not known.
        by: Option<Who>,
    },
    /// The one connection that a grant was for has been made.
    Used {
        /// Which door for whom.
        admission: Admission,
        /// Whose key had opened it; `None` if it was a sequence.
        by: Option<Who>,
    },
    /// Somebody has closed the door by hand.
    Withdrawn {
        /// Which door for whom.
        admission: Admission,
        /// Whose key had opened it; `None` if it was a sequence.
        by: Option<Who>,
    },
    /// The client that had opened the door is none any more, so it is closed.
    Revoked {
        /// Which door for whom.
        admission: Admission,
        /// Whose key had opened it.
        by: Option<Who>,
    },
    /// The time of a grant is over, and the firewall never made it true.
    NeverOpened(Admission),
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
    NoRoom(Admission),
    /// A client's request was refused, and the client has been told.
    Refused {
        /// Whose key it was.
        who: Who,
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
    Stranger {
        /// Where it came from, which may be forged.
        source: IpAddr,
        /// Why it is nobody's.
        why: Stranger,
        /// Whose key it was, if that is known.
        who: Option<Who>,
    },
}

impl Event {
    /// Whose key opened the door that this is about; `None` if it is about no door, or a sequence's.
    #[must_use]
    pub fn client(&self) -> Option<&Who> {
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
            | Self::Stranger { .. } => None,
        }
    }
}
