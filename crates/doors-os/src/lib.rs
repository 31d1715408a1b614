//! The Linux kernel without meaning: nothing in here knows what a knock or a door is.
//!
//! | module            | what it does                                                              |
//! |-------------------|---------------------------------------------------------------------------|
//! | [`netlink`]       | messages to and from the kernel                                           |
//! | [`sockopt`]       | socket options that no safe wrapper knows                                 |
//! | [`async_fd`]      | waits until a descriptor is ready                                         |
//! | [`clock`]         | the only clocks                                                           |
//! | [`atomic_file`]   | a file that is replaced as a whole                                        |
//! | [`trusted_file`]  | reads files that no other user can have written                           |
//! | [`instance_lock`] | one daemon for each network namespace                                     |
//! | [`worker`]        | threads with a bounded queue                                              |

pub mod async_fd;
pub mod atomic_file;
pub mod clock;
pub mod instance_lock;
pub mod netlink;
pub mod sockopt;
pub mod trusted_file;
pub mod worker;
