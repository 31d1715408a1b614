//! Hears when anybody changes nftables.

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
    noted: Noted,
}

/// What was heard, and has not been asked for yet.
#[derive(Debug, Default)]
struct Noted {
    /// The port of our own socket, whose changes are no news.
    ours: Option<u32>,
    /// Whether somebody else has deleted our table, or may have.
    deleted: bool,
    /// The elements of our sets that somebody else has deleted. A packet that takes an element out is not told of.
    taken_out: BTreeSet<(String, IpAddr)>,
    /// What somebody else has changed of other tables, and whether it is more than elements.
    other: Option<bool>,
}

impl Monitor {
    /// Listens. Must be called within a runtime.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open_in_groups(Family::Netfilter, abi::NFTABLES_GROUP)?;
        let socket = watch(socket).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, noted: Noted::default() })
    }

    /// Passes over what is changed through the socket with this port: our own.
    pub(super) fn pass_over(&mut self, ours: u32) {
        self.noted.ours = Some(ours);
    }

    /// Whether somebody else has changed something of our table since the last time somebody asked, or waited.
    pub(super) fn heard(&mut self) -> bool {
        let Self { socket, noted } = self;
        let mut touched = false;
        loop {
            match noted.listen(socket.get_mut(), &mut touched) {
                Ok(true) => {}
                Ok(false) => return touched,
                // More was changed than the socket could hold, or nobody knows.
                Err(_) => {
                    noted.deleted = true;
                    return true;
                }
            }
        }
    }

    /// Whether somebody else has deleted our table since the last time somebody asked, also if it was made again in
    /// the same transaction. What is missing then was not taken out by hand.
    pub(super) fn was_deleted(&mut self) -> bool {
        self.heard();
        std::mem::take(&mut self.noted.deleted)
    }

    /// The elements that somebody else has deleted since the last time somebody asked, each with its set.
    pub(super) fn taken_out(&mut self) -> BTreeSet<(String, IpAddr)> {
        self.heard();
        std::mem::take(&mut self.noted.taken_out)
    }

    /// Returns when somebody else has changed something of our table, or of another's.
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
    /// Reads what is there. Says whether there was something, and whether it concerns us.
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

/// Whose table a notification is about, if it is not of our making. The name of the table is the first attribute
/// of all of them.
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
