//! Writes and parses the text of a gateway key file.

use std::path::Path;

use doors_spa::gateway::GatewayKey;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use zeroize::Zeroizing;

use super::{KeyError, Keys};

const ABOUT: &str = "\
# The key of this gateway. Only its owner may read this file: with it, old knocks can be decrypted and
# clients deceived. Clients get the card instead: port-knocking-doors gateway card
";
const ABOUT_PREVIOUS: &str = "\
# The previous key, and until when it is accepted, in seconds since 1970.
";

/// Writes the text for these keys.
pub(super) fn write(keys: &Keys) -> Zeroizing<String> {
    let key = |key: &GatewayKey| key.to_text();
    // With the full capacity from the start, the text is never reallocated, which would leave a copy in memory.
    let mut text = Zeroizing::new(String::with_capacity(1024));
    let current = key(&keys.current);
    for part in [ABOUT, "current = \"", &current, "\"\n"] {
        text.push_str(part);
    }
    if let Some((previous, until)) = &keys.previous {
        let (previous, until) = (key(previous), until.to_string());
        let parts = ["\n", ABOUT_PREVIOUS, "[previous]\nkey = \"", &previous, "\"\nuntil = ", &until, "\n"];
        for part in parts {
            text.push_str(part);
        }
    }
    text
}

/// Parses the keys in a text.
pub(super) fn parse(path: &Path, text: &str) -> Result<Keys, KeyError> {
    let source = Source { path, text };
    let table = DeTable::parse(text).map_err(|error| {
        // Only the message: the whole error would quote the line.
        let at = error.span().map_or(0, |span| span.start);
        source.wrong(at, format!("this is not TOML: {}", error.message().replace('\n', ", ")))
    })?;
    let table = table.get_ref();
    source.only(table, &["current", "previous"])?;
    let current = source.key("current", source.entry(table, 0, "current")?)?;
    let Some((_, previous)) = table.iter().find(|(name, _)| name.get_ref() == "previous") else {
        return Ok(Keys { current, previous: None });
    };
    let at = previous.span().start;
    let DeValue::Table(previous) = previous.get_ref() else {
        return Err(source.wrong(at, "`previous` is not a table; write [previous]".to_owned()));
    };
    source.only(previous, &["key", "until"])?;
    let key = source.key("key", source.entry(previous, at, "key")?)?;
    let until = source.until(source.entry(previous, at, "until")?)?;
    Ok(Keys { current, previous: Some((key, until)) })
}

struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn entry<'t>(
        &self,
        table: &'t DeTable<'t>,
        at: usize,
        name: &str,
    ) -> Result<&'t Spanned<DeValue<'t>>, KeyError> {
        let found = table.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(_, value)| value).ok_or_else(|| self.wrong(at, format!("`{name}` is missing here")))
    }

    fn key(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<GatewayKey, KeyError> {
        let at = value.span().start;
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong(at, format!("`{name}` is not a string; write \"doors1-secret-…\"")));
        };
        text.parse().map_err(|error| self.wrong(at, format!("`{name}` is not a gateway key: {error}")))
    }

    fn until(&self, value: &Spanned<DeValue<'_>>) -> Result<u64, KeyError> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let what = "`until` is not a time; write whole seconds since 1970";
        number.ok_or_else(|| self.wrong(value.span().start, what.to_owned()))
    }

    /// A misspelt name must not pass for an absent one.
    fn only(&self, table: &DeTable<'_>, names: &[&str]) -> Result<(), KeyError> {
        match table.iter().find(|(key, _)| !names.contains(&key.get_ref().as_ref())) {
            Some((key, _)) => {
                let what = format!("there is something else than {} here", names.join(" and "));
                Err(self.wrong(key.span().start, what))
            }
            None => Ok(()),
        }
    }

    fn wrong(&self, at: usize, what: String) -> KeyError {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count().saturating_add(1);
        KeyError::InFile { path: self.path.to_owned(), line, what }
    }
}
