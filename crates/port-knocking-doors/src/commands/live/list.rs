//! Lists of what the daemon has: page by page, so that a long one takes no memory.

use std::{
    io::{BufWriter, Write},
    time::SystemTime,
};

use serde::{Serialize, de::DeserializeOwned};

use super::{Common, LiveError, date, json, parameters, span, who};
use crate::control::interface::{Client, ClientsReply, Grant, GrantsReply};

pub(super) fn grants(common: &Common) -> Result<(), LiveError> {
    let line = |grant: &Grant| {
        let others = match grant.others.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let state = match (grant.confirmed, grant.one_connection) {
            (false, _) => "  (the firewall has not confirmed it yet)",
            (true, true) => "  (for one connection)",
            (true, false) => "",
        };
        format!(
            "{:<16} {:<39} {:>13} left  {}{others}, {} {}{state}",
            grant.door,
            grant.address,
            span(grant.holder.seconds_left),
            who(&grant.holder),
            if grant.found { "found open at the start," } else { "since" },
            date(grant.since),
        )
    };
    list(common, "ListGrants", "grants", "no door is open", |page: GrantsReply| page.grants, line)
}

pub(super) fn clients(common: &Common) -> Result<(), LiveError> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let line = |client: &Client| {
        let seen = match (client.last_seen, &client.last_address) {
            (Some(seen), Some(address)) => {
                format!("seen {} ago from {address}", span(now.saturating_sub(seen)))
            }
            _ => "not seen since the start".to_owned(),
        };
        let until = match (client.until, client.expired) {
            (Some(until), true) => format!(", EXPIRED at {}", date(until)),
            (Some(until), false) => format!(", until {}", date(until)),
            (None, _) => String::new(),
        };
        let until = if client.disabled { ", DISABLED" } else { &until };
        format!("{}  {}  {}  {seen}{until}", client.name, client.fingerprint, client.doors.join(","))
    };
    list(common, "ListClients", "clients", "no client has a key", |page: ClientsReply| page.clients, line)
}

/// Prints a list: as one JSON object with an array of this name, or a line for each entry.
fn list<P: DeserializeOwned, E: Serialize>(
    common: &Common,
    method: &str,
    name: &str,
    none: &str,
    entries: impl Fn(P) -> Vec<E>,
    line: impl Fn(&E) -> String,
) -> Result<(), LiveError> {
    let mut client = common.connect()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut count, mut printed) = (0_usize, Ok(()));
    if common.json {
        write!(out, "{{\"{name}\":[")?;
    }
    client.stream(method, parameters([]), false, |page| {
        printed = entries(page).iter().try_for_each(|entry| {
            count = count.saturating_add(1);
            match common.json {
                true => write!(out, "{}{}", if count > 1 { "," } else { "" }, json(entry)?),
                false => writeln!(out, "{}", line(entry)),
            }
        });
        printed.is_ok()
    })?;
    printed?;
    match (common.json, count) {
        (true, _) => writeln!(out, "]}}")?,
        (false, 0) => writeln!(out, "{none}")?,
        (false, _) => {}
    }
    Ok(out.flush()?)
}
