//! Single packet authorization: the format of a knock and of its receipt, for both sides.
//!
//! ```text
//!   client                                                                gateway
//!   ──────                                                                ───────
//!   Request ──► UnsignedKnock::new ──► to_sign ──► signature         Gateway::hint, TagKey::fits
//!                   └─────────────────── seal ◄──────┘                    ▼ cheap
//!                                         │  knock, 192 bytes        Gateway::open
//!                                         └─────────────────────────►     ▼ HPKE
//!                                                                    Unproven::prove (the client's key)
//!                                                                         ▼ signature
//!   ReceiptKey::open ◄─────────────── receipt, 192 bytes ──────────── ReceiptKey::seal
//! ```
//!
//! This crate is `no_std`: it has no clock, no socket, no file and no randomness of its own. It decides
//! nothing: whether a client may open a door, and whether a knock is a replay, is judged in `doors-core`.
//!
//! | module        | contents                                                                |
//! |---------------|-------------------------------------------------------------------------|
//! | [`address`]   | an IP address in 16 bytes                                               |
//! | [`door`]      | valid names of doors, and how many there can be                         |
//! | [`identity`]  | a client's public key and ID; a door's ID                               |
//! | [`card`]      | the gateway card, which every client gets                               |
//! | [`gateway`]   | the gateway's key, and how it opens a knock                             |
//! | [`request`]   | a client's request, 64 bytes                                            |
//! | [`signature`] | the bytes that a client signs: OpenSSH's SSHSIG                         |
//! | [`seal`]      | how a client seals a knock                                              |
//! | [`receipt`]   | the gateway's answer                                                    |
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod address;
pub mod card;
pub mod door;
pub mod gateway;
pub mod identity;
pub mod receipt;
pub mod request;
pub mod seal;
pub mod signature;
mod suite;

/// The length of every knock and every receipt, in bytes.
pub const KNOCK: usize = 192;

/// The default UDP port of single packet authorization.
pub const PORT: u16 = 62201;
