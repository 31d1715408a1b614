//! The store of servers: one TOML file for each, that nobody else may read.
//!
//! ```toml
//! # ~/.config/doorknock/servers/home.toml
//! host = "door.example.org"
//! port = 62201
//! card = "doors1-…"
//! key = "/home/me/.ssh/id_ed25519_doors"     # optional
//! ```

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use doors_spa::card::{BadCard, Card};
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::private_file;

/// Where to knock, and with what.
#[derive(Debug)]
pub struct Server {
    /// A name or an address.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// What its gateway gives to every client.
    pub card: Card,
    /// The key to sign with, if one was chosen.
    pub key: Option<PathBuf>,
}

/// The directory with the files.
#[derive(Clone, Debug)]
pub struct Servers {
    directory: PathBuf,
}

/// What a server is called here.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServerName(String);

/// What is written in a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    #[serde(default = "usual_port")]
    port: u16,
    card: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<PathBuf>,
}

fn usual_port() -> u16 {
    doors_spa::PORT
}

/// Why a server cannot be stored or found.
#[derive(Debug, thiserror::Error)]
pub enum ServersError {
    /// Nobody knows where this user's files are.
    #[error("cannot find your home directory; name one for the servers in DOORKNOCK_CONFIG")]
    NoHome,
    /// It was never added.
    #[error("there is no server \"{name}\"; doorknock list shows them, and doorknock add adds one")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// It was added before.
    #[error("there is a server \"{name}\" already; add --replace if this one takes its place")]
    Exists {
        /// Its name.
        name: String,
    },
    /// The file does not say what it should.
    #[error("{path} line {line}: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong. It never shows the card.
        reason: String,
    },
    /// The file's card is none.
    #[error("{path} line {line}: the card is none")]
    Card {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong with it.
        source: BadCard,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Servers {
    /// The user's own.
    ///
    /// # Errors
    /// [`ServersError::NoHome`].
    pub fn of_user() -> Result<Self, ServersError> {
        let config = match env::var_os("DOORKNOCK_CONFIG").filter(|path| !path.is_empty()) {
            Some(path) => path.into(),
            // What command line programs use: XDG's place on macOS, too.
            None => etcetera::choose_base_strategy()
                .map_err(|_| ServersError::NoHome)?
                .config_dir()
                .join("doorknock"),
        };
        Ok(Self::in_directory(&config))
    }

    /// Those in a directory.
    #[must_use]
    pub fn in_directory(config: &Path) -> Self {
        Self { directory: config.join("servers") }
    }

    /// Stores a server.
    ///
    /// # Errors
    /// [`ServersError::Exists`] if there is one of this name and it may not be replaced, or what the system
    /// says.
    pub fn add(&self, name: &ServerName, server: &Server, replace: bool) -> Result<(), ServersError> {
        let path = self.path(name);
        if !replace && path.exists() {
            return Err(ServersError::Exists { name: name.0.clone() });
        }
        let Server { host, port, card, key } = server;
        let mut written =
            Written { host: host.clone(), port: *port, card: card.to_text().to_string(), key: key.clone() };
        let text = toml::to_string(&written).map(Zeroizing::new);
        zeroize::Zeroize::zeroize(&mut written.card);
        let text = text.map_err(|error| ServersError::Broken {
            path: path.clone(),
            line: 1,
            reason: error.to_string(),
        })?;
        private_file::create_directory(&self.directory)
            .and_then(|()| private_file::replace(&path, text.as_bytes()))
            .map_err(|source| ServersError::File { what: "write", path, source })
    }

    /// Reads a server.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn get(&self, name: &ServerName) -> Result<Server, ServersError> {
        let path = self.path(name);
        match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) => parse(&path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(ServersError::Unknown { name: name.0.clone() })
            }
            Err(source) => Err(ServersError::File { what: "read", path, source }),
        }
    }

    /// Forgets a server.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn remove(&self, name: &ServerName) -> Result<(), ServersError> {
        let path = self.path(name);
        fs::remove_file(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ServersError::Unknown { name: name.0.clone() },
            _ => ServersError::File { what: "remove", path, source },
        })
    }

    /// The names, in order.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn names(&self) -> Result<Vec<ServerName>, ServersError> {
        let unreadable = |source| ServersError::File { what: "read", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.map_err(unreadable)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(".toml"));
            names.extend(name.and_then(|name| name.parse::<ServerName>().ok()));
        }
        names.sort();
        Ok(names)
    }

    fn path(&self, name: &ServerName) -> PathBuf {
        self.directory.join(format!("{}.toml", name.0))
    }
}

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
                "\"{text}\" is no name for a server; use letters, digits, \".\", \"_\" and \"-\", 64 at most"
            )),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Server, ServersError> {
    let Written { host, port, card, key } = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        ServersError::Broken { path: path.to_owned(), line, reason: told_without_card(&error) }
    })?;
    let card = Zeroizing::new(card);
    let card = card.parse().map_err(|source| {
        let line = line_of(text, text.find("card").unwrap_or(0));
        ServersError::Card { path: path.to_owned(), line, source }
    })?;
    Ok(Server { host, port, card, key })
}

/// A message may quote what is written, and the card is not for a log.
fn told_without_card(error: &toml::de::Error) -> String {
    match error.message().contains("doors1-") {
        true => "this is not what belongs here".to_owned(),
        false => error.message().to_owned(),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use doors_spa::gateway::GatewayKey;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

    use super::*;

    fn broken(text: &str) -> String {
        let error = parse(Path::new("home.toml"), text).unwrap_err();
        crate::errors::in_one_line(&error)
    }

    #[test]
    fn a_name_is_a_word_and_never_a_path() {
        for name in ["home", "a", "my.server_1-x", "_"] {
            assert_eq!(name.parse(), Ok(ServerName(name.to_owned())));
        }
        for name in ["", "..", ".hidden", "a/b", "a\\b", "-x", "a b", "é", "a\n", &"a".repeat(65)] {
            assert!(name.parse::<ServerName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_broken_file_is_told_with_its_line_and_without_its_card() {
        let card = GatewayKey::generate(&mut UnwrapErr(SysRng)).card().to_text();
        assert!(parse(Path::new("home.toml"), &format!("host = \"x\"\ncard = \"{}\"", *card)).is_ok());
        let unknown = broken(&format!("host = \"x\"\ncard = \"{}\"\nports = 1\n", *card));
        assert!(unknown.starts_with("home.toml line 3: unknown field `ports`"), "{unknown}");
        let wrong = broken(&format!("host = \"x\"\nport = \"{}\"\ncard = \"\"\n", *card));
        assert_eq!(wrong, "home.toml line 2: this is not what belongs here");
        let cut = broken(&format!("host = \"x\"\n\ncard = \"{}\"\n", &card[..40]));
        assert!(cut.starts_with("home.toml line 3: the card is none: it has been cut off"), "{cut}");
        assert!(broken("host = \"x\"\ncard").starts_with("home.toml line 2: "));
        assert!(broken("host = \"x\"").starts_with("home.toml line 1: missing field `card`"));
    }
}
