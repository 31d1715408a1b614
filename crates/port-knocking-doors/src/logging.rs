//! Where the log goes: to the journal with fields when systemd runs us, else to standard error.

use std::{env, io, os::fd::AsFd};

use rustix::fs::fstat;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer as _,
    filter::Targets,
    fmt::{self, format},
    layer::SubscriberExt as _,
    registry,
    util::SubscriberInitExt as _,
};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    /// The variable is wrong.
    #[error(
        "RUST_LOG: \"{text}\" is no filter; write error, warn, info, debug or trace, or target=level with \
         commas between"
    )]
    Variable {
        /// What it holds.
        text: String,
    },
}

/// Starts to log. `verbose` is how often `-v` was given; without it, `RUST_LOG` decides.
pub(crate) fn start(verbose: u8) -> Result<(), LogError> {
    let filter = filter(verbose, env::var_os("RUST_LOG").map(|text| text.to_string_lossy().into_owned()))?;
    // Only the message: the fields repeat what it says, for programs.
    let message_only = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let journal = match stderr_is_the_journal() {
        true => tracing_journald::layer().ok().map(|layer| layer.with_field_prefix(None)),
        false => None,
    };
    let text = journal.is_none().then(|| {
        fmt::layer()
            .with_writer(io::stderr)
            .with_target(false)
            .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
            .fmt_fields(message_only)
    });
    registry().with(journal.with_filter(filter.clone())).with(text.with_filter(filter)).init();
    Ok(())
}

fn filter(verbose: u8, variable: Option<String>) -> Result<Targets, LogError> {
    let ours =
        |level| Targets::new().with_target("port_knocking_doors", level).with_default(LevelFilter::WARN);
    match (verbose, variable) {
        (0, Some(text)) if !text.is_empty() => text.parse().map_err(|_| LogError::Variable { text }),
        (0, _) => Ok(ours(LevelFilter::INFO)),
        (1, _) => Ok(ours(LevelFilter::DEBUG)),
        (_, _) => Ok(ours(LevelFilter::TRACE)),
    }
}

/// Whether systemd has connected standard error to the journal (systemd.exec(5), `$JOURNAL_STREAM`).
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else { return false };
    fstat(io::stderr().as_fd()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_no_filter_is_an_error() {
        assert!(filter(0, Some("port_knocking_doors=loud".to_owned())).is_err());
        assert!(filter(0, Some("debug".to_owned())).is_ok());
        assert_eq!(filter(0, Some(String::new())).unwrap().to_string(), filter(0, None).unwrap().to_string());
    }

    #[test]
    fn an_option_goes_before_the_variable() {
        let filter = filter(1, Some("error".to_owned())).unwrap();
        assert!(filter.would_enable("port_knocking_doors", &tracing::Level::DEBUG));
    }
}
