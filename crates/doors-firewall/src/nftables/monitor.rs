//! Hears when anybody changes nftables.

use doors_os::{
    async_fd::watch,
    netlink::{
        message::Message,
        socket::{Family, NetlinkError, Socket},
    },
};
use tokio::io::unix::AsyncFd;

use super::{
    abi::{self, message},
    ruleset::TABLE,
};

/// Whose nftables somebody else has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Touched {
    /// Ours.
    Ours,
    /// Another's: a table, a chain or a rule, or only the elements of a set.
    Other {
        /// Whether it is more than elements.
        rules: bool,
    },
}

/// A subscription to the kernel's notifications about nftables.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: AsyncFd<Socket>,
    /// The port of our own socket, whose changes are no news.
    ours: Option<u32>,
    /// Whether somebody else has deleted our table, or may have.
    deleted: bool,
    /// What somebody else has changed of other tables, that nobody has asked for.
    other: Option<bool>,
}

impl Monitor {
    /// Listens. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Netfilter, abi::GROUP)?;
        let socket = watch(socket).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, ours: None, deleted: false, other: None })
    }

    /// Passes over what is changed through the socket with this port: our own.
    pub(super) fn pass_over(&mut self, ours: u32) {
        self.ours = Some(ours);
    }

    /// Whether somebody else has changed something of our table since the last time somebody asked, or waited.
    pub(super) fn heard(&mut self) -> bool {
        let Self { socket, ours, deleted, other } = self;
        let mut touched = false;
        loop {
            match listen(socket.get_mut(), *ours, &mut touched, deleted, other) {
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

    /// Returns when somebody else has changed something of our table, or of another's.
    pub(super) async fn touched(&mut self) -> Result<Touched, NetlinkError> {
        let Self { socket, ours, deleted, other } = self;
        loop {
            if let Some(rules) = other.take() {
                return Ok(Touched::Other { rules });
            }
            let mut ready = socket.readable_mut().await.map_err(NetlinkError::Socket)?;
            let mut touched = false;
            match listen(ready.get_inner_mut(), *ours, &mut touched, deleted, other) {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                // More was changed than the socket could hold: it may have been ours.
                Err(error) if error.number() == Some(libc::ENOBUFS) => (touched, *deleted) = (true, true),
                Err(error) => return Err(error),
            }
            if touched {
                return Ok(Touched::Ours);
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
    other: &mut Option<bool>,
) -> Result<bool, NetlinkError> {
    let heard = socket.notifications(|message| match concerns(message, ours) {
        Some(Touched::Ours) => {
            *touched = true;
            *deleted |= message.kind == message::DELETE_TABLE;
        }
        Some(Touched::Other { rules }) => *other = Some(other.unwrap_or(false) | rules),
        None => {}
    })?;
    Ok(heard.is_some())
}

/// Whose table a notification is about, if it is not of our making. The name of the table is the first attribute
/// of all of them.
fn concerns(message: &Message<'_>, ours: Option<u32>) -> Option<Touched> {
    const TABLE_NAME: u16 = 1;
    if Some(message.port) == ours || message.kind == message::NEW_GENERATION {
        return None;
    }
    let is_ours = message.body.first() == Some(&abi::FAMILY_INET)
        && message.attributes(4).text(TABLE_NAME).as_deref() == Some(TABLE);
    let rules = ![message::NEW_ELEMENT, message::DELETE_ELEMENT].contains(&message.kind);
    Some(if is_ours { Touched::Ours } else { Touched::Other { rules } })
}
