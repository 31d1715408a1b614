//! Decides which doors open, without touching anything.
//!
//! This crate is `no_std`: it cannot name a socket, a file, a thread or a clock. Bytes and time come in as
//! arguments; changes and events go out as values. So every rule in here can be tested with `assert_eq!`, and
//! every test gives the same answer twice.
//!
//! Read the modules in the order in which a packet meets them:
//!
//! | module              | takes            | gives                                                       |
//! | ------------------- | ---------------- | ----------------------------------------------------------- |
//! | [`time`]            |                  | [`Moment`](time::Moment), a point on a clock                |
//! | [`limits`]          |                  | the bound of everything that a stranger can grow            |
//! | [`budget`]          | a time           | whether one more may be spent                               |
//! | [`packet`]          |                  | a [`Packet`](packet::Packet), as the network brought it     |
//! | [`special_purpose`] | an address       | whether any client can have it                              |
//! | [`eligible`]        | an address       | whether a grant can be for it, on this machine              |
//! | [`door`]            |                  | the terms: door, sequence, grant key                        |
//! | [`sequence::knock`] | a packet         | a [`Knock`](sequence::knock::Knock); strangers can make one |
//! | [`sequence::trie`]  | a port           | the progress it means, in all sequences at once             |
//! | [`sequence::table`] | a source         | its progress, from a table of fixed size                    |
//! | [`spa::client`]     |                  | the clients with a key, and what each key is for            |
//! | [`spa::prefilter`]  | a datagram       | the client it claims to be from, before any public-key work |
//! | [`spa::challenge`]  | a client, a time | a proof that a request was made recently                    |
//! | [`spa::replay`]     | a signed request | an [`Accepted`](spa::replay::Accepted) request, once        |
//! | [`spa::server`]     | datagrams        | requests, records for the disk, receipts                    |
//! | [`access`]          | knock or request | a [`Grant`](access::Grant); strangers cannot make one       |
//! | [`lease`]           | a grant          | a [`Lease`](lease::Lease): which door, for whom, until when |
//! | [`grants`]          | a grant          | the live grants, and when each ends                         |
//! | [`events`]          |                  | what the engine, the firewall and the log tell each other   |
//! | [`counters`]        |                  | how often each thing happened                               |
//! | [`engine`]          | packets, time    | all of it, as one state machine                             |
#![no_std]
#![forbid(unsafe_code)]
// A new refusal or step must break the build until its cases are handled.
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
