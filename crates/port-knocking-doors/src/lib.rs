//! The daemon that touches the machine: it hears knocks, asks `doors-core` what they mean, and has `doors-firewall`
//! make the answer true.
//!
//! | module        | what it does                                                                   |
//! |---------------|--------------------------------------------------------------------------------|
//! | [`daemon`]    | the loop: wait, feed, drain                                                    |
//! | `sd_notify`   | tells systemd what becomes of the daemon                                       |
//! | `start`       | what happens before the loop                                                   |
//! | `reload`      | takes over a new configuration, which a thread has read                        |
//! | [`commands`]  | the command line, and one file for each command                                |
//! | [`config`]    | options, variables and file, where each value comes from, what was last in force |
//! | `inbox`       | hears knocks                                                                   |
//! | [`spa`]       | what clients with keys need: the gateway's key, the replay log                 |
//! | `observe`     | what the log says                                                              |
//! | `control`     | finds the daemon that runs                                                     |

pub mod commands;
pub mod config;
mod control;
pub mod daemon;
mod inbox;
mod observe;
mod reload;
mod sd_notify;
pub mod spa;
mod start;
