//! Hears knocks.
//!
//! What comes out of here is a datagram that was addressed to this machine, is whole, and came in the
//! order in which the kernel received it. Whether it is a knock, and whose, is judged elsewhere.

mod addresses;
mod capture;
mod datagram;
mod filter;
mod notes;
mod own;
mod receive;
mod reply_socket;
mod ring;
mod routes;
mod sockets;
mod timestamping;

use std::{io, net::IpAddr};

use doors_core::{
    eligible::Own,
    packet::{Packet, Routes},
    spa::server::Outgoing,
};
use doors_os::netlink::socket::NetlinkError;

use self::notes::Note;
use self::{capture::Capture, reply_socket::Answers, sockets::Sockets};

/// Packets that are handed over before the daemon looks at anything else.
const AT_ONCE: usize = 512;

/// Why nothing can be heard.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// Not allowed.
    #[error(
        "may not capture packets; root or the capability CAP_NET_RAW is needed, \
         or set listen = \"sockets\" in the configuration"
    )]
    Denied(#[source] io::Error),
    /// A knock port cannot be bound.
    #[error("cannot bind UDP port {port} to hear knocks on it")]
    Bind {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A knock port that is not for everybody.
    #[error(
        "may not bind UDP port {port}; give the daemon the capability CAP_NET_BIND_SERVICE, choose knock ports from \
         1024, or set listen = \"capture\""
    )]
    Reserved {
        /// The port.
        port: u16,
        /// What the kernel said.
        source: io::Error,
    },
    /// A socket failed.
    #[error("cannot hear knocks")]
    Socket(#[source] io::Error),
    /// The addresses of the machine cannot be read.
    #[error("cannot read this machine's own addresses")]
    Addresses(#[source] NetlinkError),
}

/// Where knocks come in.
#[derive(Debug)]
pub(crate) enum Inbox {
    /// Packet sockets, and raw ones for receipts if anybody gets any.
    Capture(Capture, Option<Answers>),
    /// Bound UDP sockets.
    Sockets(Sockets),
}

impl Inbox {
    /// Hears everything, with packet sockets. Must be called within a runtime.
    pub(crate) fn capture(spa_port: Option<u16>) -> Result<Self, InboxError> {
        let capture = Capture::open(spa_port)?;
        Ok(Self::Capture(capture, answers(spa_port)?))
    }

    /// Hears these UDP ports only. Must be called within a runtime.
    pub(crate) fn sockets(ports: &[u16], spa_port: Option<u16>) -> Result<Self, InboxError> {
        Sockets::open(ports, spa_port).map(Self::Sockets)
    }

    /// Hears these ports from here on, if it matters which. If that cannot be, nothing changes.
    pub(crate) fn follow(&mut self, ports: &[u16], spa_port: Option<u16>) -> Result<(), InboxError> {
        match self {
            Self::Capture(capture, answers) => {
                // What is open stays: a raw socket that is not bound yet can be seen for a moment.
                let new = if answers.is_none() { self::answers(spa_port)? } else { None };
                capture.follow(spa_port)?;
                *answers = answers.take().or(new).filter(|_| spa_port.is_some());
                Ok(())
            }
            Self::Sockets(sockets) => sockets.follow(ports, spa_port),
        }
    }

    /// Sends a receipt. That one gets lost is the network's way, and its client asks again; so whoever calls
    /// may ignore an error, and tell of it.
    pub(crate) fn send(&self, outgoing: &Outgoing) -> io::Result<()> {
        match self {
            Self::Capture(_, Some(answers)) => answers.send(&outgoing.way, &outgoing.bytes),
            Self::Capture(_, None) => Err(io::Error::other("clients with keys are not heard any more")),
            Self::Sockets(sockets) => sockets.send(&outgoing.way, &outgoing.bytes),
        }
    }

    /// Returns when there may be packets. Safe to drop and call again.
    pub(crate) async fn ready(&mut self) -> Result<(), InboxError> {
        match self {
            Self::Capture(capture, _) => capture.ready().await,
            Self::Sockets(sockets) => sockets.ready().await,
        }
    }

    /// This machine's own addresses, if they have changed since the last call. To be asked before
    /// [`drain`](Self::drain): an address that has just come counts for the packets that it brings.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        match self {
            Self::Capture(capture, _) => capture.own(),
            Self::Sockets(sockets) => sockets.own(),
        }
    }

    /// What an administrator should know, since the last call.
    pub(crate) fn notes(&mut self) -> Vec<Note> {
        match self {
            Self::Capture(capture, _) => capture.notes(),
            Self::Sockets(sockets) => sockets.notes(),
        }
    }

    /// Hands over what has come, in order, and at most a bounded number; each with what says whether the kernel takes
    /// it, too.
    pub(crate) fn drain(&mut self, each: impl FnMut(&Packet<'_>, &mut dyn Routes)) -> Result<(), InboxError> {
        match self {
            Self::Capture(capture, _) => capture.drain(each),
            Self::Sockets(sockets) => sockets.drain(each),
        }
    }
}

/// The loopback interface is the first of every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK: u32 = 1;

/// Whether a local user has sent this in a name that is not this machine's. The kernel takes it: what goes out over
/// loopback comes in again without being routed.
fn is_forged_here(own: &Own, source: IpAddr, link: u32) -> bool {
    link == LOOPBACK && !own.contain(source)
}

/// The sockets for receipts, where there are clients to whom to send them.
fn answers(spa_port: Option<u16>) -> Result<Option<Answers>, InboxError> {
    spa_port.map(|_| Answers::open()).transpose().map_err(capture::denied)
}
