//! Shows the clients.

use std::fmt::Write as _;

use doors_os::clock::Clock;

use crate::config::{self, Config};

/// A line for each client.
pub(super) fn list(config: &Config) -> String {
    let mut text = String::new();
    let now = Clock::start().wall();
    for client in config.key_access.iter().flat_map(|access| access.clients.iter()) {
        let doors: Vec<&str> = client.doors.iter().map(|door| door.as_str()).collect();
        let _ = write!(text, "{}  {}  {}", client.who.name, client.who.fingerprint, doors.join(","));
        if let Some(longest) = client.max_open_for {
            let _ = write!(text, "  at most {} s", longest.as_secs());
        }
        if !client.from.is_empty() {
            let networks: Vec<String> = client.from.iter().map(ToString::to_string).collect();
            let _ = write!(text, "  from {}", networks.join(","));
        }
        if let Some(until) = client.until {
            let over = if client.has_expired(now) { ", which is over" } else { "" };
            let _ = write!(text, "  until {}{over}", config::day(until));
        }
        if client.disabled {
            text.push_str("  DISABLED");
        }
        text.push('\n');
    }
    if text.is_empty() {
        text.push_str("no client has a key; add one with: port-knocking-doors client add NAME --door DOOR\n");
    }
    text
}
