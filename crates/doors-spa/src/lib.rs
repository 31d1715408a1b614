//! Single packet authorization: what a knock and its receipt are made of, for both sides.
//!
//! ```text
//!   client                                                                gateway
//!   ──────                                                                ───────
//!   Request ──► Letter::new ──► to_sign ──► signature                Gateway::hint, TagKey::fits
//!                   └──────────── seal ◄──────┘                          ▼ cheap
//!                                  │      knock, 192 bytes           Gateway::open
//!                                  └──────────────────────────────►      ▼ HPKE
//!                                                                    Unproven::prove (the client's key)
//!                                                                        ▼ signature
//!   ReceiptKey::open ◄─────────── receipt, 192 bytes ──────────────── ReceiptKey::seal
//! ```
//!
//! This crate is `no_std`: it has no clock, no socket, no file and no randomness of its own. It never
//! decides anything: who may open which door, and whether a knock is fresh, is judged elsewhere.
//!
//! | module        | what it holds                                                       |
//! |---------------|---------------------------------------------------------------------|
//! | [`address`]   | an IP address in sixteen bytes                                      |
//! | [`door`]      | how a door may be called, and how many there can be                 |
//! | [`identity`]  | a client's public key, and its short name; a door's short name      |
//! | [`card`]      | what the gateway gives to every client                              |
//! | [`gateway`]   | the gateway's key, and how it opens a knock                         |
//! | [`request`]   | what the client asks for, 64 bytes                                  |
//! | [`signature`] | the bytes that a client signs: OpenSSH's SSHSIG                     |
//! | [`letter`]    | how a client seals a knock                                          |
//! | [`receipt`]   | what the gateway answers                                            |
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

/// The length of every knock, and of every receipt, in bytes.
pub const KNOCK: usize = 192;

/// Where single packet authorization is sent if nobody says otherwise.
pub const PORT: u16 = 62201;
