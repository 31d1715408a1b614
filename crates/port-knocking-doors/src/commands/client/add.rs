//! Adds a client.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use doors_core::spa::client::Client;
use doors_os::{clock::Clock, trusted_file};
use doors_spa::identity::ClientKey;
use doors_text::error_chain::in_one_line;
use toml::Value;

use super::{
    ClientError,
    change::{Change, draft},
};
use crate::{
    config::{self, Inputs, file_of, is_client_name},
    spa::gateway_key,
};

/// No public key is longer, nor a file of some of them.
const LONGEST_KEY: usize = 64 * 1024;

/// Every user may read it. A public key is no secret, and a daemon that is not root has to read what root has added.
const MODE: u32 = 0o644;

/// A new client.
#[derive(Args, Debug)]
pub(crate) struct NewClient {
    /// Its name: letters, digits, and . _ - @ between
    name: String,
    /// Its public key: "ssh-ed25519 AAAA… comment"; without it, the key is read from standard input
    #[arg(long, value_name = "LINE", conflicts_with = "key_file")]
    key: Option<String>,
    /// A file with its public key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A door that it may open; can be given several times
    #[arg(long = "door", value_name = "DOOR", required = true)]
    doors: Vec<String>,
    /// The longest time for which it may have a door open, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    max_open_for: Option<u32>,
    /// A network from which it may knock; can be given several times
    #[arg(long, value_name = "NETWORK")]
    from: Vec<String>,
    /// The last day on which its key is worth something: 2026-12-31
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
}

/// Adds a client. Gives what there is to print.
pub(super) fn add(new: &NewClient, inputs: &Inputs) -> Result<String, ClientError> {
    let line = new.public_key()?;
    let (key, _) = ClientKey::from_openssh(&line).map_err(ClientError::BadKey)?;
    // It becomes the name of a file.
    if !is_client_name(&new.name) {
        return Err(ClientError::BadName(new.name.clone()));
    }
    let mut change = Change::begin(inputs, true)?;
    let path = file_of(&change.directory, &new.name);
    let text = new.text(&line);
    let client = config::client_of(&path, &new.name, &text).map_err(ClientError::New)?;
    if client.has_expired(Clock::start().wall()) {
        return Err(ClientError::Expired(client.until.map(config::day).unwrap_or_default()));
    }
    let said = format!("{} ({}) may open {}", new.name, key.fingerprint(), new.doors.join(", "));
    if is_there(&change, &client)? {
        return change.settle(format!("is there already: {said}"));
    }
    let mut texts = change.texts.clone();
    texts.clients.directory = Some(change.directory.clone());
    texts.clients.insert(&new.name, text.clone());
    change.check(&texts).map_err(ClientError::New)?;
    let written = draft(&path)?.create_with(&text, MODE);
    written.map_err(|source| ClientError::Write { path, source })?;
    change.texts = texts;
    let gateway_key = gateway_key::load(&change.config.gateway_key);
    let mut text = change.finish(format!("added: {said}"))?;
    if let Err(error) = gateway_key {
        let _ = writeln!(text, "still missing: {}", in_one_line(&error));
    }
    Ok(text)
}

/// Whether this very client is there. Another of its name, or with its key, is in the way.
fn is_there(change: &Change<'_>, client: &Client) -> Result<bool, ClientError> {
    let name = &*client.who.name;
    if let Some(place) = change.named(name) {
        let clients = change.config.key_access.iter().flat_map(|access| access.clients.iter());
        let same = clients.into_iter().any(|other| is_same(other, client));
        let at = place.origin.to_string();
        return if same { Ok(true) } else { Err(ClientError::Exists { name: name.to_owned(), at }) };
    }
    match change.with_key(&client.key) {
        Some(place) => {
            Err(ClientError::SameKey { name: place.name.to_string(), at: place.origin.to_string() })
        }
        None => Ok(false),
    }
}

/// Whether two are the same client, in whatever order the doors are written.
fn is_same(one: &Client, other: &Client) -> bool {
    let doors = |client: &Client| client.doors.iter().cloned().collect::<HashSet<_>>();
    doors(one) == doors(other) && Client { doors: other.doors.clone(), ..one.clone() } == *other
}

impl NewClient {
    /// What goes into its file.
    fn text(&self, key: &str) -> String {
        let list = |texts: &[String]| Value::from(texts.to_vec()).to_string();
        let mut text = format!("key = {}\ndoors = {}\n", Value::from(key), list(&self.doors));
        if let Some(seconds) = self.max_open_for {
            let _ = writeln!(text, "max_open_for = {seconds}");
        }
        if !self.from.is_empty() {
            let _ = writeln!(text, "from = {}", list(&self.from));
        }
        if let Some(until) = &self.until {
            let _ = writeln!(text, "until = {}", Value::from(until.as_str()));
        }
        text
    }

    fn public_key(&self) -> Result<String, ClientError> {
        let told = |from: &str, source| ClientError::PublicKey { from: from.to_owned(), source };
        let text = match (&self.key, &self.key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(file)) => {
                read_small_file(file).map_err(|source| told(&file.display().to_string(), source))?
            }
            (None, None) => {
                let mut text = String::new();
                let most = u64::try_from(LONGEST_KEY).unwrap_or(u64::MAX);
                let read = io::stdin().take(most).read_to_string(&mut text);
                read.map_err(|source| told("standard input", source))?;
                text
            }
        };
        if text.contains("PRIVATE KEY-----") {
            return Err(ClientError::PrivateKey);
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.next().map(str::to_owned).ok_or(ClientError::NoKey)
    }
}

/// Reads a file that the administrator names, whosever it is, and neither waits for a FIFO nor reads a device to its end.
fn read_small_file(path: &Path) -> io::Result<String> {
    let file = trusted_file::open(path)?;
    trusted_file::regular(&file)?;
    let mut bytes = Vec::new();
    trusted_file::read_up_to(&file, LONGEST_KEY, &mut bytes)?;
    String::from_utf8(bytes).map_err(io::Error::other)
}
