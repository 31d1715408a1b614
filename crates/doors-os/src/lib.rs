//! Speaks to the Linux kernel. Nothing in here knows what a knock or a door is.
//!
//! | module            | what it does                                    |
//! |-------------------|-------------------------------------------------|
//! | [`netlink`]       | messages to and from the kernel                 |
//! | [`sockopt`]       | socket options that no safe wrapper knows       |
//! | [`async_fd`]      | waits until a descriptor is ready               |
//! | [`clock`]         | reads the monotonic clock and the wall clock    |
//! | [`atomic_file`]   | replaces a file atomically                      |
//! | [`trusted_file`]  | reads files that no other user can have written |
//! | [`instance_lock`] | allows one daemon for each network namespace    |
//! | [`worker`]        | runs threads behind a bounded queue             |

pub mod async_fd;
pub mod atomic_file;
pub mod clock;
pub mod instance_lock;
pub mod netlink;
pub mod sockopt;
pub mod trusted_file;
pub mod worker;
