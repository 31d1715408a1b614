//! Netlink: how this program talks with the kernel about addresses, links and nftables.
//!
//! [`message`] is pure: it writes and reads bytes. [`socket`] sends and receives them.

pub(crate) mod message;
pub(crate) mod socket;

pub use socket::NetlinkError;
