//! Spans of time, as people write and read them.

use jiff::{Span, SpanRelativeTo};

/// Seconds from a text like `10m`, `1h30m`, `5min`, `2 hours`, or `90` for seconds.
///
/// Read by the library that tells the time: it knows how people write units. A day has 24 hours here.
///
/// # Errors
/// A message that says how to write one.
pub fn parse(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is no time in whole seconds; write 90s, 10m, 1h30m, 2 hours or 1d");
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = match is_number {
        true => text.parse().ok(),
        false => written(text),
    };
    // In a request, zero means "what the door gives".
    seconds.filter(|seconds| *seconds != 0).ok_or_else(wrong)
}

fn written(text: &str) -> Option<u32> {
    let span: Span = text.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    let is_whole = duration.subsec_nanos() == 0;
    u32::try_from(duration.as_secs()).ok().filter(|_| is_whole)
}

/// Seconds for people: `30 s`, `10 min`, `1 h 30 min`, `3 d 4 h`. Two units at most, rounded down.
#[must_use]
pub fn text(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let mut parts = Vec::new();
    let mut left = seconds;
    for (unit, name) in UNITS {
        let count = left.checked_div(unit).unwrap_or_default();
        left = left.checked_rem(unit).unwrap_or_default();
        match (count, parts.is_empty()) {
            (0, true) => {}
            (0, false) => break,
            (count, _) => parts.push(format!("{count} {name}")),
        }
        if parts.len() == 2 {
            break;
        }
    }
    match parts.is_empty() {
        true => "0 s".to_owned(),
        false => parts.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_as_people_write_it() {
        for (text, seconds) in [
            ("90", 90),
            ("90s", 90),
            ("10m", 600),
            ("5min", 300),
            ("2 hours", 7200),
            ("1 hour, 30 minutes", 5400),
            ("1.5h", 5400),
            ("1h30m", 5400),
            ("1d", 86_400),
            ("1m30s", 90),
            ("4294967295s", u32::MAX),
        ] {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        let too_long = ["99999999999", "4294967296s", "4294967295m"];
        let none =
            ["", " ", "0", "0s", "m", "1h30", "-5", "-5m", "5m ago", "1é", "500ms", "1.5s", "1 month", "+90"];
        for wrong in too_long.into_iter().chain(none) {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_span_is_told_in_two_units_at_most() {
        for (seconds, expected) in [
            (0, "0 s"),
            (30, "30 s"),
            (90, "1 min 30 s"),
            (600, "10 min"),
            (5400, "1 h 30 min"),
            (3605, "1 h"),
            (93_784, "1 d 2 h"),
        ] {
            assert_eq!(text(seconds), expected);
        }
    }
}
