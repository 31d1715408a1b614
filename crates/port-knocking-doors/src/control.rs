//! The control interface: how a person or a program sees what the running daemon does, and steers it.
//!
//! ```text
//!   command ──► client ══ socket ══ server ──► session ──► Request ──► the daemon's loop
//!                  JSON, as `protocol` frames it and `interface` defines it
//! ```
//!
//! It speaks Varlink, so every language's Varlink library is a client. `running` is older: it finds the daemon that has
//! read a configuration file.

pub(crate) mod client;
pub(crate) mod interface;
mod protocol;
pub(crate) mod request;
pub(crate) mod running;
pub(crate) mod server;
mod session;
pub(crate) mod shown;
