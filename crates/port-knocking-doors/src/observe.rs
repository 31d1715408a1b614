//! What happened, and who is told of it.

pub(crate) mod log;
pub(crate) mod log_writer;
pub(crate) mod subscriber;
