//! Scenes with clients that have keys: identity, anti-replay, permission, and shared addresses.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod allowed;
mod by_hand;
mod counting;
mod properties;
mod replay;
mod scene;
mod shares;
mod sharing;
