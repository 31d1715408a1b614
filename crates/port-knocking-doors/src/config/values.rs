//! Reads single values: out of TOML, and out of the texts of options and variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    door::{DoorName, Sequence},
    time::Wall,
};
use doors_firewall::plan::{Mark, Ports, Protocol};
use doors_spa::identity::ClientKey;
use ipnet::IpNet;
use toml::{Spanned, de::DeValue};

use super::{
    dates,
    kinds::DoorNames,
    origin::{ConfigError, Origin, Position, Sourced},
};

/// The longest time in seconds.
pub(super) const MAX_SECONDS: u64 = doors_spa::door::MAX_OPEN_FOR.as_secs();

const A_LIST_OF_DOORS: &str = "a list of doors like [\"ssh\"]";

/// The text of a file, to find places in it.
///
/// Every value has a place, so finding one must not read the text from its beginning: two tables, made once,
/// give the line, and the characters before it. All of a file may stand in one line.
#[derive(Debug)]
pub(super) struct Text<'a> {
    path: Arc<Path>,
    text: &'a str,
    /// The bytes at which lines begin.
    lines: Vec<usize>,
    /// How many characters begin before each multiple of [`Text::BLOCK`] bytes.
    characters: Vec<usize>,
}

/// One value in a file, its name, and where it stands.
#[derive(Debug)]
pub(super) struct Value<'a> {
    pub(super) name: String,
    pub(super) value: &'a DeValue<'a>,
    pub(super) origin: Origin,
}

impl<'a> Text<'a> {
    const BLOCK: usize = 256;

    pub(super) fn new(path: &Path, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = [0].into_iter().chain(ends.map(|(at, _)| at.saturating_add(1))).collect();
        let mut so_far: usize = 0;
        let characters = text.as_bytes().chunks(Self::BLOCK).map(|block| {
            let before = so_far;
            so_far = so_far.saturating_add(characters_in(block));
            before
        });
        let mut characters: Vec<usize> = characters.collect();
        characters.push(so_far);
        Self { path: Arc::from(path), text, lines, characters }
    }

    /// The place of a byte, as an origin.
    pub(super) fn origin(&self, byte: usize) -> Origin {
        Origin::File(self.position(byte))
    }

    /// The place of a byte.
    pub(super) fn position(&self, byte: usize) -> Position {
        let line = self.lines.partition_point(|start| *start <= byte);
        let start = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let column = self.characters_before(byte).saturating_sub(self.characters_before(start));
        Position::new(&self.path, line, column.saturating_add(1))
    }

    fn characters_before(&self, byte: usize) -> usize {
        let byte = byte.min(self.text.len());
        let block = byte.checked_div(Self::BLOCK).unwrap_or_default();
        let before = self.characters.get(block).copied().unwrap_or_default();
        let rest = self.text.as_bytes().get(block.saturating_mul(Self::BLOCK)..byte).unwrap_or_default();
        before.saturating_add(characters_in(rest))
    }

    /// A named value.
    pub(super) fn value(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { name: name.to_owned(), value: value.get_ref(), origin: self.origin(value.span().start) }
    }
}

impl<'a> Value<'a> {
    /// The same place, with a complaint.
    fn wrong(&self, what: &str, right: &str) -> ConfigError {
        ConfigError::at(&self.origin, format!("`{}` {what}; write {right}", self.name))
    }

    fn given<T>(&self, value: T) -> Sourced<T> {
        Sourced::new(value, self.origin.clone())
    }

    /// A number in a range.
    fn number(&self, range: RangeInclusive<u64>, what: &str) -> Result<u64, ConfigError> {
        let right = || format!("{what} from {} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = self.value else {
            return Err(self.wrong(&format!("is {}", kind(self.value)), &right()));
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits =
            number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number));
        fits.ok_or_else(|| self.wrong(&format!("is {}", integer.as_str()), &right()))
    }

    /// A time in seconds.
    pub(super) fn seconds(&self, range: &RangeInclusive<u64>) -> Result<Sourced<Duration>, ConfigError> {
        let seconds = self.number(range.clone(), "a number of seconds")?;
        Ok(self.given(Duration::from_secs(seconds)))
    }

    /// One port.
    pub(super) fn port(&self) -> Result<Sourced<u16>, ConfigError> {
        let number = self.number(1..=65535, "a port")?;
        Ok(self.given(u16::try_from(number).unwrap_or(0)))
    }

    /// Bits of a packet mark. Marks are written in hexadecimal everywhere, so another number is a mistake.
    pub(super) fn mark(&self) -> Result<Sourced<Mark>, ConfigError> {
        let right = "a number like 0x20000000, from 0x1 to 0xffffffff";
        let DeValue::Integer(integer) = self.value else {
            return Err(self.wrong(&format!("is {}", kind(self.value)), right));
        };
        let number = u32::from_str_radix(integer.as_str(), 16).ok().filter(|_| integer.radix() == 16);
        let mark = number.and_then(NonZeroU32::new).map(Mark);
        let written = match integer.radix() {
            16 => format!("0x{}", integer.as_str()),
            _ => format!("{}, which does not begin with 0x", integer.as_str()),
        };
        Ok(self.given(mark.ok_or_else(|| self.wrong(&format!("is {written}"), right))?))
    }

    /// Yes or no.
    pub(super) fn yes_or_no(&self) -> Result<Sourced<bool>, ConfigError> {
        match self.value {
            DeValue::Boolean(answer) => Ok(self.given(*answer)),
            other => Err(self.wrong(&format!("is {}", kind(other)), "true or false")),
        }
    }

    /// The path of a file or directory. It means the same wherever the daemon was started.
    pub(super) fn path(&self) -> Result<Sourced<PathBuf>, ConfigError> {
        let right = "a path that begins with /";
        let path = PathBuf::from(self.text(right)?);
        match path.is_absolute() {
            true => Ok(self.given(path)),
            false => Err(self.wrong(&format!("is \"{}\"", path.display()), right)),
        }
    }

    /// The name of a client.
    pub(super) fn client_name(&self) -> Result<Sourced<Arc<str>>, ConfigError> {
        let right = "a name of 1 to 64 letters and digits, with . _ - @ between, like \"laptop\"";
        let text = self.text(right)?;
        match is_client_name(text) {
            true => Ok(self.given(Arc::from(text))),
            false => Err(self.wrong(&format!("is \"{}\"", text.escape_debug()), right)),
        }
    }

    /// A client's public key.
    pub(super) fn client_key(&self) -> Result<Sourced<ClientKey>, ConfigError> {
        let text = self.text("a public key like \"ssh-ed25519 AAAA… comment\"")?;
        let read = ClientKey::from_openssh(text);
        let (key, _) =
            read.map_err(|bad| ConfigError::at(&self.origin, format!("`{}`: {bad}", self.name)))?;
        Ok(self.given(key))
    }

    /// The names of doors.
    pub(super) fn door_names(&self, text: &Text<'a>) -> Result<Sourced<DoorNames>, ConfigError> {
        let names: Result<_, _> = self.list(text, A_LIST_OF_DOORS)?.iter().map(Value::door_name).collect();
        Ok(self.given(names?))
    }

    /// The names of doors, at least one.
    pub(super) fn some_door_names(&self, text: &Text<'a>) -> Result<Sourced<DoorNames>, ConfigError> {
        match self.door_names(text) {
            Ok(names) if names.value.is_empty() => Err(self.wrong("is empty", A_LIST_OF_DOORS)),
            names => names,
        }
    }

    /// A zone of firewalld, or `None` for the one that the traffic arrives in.
    pub(super) fn zone(&self) -> Result<Sourced<Option<String>>, ConfigError> {
        let right = "\"auto\" or the name of a firewalld zone";
        let text = self.text(right)?;
        if text.is_empty() {
            return Err(self.wrong("is empty", right));
        }
        if text.contains(char::is_control) {
            return Err(self.wrong(&format!("is \"{text}\""), right));
        }
        Ok(self.given((text != "auto").then(|| text.to_owned())))
    }

    /// A group, by name or number.
    pub(super) fn group(&self) -> Result<Sourced<String>, ConfigError> {
        let right = "the name or the number of a group, like \"adm\"";
        let text = self.text(right)?;
        let is_name = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "._-@".contains(c));
        match (1..=64).contains(&text.len()) && is_name(text) {
            true => Ok(self.given(text.to_owned())),
            false => Err(self.wrong(&format!("is \"{}\"", text.escape_debug()), right)),
        }
    }

    /// A date, to its end in UTC, or a date and time with its offset.
    pub(super) fn date(&self) -> Result<Sourced<Wall>, ConfigError> {
        let right = "a date like 2026-12-31, or a date and time like 2026-12-31T18:00:00Z";
        let date = match self.value {
            DeValue::Datetime(date) => Some(*date),
            DeValue::String(text) => text.parse().ok(),
            _ => None,
        };
        let wall = date.and_then(|date| dates::end_of(&date));
        let wall = wall.ok_or_else(|| self.wrong("is no date, or a time without its offset", right))?;
        Ok(self.given(wall))
    }

    /// A text.
    pub(super) fn text(&self, right: &str) -> Result<&'a str, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text),
            other => Err(self.wrong(&format!("is {}", kind(other)), right)),
        }
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<Sourced<T>, ConfigError> {
        let quoted: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let right = quoted.join(" or ");
        let text = self.text(&right)?;
        let found = words.iter().find(|(word, _)| *word == text);
        let (_, value) = found.ok_or_else(|| self.wrong(&format!("is \"{text}\""), &right))?;
        Ok(self.given(*value))
    }

    /// A list.
    pub(super) fn list(&self, text: &Text<'a>, right: &str) -> Result<Vec<Value<'a>>, ConfigError> {
        match self.value {
            DeValue::Array(array) => Ok(array.iter().map(|item| text.value(&self.name, item)).collect()),
            other => Err(self.wrong(&format!("is {}", kind(other)), right)),
        }
    }

    /// A list of ports.
    fn port_list(&self, text: &Text<'a>) -> Result<Vec<u16>, ConfigError> {
        let items = self.list(text, "a list of ports like [7000, 8000]")?;
        let port = |item: &Value<'a>| {
            let number = item.number(1..=65535, "a port")?;
            Ok(u16::try_from(number).unwrap_or(0))
        };
        items.iter().map(port).collect()
    }

    /// The ports of a sequence.
    pub(super) fn sequence(&self, text: &Text<'a>) -> Result<Sourced<Sequence>, ConfigError> {
        let ports = self.port_list(text)?;
        Ok(self.given(sequence(&ports, &self.origin, &format!("`{}`: ", self.name))?))
    }

    /// TCP ports to control.
    pub(super) fn tcp_ports(&self, text: &Text<'a>) -> Result<Sourced<Vec<Ports>>, ConfigError> {
        let ports = self.port_list(text)?;
        Ok(self.given(tcp_ports(&ports, &self.origin, &format!("`{}`: ", self.name))?))
    }

    /// Ports with their protocols.
    pub(super) fn ports(&self, text: &Text<'a>) -> Result<Sourced<Vec<Ports>>, ConfigError> {
        let right = "a list like [\"22/tcp\", \"60000-60010/udp\"]";
        let mut all: Vec<Ports> = Vec::new();
        // By protocol and first port. None of them overlap, so only the last that begins before can.
        let mut known: BTreeMap<(bool, u16), Ports> = BTreeMap::new();
        for item in self.list(text, right)? {
            let written = item.text("a text like \"22/tcp\" or \"60000-60010/udp\"")?;
            let ports = parse_ports(written).ok_or_else(|| {
                item.wrong(
                    &format!("holds \"{written}\""),
                    "a port from 1 to 65535 or a range, and a protocol, like \"22/tcp\" or \"60000-60010/udp\"",
                )
            })?;
            let udp = ports.protocol == Protocol::Udp;
            let before = known.range((udp, 0)..=(udp, ports.last)).next_back();
            if let Some((_, other)) = before.filter(|(_, other)| ports.first <= other.last) {
                return Err(
                    item.wrong(&format!("holds {ports} and {other}, which overlap"), "each port once")
                );
            }
            known.insert((udp, ports.first), ports);
            all.push(ports);
        }
        if all.is_empty() {
            return Err(self.wrong("is empty", right));
        }
        Ok(self.given(all))
    }

    /// Networks.
    pub(super) fn networks(&self, text: &Text<'a>) -> Result<Sourced<Vec<IpNet>>, ConfigError> {
        let mut all = Vec::new();
        for item in self.list(text, "a list of networks like [\"192.168.1.0/24\"]")? {
            let right = "a network like \"192.168.1.0/24\" or \"2001:db8::/32\"";
            let written = item.text(right)?;
            let address = || written.parse::<IpAddr>().map(IpNet::from);
            let network = written.parse::<IpNet>().ok().or_else(|| address().ok());
            let network = network.ok_or_else(|| item.wrong(&format!("holds \"{written}\""), right))?;
            if network.addr() != network.network() {
                let what = format!("holds \"{written}\", which is an address within a network");
                return Err(item.wrong(&what, &format!("\"{}\"", network.trunc())));
            }
            // Packets of IPv4 are never written so, and nothing would match it.
            if let Some(v4) = mapped(&network) {
                let what = format!("holds \"{network}\", which no packet comes from");
                return Err(item.wrong(&what, &format!("it as IPv4: \"{v4}\"")));
            }
            all.push(network);
        }
        Ok(self.given(all))
    }

    /// The name of a door.
    pub(super) fn door_name(&self) -> Result<Sourced<DoorName>, ConfigError> {
        let text = self.text("a name like \"ssh\"")?;
        let name = DoorName::new(text)
            .map_err(|bad| format!("`{}`: \"{}\" {bad}", self.name, text.escape_debug()))
            .map_err(|what| ConfigError::at(&self.origin, what))?;
        Ok(self.given(name))
    }
}

/// How many characters begin in these bytes of UTF-8.
fn characters_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0b1100_0000 != 0b1000_0000).count()
}

/// The IPv4 network that is written as an IPv6 network.
fn mapped(network: &IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = network else { return None };
    let v4 = v6.addr().to_ipv4_mapped()?;
    IpNet::new(v4.into(), v6.prefix_len().checked_sub(96)?).ok()
}

/// Whether this can be a client's name. It stands in the log, and is typed on command lines.
pub(crate) fn is_client_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric();
    (1..=64).contains(&text.len())
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || "._-@".contains(c))
}

/// Ports out of a text like `22,80,8080`.
///
/// `right` is what a text that is empty should hold instead.
pub(super) fn port_texts(text: &str, origin: &Origin, right: &str) -> Result<Vec<u16>, ConfigError> {
    let port = |part: &str| {
        let port = part.trim().parse::<u16>().ok().filter(|port| *port != 0);
        port.ok_or_else(|| {
            let what =
                format!("\"{}\" is no port; write numbers from 1 to 65535 with commas between", part.trim());
            ConfigError::at(origin, what)
        })
    };
    if text.trim().is_empty() {
        return Err(ConfigError::at(origin, format!("is empty; write {right}")));
    }
    text.split(',').map(port).collect()
}

/// Ports in the order in which they are knocked on.
pub(super) fn sequence(ports: &[u16], origin: &Origin, name: &str) -> Result<Sequence, ConfigError> {
    Sequence::new(ports).map_err(|bad| ConfigError::at(origin, format!("{name}{bad}")))
}

/// TCP ports, each once.
pub(super) fn tcp_ports(ports: &[u16], origin: &Origin, name: &str) -> Result<Vec<Ports>, ConfigError> {
    if ports.is_empty() {
        return Err(ConfigError::at(origin, format!("{name}is empty; write at least one port, like 22")));
    }
    let mut before = BTreeSet::new();
    for port in ports {
        if !before.insert(port) {
            let what = format!("{name}the port {port} is there twice; write each port once");
            return Err(ConfigError::at(origin, what));
        }
    }
    Ok(ports.iter().copied().map(Ports::tcp).collect())
}

fn parse_ports(text: &str) -> Option<Ports> {
    let (numbers, protocol) = text.split_once('/')?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = match numbers.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(numbers)?, port(numbers)?),
    };
    (first <= last).then_some(Ports { protocol, first, last })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a yes or no",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
