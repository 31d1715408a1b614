//! The daemon: it hears knocks, asks `doors-core` what they mean, and has `doors-firewall` carry out the decision.
//!
//! | module       | what it does                                                                       |
//! |--------------|------------------------------------------------------------------------------------|
//! | [`daemon`]   | the loop: wait, feed, drain                                                        |
//! | `sd_notify`  | reports the daemon's state to systemd                                              |
//! | `start`      | what happens before the loop                                                       |
//! | `reload`     | applies a new configuration, which a thread has read                               |
//! | [`commands`] | the command line, and one file for each command                                    |
//! | [`config`]   | options, variables and file; the origin of each value; the last good configuration |
//! | `inbox`      | hears knocks                                                                       |
//! | [`spa`]      | the service for clients with keys: the gateway's key, the replay log               |
//! | `observe`    | writes the log                                                                     |
//! | `control`    | finds the running daemon                                                           |

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
