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
//! A knock from the client to the gateway:
//!
//! ```
//! use doors_spa::{
//!     gateway::{Gateway, GatewayKey},
//!     identity::{ClientKey, DoorId},
//!     request::{Operation, Request},
//!     seal::UnsignedKnock,
//! };
//! use ed25519_dalek::{Signer as _, SigningKey};
//! # struct Counting(u8);
//! # impl rand_core::TryRng for Counting {
//! #     type Error = std::convert::Infallible;
//! #     fn try_next_u32(&mut self) -> Result<u32, Self::Error> { unreachable!() }
//! #     fn try_next_u64(&mut self) -> Result<u64, Self::Error> { unreachable!() }
//! #     fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
//! #         bytes.fill_with(|| { self.0 = self.0.wrapping_add(1); self.0 });
//! #         Ok(())
//! #     }
//! # }
//! # impl rand_core::TryCryptoRng for Counting {}
//! # let mut random = Counting(0);
//!
//! let signer = SigningKey::from_bytes(&[7; 32]);
//! let client = ClientKey::new(signer.verifying_key().as_bytes()).unwrap();
//! let key = GatewayKey::generate(&mut random);
//!
//! let request = Request {
//!     operation: Operation::Open { door: DoorId::of("ssh"), wanted: 600 },
//!     time: 1_800_000_000_000,
//!     nonce: [1; 8],
//!     client: client.id(),
//!     address: None,
//!     challenge: [0; 8],
//! };
//! let unsigned = UnsignedKnock::new(&key.card(), &client, &request, &mut random).unwrap();
//! let signature = signer.sign(unsigned.to_sign()).to_bytes();
//! let (knock, _receipt_key) = unsigned.seal(&signature).unwrap();
//!
//! let gateway = Gateway::new(&key).unwrap();
//! let tagged = gateway.tag_key(&client).fits(&knock).unwrap();
//! let proven = gateway.open(tagged).unwrap().prove(&client).unwrap();
//! assert_eq!(*proven.request(), request);
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
