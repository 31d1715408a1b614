//! Hears knocks.
//!
//! It passes on complete datagrams that were addressed to this machine, in the order in which the kernel received
//! them. The core decides whether a datagram is a knock, and whose.

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
use self::{capture::Capture, reply_socket::ReplySocket, sockets::Sockets};

/// The maximum number of packets of each family that are passed on before the daemon handles other work.
const DRAIN_LIMIT: usize = 512;

/// Why knocks cannot be heard.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    /// The process may not open packet sockets.
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
    /// A knock port that only a privileged process may bind.
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

/// The source of knocks.
#[derive(Debug)]
pub(crate) enum Inbox {
    /// Packet sockets, and raw sockets for receipts if there are clients with keys.
    Capture(Capture, Option<ReplySocket>),
    /// Bound UDP sockets.
    Sockets(Sockets),
}

impl Inbox {
    /// Hears all ports, with packet sockets. Must be called within a runtime.
    pub(crate) fn capture(spa_port: Option<u16>) -> Result<Self, InboxError> {
        let capture = Capture::open(spa_port)?;
        Ok(Self::Capture(capture, reply_socket(spa_port)?))
    }

    /// Hears only these UDP ports. Must be called within a runtime.
    pub(crate) fn sockets(ports: &[u16], spa_port: Option<u16>) -> Result<Self, InboxError> {
        Sockets::open(ports, spa_port).map(Self::Sockets)
    }

    /// Changes the ports to hear. Packet sockets depend only on the port of clients with a key. After an error
    /// nothing has changed.
    pub(crate) fn follow(&mut self, ports: &[u16], spa_port: Option<u16>) -> Result<(), InboxError> {
        match self {
            Self::Capture(capture, replies) => {
                // An open socket is kept: a new raw socket is visible to strangers until it is bound.
                let new = if replies.is_none() { self::reply_socket(spa_port)? } else { None };
                capture.follow(spa_port)?;
                *replies = replies.take().or(new).filter(|_| spa_port.is_some());
                Ok(())
            }
            Self::Sockets(sockets) => sockets.follow(ports, spa_port),
        }
    }

    /// Sends a receipt. The caller may log an error and go on: networks lose packets too, and the client asks again.
    pub(crate) fn send(&self, outgoing: &Outgoing) -> io::Result<()> {
        match self {
            Self::Capture(_, Some(replies)) => replies.send(&outgoing.way, &outgoing.bytes),
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

    /// This machine's own addresses, if they have changed since the last call. Call this before
    /// [`drain`](Self::drain): a new address applies to the first packets sent to it.
    pub(crate) fn own(&mut self) -> Result<Option<Own>, InboxError> {
        match self {
            Self::Capture(capture, _) => capture.own(),
            Self::Sockets(sockets) => sockets.own(),
        }
    }

    /// Notes for the administrator, since the last call.
    pub(crate) fn notes(&mut self) -> Vec<Note> {
        match self {
            Self::Capture(capture, _) => capture.notes(),
            Self::Sockets(sockets) => sockets.notes(),
        }
    }

    /// Passes on the datagrams that have arrived, in order and at most a bounded number, each with the routes that
    /// tell whether the kernel would accept it.
    pub(crate) fn drain(&mut self, each: impl FnMut(&Packet<'_>, &mut dyn Routes)) -> Result<(), InboxError> {
        match self {
            Self::Capture(capture, _) => capture.drain(each),
            Self::Sockets(sockets) => sockets.drain(each),
        }
    }
}

/// The index of the loopback interface in every network namespace (`LOOPBACK_IFINDEX`, `net/flow.h`).
const LOOPBACK: u32 = 1;

/// Whether a local user has sent this with a source address that is not this machine's. The kernel accepts such a
/// packet: it does not route packets that come in over loopback.
fn is_forged_here(own: &Own, source: IpAddr, link: u32) -> bool {
    link == LOOPBACK && !own.contain(source)
}

/// Opens the sockets for receipts, if there are clients with keys.
fn reply_socket(spa_port: Option<u16>) -> Result<Option<ReplySocket>, InboxError> {
    spa_port.map(|_| ReplySocket::open()).transpose().map_err(capture::denied)
}
