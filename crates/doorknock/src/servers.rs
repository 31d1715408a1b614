//! The store of servers: one TOML file for each, that nobody else may read.
//!
//! A file may come from a backup, another program or another hand. So it is held to the same rules when it is
//! read as when it is written, by the same types, and one that breaks them stands in the way of no other.
//!
//! ```toml
//! # ~/.config/doorknock/servers/home.toml
//! host = "door.example.org"
//! port = 62201
//! card = "doors1-…"
//! key = "/home/me/.ssh/id_ed25519_doors"     # optional
//! address = "seen"                           # optional: name no address in a knock
//! doors = ["ssh"]                            # what it told when it was asked last
//! ```

use std::{
    env, fs, io,
    num::NonZeroU16,
    path::{Path, PathBuf},
    str::FromStr,
};

use doors_spa::{
    card::{BadCard, Card},
    door::check_name,
};
use doors_text::safe_text::is_seen;
use etcetera::BaseStrategy as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    host::Host,
    private_file,
    spa::own_address::Whom,
    trusted_file::{TrustedDirectory, TrustedFile, Untrusted},
};

/// A word of a message that is longer may be a card, of which no part is worth much.
const LONGEST_QUOTED: usize = 40;

/// No file of a server is longer, also with the most doors of the longest names.
const LONGEST: u64 = 64 * 1024;

/// Where to knock, and with what.
#[derive(Debug)]
pub struct Server {
    /// A name or an address.
    pub host: Host,
    /// The UDP port.
    pub port: NonZeroU16,
    /// What its gateway gives to every client.
    pub card: Card,
    /// The key to sign with, if one was chosen.
    pub key: Option<KeyPath>,
    /// Whom to let in if nothing else is said: [`Whom::Sender`] or [`Whom::Seen`].
    pub whom: Whom,
    /// The doors that it told when it was asked last.
    pub doors: Vec<String>,
}

/// Where a key is, wherever the client is started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct KeyPath(PathBuf);

/// The directory with the files.
#[derive(Clone, Debug)]
pub struct Servers {
    directory: PathBuf,
}

/// A file of the store.
#[derive(Debug)]
pub struct Entry {
    /// What it is called, without `.toml`.
    pub name: String,
    /// What is in it, or why that is not used.
    pub server: Result<Server, ServersError>,
}

/// What a server is called here.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ServerName(String);

/// What is written in a file.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: Host,
    #[serde(default = "usual_port")]
    port: NonZeroU16,
    card: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<KeyPath>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<WrittenAddress>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    doors: Vec<String>,
}

/// Whom to let in, as it is written.
#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenAddress {
    Seen,
}

/// Where to knock if nobody says otherwise.
pub const USUAL_PORT: NonZeroU16 = match NonZeroU16::new(doors_spa::PORT) {
    Some(port) => port,
    None => NonZeroU16::MAX,
};

fn usual_port() -> NonZeroU16 {
    USUAL_PORT
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
    #[error("{path} line {line}: {reason}; correct the file, or remove it")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong. It never shows the card.
        reason: String,
    },
    /// The file's card is none.
    #[error("{path} line {line}: the card is none; doorknock add --replace stores another")]
    Card {
        /// The file.
        path: PathBuf,
        /// Where in it.
        line: usize,
        /// What is wrong with it.
        source: BadCard,
    },
    /// Somebody else may have written what is in the store.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The file is called as no server can be.
    #[error("{path} is not called like a server; rename it, or move it away")]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written or removed.
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
        let Server { host, port, card, key, whom, doors } = server;
        let mut written = Written {
            host: host.clone(),
            port: *port,
            card: card.to_text().to_string(),
            key: key.clone(),
            address: (*whom == Whom::Seen).then_some(WrittenAddress::Seen),
            doors: doors.clone(),
        };
        let text = toml::to_string(&written).map(Zeroizing::new);
        zeroize::Zeroize::zeroize(&mut written.card);
        let text = text.map_err(|error| ServersError::Broken {
            path: path.clone(),
            line: 1,
            reason: error.to_string(),
        })?;
        let file = |source| ServersError::File { what: "write", path: path.clone(), source };
        private_file::create_directory(&self.directory).map_err(file)?;
        TrustedDirectory::open(&self.directory)?;
        private_file::replace(&path, text.as_bytes()).map_err(file)
    }

    /// Reads a server.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn get(&self, name: &ServerName) -> Result<Server, ServersError> {
        let directory = TrustedDirectory::open(&self.directory)?;
        let read = directory.map(|directory| self.read(&directory, name)).transpose()?;
        read.flatten().ok_or_else(|| ServersError::Unknown { name: name.0.clone() })
    }

    /// All servers, in the order of their names. What is wrong with one of them is told in its place.
    ///
    /// # Errors
    /// [`ServersError`] if the store as a whole cannot be read.
    pub fn all(&self) -> Result<Vec<Entry>, ServersError> {
        let Some(directory) = TrustedDirectory::open(&self.directory)? else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        for file in directory.names()? {
            let file = file.to_string_lossy();
            // A hidden file is an editor's, or a file system's.
            let Some(stem) = file.strip_suffix(".toml").filter(|stem| !stem.starts_with('.')) else {
                continue;
            };
            let server = match stem.parse::<ServerName>() {
                Ok(name) => self.read(&directory, &name).transpose(),
                Err(_) => Some(Err(ServersError::Name { path: self.directory.join(&*file) })),
            };
            // One that has gone meanwhile is none.
            all.extend(server.map(|server| Entry { name: stem.to_owned(), server }));
        }
        all.sort_by(|entry, other| entry.name.cmp(&other.name));
        Ok(all)
    }

    /// Remembers which doors a server has told. Changes no other line of its file.
    ///
    /// # Errors
    /// [`ServersError`].
    pub fn remember_doors(&self, name: &ServerName, doors: &[String]) -> Result<(), ServersError> {
        let path = self.path(name);
        let Some(directory) = TrustedDirectory::open(&self.directory)? else { return Ok(()) };
        // It may have been removed meanwhile.
        let Some(file) = directory.read(&format!("{}.toml", name.0), LONGEST)? else { return Ok(()) };
        if parse(&path, &file.bytes)?.doors == doors {
            return Ok(());
        }
        let text = with_doors(&file.bytes, doors);
        parse(&path, &text)?;
        private_file::replace(&path, &text).map_err(|source| ServersError::File {
            what: "write",
            path,
            source,
        })
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

    fn read(&self, directory: &TrustedDirectory, name: &ServerName) -> Result<Option<Server>, ServersError> {
        let read = directory.read(&format!("{}.toml", name.0), LONGEST)?;
        read.map(|TrustedFile { bytes, .. }| parse(&self.path(name), &bytes)).transpose()
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

impl KeyPath {
    /// Takes a path, from the directory in which the client was started if it is not a whole one.
    ///
    /// # Errors
    /// A message if it cannot be written down.
    pub fn new(path: &Path) -> Result<Self, String> {
        Self::try_from(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for KeyPath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, Self::Error> {
        match path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(is_seen)) {
            true => Ok(Self(path)),
            false => Err("write the whole path of a key, without control characters".to_owned()),
        }
    }
}

impl From<KeyPath> for PathBuf {
    fn from(path: KeyPath) -> Self {
        path.0
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Server, ServersError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ServersError::Broken {
        path: path.to_owned(),
        line: line_of(bytes, error.valid_up_to()),
        reason: "this is no text".to_owned(),
    })?;
    let Written { host, port, card, key, address, doors } = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(bytes, span.start));
        ServersError::Broken { path: path.to_owned(), line, reason: told_without_card(&error) }
    })?;
    let card = Zeroizing::new(card);
    let card = card.parse().map_err(|source| {
        let line = line_of(bytes, text.find("card").unwrap_or(0));
        ServersError::Card { path: path.to_owned(), line, source }
    })?;
    if let Some(bad) = doors.iter().find_map(|door| check_name(door).err()) {
        let line = line_of(bytes, text.find("doors").unwrap_or(0));
        return Err(ServersError::Broken {
            path: path.to_owned(),
            line,
            reason: format!("the name of a door {bad}"),
        });
    }
    let whom = match address {
        Some(WrittenAddress::Seen) => Whom::Seen,
        None => Whom::Sender,
    };
    Ok(Server { host, port, card, key, whom, doors })
}

/// The text of a file with these doors, each a word that needs no quoting.
fn with_doors(bytes: &[u8], doors: &[String]) -> Zeroizing<Vec<u8>> {
    // With room for all of it, so that no part of the card stays behind when it grows.
    let listed = format!(
        "doors = [{}]\n",
        doors.iter().map(|door| format!("\"{door}\"")).collect::<Vec<_>>().join(", ")
    );
    let mut text =
        Zeroizing::new(Vec::with_capacity(bytes.len().saturating_add(listed.len()).saturating_add(1)));
    let is_about_doors = |line: &[u8]| {
        line.strip_prefix(b"doors").is_some_and(|rest| rest.trim_ascii_start().starts_with(b"="))
    };
    for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_about_doors(line)) {
        text.extend_from_slice(line);
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(listed.as_bytes());
    text
}

/// A message may quote what is written, and the card is not for a log, also where it is written in the wrong place
/// or without its beginning.
fn told_without_card(error: &toml::de::Error) -> String {
    match error
        .message()
        .split(|c: char| c.is_whitespace() || c == '"')
        .any(|word| word.len() > LONGEST_QUOTED)
    {
        true => "this is not what belongs here".to_owned(),
        false => error.message().to_owned(),
    }
}

fn line_of(text: &[u8], at: usize) -> usize {
    text.iter().take(at).filter(|byte| **byte == b'\n').count().saturating_add(1)
}

#[cfg(test)]
mod tests {
    use doors_spa::gateway::GatewayKey;
    use getrandom::SysRng;
    use rand_core::UnwrapErr;

    use super::*;

    fn broken(text: &str) -> String {
        let error = parse(Path::new("home.toml"), text.as_bytes()).unwrap_err();
        doors_text::error_chain::in_one_line(&error)
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
        assert!(
            parse(Path::new("home.toml"), format!("host = \"x\"\ncard = \"{}\"", *card).as_bytes()).is_ok()
        );
        let unknown = broken(&format!("host = \"x\"\ncard = \"{}\"\nports = 1\n", *card));
        assert!(unknown.starts_with("home.toml line 3: unknown field `ports`"), "{unknown}");
        // Also without its beginning, by which it would be known.
        for card in [&card[..], &card[7..]] {
            let wrong = broken(&format!("host = \"x\"\nport = \"{card}\"\ncard = \"\"\n"));
            assert_eq!(
                wrong,
                "home.toml line 2: this is not what belongs here; correct the file, or remove it"
            );
        }
        let cut = broken(&format!("host = \"x\"\n\ncard = \"{}\"\n", &card[..40]));
        assert!(
            cut.starts_with("home.toml line 3: the card is none; ") && cut.contains("it has been cut off"),
            "{cut}"
        );
        assert!(broken("host = \"x\"\ncard").starts_with("home.toml line 2: "));
        assert!(broken("host = \"x\"").starts_with("home.toml line 1: missing field `card`"));
    }

    #[test]
    fn doors_are_remembered_and_no_other_line_is_changed() {
        let [one, two] = [&["ssh"][..], &["ssh", "web-1"]]
            .map(|doors| doors.iter().map(ToString::to_string).collect::<Vec<_>>());
        let text = "# mine\nhost = \"x\" # here";
        let first = with_doors(text.as_bytes(), &one);
        assert_eq!(std::str::from_utf8(&first).unwrap(), format!("{text}\ndoors = [\"ssh\"]\n"));
        let second = with_doors(&first, &two);
        assert_eq!(std::str::from_utf8(&second).unwrap(), format!("{text}\ndoors = [\"ssh\", \"web-1\"]\n"));
        let all: Vec<String> = (0..doors_spa::door::MOST).map(|number| format!("a{number:031}")).collect();
        // With room for all else.
        assert!(with_doors(text.as_bytes(), &all).len() < usize::try_from(LONGEST).unwrap() / 2 + 8 * 1024);
    }

    #[test]
    fn a_server_is_read_only_if_it_could_have_been_added() {
        let card = GatewayKey::generate(&mut UnwrapErr(SysRng)).card().to_text();
        for (wrong, why) in [
            ("host = \"x\\n    ProxyCommand id\"", "write a name like door.example.org"),
            ("host = \"x\\u001b[2J\"", "write a name like door.example.org"),
            ("host = \"-oX\"", "write a name like door.example.org"),
            ("host = \"x\"\nport = 0", "nonzero u16"),
            ("host = \"x\"\nport = 65536", "nonzero u16"),
            ("host = \"x\"\naddress = \"192.0.2.1\"", "unknown variant `192.0.2.1`, expected `seen`"),
            ("host = \"x\"\ndoors = [\"s; id\"]", "line 2: the name of a door may hold only letters"),
            ("host = \"x\"\nkey = \"id\"", "write the whole path of a key"),
            ("host = \"x\"\nkey = \"/a\\nb\"", "write the whole path of a key"),
            ("host = \"x\"\nkey = \"/a\\u202eb\"", "write the whole path of a key"),
        ] {
            let said = broken(&format!("{wrong}\ncard = \"{}\"\n", *card));
            assert!(said.contains(why) && said.ends_with("; correct the file, or remove it"), "{said}");
        }
    }
}
