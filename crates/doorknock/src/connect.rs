//! Connecting through a door that is being opened.

mod attempt;
pub mod attempts;
pub mod door_attempts;
pub mod relay;
pub mod through_door;
pub mod wait_for_port;
