//! Sends the log to the journal, with fields, when systemd runs us, and else to standard error.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal as _},
    os::fd::AsFd,
    sync::OnceLock,
};

use rustix::fs::fstat;
use tracing::level_filters::LevelFilter;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    Layer as _,
    filter::Targets,
    fmt::{self, format},
    layer::SubscriberExt as _,
    registry, reload,
    util::SubscriberInitExt as _,
};

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The variable `RUST_LOG` is invalid.
    #[error(
        "RUST_LOG: {what}; write error, warn, info, debug, trace or off, or target=level, with commas between"
    )]
    Variable {
        /// What is wrong with it.
        what: String,
    },
}

/// The crates of the daemon that log; to a user they are one program, which goes by the first of these names.
const OURS: [&str; 2] = ["port_knocking_doors", "doors_firewall"];

/// The levels to log. `verbose` counts how often `-v` was given; without it, `RUST_LOG` decides.
pub(crate) fn wanted(verbose: u8) -> Result<Targets, LogError> {
    filter(verbose, env::var_os("RUST_LOG"))
}

/// Changes the levels in force.
type SetLevels = Box<dyn Fn(Targets) + Send + Sync>;

/// The levels of the start, and what changes those in force.
static LEVELS: OnceLock<(Targets, SetLevels)> = OnceLock::new();

/// Logs everything of ours at this level; at the levels of the start for `None`.
pub(super) fn set_level(level: Option<LevelFilter>) {
    let Some((at_the_start, change)) = LEVELS.get() else { return };
    let targets = level.map(|level| OURS.map(|target| (target, level)));
    change(at_the_start.clone().with_targets(targets.into_iter().flatten()));
}

/// Installs the log with these levels.
pub(crate) fn start(wanted: Targets) {
    // Only the message: the fields repeat it for programs.
    let message_only = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let journal = match stderr_is_the_journal() {
        true => tracing_journald::layer()
            .ok()
            .map(|layer| layer.with_field_prefix(None).with_priority_mappings(priorities())),
        false => None,
    };
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None => fmt::layer()
            .with_writer(io::stderr)
            .with_target(false)
            .with_ansi(in_colours(io::stderr().is_terminal(), env::var_os("NO_COLOR").as_deref()))
            .fmt_fields(message_only)
            .boxed(),
    };
    let (filter, handle) = reload::Layer::new(wanted.clone());
    let change = Box::new(move |levels| drop(handle.reload(levels)));
    drop(LEVELS.set((wanted, change)));
    registry().with(layer.with_filter(filter)).init();
}

fn filter(verbose: u8, variable: Option<OsString>) -> Result<Targets, LogError> {
    let ours = |level| {
        Targets::new().with_targets(OURS.map(|target| (target, level))).with_default(LevelFilter::WARN)
    };
    match (verbose, variable) {
        (0, Some(text)) if !text.is_empty() => parse(&text, ours(LevelFilter::INFO)),
        (0, _) => Ok(ours(LevelFilter::INFO)),
        (1, _) => Ok(ours(LevelFilter::DEBUG)),
        (_, _) => Ok(ours(LevelFilter::TRACE)),
    }
}

/// Colours are for terminals whose user has not set `NO_COLOR` to a non-empty value (no-color.org).
fn in_colours(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Parses the variable. `without` is the filter in force without it.
///
/// The library's parser takes any word for a target and turns off every target that is not named: after one typing
/// error, a daemon that guards ports would log nothing at all.
fn parse(variable: &OsStr, without: Targets) -> Result<Targets, LogError> {
    let wrong = |what: String| LogError::Variable { what };
    let text = variable.to_str().ok_or_else(|| wrong("it is not UTF-8 text".to_owned()))?;
    let level = |word: &str| {
        let level = word.parse().ok().filter(|_| !word.is_empty());
        level.ok_or_else(|| wrong(format!("\"{}\" is not a level", word.escape_debug())))
    };
    let (mut general, mut named): (Option<LevelFilter>, Vec<(&str, LevelFilter)>) = (None, Vec::new());
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            Some(("", _)) => return Err(wrong(format!("\"{}\" names no target", part.escape_debug()))),
            Some((target, word)) => {
                let level = level(word)?;
                let all: &[&str] = if target == OURS[0] { &OURS } else { &[target] };
                named.extend(all.iter().map(|target| (*target, level)));
            }
            None => general = Some(level(part)?),
        }
    }
    let filter = general.map_or(without, |level| Targets::new().with_default(level));
    Ok(filter.with_targets(named))
}

/// The priorities in the journal. A door that opens is information; the library would log it as a notice, which is
/// for unusual events.
fn priorities() -> PriorityMappings {
    PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() }
}

/// Whether systemd has connected standard error to the journal (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr().as_fd()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use tracing::Level;

    use super::*;

    fn said(variable: &str) -> Result<Targets, String> {
        filter(0, Some(variable.into())).map_err(|error| error.to_string())
    }

    #[test]
    fn an_invalid_variable_is_an_error_that_says_what_is_wrong() {
        for (variable, why) in [
            ("inf", "\"inf\" is not a level"),
            ("port_knocking_doors=loud", "\"loud\" is not a level"),
            ("port_knocking_doors=", "\"\" is not a level"),
            ("port_knocking_doors", "\"port_knocking_doors\" is not a level"),
            ("=", "\"=\" names no target"),
            ("=info", "\"=info\" names no target"),
            (",", "\"\" is not a level"),
            ("info,", "\"\" is not a level"),
            (" ", "\"\" is not a level"),
        ] {
            let error = said(variable).unwrap_err();
            assert!(error.starts_with(&format!("RUST_LOG: {why}; write error, warn")), "{variable}: {error}");
        }
        let error = filter(0, Some(OsString::from_vec(vec![0xff]))).unwrap_err().to_string();
        assert!(error.contains("it is not UTF-8 text"), "{error}");
    }

    #[test]
    fn a_level_applies_to_all_targets_and_a_named_target_changes_only_itself() {
        let enabled =
            |variable: &str, target: &str, level| said(variable).unwrap().would_enable(target, &level);
        assert!(enabled("debug", OURS[0], Level::DEBUG) && enabled("DEBUG", "zbus", Level::DEBUG));
        assert!(enabled("zbus=debug", OURS[0], Level::INFO) && enabled("zbus=debug", "zbus", Level::DEBUG));
        assert!(OURS.iter().all(|ours| enabled("warn, port_knocking_doors=trace", ours, Level::TRACE)));
        assert!(!enabled("warn, port_knocking_doors=trace", "zbus", Level::INFO));
        assert!(!enabled("off", OURS[0], Level::ERROR));
        assert_eq!(said("").unwrap().to_string(), filter(0, None).unwrap().to_string());
    }

    #[test]
    fn colours_are_for_terminals_without_no_color() {
        assert!(in_colours(true, None) && in_colours(true, Some("".as_ref())));
        assert!(!in_colours(true, Some("1".as_ref())) && !in_colours(true, Some("0".as_ref())));
        assert!(!in_colours(false, None));
    }

    #[test]
    fn what_each_crate_of_ours_has_to_say_is_heard_without_asking() {
        let filter = filter(0, None).unwrap();
        assert!(OURS.iter().all(|ours| filter.would_enable(ours, &Level::INFO)));
        // A crate that depends on the log is one of them.
        for (target, manifest) in [
            ("doors_core", include_str!("../../../doors-core/Cargo.toml")),
            ("doors_firewall", include_str!("../../../doors-firewall/Cargo.toml")),
            ("doors_os", include_str!("../../../doors-os/Cargo.toml")),
            ("doors_spa", include_str!("../../../doors-spa/Cargo.toml")),
            ("doors_text", include_str!("../../../doors-text/Cargo.toml")),
        ] {
            let logs = manifest.lines().any(|line| line.starts_with("tracing"));
            assert_eq!(logs, OURS.contains(&target), "{target}");
        }
    }

    #[test]
    fn the_option_overrides_the_variable() {
        for variable in ["error", "inf"] {
            let filter = filter(1, Some(variable.into())).unwrap();
            assert!(OURS.iter().all(|ours| filter.would_enable(ours, &Level::DEBUG)));
        }
    }
}
