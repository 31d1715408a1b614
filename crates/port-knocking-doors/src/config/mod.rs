//! The configuration: what the daemon does, and who said so.
//!
//! ```text
//!   command line ──►┐
//!   environment ───►├──► Config: rules for the core, a plan for the firewall,
//!   file ──────────►│            and for every value where it comes from
//!   defaults ──────►┘
//! ```
//!
//! A source that exists and cannot be used is an error. It is never passed over for the next one.

mod authorized_keys;
mod clients;
mod clients_dir;
mod dates;
mod doors;
mod faults;
mod file;
mod groups;
pub mod keys;
mod kinds;
pub mod last_good;
pub mod origin;
mod resolve;
mod values;
mod warnings;

use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use doors_core::{access::Rules, door::Sequence, spa::client::Client, time::Wall};
use doors_firewall::{
    FirewallChoice, Kind,
    plan::{Plan, Ports},
};
use doors_spa::identity::ClientKey;
use doors_text::error_chain::in_one_line;

pub(crate) use self::groups::number_of as group_number;
pub use self::{clients::KeyAccess, origin::ConfigError, warnings::Warning};
pub(crate) use self::{
    clients_dir::{ClientFiles, Version, file_of},
    values::is_client_name,
    warnings::without_effect,
};
use self::{
    faults::Faults,
    file::{File, FileClient, Written},
    origin::{Origin, Sourced},
};

/// The file in the home directory.
const IN_HOME: &str = ".port_knocker.toml";
/// The file for the whole machine.
const IN_ETC: &str = "/etc/port_knocker.toml";
/// Where the state is, if the file does not say.
pub(crate) const STATE_DIR: &str = "/var/lib/port-knocking-doors";

/// How knocks are heard.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Hearing {
    /// With packet sockets.
    #[default]
    Capture,
    /// With bound UDP sockets.
    Sockets,
}

impl Hearing {
    /// The words of the configuration.
    const WORDS: [(&str, Self); 2] = [("capture", Self::Capture), ("sockets", Self::Sockets)];
}

impl fmt::Display for Hearing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::WORDS.iter().find(|(_, hearing)| hearing == self);
        f.write_str(word.map_or("", |(word, _)| word))
    }
}

/// Everything outside the file that the configuration depends on.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// `--conf`.
    pub conf: Option<PathBuf>,
    /// `--magic-seq`.
    pub magic_seq: Option<String>,
    /// `--ports`.
    pub ports: Option<String>,
    /// `KNOCKER_SEQ`.
    pub knocker_seq: Option<OsString>,
    /// `KNOCKER_PORTS`.
    pub knocker_ports: Option<OsString>,
    /// The home directory.
    pub home: Option<PathBuf>,
}

/// The texts that a configuration was read from: with them it can be read again, whatever becomes of its files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Texts {
    /// The configuration file.
    pub(crate) path: PathBuf,
    /// What stands in it.
    pub(crate) text: String,
    /// The file of public keys that it names, and what stands in that.
    pub(crate) keys: Option<(PathBuf, String)>,
    /// The files of clients.
    pub(crate) clients: ClientFiles,
}

/// Why there is no configuration, and whether a file is to blame.
#[derive(Debug)]
pub(crate) struct Unusable {
    /// What is wrong.
    pub(crate) error: ConfigError,
    /// The file that cannot be used; `None` if an option or a variable is wrong.
    pub(crate) file: Option<PathBuf>,
}

/// One value in force, as it would be written in a file.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// Its value, as TOML.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// What the daemon does.
#[derive(Clone, Debug)]
pub struct Config {
    /// By what knocks are judged.
    pub rules: Rules,
    /// What the firewall has to know.
    pub plan: Plan,
    /// How knocks are heard.
    pub hearing: Hearing,
    /// Which firewall.
    pub firewall: FirewallChoice,
    /// What is needed for clients with keys; `None` if there are none.
    pub key_access: Option<Arc<KeyAccess>>,
    /// Where the gateway's key is, or will be.
    pub gateway_key: PathBuf,
    /// Where it is kept which knocks were seen.
    pub state_dir: PathBuf,
    /// The file that was read; `None` if there is none.
    pub path: Option<PathBuf>,
    /// The same, open: see [`crate::control::running`].
    pub(crate) opened: Option<Arc<fs::File>>,
    /// Which files of clients were read.
    pub(crate) version: Version,
    /// The group that may see and change what the daemon does, and the one that may only see.
    pub(crate) control_groups: [Option<String>; 2],
    /// Every value in force.
    pub settings: Vec<Setting>,
    /// What is allowed and unwise, whichever firewall it is.
    pub warnings: Vec<Warning>,
    /// What it was read from, to be kept; `None` if that is kept already, or there is no file.
    pub(crate) texts: Option<Texts>,
    /// Why this is what was last in force, and not what stands in the file; `None` if it is.
    pub(crate) instead_of: Option<String>,
}

impl Config {
    /// Reads and resolves everything.
    ///
    /// # Errors
    /// [`ConfigError`] names the source that cannot be used, and the way out.
    pub fn load(surroundings: &Inputs) -> Result<Self, ConfigError> {
        Self::load_or_blame(surroundings).map_err(|unusable| unusable.error)
    }

    /// Reads and resolves everything, and says which file is to blame if it cannot be used.
    pub(crate) fn load_or_blame(surroundings: &Inputs) -> Result<Self, Unusable> {
        let Some((path, written)) = find_file(surroundings)? else {
            let config = Self::resolve(surroundings, keys::defaults(keys::TOP), None);
            return config.map_err(|error| Unusable { error, file: None });
        };
        let mut config = Self::read(surroundings, &path, written).map_err(|error| {
            // Another text would not make an option right.
            let file = error.is_in_files().then(|| path.clone());
            Unusable { error, file }
        })?;
        let etc = PathBuf::from(IN_ETC);
        if surroundings.conf.is_none() && path != etc && etc.exists() {
            config.warnings.push(Warning::Shadowed(etc));
        }
        Ok(config)
    }

    fn read(surroundings: &Inputs, path: &Path, written: Written) -> Result<Self, ConfigError> {
        let Written { text, readable, file: opened } = written;
        let mut file = file::parse(path, &text)?;
        let keys = clients::read_authorized_keys(&mut file);
        let (clients, version, passed_over) = clients_dir::read(&mut file, path);
        let texts = Texts { path: path.to_owned(), text, keys, clients };
        let mut config = Self::of(surroundings, file, &texts)?;
        config.warnings.extend(passed_over);
        let keys = ["control_group", "control_read_group"];
        let groups = config.control_groups.iter().map(Option::as_deref).zip(keys);
        let missing: Vec<Warning> = groups.filter_map(|(group, key)| groups::missing(key, group)).collect();
        config.warnings.extend(missing);
        config.warnings.extend(readable.and_then(|mode| config.exposed(path, mode)));
        let key = config.key_access.as_ref().map(|access| access.gateway_key.clone());
        let keys = texts.keys.as_ref().map(|(path, _)| path.clone());
        let believed = [Some(path.to_owned()), keys, texts.clients.directory.clone(), key];
        config.warnings.extend(believed.into_iter().flatten().filter_map(warnings::replaceable));
        config.opened = Some(Arc::new(opened));
        config.version = version;
        config.texts = Some(texts);
        Ok(config)
    }

    /// Resolves what was in force once, because of `instead_of` what stands in its file.
    pub(crate) fn again(
        surroundings: &Inputs,
        texts: &Texts,
        instead_of: &ConfigError,
    ) -> Result<Self, ConfigError> {
        let mut config = Self::of_texts(surroundings, texts)?;
        config.instead_of = Some(in_one_line(instead_of));
        Ok(config)
    }

    /// Resolves texts as if they stood in their files.
    pub(crate) fn of_texts(surroundings: &Inputs, texts: &Texts) -> Result<Self, ConfigError> {
        Self::of(surroundings, file::parse(&texts.path, &texts.text)?, texts)
    }

    fn of(surroundings: &Inputs, mut file: File, texts: &Texts) -> Result<Self, ConfigError> {
        let left_out = clients::add(&mut file, &texts.keys);
        clients_dir::add(&mut file, &texts.clients);
        let mut config = Self::resolve(surroundings, file, Some(texts.path.clone()))?;
        config.warnings.extend(left_out);
        Ok(config)
    }

    /// Resolves the text of a file, with nothing around it. Does no I/O, so it knows no `authorized_keys`.
    ///
    /// # Errors
    /// [`ConfigError`] names the place in the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::resolve(&Inputs::default(), file::parse(path, text)?, Some(path.to_owned()))
    }

    /// Where it comes from, for a person.
    pub(crate) fn source(&self) -> String {
        self.path.as_ref().map_or("default values".to_owned(), |path| path.display().to_string())
    }

    /// The ports that are knocked on, each once.
    #[must_use]
    pub fn knock_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .rules
            .doors
            .iter()
            .filter_map(|door| door.sequence.as_ref())
            .flat_map(Sequence::ports)
            .copied()
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The port to which clients with keys send; `None` if there are none.
    #[must_use]
    pub fn spa_port(&self) -> Option<u16> {
        self.key_access.as_ref().map(|access| access.port)
    }

    /// What is allowed and unwise with this firewall at this time.
    pub(crate) fn warnings_with(&self, kind: Kind, now: Wall) -> impl Iterator<Item = Warning> {
        let mut ports = self.knock_ports();
        ports.extend(self.spa_port());
        let walled = warnings::walled(self.hearing, kind, &ports);
        let access = self.key_access.iter();
        let expired = access.flat_map(move |access| warnings::expired(&self.rules, &access.clients, now));
        self.warnings.iter().cloned().chain(without_effect(&self.plan, kind)).chain(walled).chain(expired)
    }

    /// Whether it keeps no stranger out, by what the configuration says. That everybody knows a published
    /// sequence is no such case: 1.1.2 ran with it, and scanners do not knock.
    pub(crate) fn keeps_no_stranger_out(&self, kind: Kind) -> bool {
        let passes = || warnings::everybody(&self.plan.trusted).next().is_some();
        self.plan.doors.is_empty() || kind != Kind::RichRules && passes()
    }

    /// What is read again has to be the same file. If that is gone, what is found in its place, default values
    /// with a sequence that everybody knows above all, is not what anybody has asked for.
    pub(crate) fn same_file(&self, new: Self) -> Result<Self, ConfigError> {
        let restart = match &new.path {
            Some(path) => format!("restart to use {}", path.display()),
            None => "restart to use default values".to_owned(),
        };
        let what = match (&self.path, &new.path) {
            (old, new_path) if old == new_path => return Ok(new),
            (Some(old), _) if !old.exists() => {
                format!("the file {} is gone; put it back, or {restart}", old.display())
            }
            (Some(old), _) => format!("there is a file that goes before {}; {restart}", old.display()),
            (None, _) => format!("there was no file at the start, and there is one; {restart}"),
        };
        Err(ConfigError::Elsewhere(what))
    }

    /// The keys that differ in `new` and take effect only after a restart.
    pub(crate) fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let mut changed = Vec::new();
        if self.hearing != new.hearing {
            changed.push("listen");
        }
        if self.firewall != new.firewall {
            changed.push("firewall");
        }
        let keys = ["control_group", "control_read_group"].into_iter();
        let groups = self.control_groups.iter().zip(&new.control_groups).zip(keys);
        changed.extend(groups.filter_map(|((old, new), key)| (old != new).then_some(key)));
        if let (Some(old), Some(new)) = (&self.key_access, &new.key_access)
            && old.state_dir != new.state_dir
        {
            changed.push("state_dir");
        }
        changed
    }

    /// Whether the file holds a sequence that is no secret any more.
    fn exposed(&self, path: &Path, mode: u32) -> Option<Warning> {
        let is_sequence = |key: &str| key == "opening_sequence" || key.ends_with(".sequence");
        let in_file =
            |setting: &Setting| matches!(setting.origin, Origin::File(_)) && is_sequence(&setting.key);
        self.settings.iter().any(in_file).then(|| Warning::Exposed { path: path.to_owned(), mode })
    }

    fn resolve(surroundings: &Inputs, mut file: File, path: Option<PathBuf>) -> Result<Self, ConfigError> {
        let (sequence, ports) = (given_sequence(surroundings), given_ports(surroundings));
        let (sequence, ports) = (file.faults.note(sequence).flatten(), file.faults.note(ports).flatten());
        if let (true, Some(path)) = (file.faults.is_empty(), &path) {
            let complete = complete(&file, path);
            file.faults.note(complete);
        }
        file.ports_to_controls = ports.or(file.ports_to_controls);
        file.opening_sequence = sequence.or(file.opening_sequence);
        if path.is_some() && file.faults.is_empty() {
            let whole = whole(&file);
            file.faults.note(whole);
        }
        let mut config = resolve::resolve(file, path)?;
        if surroundings.magic_seq.is_some() {
            config.warnings.push(Warning::InProcessList);
        }
        Ok(config)
    }
}

/// The sequence of the door `default`, by an option or a variable.
fn given_sequence(surroundings: &Inputs) -> Result<Option<Sourced<Sequence>>, ConfigError> {
    let given = outside("--magic-seq", &surroundings.magic_seq, "KNOCKER_SEQ", &surroundings.knocker_seq)?;
    let sequence = given.map(|Sourced { value, origin }| {
        let right = "5 to 20 ports of your own, with commas between";
        let ports = values::port_texts(&value, &origin, right)?;
        values::sequence(&ports, &origin, "").map(|value| Sourced::new(value, origin))
    });
    sequence.transpose()
}

/// The ports of the door `default`, by an option or a variable.
fn given_ports(surroundings: &Inputs) -> Result<Option<Sourced<Vec<Ports>>>, ConfigError> {
    let given = outside("--ports", &surroundings.ports, "KNOCKER_PORTS", &surroundings.knocker_ports)?;
    let ports = given.map(|Sourced { value, origin }| {
        let ports = values::port_texts(&value, &origin, "ports with commas between, like 22,8080")?;
        values::tcp_ports(&ports, &origin, "").map(|value| Sourced::new(value, origin))
    });
    ports.transpose()
}

/// A file has both of the two old keys, or neither.
fn complete(file: &File, path: &Path) -> Result<(), ConfigError> {
    let incomplete =
        |what: &str| Err(ConfigError::Incomplete { path: path.to_owned(), what: what.to_owned() });
    match (&file.ports_to_controls, &file.opening_sequence) {
        (Some(_), Some(_)) | (None, None) => Ok(()),
        (Some(_), None) => incomplete(
            "there is `ports_to_controls` and no `opening_sequence`; add it, with 5 to 20 UDP ports of your own",
        ),
        (None, Some(_)) => incomplete(
            "there is `opening_sequence` and no `ports_to_controls`; add it, for example: \
             ports_to_controls = [22]",
        ),
    }
}

/// Where there is a file, who says one half of the door `default` does not mean the other to be the default: with that,
/// everybody who knows the published sequence would get in.
fn whole(file: &File) -> Result<(), ConfigError> {
    let (there, half, others) = match (&file.ports_to_controls, &file.opening_sequence) {
        (Some(ports), None) => (&ports.origin, "sequence", "--magic-seq or KNOCKER_SEQ"),
        (None, Some(sequence)) => (&sequence.origin, "ports", "--ports or KNOCKER_PORTS"),
        (Some(_), Some(_)) | (None, None) => return Ok(()),
    };
    let what = format!(
        "this is for the door `default`, whose {half} neither the file nor anything else has given; give it with \
         {others}, or leave this out"
    );
    Err(ConfigError::at(there, what))
}

/// What an option, or else a variable, says.
fn outside(
    option: &'static str,
    given: &Option<String>,
    variable: &'static str,
    set: &Option<OsString>,
) -> Result<Option<Sourced<String>>, ConfigError> {
    if let Some(given) = given {
        return Ok(Some(Sourced::new(given.clone(), Origin::Option(option))));
    }
    let Some(set) = set else { return Ok(None) };
    let origin = Origin::Variable(variable);
    match set.to_str() {
        Some(text) => Ok(Some(Sourced::new(text.to_owned(), origin))),
        None => {
            Err(ConfigError::at(&origin, "is not UTF-8 text; write ports with commas between".to_owned()))
        }
    }
}

/// The path in the home directory.
#[must_use]
pub fn path_in_home(home: Option<&Path>) -> Option<PathBuf> {
    home.filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(IN_HOME))
}

/// Where the file is looked for, if no option names one.
pub(crate) fn looked_for(surroundings: &Inputs) -> impl Iterator<Item = PathBuf> {
    path_in_home(surroundings.home.as_deref()).into_iter().chain([PathBuf::from(IN_ETC)])
}

fn find_file(surroundings: &Inputs) -> Result<Option<(PathBuf, Written)>, Unusable> {
    let read =
        |path: &Path| file::read(path).map_err(|error| Unusable { error, file: Some(path.to_owned()) });
    if let Some(path) = &surroundings.conf {
        let missing =
            || Unusable { error: ConfigError::Missing { path: path.clone() }, file: Some(path.clone()) };
        return Ok(Some((path.clone(), read(path)?.ok_or_else(missing)?)));
    }
    for path in looked_for(surroundings) {
        if let Some(written) = read(&path)? {
            return Ok(Some((path, written)));
        }
    }
    Ok(None)
}

/// Where the files of clients are, or would be, by what the configuration file says; `None` if there is none.
pub(crate) fn clients_dir_of(surroundings: &Inputs) -> Result<Option<PathBuf>, ConfigError> {
    let Some((path, written)) = find_file(surroundings).map_err(|unusable| unusable.error)? else {
        return Ok(None);
    };
    let file = file::parse(&path, &written.text)?;
    let named = file.clients_dir.map(|named| named.value);
    Ok(Some(named.unwrap_or_else(|| clients_dir::default_for(&path))))
}

/// Where each client stands, and its key.
pub(crate) fn places(texts: &Texts) -> Result<Vec<Place>, ConfigError> {
    let mut file = file::parse(&texts.path, &texts.text)?;
    clients::add(&mut file, &texts.keys);
    clients_dir::add(&mut file, &texts.clients);
    let place = |client: FileClient| {
        let name = client.name?;
        Some(Place { name: name.value, key: client.key?.value, origin: name.origin })
    };
    Ok(file.clients.into_iter().filter_map(place).collect())
}

/// What stands in the file of one client.
pub(crate) fn client_of(path: &Path, name: &str, text: &str) -> Result<Client, ConfigError> {
    let mut faults = Faults::default();
    match clients_dir::parse(path, name, text).map(clients::alone) {
        Ok(Some(client)) => return Ok(client),
        Ok(None) => {}
        Err(wrong) => faults = wrong,
    }
    faults.into_result().and(Err(ConfigError::Incomplete {
        path: path.to_owned(),
        what: "this is no whole client".to_owned(),
    }))
}

/// A client, and where it stands.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its name.
    pub(crate) name: Arc<str>,
    /// Its key.
    pub(crate) key: ClientKey,
    /// The place of its name.
    pub(crate) origin: Origin,
}

/// A moment in UTC, for a person.
pub(crate) fn moment(wall: Wall) -> String {
    dates::moment(wall)
}

/// The last day before a date, for a person.
pub(crate) fn day(until: Wall) -> String {
    dates::last_day(until)
}
