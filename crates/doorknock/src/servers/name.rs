//! What a server is called here.

use std::str::FromStr;

/// What a server is called here.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServerName(String);

impl ServerName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // It becomes the name of a file, and a word in ~/.ssh/config.
        let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match begins && text.len() <= 64 && text.chars().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "\"{text}\" is not a valid name for a server; use letters, digits, \".\", \"_\" and \"-\", 64 at most"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_word_and_never_a_path() {
        for name in ["home", "a", "my.server_1-x", "_"] {
            assert_eq!(name.parse(), Ok(ServerName(name.to_owned())));
        }
        for name in ["", "..", ".hidden", "a/b", "a\\b", "-x", "a b", "é", "a\n", &"a".repeat(65)] {
            assert!(name.parse::<ServerName>().is_err(), "{name:?}");
        }
    }
}
