//! The configuration file: what was written, not yet what it means.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    door::{DoorName, Sequence},
    limits::WIDEST_WINDOW,
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
    keys::{self, Key},
    origin::{ConfigError, Origin, Sourced},
    values::{Text, Value},
};

/// What a file says. What it leaves out is `None`.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) ports_to_controls: Option<Sourced<Vec<Ports>>>,
    pub(super) opening_sequence: Option<Sourced<Sequence>>,
    pub(super) check_period: Option<Sourced<Duration>>,
    pub(super) quiet_after_wrong: Option<Sourced<Duration>>,
    pub(super) forget_after: Option<Sourced<Duration>>,
    pub(super) open_for: Option<Sourced<Duration>>,
    pub(super) clean_period: Option<Sourced<Duration>>,
    pub(super) firewall: Option<Sourced<FirewallChoice>>,
    pub(super) listen: Option<Sourced<Hearing>>,
    pub(super) zone: Option<Sourced<Option<String>>>,
    pub(super) refuse: Option<Sourced<Refuse>>,
    pub(super) trusted: Option<Sourced<Vec<IpNet>>>,
    pub(super) mark: Option<Sourced<Mark>>,
    pub(super) remove_on_exit: Option<Sourced<bool>>,
    pub(super) doors: Vec<FileDoor>,
    pub(super) spa_port: Option<Sourced<u16>>,
    pub(super) spa_window: Option<Sourced<Duration>>,
    pub(super) gateway_key: Option<Sourced<PathBuf>>,
    pub(super) state_dir: Option<Sourced<PathBuf>>,
    pub(super) authorized_keys: Option<Sourced<PathBuf>>,
    pub(super) authorized_keys_doors: Vec<Sourced<DoorName>>,
    pub(super) clients: Vec<FileClient>,
}

/// One `[[doors]]`.
#[derive(Debug)]
pub(super) struct FileDoor {
    pub(super) name: Sourced<DoorName>,
    pub(super) ports: Sourced<Vec<Ports>>,
    pub(super) sequence: Option<Sourced<Sequence>>,
    pub(super) open_for: Option<Sourced<Duration>>,
    pub(super) max_open_for: Option<Sourced<Duration>>,
    pub(super) once: Option<Sourced<bool>>,
    pub(super) require_address: Option<Sourced<bool>>,
}

/// One `[[clients]]`, or a line of `authorized_keys`.
#[derive(Debug)]
pub(super) struct FileClient {
    pub(super) name: Sourced<Arc<str>>,
    pub(super) key: Sourced<ClientKey>,
    /// Clients that may open the same share the list.
    pub(super) doors: Arc<[Sourced<DoorName>]>,
    pub(super) max_open_for: Option<Sourced<Duration>>,
    pub(super) from: Option<Sourced<Vec<IpNet>>>,
    pub(super) until: Option<Sourced<Wall>>,
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
    // A group that may read it is somebody's choice; everybody is what a file gets by itself.
    let readable = Some(read.rights.mode).filter(|mode| mode & 0o004 != 0);
    let text =
        String::from_utf8(std::mem::take(&mut *read.bytes)).map_err(|_| not_text("it is not UTF-8 text"))?;
    Ok(Some(Written { text, readable, file }))
}

fn refused(path: &Path, untrusted: Untrusted) -> ConfigError {
    let path = path.to_owned();
    match untrusted {
        Untrusted::Missing => ConfigError::Missing { path },
        // A link to nothing is there all the same, and somebody meant something by it.
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
pub(super) fn parse(path: &Path, text: &str) -> Result<File, ConfigError> {
    if text.trim().is_empty() {
        // What a full disk leaves, and nothing that anybody would write.
        let what = "it is empty; write a door into it, or take it away";
        return Err(ConfigError::NotText { path: path.to_owned(), what });
    }
    let source = Text::new(path, text);
    let table = DeTable::parse(text).map_err(|error| {
        let origin = source.origin(error.span().map_or(0, |span| span.start));
        let what = match error.message() {
            "duplicate key" => "this key is there twice; write it once".to_owned(),
            other => format!("this is no TOML: {}", other.replace('\n', ", ")),
        };
        ConfigError::at(&origin, what)
    })?;
    let mut file = File::default();
    for (name, value) in table.get_ref() {
        let key = known(&source, keys::TOP, name)?;
        file.set(&source, key, &source.value(key.name, value))?;
    }
    Ok(file)
}

impl File {
    fn set<'a>(&mut self, text: &Text<'a>, key: &Key, value: &Value<'a>) -> Result<(), ConfigError> {
        match key.name {
            "ports_to_controls" => self.ports_to_controls = Some(value.tcp_ports(text)?),
            "opening_sequence" => self.opening_sequence = Some(value.sequence(text)?),
            "firewall_rules_check_periode_seconds" => self.check_period = Some(value.seconds(1)?),
            "ignoring_period_after_knock_error" => self.quiet_after_wrong = Some(value.seconds(0)?),
            "max_knocker_live_time" => self.forget_after = Some(value.seconds(1)?),
            "max_opened_door_duration" => self.open_for = Some(value.seconds(1)?),
            "doors_cleanup_periode" => self.clean_period = Some(value.seconds(1)?),
            "firewall" => self.firewall = Some(value.word(&FirewallChoice::WORDS)?),
            "listen" => self.listen = Some(value.word(&Hearing::WORDS)?),
            "zone" => self.zone = Some(zone(value)?),
            "refuse" => {
                self.refuse = Some(value.word(&[("drop", Refuse::Drop), ("reject", Refuse::Reject)])?);
            }
            "trusted" => self.trusted = Some(value.networks(text)?),
            "mark" => self.mark = Some(value.mark()?),
            "on_exit" => self.remove_on_exit = Some(value.word(&[("keep", false), ("remove", true)])?),
            "spa_port" => self.spa_port = Some(value.port()?),
            "spa_window" => self.spa_window = Some(value.seconds_up_to(1, WIDEST_WINDOW.as_secs())?),
            "gateway_key" => self.gateway_key = Some(value.path()?),
            "state_dir" => self.state_dir = Some(value.path()?),
            "authorized_keys" => self.authorized_keys = Some(value.path()?),
            "authorized_keys_doors" => self.authorized_keys_doors = value.door_names(text)?,
            "doors" => {
                let right = "one table [[doors]] for each door";
                self.doors = tables(text, value, right, |origin, table| door(text, origin, table))?;
            }
            "clients" => {
                let right = "one table [[clients]] for each client";
                self.clients = tables(text, value, right, |origin, table| client(text, origin, table))?;
            }
            other => debug_assert!(false, "the key {other} is defined and not read"),
        }
        Ok(())
    }
}

fn zone(value: &Value<'_>) -> Result<Sourced<Option<String>>, ConfigError> {
    let right = "\"auto\" or the name of a firewalld zone";
    let text = value.text(right)?;
    if text.is_empty() {
        return Err(ConfigError::at(&value.origin, format!("`zone` is empty; write {right}")));
    }
    if text.contains(char::is_control) {
        return Err(ConfigError::at(&value.origin, format!("`zone` is \"{text}\"; write {right}")));
    }
    Ok(Sourced::new((text != "auto").then(|| text.to_owned()), value.origin.clone()))
}

/// Reads each table of a list of tables.
fn tables<'a, T>(
    text: &Text<'a>,
    value: &Value<'a>,
    right: &str,
    read: impl Fn(&Origin, &'a DeTable<'a>) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let mut all = Vec::new();
    for table in value.list(text, right)? {
        let DeValue::Table(inner) = table.value else {
            let what = format!("`{}` holds no tables; write {right}", value.name);
            return Err(ConfigError::at(&table.origin, what));
        };
        all.push(read(&table.origin, inner)?);
    }
    Ok(all)
}

/// The values of one table, by their keys.
struct Fields<'t, 'a> {
    text: &'t Text<'a>,
    origin: &'t Origin,
    table: &'a DeTable<'a>,
    keys: &'static [Key],
    /// What the table describes.
    what: &'static str,
}

impl<'a> Fields<'_, 'a> {
    /// Complains of every key that is none.
    fn known(self) -> Result<Self, ConfigError> {
        for (name, _) in self.table {
            known(self.text, self.keys, name)?;
        }
        Ok(self)
    }

    fn get(&self, name: &str) -> Option<Value<'a>> {
        let found = self.table.iter().find(|(key, _)| key.get_ref() == name);
        found.map(|(_, value)| self.text.value(name, value))
    }

    fn required(&self, name: &str) -> Result<Value<'a>, ConfigError> {
        self.get(name).ok_or_else(|| {
            let shape = keys::find(self.keys, name).map_or("", |key| key.shape);
            let what = format!("this {} has no `{name}`; add one, a {shape}", self.what);
            ConfigError::at(self.origin, what)
        })
    }

    fn map<T>(
        &self,
        name: &str,
        read: impl FnOnce(Value<'a>) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        self.get(name).map(read).transpose()
    }
}

fn door<'a>(text: &Text<'a>, origin: &Origin, table: &'a DeTable<'a>) -> Result<FileDoor, ConfigError> {
    let fields = Fields { text, origin, table, keys: keys::DOOR, what: "door" }.known()?;
    Ok(FileDoor {
        name: fields.required("name")?.door_name()?,
        ports: fields.required("ports")?.ports(text)?,
        sequence: fields.map("sequence", |value| value.sequence(text))?,
        open_for: fields.map("open_for", |value| value.seconds(1))?,
        max_open_for: fields.map("max_open_for", |value| value.seconds(1))?,
        once: fields.map("grant", |value| value.word(&GRANT_WORDS))?,
        require_address: fields.map("require_address", |value| value.yes_or_no())?,
    })
}

/// What `grant` may be, and whether it is for one connection only.
pub(super) const GRANT_WORDS: [(&str, bool); 2] = [("address", false), ("once", true)];

fn client<'a>(text: &Text<'a>, origin: &Origin, table: &'a DeTable<'a>) -> Result<FileClient, ConfigError> {
    let fields = Fields { text, origin, table, keys: keys::CLIENT, what: "client" }.known()?;
    Ok(FileClient {
        name: fields.required("name")?.client_name()?,
        key: fields.required("key")?.client_key()?,
        doors: fields.required("doors")?.some_door_names(text)?.into(),
        max_open_for: fields.map("max_open_for", |value| value.seconds(1))?,
        from: fields.map("from", |value| value.networks(text))?,
        until: fields.map("until", |value| value.date())?,
    })
}

/// The key of this name, or a complaint that names the nearest.
fn known(
    text: &Text<'_>,
    keys: &'static [Key],
    name: &Spanned<toml::de::DeString<'_>>,
) -> Result<&'static Key, ConfigError> {
    keys::find(keys, name.get_ref()).ok_or_else(|| {
        let origin = text.origin(name.span().start);
        // In TOML, whatever stands below the line of a table belongs to that table.
        if let Some(place) = keys::place(name.get_ref()) {
            let what = format!("`{}` does not belong here; write it {place}", name.get_ref());
            return ConfigError::at(&origin, what);
        }
        let hint = match keys::nearest(keys, name.get_ref()) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => "see port-knocking-doors --show-configuration-file-help".to_owned(),
        };
        ConfigError::at(&origin, format!("`{}` is no key; {hint}", name.get_ref().escape_debug()))
    })
}
