//! The bytes of a copy.
//!
//! ```text
//!   port-knocking-doors last-good 1
//!   PATH KEYS-PATH TEXT KEYS CHECK          four lengths, and a SHA-256 of them and of what follows
//!   …                                       the four, one behind the other
//! ```
//!
//! A path of the keys without a length stands for none. The check finds what a disk has damaged, and is no defence.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use crate::config::Texts;

/// How it is written.
pub(super) const VERSION: u32 = 1;
const TITLE: &str = "port-knocking-doors last-good ";

/// Why bytes are no copy.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Unreadable {
    /// Not as we write them.
    Damaged,
    /// Of this version, which is not ours.
    Version(String),
}

/// The bytes for these texts.
pub(super) fn encode(texts: &Texts) -> Vec<u8> {
    let (keys_path, keys) = match &texts.keys {
        Some((path, keys)) => (path.as_os_str().as_bytes(), keys.as_bytes()),
        None => (&[][..], &[][..]),
    };
    let parts = [texts.path.as_os_str().as_bytes(), keys_path, texts.text.as_bytes(), keys];
    let lengths = parts.map(|part| part.len().to_string()).join(" ");
    let body = parts.concat();
    let check = check(&lengths, &body);
    let head = format!("{TITLE}{VERSION}\n{lengths} {check}\n");
    [head.as_bytes(), &body].concat()
}

/// The texts in these bytes.
pub(super) fn decode(bytes: &[u8]) -> Result<Texts, Unreadable> {
    let (title, rest) = line(bytes).ok_or(Unreadable::Damaged)?;
    let version = title.strip_prefix(TITLE).ok_or(Unreadable::Damaged)?;
    if version != VERSION.to_string() {
        return Err(Unreadable::Version(version.escape_debug().to_string()));
    }
    read(rest).ok_or(Unreadable::Damaged)
}

fn read(bytes: &[u8]) -> Option<Texts> {
    let (head, body) = line(bytes)?;
    let (lengths, told) = head.rsplit_once(' ')?;
    if told != check(lengths, body) {
        return None;
    }
    let mut rest = body;
    let mut next = |length: &str| {
        let (part, after) = rest.split_at_checked(length.parse().ok()?)?;
        rest = after;
        Some(part.to_vec())
    };
    let mut parts = lengths.split(' ');
    let (path, keys_path) = (next(parts.next()?)?, next(parts.next()?)?);
    let (text, keys) = (next(parts.next()?)?, next(parts.next()?)?);
    if parts.next().is_some() || !rest.is_empty() {
        return None;
    }
    let path_of = |bytes| PathBuf::from(OsString::from_vec(bytes));
    let keys = String::from_utf8(keys).ok()?;
    Some(Texts {
        path: path_of(path),
        text: String::from_utf8(text).ok()?,
        keys: (!keys_path.is_empty()).then(|| (path_of(keys_path), keys)),
    })
}

/// The first line, if it is a short one, and what comes after it.
fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = bytes.iter().take(256).position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((std::str::from_utf8(line).ok()?, rest.get(1..)?))
}

fn check(lengths: &str, body: &[u8]) -> String {
    let digest = Sha256::new().chain_update(lengths).chain_update(body).finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
