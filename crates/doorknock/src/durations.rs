//! Spans of time, as people write and read them.

use jiff::{Span, SpanRelativeTo};

/// Seconds from a text like `10m`, `1h30m`, `5min`, `2 hours`, or `90` for seconds.
///
/// Read by the library that tells the time: it knows how people write units. A day has 24 hours here.
///
/// # Errors
/// A message that says how to write one.
pub fn parse(text: &str) -> Result<u32, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let written = if is_number { format!("{text}s") } else { text.to_owned() };
    let Some(seconds) = seconds(&written) else { return Err(mistake(text, &written)) };
    match u32::try_from(seconds) {
        // In a request, zero means "what the door gives".
        Ok(0) => Err(format!("\"{text}\" is no time; leave it out for the time that the door gives")),
        Ok(seconds) => Ok(seconds),
        Err(_) if seconds < 0 => Err(mistake(text, &written)),
        Err(_) => Err(too_long(text)),
    }
}

/// Whole seconds.
fn seconds(written: &str) -> Option<i64> {
    let span: Span = written.parse().ok()?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?;
    (duration.subsec_nanos() == 0).then(|| duration.as_secs())
}

fn too_long(text: &str) -> String {
    format!("\"{text}\" is too long; the longest time is {MOST}s, 136 years", MOST = u32::MAX)
}

/// Why a text is no time.
fn mistake(text: &str, written: &str) -> String {
    let ends_with_number = text.ends_with(|last: char| last.is_ascii_digit());
    let begins_with_number = text.starts_with(|first: char| first.is_ascii_digit());
    if begins_with_number && seconds(&with_small_numbers(written)).is_some_and(|small| small > 0) {
        return too_long(text);
    }
    if begins_with_number && ends_with_number && seconds(&format!("{text}s")).is_some() {
        return format!("\"{text}\" has a number without a unit at its end; write {text}s for seconds");
    }
    format!(
        "\"{text}\" is not a time in whole seconds; write 90s, 10m, 1h30m, \"1min 30s\", \"2 hours\" or 1d"
    )
}

/// The same with 1 in place of each number, which is never too long.
fn with_small_numbers(text: &str) -> String {
    let mut small = String::new();
    for c in text.chars() {
        match c.is_ascii_digit() {
            true if small.ends_with('1') => {}
            true => small.push('1'),
            false => small.push(c),
        }
    }
    small
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
        let too_long = [
            "99999999999",
            "4294967296s",
            "4294967295m",
            "100000000000h",
            "99999999999999999999999s",
            "9999999 weeks",
        ];
        let none =
            ["", " ", "0", "0s", "m", "1h30", "-5", "-5m", "5m ago", "1é", "500ms", "1.5s", "1 month", "+90"];
        for wrong in too_long.into_iter().chain(none) {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
        for text in too_long {
            let expected = format!("\"{text}\" is too long; the longest time is 4294967295s, 136 years");
            assert_eq!(parse(text), Err(expected));
        }
    }

    #[test]
    fn what_is_wrong_with_a_time_is_said_with_the_way_out() {
        for (text, expected) in [
            ("0", "\"0\" is no time; leave it out for the time that the door gives"),
            ("0s", "\"0s\" is no time; leave it out for the time that the door gives"),
            ("1min 30", "\"1min 30\" has a number without a unit at its end; write 1min 30s for seconds"),
            ("1h30", "\"1h30\" has a number without a unit at its end; write 1h30s for seconds"),
            (
                "1.5s",
                "\"1.5s\" is not a time in whole seconds; write 90s, 10m, 1h30m, \"1min 30s\", \"2 hours\" or 1d",
            ),
        ] {
            assert_eq!(parse(text), Err(expected.to_owned()));
        }
        for other in ["", "-5", "-5m", "m", "5m ago", "1 month"] {
            assert!(
                parse(other).unwrap_err().contains(" is not a time in whole seconds; write 90s"),
                "{other}"
            );
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
