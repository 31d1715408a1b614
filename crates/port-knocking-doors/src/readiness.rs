//! Waits until a descriptor is ready.
#![allow(
    unsafe_code,
    reason = "the runtime cannot see that a value keeps its descriptor; this file vouches for it"
)]

use std::{io, os::fd::AsRawFd};

use tokio::io::unix::AsyncFd;

use crate::{inbox::Ring, netlink::socket::Socket};

/// A value that owns one descriptor from its beginning to its end.
pub(crate) trait OwnsDescriptor: AsRawFd {}

impl OwnsDescriptor for Ring {}
impl OwnsDescriptor for Socket {}
impl OwnsDescriptor for socket2::Socket {}

/// Lets the runtime wait for a value. Must be called within a runtime.
pub(crate) fn watch<T: OwnsDescriptor>(value: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: each type above owns its descriptor, closes it only when dropped, and always names the same.
    unsafe { AsyncFd::register(value) }.map_err(io::Error::from)
}
