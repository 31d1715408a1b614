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
//! | [`entrance`]     | what clients with keys need: the gateway's key, the memory       |
//! | [`recorder`]     | writes down accepted knocks, in a thread of its own              |
//! | `inbox`          | hears knocks                                                     |
//! | `report`         | what the log says                                                |
//! | `teller`         | writes it, in a thread of its own                                |
//! | [`clients_file`] | adds clients to the configuration file, and removes them         |
//! | [`gateway_key`]  | the gateway's key, on disk                                       |
//! | [`last_good`]    | what was last in force, for a start with a wrong file            |
//! | [`journal`]      | the accepted knocks, on disk                                     |
//! | `demo`           | shows it all                                                     |

mod admin;
mod check;
pub mod cli;
pub mod clients_file;
pub mod config;
pub mod daemon;
#[cfg(feature = "demo")]
mod demo;
pub mod entrance;
pub mod gateway_key;
mod inbox;
pub mod journal;
pub mod last_good;
mod logging;
pub mod recorder;
mod reload;
mod report;
mod running;
mod supervisor;
mod teller;
mod wrap;
