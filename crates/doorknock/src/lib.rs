//! Knocks on the doors of a server, and waits until they open.
//!
//! With an SSH key ([`doors_spa`]), or with a sequence of ports. Builds wherever Rust's standard library does:
//! what differs between systems is in [`spa::agent_socket`], [`private_file`], [`standard_output`] and
//! [`trusted_file`], and nowhere else.
//!
//! | module                     | what it does                                            |
//! |----------------------------|---------------------------------------------------------|
//! | [`cli`]                    | the command line                                        |
//! | [`servers`]                | the servers that are stored                             |
//! | [`spa::signer`]            | who signs                                               |
//! | [`spa::agent`]             | asks the `ssh-agent`, which [`spa::agent_socket`] finds |
//! | [`spa::key_file`]          | reads a key; [`spa::keygen`] makes one                  |
//! | [`private_file`]           | writes files that no other user may read                |
//! | [`trusted_file`]           | reads files that no other user can have written         |
//! | [`host`]                   | a name or an address                                    |
//! | [`json`]                   | what programs read                                      |
//! | [`spa::exchange`]          | from a knock to its receipt, without I/O                |
//! | [`spa::driver`]            | runs exchanges, with sockets and clocks                 |
//! | [`spa::waiting`]           | how long to wait for several addresses, without I/O     |
//! | [`spa::credible`]          | which answers can be true                               |
//! | [`spa::pages`]             | the doors of a server page by page, without I/O         |
//! | [`spa::own_address`]       | the address to name in a knock                          |
//! | [`output`]                 | what the user is told                                   |
//! | [`durations`]              | spans of time, for people                               |
//! | [`resolve`]                | the addresses behind a name                             |
//! | [`sequence`]               | sends a sequence of knocks                              |
//! | [`connect::attempts`]      | when to try to connect again, without I/O               |
//! | `connect::attempt`         | a connection that is being made                         |
//! | [`connect::wait_for_port`] | waits until a port accepts                              |
//! | [`connect::door_attempts`] | when to try the port of a door, without I/O             |
//! | [`connect::through_door`]  | connects through a door that is being opened            |
//! | [`connect::relay`]         | joins a connection with standard input and output       |
//! | [`standard_output`]        | can be closed before the process ends                   |

pub mod cli;
pub mod connect;
pub mod durations;
pub mod host;
pub mod json;
pub mod output;
pub mod private_file;
pub mod resolve;
pub mod sequence;
pub mod servers;
pub mod spa;
pub mod standard_output;
pub mod trusted_file;
