//! Netlink: how this program talks with the kernel about addresses, links and nftables.
//!
//! [`message`] and [`address`] are pure: they write and read bytes. [`socket`] sends and receives them.

pub(crate) mod address;
pub(crate) mod message;
pub(crate) mod socket;

pub use socket::NetlinkError;
