//! Hears when anybody changes nftables.

use tokio::io::unix::AsyncFd;

use super::{
    abi::{self, message},
    ruleset::TABLE,
};
use crate::{
    netlink::{
        message::Message,
        socket::{Family, NetlinkError, Socket},
    },
    readiness::watch,
};

/// A subscription to the kernel's notifications about nftables.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: AsyncFd<Socket>,
    /// The port of our own socket, whose changes are no news.
    ours: Option<u32>,
}

impl Monitor {
    /// Listens. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Netfilter, abi::GROUP)?;
        let socket = watch(socket).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, ours: None })
    }

    /// Passes over what is changed through the socket with this port: our own.
    pub(super) fn pass_over(&mut self, ours: u32) {
        self.ours = Some(ours);
    }

    /// Whether somebody else has changed something of our table since the last time somebody asked, or waited.
    pub(super) fn heard(&mut self) -> bool {
        let (ours, mut touched) = (self.ours, false);
        loop {
            match self.socket.get_mut().notifications(|message| touched |= concerns_us(message, ours)) {
                Ok(Some(())) => {}
                Ok(None) => return touched,
                // More was changed than the socket could hold, or nobody knows.
                Err(_) => return true,
            }
        }
    }

    /// Returns when somebody else has changed something of our table.
    pub(super) async fn touched(&mut self) -> Result<(), NetlinkError> {
        loop {
            let mut ready = self.socket.readable_mut().await.map_err(NetlinkError::Socket)?;
            let ours = self.ours;
            let mut touched = false;
            let heard = ready.get_inner_mut().notifications(|message| touched |= concerns_us(message, ours));
            match heard {
                Ok(Some(())) => {}
                Ok(None) => ready.clear_ready(),
                // More was changed than the socket could hold: it may have been ours.
                Err(error) if error.number() == Some(libc::ENOBUFS) => touched = true,
                Err(error) => return Err(error),
            }
            if touched {
                return Ok(());
            }
        }
    }
}

/// Whether a notification is about our table, and not of our making. The name of the table is the
/// first attribute of all of them.
fn concerns_us(message: &Message<'_>, ours: Option<u32>) -> bool {
    const TABLE_NAME: u16 = 1;
    Some(message.port) != ours
        && message.kind != message::NEW_GENERATION
        && message.body.first() == Some(&abi::FAMILY_INET)
        && message.attributes(4).text(TABLE_NAME).as_deref() == Some(TABLE)
}
