//! Single packet authorization: what a gateway decides about the requests of clients with keys.

pub mod challenge;
pub mod client;
pub mod prefilter;
pub mod replay;
pub mod server;
