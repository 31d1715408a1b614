//! Waits until a descriptor is ready.
#![allow(
    unsafe_code,
    reason = "the runtime cannot see that a value keeps its descriptor; this file vouches for it"
)]

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

use crate::netlink::socket::Socket;

/// A value that owns one descriptor for its whole life.
///
/// # Safety
/// `as_raw_fd` always returns the same descriptor, and the descriptor stays open as long as the value lives.
pub unsafe trait OwnsDescriptor: AsRawFd {}

// SAFETY: it owns an `OwnedFd` and returns no other descriptor.
unsafe impl OwnsDescriptor for Socket {}
// SAFETY: it owns its descriptor and closes it on drop.
unsafe impl OwnsDescriptor for socket2::Socket {}

/// Registers a value with the runtime. Must be called within a runtime.
pub fn watch<T: OwnsDescriptor>(value: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: the trait demands exactly this.
    unsafe { AsyncFd::register(value) }.map_err(io::Error::from)
}
