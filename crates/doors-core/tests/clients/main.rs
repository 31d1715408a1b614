//! Scenes with clients that have keys: who, whether fresh, and what for.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod allowed;
mod fresh;
mod properties;
mod scene;
mod shares;
mod sharing;
