//! Decides which doors open, without touching anything.
//!
//! This crate is `no_std`: it cannot name a socket, a file, a thread or a clock. Bytes and time
//! come in as arguments; changes and events go out as values. So every rule in here can be tested
//! with `assert_eq!`, and every test gives the same answer twice.
//!
//! Read the modules in the order a packet meets them:
//!
//! | module         | takes              | gives                                              |
//! |----------------|--------------------|----------------------------------------------------|
//! | [`time`]       |                    | [`Moment`](time::Moment), a point on a clock       |
//! | [`limits`]     |                    | the bound of everything that a stranger can grow   |
//! | [`packet`]     | bytes              | a [`Packet`](packet::Packet)                       |
//! | [`special_purpose`] | an address    | whether any client can have it                     |
//! | [`eligible`]   | an address         | whether a grant can be for it, here and now        |
//! | [`sequence::knock`]      | a packet           | a [`Knock`](sequence::knock::Knock); strangers can make one  |
//! | [`door`]       |                    | the words: door, sequence, grant's key             |
//! | [`sequence::trie`]  | a port             | how far it leads in all sequences at once          |
//! | [`sequence::table`]   | a knocker          | room for it in a table of fixed size               |
//! | [`spa::client`]     |                    | who has a key, and what it is for                  |
//! | [`spa::challenge`]  | a client, a time   | a proof that a knock was made of late              |
//! | [`spa::replay`]  | a signed request   | a [`Accepted`](spa::replay::Accepted) one, once            |
//! | [`access`]     | a knock            | a [`Grant`](access::Grant); strangers cannot make one |
//! | [`grants`]      | a grant            | who is in, and until when                          |
//! | [`spa::prefilter`]   | a datagram         | in whose name it was made, before keys are used    |
//! | [`spa::server`]  | datagrams of clients | what they ask, what the disk must hold, receipts |
//! | [`events`]     |                    | what is said to the firewall and to the log, and back |
//! | [`engine`] | packets, time      | all of it, as one state machine                    |
#![no_std]
#![forbid(unsafe_code)]
// A new refusal or step must break the build until somebody has thought about it.
#![warn(clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod access;
pub mod budget;
pub mod counters;
pub mod door;
pub mod eligible;
pub mod engine;
pub mod events;
pub mod grants;
pub mod lease;
pub mod limits;
pub mod packet;
pub mod sequence;
pub mod spa;
pub mod special_purpose;
pub mod time;
