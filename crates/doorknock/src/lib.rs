//! Knocks on the doors of a server, and waits until they open.
//!
//! With an SSH key ([`doors_spa`]), or with a sequence of ports. Builds wherever Rust's standard library does:
//! what differs between systems is in [`agent_socket`], [`private_file`], [`standard_output`] and
//! [`trusted_file`], and nowhere else.
//!
//! | module              | what it does                                               |
//! |---------------------|------------------------------------------------------------|
//! | [`cli`]             | the command line                                           |
//! | [`servers`]         | the servers that are stored                                |
//! | [`signer`]          | who signs                                                  |
//! | [`agent`]           | asks the `ssh-agent`, which [`agent_socket`] finds         |
//! | [`key_file`]        | reads a key; [`keygen`] makes one                          |
//! | [`private_file`]    | writes files that nobody else may read                     |
//! | [`trusted_file`]    | reads files that nobody else can have written              |
//! | [`host`]            | a name or an address                                       |
//! | [`json`]            | what programs read                                         |
//! | [`exchange`]        | from a knock to its receipt, without I/O                   |
//! | [`knocking`]        | runs exchanges, with sockets and clocks                    |
//! | [`waiting`]         | how long to wait for several addresses, without I/O        |
//! | [`credible`]        | which answers can be true                                  |
//! | [`pages`]           | the doors of a server page by page, without I/O            |
//! | [`own_address`]     | the address to name in a knock                             |
//! | [`telling`]         | what the user is told                                      |
//! | [`span`]            | spans of time, for people                                  |
//! | [`target`]          | the addresses behind a name                                |
//! | [`sequence`]        | sends a sequence of knocks                                 |
//! | [`attempts`]        | when to try to connect again, without I/O                  |
//! | `attempt`           | a connection that is being made                            |
//! | [`arrival`]         | waits until a port accepts                                 |
//! | [`approach`]        | when to try the port of a door, without I/O                |
//! | [`entering`]        | connects through a door that is being opened               |
//! | [`join`]            | joins a connection with standard input and output          |
//! | [`standard_output`] | can be closed before the process ends                      |

pub mod agent;
pub mod agent_socket;
pub mod approach;
pub mod arrival;
mod attempt;
pub mod attempts;
pub mod cli;
pub mod credible;
pub mod entering;
pub mod exchange;
pub mod host;
pub mod join;
pub mod json;
pub mod key_file;
pub mod keygen;
pub mod knocking;
pub mod own_address;
pub mod pages;
pub mod private_file;
pub mod sequence;
pub mod servers;
pub mod signer;
pub mod span;
pub mod standard_output;
pub mod target;
pub mod telling;
pub mod trusted_file;
pub mod waiting;
