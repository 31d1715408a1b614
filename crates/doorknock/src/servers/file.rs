//! A file of the store: what is written in it, and the server that it means.

use std::{num::NonZeroU16, path::Path};

use doors_spa::{
    card::{BadCard, Card},
    door::check_name,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{error::ServersError, key_path::KeyPath};
use crate::{host::Host, spa::own_address::Whom};

/// A word of a message that is longer may be a card, of which no part is worth much.
const LONGEST_QUOTED: usize = 40;

/// No file of a server is longer, also with the most doors of the longest names.
pub(super) const LONGEST: u64 = 64 * 1024;

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

/// The UDP port to knock on by default.
pub const USUAL_PORT: NonZeroU16 = match NonZeroU16::new(doors_spa::PORT) {
    Some(port) => port,
    None => NonZeroU16::MAX,
};

fn usual_port() -> NonZeroU16 {
    USUAL_PORT
}

/// What a file says, also if its card is not valid: the rest is worth keeping when another card comes.
#[derive(Debug)]
pub struct Former {
    /// A name or an address.
    pub host: Host,
    /// The UDP port.
    pub port: NonZeroU16,
    /// The card, or what is wrong with it.
    pub card: Result<Card, BadCard>,
    /// The key to sign with, if one was chosen.
    pub key: Option<KeyPath>,
    /// Whom to let in if nothing else is said.
    pub whom: Whom,
    /// The doors that it told when it was asked last.
    pub doors: Vec<String>,
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Server, ServersError> {
    let Former { host, port, card, key, whom, doors } = parse_former(path, bytes)?;
    let card = card.map_err(|why| {
        let at = bytes.windows(4).position(|word| word == b"card").unwrap_or(0);
        ServersError::Card { path: path.to_owned(), line: line_of(bytes, at), why }
    })?;
    Ok(Server { host, port, card, key, whom, doors })
}

pub(super) fn parse_former(path: &Path, bytes: &[u8]) -> Result<Former, ServersError> {
    let text = std::str::from_utf8(bytes).map_err(|error| ServersError::Broken {
        path: path.to_owned(),
        line: line_of(bytes, error.valid_up_to()),
        reason: "this is not text".to_owned(),
    })?;
    let Written { host, port, card, key, address, doors } = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line_of(bytes, span.start));
        ServersError::Broken { path: path.to_owned(), line, reason: told_without_card(&error) }
    })?;
    let card = Zeroizing::new(card).parse();
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
    Ok(Former { host, port, card, key, whom, doors })
}

/// The text of a server's file.
pub(super) fn text_of(path: &Path, server: &Server) -> Result<Zeroizing<String>, ServersError> {
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
    text.map_err(|error| ServersError::Broken { path: path.to_owned(), line: 1, reason: error.to_string() })
}

/// The text of a file with these doors, each a word that needs no quoting.
pub(super) fn with_doors(bytes: &[u8], doors: &[String]) -> Zeroizing<Vec<u8>> {
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
            cut.starts_with("home.toml line 3: not a valid card: ")
                && cut.contains("it is truncated or altered"),
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
        let all: Vec<String> =
            (0..doors_spa::door::MAX_DOORS).map(|number| format!("a{number:031}")).collect();
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
