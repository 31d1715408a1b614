//! Spans of time, as people write and read them.

/// Seconds from a text like `10m`, `1h30m`, `90s` or `90`.
///
/// # Errors
/// A message that says how to write one.
pub fn parse(text: &str) -> Result<u32, String> {
    let wrong = || format!("\"{text}\" is no time; write 90s, 10m, 1h30m or 1d");
    let mut seconds = 0_u32;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, behind) = rest.split_at(end);
        let (unit, behind) = match behind.chars().next() {
            // Only a number that stands alone may lack its unit: "1h30" could mean two things.
            None if rest == text => (1, behind),
            Some('s') => (1, behind.get(1..).unwrap_or_default()),
            Some('m') => (60, behind.get(1..).unwrap_or_default()),
            Some('h') => (3_600, behind.get(1..).unwrap_or_default()),
            Some('d') => (86_400, behind.get(1..).unwrap_or_default()),
            _ => return Err(wrong()),
        };
        let part = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit));
        seconds = part.and_then(|part| seconds.checked_add(part)).ok_or_else(wrong)?;
        rest = behind;
    }
    match seconds {
        // In a request it means "what the door gives".
        0 => Err(wrong()),
        seconds => Ok(seconds),
    }
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
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1d", 86_400), ("1m30s", 90)]
        {
            assert_eq!(parse(text), Ok(seconds), "{text}");
        }
        for wrong in ["", "0", "0s", "m", "1h30", "10 m", "-5", "1w", "1é", "99999999999", "4294967295m"] {
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
