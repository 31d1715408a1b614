//! Valid names of doors, how many doors a gateway can have, and how long one can be open.
//!
//! The gateway rejects a configuration that breaks these rules, and a client rejects such a receipt: it shows
//! the names on a terminal, and asks for the doors page by page.

use core::time::Duration;

/// The most doors in one configuration: enough for one for each host of a large network, and few enough that
/// a client can ask for all of them in a minute.
pub const MAX_DOORS: u16 = 1024;

/// The longest time for which a door can be open: a year.
pub const MAX_OPEN_FOR: Duration = Duration::from_secs(31_536_000);

/// The longest name, in bytes.
pub const NAME_MAX: usize = 32;

/// Names that would turn into keywords of `nft` as names of the kernel's sets.
const RESERVED: [&str; 3] = ["icmpv", "ip", "trusted"];

/// Checks a name: 1 to 32 letters from a to z, digits, `_` and `-`, the first a letter.
///
/// The name becomes part of names in the kernel and is shown on terminals, so it contains nothing that would
/// need quoting in either.
///
/// # Errors
/// [`BadName`] says which rule the name breaks.
pub fn check_name(name: &str) -> Result<(), BadName> {
    if RESERVED.contains(&name) {
        return Err(BadName::Reserved);
    }
    if name.len() > NAME_MAX {
        return Err(BadName::Long);
    }
    // Characters come first: one that is not visible is named by its number, wherever it stands.
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if let Some(other) = name.chars().find(|c| !allowed(*c)) {
        return Err(BadName::Character(other));
    }
    if !name.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err(BadName::Start);
    }
    Ok(())
}

/// Why a text is not a valid name of a door.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadName {
    /// A keyword of nftables, or a name that the daemon uses itself.
    #[error("is a word of the firewall; choose another name")]
    Reserved,
    /// Longer than [`NAME_MAX`].
    #[error("is too long; a door's name has at most 32 characters")]
    Long,
    /// Empty, or the first character is not a letter.
    #[error("must begin with a letter from a to z")]
    Start,
    /// A character that the kernel's names cannot contain, or that a terminal does not show as itself.
    #[error("may hold only letters from a to z, digits, `_` and `-`, not U+{:04X}", u32::from(*.0))]
    Character(char),
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString as _};

    use super::*;

    #[test]
    fn a_name_fits_into_the_kernels_names_and_onto_a_terminal() {
        for good in ["ssh", "S", "web-80_b", "a2345678901234567890123456789012"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for (bad, why) in [
            ("", BadName::Start),
            ("4ssh", BadName::Start),
            ("-ssh", BadName::Start),
            ("ssh 2", BadName::Character(' ')),
            ("tür", BadName::Character('ü')),
            ("s{}", BadName::Character('{')),
            ("s\u{1b}[2J", BadName::Character('\u{1b}')),
            ("s\u{200b}sh", BadName::Character('\u{200b}')),
            ("ip", BadName::Reserved),
            ("a23456789012345678901234567890123", BadName::Long),
        ] {
            assert_eq!(check_name(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_character_that_changes_the_direction_of_text_is_named_by_its_number_wherever_it_stands() {
        let turns =
            ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain("\u{200e}\u{200f}\u{61c}".chars());
        for turn in turns {
            for name in [format!("{turn}ssh"), format!("s{turn}sh"), format!("ssh{turn}")] {
                let bad = check_name(&name).unwrap_err();
                assert!(bad.to_string().ends_with(&format!(", not U+{:04X}", u32::from(turn))), "{bad}");
            }
        }
    }
}
