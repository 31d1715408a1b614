//! Says what the daemon would do with this configuration on this machine, without doing it.

use std::{fmt::Write as _, path::PathBuf};

use doors_core::time::Wall;
use doors_firewall::{self as firewall, Choice, Kind};
use doors_text::error_chain::in_one_line;
use doors_text::wrap::wrap;

use crate::{
    config::{Config, Hearing, origin::Origin},
    control::running::{self, Behind},
    observe::{log::knocks, words::seconds},
    spa::gateway_key,
    spa::replay_log::{ReplayLog, State},
};

/// The line width without the indent of continuation lines.
const WIDTH: usize = 76;

/// The result of `check`.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The text for the terminal.
    pub(crate) text: String,
    /// Whether the daemon would work.
    pub(crate) verdict: Verdict,
}

/// Whether the daemon would work. Like its own exit code, it distinguishes an invalid configuration from something
/// that is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It would find everything that it needs.
    Works,
    /// Something is missing, or a door would not be guarded.
    Fails,
    /// The configuration asks for something that is impossible here.
    Wrong,
}

/// Describes the configuration in force and its effect at the time `now`. `gone` is the path of a file that was in
/// force and has disappeared, and the path of its copy.
pub(crate) async fn describe(config: &Config, gone: Option<&(PathBuf, PathBuf)>, now: Wall) -> Checked {
    let mut text = String::new();
    let file = config.path.as_ref().map(|path| path.display().to_string());
    let _ = writeln!(text, "# configuration file: {}\n", file.as_deref().unwrap_or("none; default values"));
    if let Some(why) = &config.instead_of {
        let sentence = format!(
            "WHAT STANDS IN THIS FILE CANNOT BE USED: {why}. Below is what was last in force from it, with which a daemon runs \
             that starts with --last-good."
        );
        paragraph(&mut text, &sentence);
        text.push('\n');
    }
    if let Some((file, copy)) = gone {
        let sentence = format!(
            "warning: there is no file {}, which was in force; a daemon that starts with --last-good, as our unit does, runs with \
             what is kept of it ({}), and not with what stands below; put the file back, or to use default values remove the \
             copy",
            file.display(),
            copy.display()
        );
        paragraph(&mut text, &sentence);
        text.push('\n');
    }
    settings(&mut text, config);

    text.push_str("\n# what this would do on this machine\n\n");
    doors(&mut text, config, now);
    let keys_work = key_access(&mut text, config);
    let chosen = firewall::choose(config.firewall).await;
    let verdict = match &chosen {
        Ok(choice) => {
            let verdict = with_firewall(&mut text, config, choice).await;
            if verdict == Verdict::Works && !keys_work { Verdict::Fails } else { verdict }
        }
        Err(error) => {
            paragraph(&mut text, &format!("error: no door can be opened: {}", in_one_line(error)));
            Verdict::Fails
        }
    };
    // Choosing fails only if the configuration asks for firewalld and there is none to talk to.
    let kind = chosen.map_or(Kind::Firewalld, |choice| choice.kind);
    for warning in config.warnings_with(kind, now) {
        paragraph(&mut text, &format!("warning: {warning}"));
    }
    if let Some(behind) = config.path.as_deref().and_then(running::behind) {
        let (daemon, what) = match behind {
            Behind::Unread(daemon) => (daemon, "has not read it since it was changed; try"),
            Behind::Refused(daemon) => {
                (daemon, "has read what stands there and cannot use it; its log says why; mend that, and try")
            }
        };
        let sentence = format!(
            "warning: the daemon that runs with this file (process {daemon}) {what}: systemctl reload port-knocking-doors"
        );
        paragraph(&mut text, &sentence);
    }
    let verdict = match verdict {
        _ if config.instead_of.is_some() => Verdict::Wrong,
        Verdict::Works if gone.is_some() => Verdict::Fails,
        verdict => verdict,
    };
    Checked { text, verdict }
}

/// Lists the doors, the clients that may open them, and how knocks are heard.
fn doors(text: &mut String, config: &Config, now: Wall) {
    for (door, planned) in config.rules.doors.iter().zip(&config.plan.doors) {
        let ports: Vec<String> = planned.ports.iter().map(ToString::to_string).collect();
        let _ =
            writeln!(text, "door {}: opens {} for {}", door.name, ports.join(" "), seconds(door.open_for));
        if let Some(sequence) = &door.sequence {
            let _ = writeln!(text, "    to any source that knocks on {}", knocks(sequence));
        }
        for client in config.key_access.iter().flat_map(|access| access.clients.iter()) {
            if client.doors.contains(&door.name) {
                let over = match (client.disabled, client.has_expired(now)) {
                    (true, _) => ", which is disabled",
                    (false, true) => ", which has expired",
                    (false, false) => "",
                };
                let _ = writeln!(text, "    to the client {}{over}", client.who);
            }
        }
    }
    let hearing = match config.hearing {
        Hearing::Capture => "capture: packet sockets on all interfaces, no port needs opening",
        Hearing::Sockets => "sockets: the knock ports must be open in the firewall",
    };
    paragraph(text, &format!("knocks are heard with {hearing}"));
    if let Some(mark) = config.plan.mark {
        paragraph(text, &format!("granted connections carry the packet mark {mark}/{mark}"));
    }
}

/// Describes what the firewall would do, and whether it would guard the doors.
async fn with_firewall(text: &mut String, config: &Config, choice: &Choice) -> Verdict {
    let possible = firewall::possible(&config.plan, choice).await;
    if let Err(error) = &possible {
        paragraph(text, &format!("error: the daemon would not start: {}", in_one_line(error)));
    }
    paragraph(text, &format!("doors are opened by {}, because {}", choice.kind, choice.why));
    let explained = firewall::explained(&config.plan, choice).await;
    explained.lines.iter().for_each(|line| paragraph(text, line));
    explained.warnings.iter().for_each(|one| paragraph(text, &format!("warning: {one}")));
    let mut unguarded = config.keeps_no_stranger_out(choice.kind);
    match firewall::obstacles(&config.plan, choice).await {
        Ok(found) => {
            found.warnings.iter().for_each(|one| paragraph(text, &format!("warning: {}", one.said)));
            found.lines.iter().for_each(|line| paragraph(text, line));
            unguarded |= found.warnings.iter().any(|one| one.keeps_no_stranger_out);
        }
        Err(error) => paragraph(
            text,
            &format!(
                "not looked at: whether another firewall keeps a door closed, or leaves it open ({}); root can see that",
                in_one_line(&error)
            ),
        ),
    }
    match possible {
        Err(error) if error.is_wrong_input() => Verdict::Wrong,
        Ok(()) if !unguarded => Verdict::Works,
        Ok(()) | Err(_) => Verdict::Fails,
    }
}

/// Describes what clients with keys need. Returns whether it is there, as far as can be seen.
fn key_access(text: &mut String, config: &Config) -> bool {
    let Some(access) = &config.key_access else { return true };
    let (key, state) = (gateway_key::load(&access.gateway_key), ReplayLog::look(&access.state_dir));
    if (key.is_err() || state.is_err()) && !rustix::process::geteuid().is_root() {
        paragraph(text, &format!("clients with a key send to UDP port {}", access.port));
        paragraph(text, "not looked at: the gateway's key, and the state; root can see that");
        return true;
    }
    let are = if key.is_ok() && state.is_ok() { "are heard on" } else { "send to" };
    paragraph(text, &format!("clients with a key {are} UDP port {}", access.port));
    if let Err(error) = &key {
        paragraph(text, &format!("error: no client with a key can be heard: {}", in_one_line(error)));
    }
    match &state {
        Ok(State::There) => {}
        Ok(State::Damaged) => paragraph(
            text,
            &format!(
                "warning: {} is damaged: the daemon will keep it as knocks.damaged, and make a new one",
                access.state_dir.join("knocks").display()
            ),
        ),
        Ok(State::ToBeMade) => {
            paragraph(
                text,
                &format!("the directory {} for the state will be made", access.state_dir.display()),
            );
        }
        Err(error) => paragraph(
            text,
            &format!(
                "error: no client with a key can be let in, because nothing can be remembered: {}",
                in_one_line(error)
            ),
        ),
    }
    key.is_ok() && state.is_ok()
}

/// Writes a sentence, wrapped for a terminal.
fn paragraph(text: &mut String, sentence: &str) {
    for (number, line) in wrap(sentence, WIDTH).iter().enumerate() {
        let indent = if number == 0 { "" } else { "    " };
        let _ = writeln!(text, "{indent}{line}");
    }
}

fn settings(text: &mut String, config: &Config) {
    let width = |of: fn(&(String, String)) -> usize, lines: &[(String, String)]| lines.iter().map(of).max();
    let lines: Vec<(String, String)> = config
        .settings
        .iter()
        .map(|setting| {
            let origin = match &setting.origin {
                Origin::File(position) if config.path.as_deref() == Some(&*position.path) => {
                    format!("file, line {}", position.line)
                }
                other => other.to_string(),
            };
            (format!("{} = {}", setting.key, setting.value), origin)
        })
        .collect();
    let width = width(|(left, _)| left.chars().count(), &lines).unwrap_or(0).min(60);
    for (left, origin) in lines {
        let _ = writeln!(text, "{left:width$}  # {origin}");
    }
}
