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

pub mod agent;
pub mod agent_socket;
pub mod arrival;
pub mod cli;
pub mod errors;
pub mod exchange;
pub mod join;
pub mod key_file;
pub mod keygen;
pub mod knocking;
pub mod own_address;
pub mod private_file;
pub mod sequence;
pub mod servers;
pub mod signer;
pub mod span;
pub mod target;
pub mod telling;
