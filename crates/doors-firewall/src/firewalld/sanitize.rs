//! What others on the bus have said, fit for the log.

use std::error::Error;

use doors_text::error_chain;

/// Longer texts are cut. firewalld puts whole nftables scripts into its errors.
const LONGEST: usize = 500;

/// An error with all its causes, in one short line without control characters: the program that
/// the bus knows as firewalld chooses the text.
pub(super) fn in_one_line(error: &dyn Error) -> String {
    fit(&error_chain::in_one_line(error))
}

/// A text in one short line.
pub(super) fn fit(text: &str) -> String {
    let mut fit = String::new();
    for letter in text.trim_end().chars() {
        if fit.len() >= LONGEST {
            fit.push('…');
            break;
        }
        match letter.is_control() {
            true => fit.extend(letter.escape_default()),
            false => fit.push(letter),
        }
    }
    fit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_short_line() {
        assert_eq!(fit("COMMAND_FAILED: nft\n\x1b[2Jé\n"), "COMMAND_FAILED: nft\\n\\u{1b}[2Jé");
        let long = fit(&"ö\n".repeat(100_000));
        assert!(long.len() < 520 && long.ends_with('…') && !long.contains('\n'), "{long}");
    }
}
