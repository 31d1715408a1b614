//! Hears when another program changes nftables.

use std::{collections::BTreeSet, net::IpAddr};

use doors_core::limits;
use doors_os::{
    async_fd::watch,
    netlink::{
        message::{Attributes, Message},
        socket::{Family, NetlinkError, Socket},
    },
};
use tokio::io::unix::AsyncFd;

use super::{abi, ruleset::TABLE};
use crate::plan::address;

/// Which tables another program has changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Touched {
    /// Ours.
    Ours,
    /// Others: a table, a chain or a rule, or only the elements of a set.
    Other {
        /// Whether it is more than elements.
        rules: bool,
    },
}

/// A subscription to the kernel's notifications about nftables.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: AsyncFd<Socket>,
    noted: Noted,
}

/// What was heard, and not fetched yet.
#[derive(Debug, Default)]
struct Noted {
    /// The port of our own socket, whose changes are no news.
    ours: Option<u32>,
    /// Whether another program has deleted our table, or may have.
    deleted: bool,
    /// The elements of our sets that other programs have deleted. The kernel does not announce an element that a packet
    /// takes out.
    taken_out: BTreeSet<(String, IpAddr)>,
    /// What other programs have changed in other tables, and whether it is more than elements.
    other: Option<bool>,
}

impl Monitor {
    /// Listens. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Netfilter, abi::NFTABLES_GROUP)?;
        let socket = watch(socket).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, noted: Noted::default() })
    }

    /// Ignores changes that come through the socket with this port, which is our own.
    pub(super) fn pass_over(&mut self, ours: u32) {
        self.noted.ours = Some(ours);
    }

    /// Whether another program has changed our table since the last call of this or of [`Self::touched`].
    pub(super) fn heard(&mut self) -> bool {
        let Self { socket, noted } = self;
        let mut touched = false;
        loop {
            match noted.listen(socket.get_mut(), &mut touched) {
                Ok(true) => {}
                Ok(false) => return touched,
                // More was changed than the socket could hold, or it cannot be read.
                Err(_) => {
                    noted.deleted = true;
                    return true;
                }
            }
        }
    }

    /// Whether another program has deleted our table since the last call, also if it made the table again in the same
    /// transaction. Grants that are missing then were not deleted by hand.
    pub(super) fn was_deleted(&mut self) -> bool {
        self.heard();
        std::mem::take(&mut self.noted.deleted)
    }

    /// The elements that other programs have deleted since the last call, each with its set.
    pub(super) fn taken_out(&mut self) -> BTreeSet<(String, IpAddr)> {
        self.heard();
        std::mem::take(&mut self.noted.taken_out)
    }

    /// Returns when another program has changed our table or another one.
    pub(super) async fn touched(&mut self) -> Result<Touched, NetlinkError> {
        let Self { socket, noted } = self;
        loop {
            if let Some(rules) = noted.other.take() {
                return Ok(Touched::Other { rules });
            }
            let mut ready = socket.readable_mut().await.map_err(NetlinkError::Socket)?;
            let mut touched = false;
            match noted.listen(ready.get_inner_mut(), &mut touched) {
                Ok(true) => {}
                Ok(false) => ready.clear_ready(),
                // More was changed than the socket could hold: it may have been ours.
                Err(error) if error.number() == Some(libc::ENOBUFS) => {
                    (touched, noted.deleted) = (true, true)
                }
                Err(error) => return Err(error),
            }
            if touched {
                return Ok(Touched::Ours);
            }
        }
    }
}

impl Noted {
    /// Reads the notifications that wait. Says whether there were any, and whether they concern us.
    fn listen(&mut self, socket: &mut Socket, touched: &mut bool) -> Result<bool, NetlinkError> {
        let heard = socket.notifications(|message| match concerns(message, self.ours) {
            Some(Touched::Ours) => {
                *touched = true;
                self.deleted |= message.kind == abi::NFT_MSG_DELTABLE;
                // No more than there can be grants: what is beyond counts as used.
                if message.kind == abi::NFT_MSG_DELSETELEM && self.taken_out.len() < limits::GRANTS {
                    self.taken_out.extend(elements(message));
                }
            }
            Some(Touched::Other { rules }) => self.other = Some(self.other.unwrap_or(false) | rules),
            None => {}
        })?;
        Ok(heard.is_some())
    }
}

/// The addresses that a notification is about, with their set.
fn elements(message: &Message<'_>) -> Vec<(String, IpAddr)> {
    let attributes = message.attributes(4);
    let set = attributes.text(abi::NFTA_SET_ELEM_LIST_SET).unwrap_or_default();
    let source =
        |(_, one)| address(Attributes(one).nested(abi::NFTA_SET_ELEM_KEY).find(abi::NFTA_DATA_VALUE)?);
    let sources = attributes.nested(abi::NFTA_SET_ELEM_LIST_ELEMENTS).filter_map(source);
    sources.map(|source| (set.clone(), source)).collect()
}

/// Which table a notification is about; `None` if it announces our own change. The name of the table is the first
/// attribute of all notifications.
fn concerns(message: &Message<'_>, ours: Option<u32>) -> Option<Touched> {
    const TABLE_NAME: u16 = 1;
    if Some(message.port) == ours || message.kind == abi::NFT_MSG_NEWGEN {
        return None;
    }
    let is_ours = message.body.first() == Some(&abi::NFPROTO_INET)
        && message.attributes(4).text(TABLE_NAME).as_deref() == Some(TABLE);
    let rules = ![abi::NFT_MSG_NEWSETELEM, abi::NFT_MSG_DELSETELEM].contains(&message.kind);
    Some(if is_ours { Touched::Ours } else { Touched::Other { rules } })
}
