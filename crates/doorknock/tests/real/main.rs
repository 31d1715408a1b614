//! The client with real keys of `ssh-keygen`, a real `ssh-agent`, and a gateway on the loopback interface.
//!
//! A program that is missing fails these tests; it never skips them.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod adding;
mod for_programs;
mod home;
mod hostile;
mod keys;
mod program;
mod proxy;
mod secrets;
mod store;
mod testbed;
