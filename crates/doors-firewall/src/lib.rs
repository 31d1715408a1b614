//! What makes a grant true in the kernel.
//!
//! The firewall works in a thread of its own, behind a queue: however slow it is, knocks are heard.
//!
//! ```text
//!   daemon ──► Order ──► gate ──► nftables (netlink)
//!      ▲                  │
//!      │                  ▼ what the gate has done
//!      └── News ◄── firewalld beside it ──► firewalld (D-Bus), where it would close the port
//! ```
//!
//! Our gate guards the doors on every machine. Where firewalld runs, a grant is an element in the gate, and
//! beside it a rich rule if firewalld's zone would close the port. The gate is changed first, and what it has
//! done is handed on: so a door is open when both say so, and closed when the gate says so.

//!
//! | module       | what it is                                                                |
//! |--------------|---------------------------------------------------------------------------|
//! | [`messages`] | what goes to the thread and comes from it                                 |
//! | [`plan`]     | what it has to know of the configuration                                  |
//! | [`choice`]   | which firewall, and why; what can be said before the start                |
//! | [`worker`]   | the thread, and its two halves                                            |
//! | [`ledger`]   | what must be true, so that it can be made true again                      |
//! | [`nftables`] | the gate, over netlink                                                    |
//! | [`firewalld`]| rich rules, over D-Bus                                                    |

pub mod choice;
pub mod firewalld;
pub mod ledger;
pub mod messages;
pub mod nftables;
pub mod plan;
pub mod worker;

pub use self::{
    choice::{Choice, FirewallChoice, Kind, choose, explained, obstacles, possible},
    messages::{FirewallError, News, Obstacle, Obstacles, Order},
    worker::Firewall,
};
