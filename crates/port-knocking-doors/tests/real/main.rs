//! Tests the daemon as a program, on the real kernel, with a real firewalld and real clients, in private networks
//! that each test creates and that disappear with it.
//!
//! A test that cannot run fails. The tests need root, because a real firewalld does, and the programs `nft`,
//! `firewalld` and `dbus-daemon`. `cargo xtask test` provides all of that.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

mod beside_firewalld;
mod check;
mod client_e2e;
mod clients_dir;
mod command_line;
mod control;
mod control_socket;
mod cut;
mod datagrams;
mod demo;
mod doorknock;
mod firewalld;
mod firewalld_state;
mod foreseen;
mod forged;
mod gate;
mod hairpin;
mod hearing;
mod last_good;
mod lifecycle;
mod mark;
mod no_door;
mod raw;
mod raw_client;
mod removed;
mod routes;
mod spa;
mod state_dir;
mod stealth;
mod tampering;
mod testbed;
mod traced;
mod two_hops;
mod ufw;
mod untracked;
mod ways_around;
