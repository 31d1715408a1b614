//! The bytes of a copy.
//!
//! ```text
//!   port-knocking-doors last-good 2
//!   PATH KEYS-PATH TEXT KEYS DIRECTORY CLIENTS CHECK   six lengths, and a SHA-256 of them and of what follows
//!   …                                                  the six, one behind the other
//! ```
//!
//! The clients are `NAME LENGTH`, a new line and the text of each file. In version 1 there are no clients. A path
//! without a length stands for none. The check finds what a disk has damaged, and is no defence.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use sha2::{Digest as _, Sha256};

use crate::config::{ClientFiles, Texts};

/// How it is written.
pub(super) const VERSION: u32 = 2;
/// How it was written before clients had files.
const WITHOUT_CLIENTS: u32 = 1;
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
    let directory = texts.clients.directory.as_ref().map_or(&[][..], |path| path.as_os_str().as_bytes());
    let file = |(name, text): &(String, String)| format!("{name} {}\n{text}", text.len());
    let clients: String = texts.clients.texts.iter().map(file).collect();
    let path = texts.path.as_os_str().as_bytes();
    let parts = [path, keys_path, texts.text.as_bytes(), keys, directory, clients.as_bytes()];
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
    if ![VERSION, WITHOUT_CLIENTS].iter().any(|known| version == known.to_string()) {
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
    let before = if lengths.split(' ').count() == 4 { " 0 0" } else { "" };
    let mut parts = lengths.split(' ').chain(before.split(' ').skip(1));
    let (path, keys_path) = (next(parts.next()?)?, next(parts.next()?)?);
    let (text, keys) = (next(parts.next()?)?, next(parts.next()?)?);
    let (directory, clients) = (next(parts.next()?)?, next(parts.next()?)?);
    if parts.next().is_some() || !rest.is_empty() {
        return None;
    }
    let path_of = |bytes| PathBuf::from(OsString::from_vec(bytes));
    let keys = String::from_utf8(keys).ok()?;
    Some(Texts {
        path: path_of(path),
        text: String::from_utf8(text).ok()?,
        keys: (!keys_path.is_empty()).then(|| (path_of(keys_path), keys)),
        clients: ClientFiles {
            directory: (!directory.is_empty()).then(|| path_of(directory)),
            texts: read_clients(&clients)?,
        },
    })
}

fn read_clients(mut bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let mut clients = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = line(bytes)?;
        let (name, length) = head.split_once(' ')?;
        let (text, rest) = rest.split_at_checked(length.parse().ok()?)?;
        clients.push((name.to_owned(), std::str::from_utf8(text).ok()?.to_owned()));
        bytes = rest;
    }
    Some(clients)
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
