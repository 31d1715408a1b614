//! Knocks on the doors of a server, and waits until they open.
//!
//! Needs nothing of the system but UDP and TCP, so it builds wherever Rust's standard library does.
//!
//! | module       | what it does                                        |
//! |--------------|-----------------------------------------------------|
//! | [`cli`]      | the command line                                    |
//! | [`target`]   | the addresses behind a name                         |
//! | [`sequence`] | sends knocks                                        |
//! | [`arrival`]  | waits until a port accepts                          |
//! | [`errors`]   | errors for people                                   |
//! | [`join`]     | joins a connection with standard input and output   |

pub mod arrival;
pub mod cli;
pub mod errors;
pub mod exchange;
pub mod join;
pub mod own_address;
pub mod sequence;
pub mod span;
pub mod target;
