//! What the running daemon does, and how it is.

use std::fmt::Write as _;

use doors_text::safe_text::escaped;

use super::{Common, Found, LiveError, date, parameters, span};
use crate::control::interface::{Count, Status, StatusReply};

pub(super) fn run(common: &Common) -> Result<Found, LiveError> {
    let StatusReply { status } = common.connect()?.call("Status", parameters([]))?;
    common.print(&status, || text(&status))?;
    let is_as_configured = status.last_good.is_none()
        && status.not_reloaded.is_none()
        && status.gate_broken_since.is_none()
        && status.clients_heard;
    Ok(if is_as_configured { Found::Fine } else { Found::NotAsConfigured })
}

fn text(status: &Status) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &'static str, text: String| lines.push((name, text));
    line(
        "running",
        format!(
            "port-knocking-doors {}, process {}, since {}",
            status.version,
            status.pid,
            date(status.since)
        ),
    );
    let source = status.configuration.as_deref().unwrap_or("default values");
    match &status.last_good {
        Some(why) => line(
            "configuration",
            format!("THE LAST GOOD ONE, and not what stands in {source}, which cannot be used: {why}"),
        ),
        None => line("configuration", format!("{source}, in force since {}", date(status.in_force_since))),
    }
    if let Some(why) = &status.not_reloaded {
        line("reload", format!("REFUSED, so what was in force stays so: {why}"));
    }
    line("firewall", format!("{}, because {}", status.firewall, status.firewall_why));
    line(
        "gate",
        match (status.gate_broken_since, status.gate_since) {
            (Some(since), _) => {
                format!("BROKEN since {}: it cannot be made or checked, and that is tried again", date(since))
            }
            (None, Some(since)) => format!("in place since {}", date(since)),
            (None, None) => "none: firewalld alone closes the doors".to_owned(),
        },
    );
    line("hearing", format!("with {}", status.listen));
    for door in &status.doors {
        let how = if door.sequence { ", by a sequence or a key" } else { ", by a key" };
        let more = usize::try_from(door.ports_in_all).unwrap_or_default().saturating_sub(door.ports.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        line(
            "door",
            format!("{}: {}{more}, for {}{how}", door.name, door.ports.join(" "), span(door.seconds)),
        );
    }
    match usize::try_from(status.doors_in_all).unwrap_or_default().saturating_sub(status.doors.len()) {
        0 if status.doors.is_empty() => line("door", "none is configured".to_owned()),
        0 => {}
        more => line("door", format!("and {more} more")),
    }
    line(
        "clients",
        match (status.clients, status.clients_heard) {
            (0, _) => "none has a key".to_owned(),
            (count, true) => format!("{count} with a key"),
            (count, false) => format!("{count} with a key, which are NOT HEARD; the log says why"),
        },
    );
    line("open now", status.grants.to_string());
    if let Some(level) = &status.log_level {
        line("log", format!("shows {level}, by command"));
    }
    for (name, count) in [
        ("accepted", &status.accepted),
        ("refused", &status.refused),
        ("repairs", &status.repairs),
        ("errors", &status.errors),
    ] {
        line(name, counted(count));
    }
    let mut text = String::new();
    for (name, line) in lines {
        let _ = writeln!(text, "{name:<14} {}", escaped(&line));
    }
    text
}

fn counted(count: &Count) -> String {
    match &count.last {
        Some(last) => format!("{}; the last at {}: {}", count.count, date(last.time), last.text),
        None => count.count.to_string(),
    }
}
