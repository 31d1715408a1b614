//! The service for clients with keys: the gateway's key, the replay log, and the server side of SPA.

pub mod gateway_key;
pub mod replay_log;
pub mod replay_writer;
pub mod service;
