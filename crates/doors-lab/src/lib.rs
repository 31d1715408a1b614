//! A private network for tests, benchmarks and the demo: network namespaces, and cables between them.
//!
//! Nothing in here has a name in the file system. A namespace disappears with the last descriptor and process
//! that use it, so even a program that is killed leaves nothing behind. The host's own network is never
//! touched.

mod cable;
mod error;
mod firewalld;
mod namespace;
mod process;
mod root;

pub use self::{
    error::LabError,
    firewalld::Firewalld,
    namespace::{Namespace, become_root, private_directory},
    process::Process,
    root::Root,
};
