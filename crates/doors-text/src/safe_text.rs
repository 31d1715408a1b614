//! Text of others on a terminal: what would steer it, or not be seen, is spelled out.

use alloc::string::String;

/// Letters that are blank.
const FILLERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

/// Whether a character is seen as itself: no control character, none that turns the direction of text, and
/// none that is invisible, but for the space.
#[must_use]
pub fn is_seen(c: char) -> bool {
    // What lies over the character before it is seen there; the library spells it out where it comes first.
    let mut behind_another = String::from("a");
    behind_another.push(c);
    let quoted = ['"', '\'', '\\'].contains(&c);
    !FILLERS.contains(&c) && (quoted || behind_another.escape_debug().eq(behind_another.chars()))
}

/// The text, with what is not seen as itself spelled out: `\n`, `\u{1b}`.
///
/// ```
/// use doors_text::safe_text::escaped;
///
/// assert_eq!(escaped("größer\n\u{202e}"), "größer\\n\\u{202e}");
/// ```
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match (is_seen(c), FILLERS.contains(&c)) {
            (true, _) => safe.push(c),
            (false, true) => safe.extend(c.escape_unicode()),
            (false, false) => safe.extend(c.escape_debug()),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_or_hides_is_spelled_out() {
        for (text, expected) in [
            ("plain \"words\", c:\\x, it's", "plain \"words\", c:\\x, it's"),
            ("größer, עברית, re\u{301}sume\u{301}", "größer, עברית, re\u{301}sume\u{301}"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{1b}[2J\u{9b}2J\u{7f}", "\\u{1b}[2J\\u{9b}2J\\u{7f}"),
            ("\u{202e}x\u{2066}\u{200f}", "\\u{202e}x\\u{2066}\\u{200f}"),
            ("\u{200b}\u{feff}\u{2028}\u{a0}\u{3164}", "\\u{200b}\\u{feff}\\u{2028}\\u{a0}\\u{3164}"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
