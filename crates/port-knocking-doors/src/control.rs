//! How a command finds the daemon that runs.

pub(crate) mod running;
