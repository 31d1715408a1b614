//! Text on lines that fit.

use alloc::{borrow::ToOwned as _, string::String, vec, vec::Vec};

/// Breaks a text between words, so that no line is longer than `width` characters unless a word is.
///
/// ```
/// use doors_text::wrap::wrap;
///
/// assert_eq!(wrap("a door opens, and closes by itself", 14), ["a door opens,", "and closes by", "itself"]);
/// ```
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |line: &String| {
            line.is_empty() || line.chars().count().saturating_add(word.chars().count()) < width
        };
        match lines.last_mut().filter(|line| fits(line)) {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
