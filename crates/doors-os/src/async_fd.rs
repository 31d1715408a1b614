//! Waits until a descriptor is ready.
#![allow(
    unsafe_code,
    reason = "the runtime cannot see that a value keeps its descriptor; this file vouches for it"
)]

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

use crate::netlink::socket::Socket;

/// A value that owns one descriptor from its beginning to its end.
///
/// # Safety
/// `as_raw_fd` always names the same descriptor, and it is open for as long as the value lives.
pub unsafe trait OwnsDescriptor: AsRawFd {}

// SAFETY: it holds a `socket2::Socket`, and gives no other descriptor.
unsafe impl OwnsDescriptor for Socket {}
// SAFETY: it owns its descriptor, and closes it when it is dropped.
unsafe impl OwnsDescriptor for socket2::Socket {}

/// Lets the runtime wait for a value. Must be called within a runtime.
pub fn watch<T: OwnsDescriptor>(value: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: that is what the trait demands.
    unsafe { AsyncFd::register(value) }.map_err(io::Error::from)
}
