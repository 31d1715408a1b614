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
//! | [`knock`]      | a packet           | a [`Knock`](knock::Knock); strangers can make one  |
//! | [`door`]       |                    | the words: door, sequence, grant's key             |
//! | [`sequences`]  | a port             | how far it leads in all sequences at once          |
//! | [`knockers`]   | a knocker          | room for it in a table of fixed size               |
//! | [`client`]     |                    | who has a key, and what it is for                  |
//! | [`challenge`]  | a client, a time   | a proof that a knock was made of late              |
//! | [`freshness`]  | a signed request   | a [`Fresh`](freshness::Fresh) one, once            |
//! | [`access`]     | a knock            | a [`Grant`](access::Grant); strangers cannot make one |
//! | [`doors`]      | a grant            | who is in, and until when                          |
//! | [`doorbell`]   | a datagram         | in whose name it was made, before keys are used    |
//! | [`reception`]  | datagrams of clients | what they ask, what the disk must hold, receipts |
//! | [`events`]     |                    | what is said to the firewall and to the log, and back |
//! | [`throttle`]   | an event           | whether it is told at once or only counted         |
//! | [`doorkeeper`] | packets, time      | all of it, as one state machine                    |
#![no_std]
#![forbid(unsafe_code)]
// A new refusal or step must break the build until somebody has thought about it.
#![warn(clippy::wildcard_enum_match_arm)]

extern crate alloc;

pub mod access;
pub mod challenge;
pub mod client;
pub mod door;
pub mod doorbell;
pub mod doorkeeper;
pub mod doors;
pub mod eligible;
pub mod events;
pub mod freshness;
pub mod knock;
pub mod knockers;
pub mod limits;
pub mod packet;
pub mod reception;
pub mod sequences;
pub mod special_purpose;
pub mod throttle;
pub mod time;
