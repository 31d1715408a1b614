//! JSON for programs that also steers no terminal.

use std::fmt::Write as _;

use doors_text::safe_text::is_seen;
use serde::Serialize;

/// One JSON object in one line, with what is not seen as itself spelled out as JSON does.
#[must_use]
pub fn json(object: &impl Serialize) -> String {
    // Text, numbers and lists can always be written.
    let text = serde_json::to_string(object).unwrap_or_default();
    let mut safe = String::with_capacity(text.len());
    // Only between quotation marks is there anything else than what JSON itself is made of.
    for c in text.chars() {
        match is_seen(c) {
            true => safe.push(c),
            false => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                let _ = write!(safe, "\\u{unit:04x}");
            }),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_says_the_same_and_steers_no_terminal() {
        let text = "\u{1b}[2J\u{9b} \u{202e}\u{7f} \u{e0041} größer \"quoted\"\n";
        let line = json(&text);
        assert!(line.chars().all(is_seen), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
