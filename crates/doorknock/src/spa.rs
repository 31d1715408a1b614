//! Knocking with an SSH key.

pub mod agent;
pub mod agent_socket;
pub mod credible;
pub mod driver;
pub mod exchange;
pub mod key_file;
pub mod keygen;
pub mod own_address;
pub mod pages;
pub mod signer;
pub mod waiting;
