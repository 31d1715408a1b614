//! The configuration file: what was written, not yet what it means.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    door::{DoorName, Sequence},
    time::Wall,
};
use doors_firewall::FirewallChoice;
use doors_firewall::plan::{Mark, Ports, Refuse};
use doors_os::trusted_file::{self, Demands, Untrusted};
use doors_spa::identity::ClientKey;
use ipnet::IpNet;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Hearing,
    faults::Faults,
    keys::{self, Key},
    kinds::DoorNames,
    origin::{ConfigError, Origin, Position, Sourced},
    values::{Text, Value},
};

/// What a file says, with defaults for what it leaves out; without a default, that is `None`.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) ports_to_controls: Option<Sourced<Vec<Ports>>>,
    pub(super) opening_sequence: Option<Sourced<Sequence>>,
    pub(super) check_period: Sourced<Duration>,
    pub(super) quiet_after_wrong: Sourced<Duration>,
    pub(super) forget_after: Sourced<Duration>,
    pub(super) open_for: Sourced<Duration>,
    pub(super) clean_period: Sourced<Duration>,
    pub(super) firewall: Sourced<FirewallChoice>,
    pub(super) listen: Sourced<Hearing>,
    pub(super) zone: Sourced<Option<String>>,
    pub(super) refuse: Sourced<Refuse>,
    pub(super) trusted: Sourced<Vec<IpNet>>,
    pub(super) mark: Option<Sourced<Mark>>,
    pub(super) remove_on_exit: Sourced<bool>,
    pub(super) control_group: Option<Sourced<String>>,
    pub(super) control_read_group: Option<Sourced<String>>,
    pub(super) doors: Vec<FileDoor>,
    pub(super) spa_port: Sourced<u16>,
    pub(super) spa_window: Sourced<Duration>,
    pub(super) gateway_key: Sourced<PathBuf>,
    pub(super) state_dir: Sourced<PathBuf>,
    pub(super) authorized_keys: Option<Sourced<PathBuf>>,
    pub(super) authorized_keys_doors: Option<Sourced<DoorNames>>,
    pub(super) clients_dir: Option<Sourced<PathBuf>>,
    pub(super) clients: Vec<FileClient>,
    /// What is wrong in it, and was left out.
    pub(super) faults: Faults,
    /// Whether a door was left out, so that one that is missed may be there.
    pub(super) lacks_doors: bool,
}

/// One `[[doors]]`.
#[derive(Clone, Debug, Default)]
pub(super) struct FileDoor {
    pub(super) name: Option<Sourced<DoorName>>,
    pub(super) ports: Option<Sourced<Vec<Ports>>>,
    pub(super) sequence: Option<Sourced<Sequence>>,
    pub(super) open_for: Option<Sourced<Duration>>,
    pub(super) max_open_for: Option<Sourced<Duration>>,
    pub(super) once: Sourced<bool>,
    pub(super) require_address: Sourced<bool>,
}

/// One `[[clients]]`, or a line of `authorized_keys`.
#[derive(Clone, Debug, Default)]
pub(super) struct FileClient {
    pub(super) name: Option<Sourced<Arc<str>>>,
    pub(super) key: Option<Sourced<ClientKey>>,
    /// Clients that may open the same share the list.
    pub(super) doors: Option<Sourced<DoorNames>>,
    pub(super) max_open_for: Option<Sourced<Duration>>,
    pub(super) from: Option<Sourced<Vec<IpNet>>>,
    pub(super) until: Option<Sourced<Wall>>,
    pub(super) disabled: Option<Sourced<bool>>,
}

/// What stands in a file, and who can read it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) text: String,
    /// Its permission bits if every user can read it.
    pub(super) readable: Option<u32>,
    /// The file itself, still open.
    pub(super) file: fs::File,
}

/// Some systems make files that the owner's own group may write; with 1.1.2 they were good.
const DEMANDS: Demands = Demands { own_group: true, ..Demands::public(keys::LARGEST_FILE) };

/// Reads the text of the configuration file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<Written>, ConfigError> {
    let not_text = |what| ConfigError::NotText { path: path.to_owned(), what };
    let file = match trusted_file::open(path) {
        Ok(file) => file,
        Err(Untrusted::Missing) => return Ok(None),
        Err(untrusted) => return Err(refused(path, untrusted)),
    };
    let mut read =
        trusted_file::read_opened(&file, &DEMANDS).map_err(|untrusted| refused(path, untrusted))?;
    // An administrator chooses a group that may read it; a file is readable by all without any choice.
    let readable = Some(read.rights.mode).filter(|mode| mode & 0o004 != 0);
    let text =
        String::from_utf8(std::mem::take(&mut *read.bytes)).map_err(|_| not_text("it is not UTF-8 text"))?;
    Ok(Some(Written { text, readable, file }))
}

fn refused(path: &Path, untrusted: Untrusted) -> ConfigError {
    let path = path.to_owned();
    match untrusted {
        Untrusted::Missing => ConfigError::Missing { path },
        // A link to nothing is there all the same, and an administrator has made it.
        Untrusted::Dangling => ConfigError::NotText {
            path,
            what: "it is a link to nothing; put back what it names, or take the link away",
        },
        Untrusted::Unreadable(source) => ConfigError::Read { path, source },
        Untrusted::Kind => ConfigError::NotText { path, what: "it is no regular file" },
        Untrusted::Owner { owner, we } => ConfigError::Owner { path, owner, we },
        Untrusted::Mode(mode) if mode & 0o002 != 0 => ConfigError::Writable { path, mode },
        Untrusted::Mode(mode) => ConfigError::GroupWritable { path, mode },
        Untrusted::Long => {
            ConfigError::NotText { path, what: "it is larger than 32 megabytes, which no configuration is" }
        }
    }
}

/// Parses the text of a file. Does no I/O, so that tests and fuzzers can call it.
///
/// An error means that nothing can be said of the rest; other faults are in the [`File`].
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    if text.trim().is_empty() {
        // A full disk leaves such a file; no administrator writes one.
        let what = "it is empty; write a door into it, or take it away";
        return Err(ConfigError::NotText { path: path.to_owned(), what });
    }
    let source = Text::new(path, text);
    let mut file = keys::defaults(keys::TOP);
    let table = parse_toml(&source, text, &mut file.faults)?;
    let faults = read_table(&source, keys::TOP, &keys::in_file, table.get_ref(), &mut file);
    faults.into_iter().for_each(|fault| file.faults.push(fault));
    Ok(file)
}

/// Parses TOML. A key that is there twice is a fault of its own, and the rest is read all the same.
fn parse_toml<'a>(
    source: &Text<'a>,
    text: &'a str,
    faults: &mut Faults,
) -> Result<Spanned<DeTable<'a>>, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
    // What comes behind an open bracket or quotation is misunderstood.
    let is_open =
        |error: &toml::de::Error| ["unclosed", "multi-line"].iter().any(|w| error.message().contains(w));
    let many = if errors.iter().any(is_open) { 1 } else { usize::MAX };
    let mut last_line = None;
    let mut is_toml = true;
    for error in errors.iter().take(many) {
        let origin = source.origin(start(error));
        let what = match error.message() {
            "duplicate key" => "this key is there twice; write it once".to_owned(),
            other => {
                is_toml = false;
                format!("this is no TOML: {}", other.replace('\n', ", "))
            }
        };
        // The first thing that is wrong in a line explains the others.
        let Origin::File(Position { line, .. }) = origin else { continue };
        if last_line.replace(line) != Some(line) {
            faults.push(ConfigError::at(&origin, what));
        }
    }
    if !is_toml {
        std::mem::take(faults).into_result()?;
    }
    Ok(table)
}

/// Parses the file of one client, which is a table of its own and may leave out the name. Gives its place, too.
pub(super) fn parse_client(path: &Path, text: &str) -> Result<(FileClient, Position), Faults> {
    let source = Text::new(path, text);
    let mut faults = Faults::default();
    let table = parse_toml(&source, text, &mut faults)?;
    let position = source.position(0);
    let whole = Whole {
        origin: Origin::File(position.clone()),
        keys: keys::CLIENT,
        what: "client",
        elsewhere: &|name| match name {
            "clients" => Some("this file is one client, so leave out [[clients]]"),
            name => {
                keys::in_file(name).map(|_| "this file is one client; write it into the configuration file")
            }
        },
        without: Some("name"),
    };
    match whole.read(&source, table.get_ref()) {
        Ok(client) if faults.is_empty() => return Ok((client, position)),
        Ok(_) => {}
        Err(wrong) => wrong.into_iter().for_each(|fault| faults.push(fault)),
    }
    Err(faults)
}

/// Where a key of this name belongs, if not here.
type Elsewhere<'e> = &'e dyn Fn(&str) -> Option<&'static str>;

/// Reads every key of a table. Gives what is wrong with them.
fn read_table<'a, T>(
    text: &Text<'a>,
    keys: &'static [Key<T>],
    elsewhere: Elsewhere<'_>,
    table: &DeTable<'a>,
    into: &mut T,
) -> Vec<ConfigError> {
    let read = |(name, value): (_, &Spanned<DeValue<'a>>)| {
        let key = known(text, keys, elsewhere, name)?;
        key.field.read(into, text, &text.value(key.name, value))
    };
    table.iter().map(read).filter_map(Result::err).collect()
}

/// The table of a door or a client: some of its keys have to be there.
struct Whole<'e, T: 'static> {
    origin: Origin,
    keys: &'static [Key<T>],
    what: &'e str,
    elsewhere: Elsewhere<'e>,
    /// A key that may be left out all the same.
    without: Option<&'e str>,
}

impl<T: Default> Whole<'_, T> {
    fn read<'a>(&self, text: &Text<'a>, table: &DeTable<'a>) -> Result<T, Vec<ConfigError>> {
        let mut whole = keys::defaults(self.keys);
        let mut faults = read_table(text, self.keys, self.elsewhere, table, &mut whole);
        // A key that is missed may be the one that is misspelt.
        if table.keys().all(|name| keys::find(self.keys, name.get_ref()).is_some()) {
            faults.extend(self.keys.iter().filter(|key| self.misses(key, table)).map(|key| {
                let what =
                    format!("this {} has no `{}`; add one, a {}", self.what, key.name, key.field.shape());
                ConfigError::at(&self.origin, what)
            }));
        }
        if faults.is_empty() { Ok(whole) } else { Err(faults) }
    }

    fn misses(&self, key: &Key<T>, table: &DeTable<'_>) -> bool {
        let is_there = || table.keys().any(|name| name.get_ref() == key.name);
        key.field.default().is_none() && self.without != Some(key.name) && !is_there()
    }
}

/// Reads each table of a list of tables. One with a fault is left out; the rest is read all the same.
fn read_tables<'a, T: Default + 'static>(
    text: &Text<'a>,
    value: &Value<'a>,
    keys: &'static [Key<T>],
    what: &str,
    faults: &mut Faults,
) -> Result<Vec<T>, ConfigError> {
    let right = format!("one table [[{}]] for each {what}", value.name);
    let mut all = Vec::new();
    for table in value.list(text, &right)? {
        let DeValue::Table(inner) = table.value else {
            let what = format!("`{}` holds no tables; write {right}", value.name);
            return Err(ConfigError::at(&table.origin, what));
        };
        let whole = Whole { origin: table.origin, keys, what, elsewhere: &keys::in_file, without: None };
        match whole.read(text, inner) {
            Ok(one) => all.push(one),
            Err(wrong) => wrong.into_iter().for_each(|fault| faults.push(fault)),
        }
    }
    Ok(all)
}

/// Reads the tables `[[doors]]`.
pub(super) fn read_doors<'a>(file: &mut File, text: &Text<'a>, value: &Value<'a>) -> Result<(), ConfigError> {
    let mut faults = Faults::default();
    file.lacks_doors = true;
    file.doors = read_tables(text, value, keys::DOOR, "door", &mut faults)?;
    file.lacks_doors = !faults.is_empty();
    file.faults.append(faults);
    Ok(())
}

/// Reads the tables `[[clients]]`.
pub(super) fn read_clients<'a>(
    file: &mut File,
    text: &Text<'a>,
    value: &Value<'a>,
) -> Result<(), ConfigError> {
    file.clients = read_tables(text, value, keys::CLIENT, "client", &mut file.faults)?;
    Ok(())
}

/// The key of this name, or a complaint that names the nearest.
fn known<T>(
    text: &Text<'_>,
    keys: &'static [Key<T>],
    elsewhere: Elsewhere<'_>,
    name: &Spanned<toml::de::DeString<'_>>,
) -> Result<&'static Key<T>, ConfigError> {
    keys::find(keys, name.get_ref()).ok_or_else(|| {
        let origin = text.origin(name.span().start);
        // In TOML, whatever stands below the line of a table belongs to that table.
        if let Some(place) = elsewhere(name.get_ref()) {
            let what = format!("`{}` does not belong here; {place}", name.get_ref());
            return ConfigError::at(&origin, what);
        }
        let hint = match keys::nearest(keys, name.get_ref()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "see port-knocking-doors --show-configuration-file-help".to_owned(),
        };
        ConfigError::at(&origin, format!("`{}` is no key; {hint}", name.get_ref().escape_debug()))
    })
}
