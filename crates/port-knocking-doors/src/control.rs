//! How a command finds the running daemon.

pub(crate) mod running;
