//! What clients with keys need: the gateway's key, the replay log, and what decides about their knocks.

pub mod gateway_key;
pub mod replay_log;
pub mod replay_writer;
pub mod service;
