//! The daemon that touches the machine: it hears knocks, asks `doors-core` what they mean, and makes
//! the answer true in the firewall.
//!
//! | module           | what it does                                                     |
//! |------------------|------------------------------------------------------------------|
//! | [`cli`]          | the command line                                                 |
//! | [`config`]       | options, variables and file, and where each value comes from     |
//! | `admin`          | the commands about the gateway's key and the clients             |
//! | `running`        | finds the daemon that runs with a file                           |
//! | `check`          | what a configuration would do, without doing it                  |
//! | [`daemon`]       | the loop: wait, feed, drain                                      |
//! | [`alone`]        | one daemon for each network                                      |
//! | [`entrance`]     | what clients with keys need: the gateway's key, the memory       |
//! | [`recorder`]     | writes down accepted knocks, in a thread of its own              |
//! | `inbox`          | hears knocks                                                     |
//! | [`firewall`]     | opens and closes doors, in a thread of its own                   |
//! | `netlink`        | messages to and from the kernel                                  |
//! | `report`         | what the log says                                                |
//! | `teller`         | writes it, in a thread of its own                                |
//! | [`clients_file`] | adds clients to the configuration file, and removes them         |
//! | [`gateway_key`]  | the gateway's key, on disk                                       |
//! | `trusted`        | reads files that no other user can have written                  |
//! | `draft`          | a file that is replaced as a whole                               |
//! | [`last_good`]    | what was last in force, for a start with a wrong file            |
//! | [`journal`]      | the accepted knocks, on disk                                     |
//! | [`lab`]          | private networks for the demo and the tests                      |
//! | `demo`           | shows it all                                                     |

mod admin;
pub mod alone;
mod check;
pub mod cli;
pub mod clients_file;
mod clock;
pub mod config;
pub mod daemon;
mod demo;
mod draft;
pub mod entrance;
pub mod firewall;
pub mod gateway_key;
mod inbox;
pub mod journal;
pub mod lab;
pub mod last_good;
mod logging;
mod netlink;
mod readiness;
pub mod recorder;
mod reload;
mod report;
mod running;
mod sockopt;
mod supervisor;
mod teller;
mod trusted;
mod wrap;

pub use netlink::NetlinkError;
