//! Adds clients to the configuration file and removes them, as the administrator would by hand.
//!
//! ```text
//!   # mine                 ──► untouched, byte for byte
//!   [[doors]]
//!   …
//!                          ◄── add: a blank line and a [[clients]], at the end
//!   # Bob's laptop         ──► remove: this comment,
//!   [[clients]]                the table,
//!   name = "bob"               up to the line of its last value
//! ```
//!
//! The text is parsed only to find the places; what is cut or pasted are whole lines of it. Whether the
//! result is a good configuration is judged elsewhere, before [`replace()`] puts it in the place of the file.

mod replace;
#[cfg(test)]
mod tests;

use toml_edit::{Array, Document, Item, RawString, Table, Value};

pub use self::replace::{ReplaceError, replace};

/// Some editors begin a file with it. What is parsed comes after it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// What is written of a client.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NewClient {
    /// Its name.
    pub name: String,
    /// Its public key, as a line of `authorized_keys`.
    pub key: String,
    /// The doors that it may open.
    pub doors: Vec<String>,
    /// The longest time that it may ask for, in seconds.
    pub max_open_for: Option<u32>,
    /// The networks from which it may knock; none: from everywhere.
    pub from: Vec<String>,
    /// Until when it may knock.
    pub until: Option<String>,
}

impl NewClient {
    fn lines(&self) -> Vec<String> {
        let line = |key: &str, value: Value| format!("{key} = {value}");
        let list = |texts: &[String]| Value::from(texts.iter().collect::<Array>());
        let mut lines = vec![
            "[[clients]]".to_owned(),
            line("name", self.name.as_str().into()),
            line("key", self.key.as_str().into()),
            line("doors", list(&self.doors)),
        ];
        lines.extend(self.max_open_for.map(|seconds| line("max_open_for", i64::from(seconds).into())));
        lines.extend((!self.from.is_empty()).then(|| line("from", list(&self.from))));
        lines.extend(self.until.as_deref().map(|until| line("until", until.into())));
        lines
    }
}

/// The text with one more client, at its end.
///
/// # Errors
/// [`EditError`] if there is a client of this name, or the text is none to which a `[[clients]]` fits.
pub fn add(text: &str, client: &NewClient) -> Result<String, EditError> {
    let found = find(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))?;
    if found.iter().any(|there| there.name.as_ref() == Some(&client.name)) {
        return Err(EditError::Exists { name: client.name.clone() });
    }
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut new = text.to_owned();
    if !new.is_empty() && !new.ends_with('\n') {
        new.push_str(end);
    }
    if !new.is_empty() {
        // Else a comment at the end would stand above the new table, and go when it goes.
        new.push_str(end);
    }
    for line in client.lines() {
        new.push_str(&line);
        new.push_str(end);
    }
    Ok(new)
}

/// The text without a client, and without the comment that stands directly above its table.
///
/// # Errors
/// [`EditError`] if there is no client of this name, or its table is none that stands in one piece.
pub fn remove(text: &str, name: &str) -> Result<String, EditError> {
    let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let found = find(body)?;
    let mut named = found.iter().filter(|there| there.name.as_deref() == Some(name));
    let Some(client) = named.next() else {
        return Err(EditError::Unknown { name: name.to_owned(), hint: hint(&found, name) });
    };
    if named.next().is_some() {
        return Err(EditError::Twice { name: name.to_owned() });
    }
    let parts = || {
        let place = client.place.as_ref()?;
        let (above, table) = body.split_at_checked(place.header)?;
        let (_, below) = table.split_at_checked(place.end.checked_sub(place.header)?)?;
        // Within a text, a line may look like a comment.
        let (before, gap) = above.split_at_checked(place.gap)?;
        let kept = before.len().checked_add(without_comment(gap).len())?;
        Some((above.get(..kept)?, below))
    };
    let Some((mut above, below)) = parts() else {
        return Err(EditError::Scattered { name: name.to_owned() });
    };
    let mut below = below.split_once('\n').map_or("", |(_, below)| below);
    // Of the blank lines around it one was there to set it off.
    match below.split_once('\n') {
        None if below.trim().is_empty() => above = without_blank_line(above),
        Some((line, rest)) if line.trim().is_empty() && ends_blank(above) => below = rest,
        _ => {}
    }
    let mark = text.get(..text.len().saturating_sub(body.len())).unwrap_or_default();
    Ok([mark, above, below].concat())
}

/// A `[[clients]]` in a text.
struct Found {
    name: Option<String>,
    /// `None` if something else may stand within it.
    place: Option<Place>,
}

/// Where a table stands.
struct Place {
    /// The end of what is before it. From there to the header are comments and blank lines.
    gap: usize,
    header: usize,
    /// The end of its last value.
    end: usize,
}

fn find(text: &str) -> Result<Vec<Found>, EditError> {
    let document = Document::parse(text).map_err(|error| EditError::NoToml {
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        what: error.message().replace('\n', ", "),
    })?;
    let Some(clients) = document.get("clients") else { return Ok(Vec::new()) };
    let Some(tables) = clients.as_array_of_tables() else {
        let at = document.key("clients").and_then(|key| key.span()).map_or(0, |span| span.start);
        return Err(EditError::NoTables { line: line_of(text, at) });
    };
    let found = tables.iter().map(|table| Found {
        name: table.get("name").and_then(Item::as_str).map(str::to_owned),
        place: place(table),
    });
    Ok(found.collect())
}

fn place(table: &Table) -> Option<Place> {
    let header = table.span()?;
    let gap = table.decor().prefix().and_then(RawString::span);
    let gap = gap.map_or(header.start, |gap| gap.start);
    Some(Place { gap, header: header.start, end: end(table, header.end)? })
}

/// Where the last value of a table ends. A table with a header of its own in it may stand anywhere.
fn end(table: &Table, header: usize) -> Option<usize> {
    table.iter().try_fold(header, |latest, (_, item)| {
        let end = match item {
            Item::Value(value) => value.span()?.end,
            Item::Table(table) if table.is_dotted() => end(table, latest)?,
            Item::None | Item::Table(_) | Item::ArrayOfTables(_) => return None,
        };
        Some(latest.max(end))
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count().saturating_add(1)
}

/// The lines without the comments that end them, and without the blanks that indent what follows.
fn without_comment(lines: &str) -> &str {
    let mut rest = lines.trim_end_matches([' ', '\t']);
    while let Some(last) = rest.split_inclusive('\n').next_back() {
        if !last.trim_start().starts_with('#') {
            break;
        }
        rest = rest.strip_suffix(last).unwrap_or_default();
    }
    rest
}

fn ends_blank(lines: &str) -> bool {
    lines.split_inclusive('\n').next_back().is_none_or(|line| line.trim().is_empty())
}

fn without_blank_line(lines: &str) -> &str {
    match lines.split_inclusive('\n').next_back() {
        Some(last) if last.trim().is_empty() => lines.strip_suffix(last).unwrap_or_default(),
        _ => lines,
    }
}

/// The name that was meant, or those that there are.
fn hint(found: &[Found], name: &str) -> String {
    let names: Vec<&str> = found.iter().filter_map(|there| there.name.as_deref()).collect();
    let likeness = |other: &str| strsim::jaro_winkler(other, name);
    let nearest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest {
        None => "the file has no [[clients]] with a name".to_owned(),
        Some(nearest) if likeness(nearest) > 0.75 => format!("did you mean \"{}\"?", nearest.escape_debug()),
        Some(_) => {
            let names: Vec<String> = names.iter().map(|name| name.escape_debug().to_string()).collect();
            format!("there are: {}", names.join(", "))
        }
    }
}

/// Why a text cannot be changed.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("line {line} is no TOML: {what}")]
    NoToml {
        /// The line, from 1.
        line: usize,
        /// What the parser said.
        what: String,
    },
    /// Clients are written in another way.
    #[error(
        "in line {line}, `clients` is not written as tables, and is not changed; write one [[clients]] for \
         each client, then try again"
    )]
    NoTables {
        /// The line, from 1.
        line: usize,
    },
    /// There is a client of this name.
    #[error("there is a client \"{}\" already; choose another name, or remove it first", name.escape_debug())]
    Exists {
        /// The name.
        name: String,
    },
    /// There is no client of this name.
    #[error("there is no client \"{}\"; {hint}", name.escape_debug())]
    Unknown {
        /// The name.
        name: String,
        /// Which there are.
        hint: String,
    },
    /// Two clients have this name, and one of them would keep its key.
    #[error("there are several clients \"{}\"; remove them with an editor", name.escape_debug())]
    Twice {
        /// The name.
        name: String,
    },
    /// Other tables may stand within the client's.
    #[error("the client \"{}\" has tables of its own; remove it with an editor", name.escape_debug())]
    Scattered {
        /// The name.
        name: String,
    },
}
