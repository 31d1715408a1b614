//! Netlink: how this program talks to the kernel about addresses, links and nftables.
//!
//! [`message`] and [`address`] are pure: they write and read bytes. [`socket`] sends and receives them.

pub mod address;
pub mod message;
pub mod socket;

pub use socket::NetlinkError;
