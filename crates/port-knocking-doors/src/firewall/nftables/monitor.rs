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
    /// Whether somebody else has deleted our table, or may have.
    deleted: bool,
}

impl Monitor {
    /// Listens. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Netfilter, abi::GROUP)?;
        let socket = watch(socket).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, ours: None, deleted: false })
    }

    /// Passes over what is changed through the socket with this port: our own.
    pub(super) fn pass_over(&mut self, ours: u32) {
        self.ours = Some(ours);
    }

    /// Whether somebody else has changed something of our table since the last time somebody asked, or waited.
    pub(super) fn heard(&mut self) -> bool {
        let Self { socket, ours, deleted } = self;
        let mut touched = false;
        loop {
            match listen(socket.get_mut(), *ours, &mut touched, deleted) {
                Ok(true) => {}
                Ok(false) => return touched,
                // More was changed than the socket could hold, or nobody knows.
                Err(_) => {
                    *deleted = true;
                    return true;
                }
            }
        }
    }

    /// Whether somebody else has deleted our table since the last time somebody asked, also if it was made again in
    /// the same transaction. What is missing then was not taken out by hand.
    pub(super) fn was_deleted(&mut self) -> bool {
        self.heard();
        std::mem::take(&mut self.deleted)
    }

    /// Returns when somebody else has changed something of our table.
    pub(super) async fn touched(&mut self) -> Result<(), NetlinkError> {
        let Self { socket, ours, deleted } = self;
        loop {
            let mut ready = socket.readable_mut().await.map_err(NetlinkError::Socket)?;
            let mut touched = false;
            match listen(ready.get_inner_mut(), *ours, &mut touched, deleted) {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                // More was changed than the socket could hold: it may have been ours.
                Err(error) if error.number() == Some(libc::ENOBUFS) => (touched, *deleted) = (true, true),
                Err(error) => return Err(error),
            }
            if touched {
                return Ok(());
            }
        }
    }
}

/// Reads what is there. Says whether there was something, and notes whether it concerns us.
fn listen(
    socket: &mut Socket,
    ours: Option<u32>,
    touched: &mut bool,
    deleted: &mut bool,
) -> Result<bool, NetlinkError> {
    let heard = socket.notifications(|message| {
        if concerns_us(message, ours) {
            *touched = true;
            *deleted |= message.kind == message::DELETE_TABLE;
        }
    })?;
    Ok(heard.is_some())
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
