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

mod file;
pub mod keys;
pub mod origin;
mod values;
mod warnings;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use doors_core::{
    access::Rules,
    door::{Door, DoorName, Sequence},
    limits,
    sequences::Sequences,
};
use ipnet::IpNet;

use self::{
    file::File,
    origin::{Given, Origin},
};
pub use self::{origin::ConfigError, warnings::Warning};
use crate::firewall::plan::{Plan, PlannedDoor, Ports, Refuse};

/// The file in the home directory.
const IN_HOME: &str = ".port_knocker.toml";
/// The file for the whole machine.
const IN_ETC: &str = "/etc/port_knocker.toml";
/// The door that the two old keys make.
const DEFAULT_DOOR: &str = "default";

/// Which firewall the administrator wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FirewallChoice {
    /// firewalld if it is there, else nftables.
    Auto,
    /// firewalld.
    Firewalld,
    /// Our own gate.
    Nftables,
}

impl FirewallChoice {
    const WORDS: [(&str, Self); 3] =
        [("auto", Self::Auto), ("firewalld", Self::Firewalld), ("nftables", Self::Nftables)];
}

/// How knocks are heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hearing {
    /// With packet sockets.
    Capture,
    /// With bound UDP sockets.
    Sockets,
}

impl Hearing {
    const WORDS: [(&str, Self); 2] = [("capture", Self::Capture), ("sockets", Self::Sockets)];
}

/// Everything outside the file that the configuration depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
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
    /// The file that was read; `None` if there is none.
    pub path: Option<PathBuf>,
    /// Every value in force.
    pub settings: Vec<Setting>,
    /// What is allowed and unwise.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads and resolves everything.
    ///
    /// # Errors
    /// [`ConfigError`] names the source that cannot be used, and the way out.
    pub fn load(surroundings: &Surroundings) -> Result<Self, ConfigError> {
        match find_file(surroundings)? {
            Some((path, text)) => {
                let file = file::parse(&path, &text)?;
                let mut config = Self::resolve(surroundings, file, Some(path.clone()))?;
                let etc = PathBuf::from(IN_ETC);
                if surroundings.conf.is_none() && path != etc && etc.exists() {
                    config.warnings.push(Warning::Shadowed(etc));
                }
                Ok(config)
            }
            None => Self::resolve(surroundings, File::default(), None),
        }
    }

    /// Resolves the text of a file, with nothing around it. Does no I/O.
    ///
    /// # Errors
    /// [`ConfigError`] names the place in the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::resolve(&Surroundings::default(), file::parse(path, text)?, Some(path.to_owned()))
    }

    /// The ports that are knocked on, each once.
    #[must_use]
    pub fn knock_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> =
            self.rules.doors.iter().flat_map(|door| door.sequence.ports()).copied().collect();
        ports.sort_unstable();
        ports.dedup();
        ports
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
        changed
    }

    fn resolve(surroundings: &Surroundings, file: File, path: Option<PathBuf>) -> Result<Self, ConfigError> {
        let sequence =
            outside("--magic-seq", &surroundings.magic_seq, "KNOCKER_SEQ", &surroundings.knocker_seq)?;
        let sequence = sequence.map(|Given { value, origin }| {
            let ports = values::port_texts(&value, &origin)?;
            values::sequence(&ports, &origin, "").map(|value| Given::new(value, origin))
        });
        let ports = outside("--ports", &surroundings.ports, "KNOCKER_PORTS", &surroundings.knocker_ports)?;
        let ports = ports.map(|Given { value, origin }| {
            let ports = values::port_texts(&value, &origin)?;
            values::tcp_ports(&ports, &origin, "").map(|value| Given::new(value, origin))
        });
        complete(&file, path.as_deref())?;
        let default_door = DefaultDoor {
            ports: ports.transpose()?.or(file.ports_to_controls.clone()),
            sequence: sequence.transpose()?.or(file.opening_sequence.clone()),
        };
        Resolver { settings: Vec::new() }.resolve(default_door, file, path)
    }
}

/// What is said about the door `default`.
struct DefaultDoor {
    ports: Option<Given<Vec<Ports>>>,
    sequence: Option<Given<Sequence>>,
}

/// A door with all its values.
struct Resolved {
    name: Given<DoorName>,
    ports: Given<Vec<Ports>>,
    sequence: Given<Sequence>,
    open_for: Given<Duration>,
}

/// Puts the values together, and keeps the list of them.
struct Resolver {
    settings: Vec<Setting>,
}

impl Resolver {
    fn resolve(
        mut self,
        default_door: DefaultDoor,
        file: File,
        path: Option<PathBuf>,
    ) -> Result<Config, ConfigError> {
        let seconds = |number| Given::default(Duration::from_secs(number));
        let open_for = file.open_for.unwrap_or(seconds(10));
        let doors = doors(default_door, file.doors, &open_for)?;
        for door in doors.iter().filter(|door| door.is_default()) {
            let ports: Vec<u16> = door.ports.value.iter().map(|ports| ports.first).collect();
            self.note("ports_to_controls", &door.ports, |_| list(&ports));
            self.note("opening_sequence", &door.sequence, |sequence| list(sequence.ports()));
        }
        let check = file.check_period.unwrap_or(seconds(10));
        self.note("firewall_rules_check_periode_seconds", &check, in_seconds);
        let quiet = file.quiet_after_wrong.unwrap_or(seconds(5));
        self.note("ignoring_period_after_knock_error", &quiet, in_seconds);
        let forget = file.forget_after.unwrap_or(seconds(30));
        self.note("max_knocker_live_time", &forget, in_seconds);
        self.note("max_opened_door_duration", &open_for, in_seconds);
        let clean = file.clean_period.unwrap_or(seconds(10));
        self.note("doors_cleanup_periode", &clean, in_seconds);
        let firewall = file.firewall.unwrap_or(Given::default(FirewallChoice::Auto));
        self.note("firewall", &firewall, |choice| word(&FirewallChoice::WORDS, choice));
        let listen = file.listen.unwrap_or(Given::default(Hearing::Capture));
        self.note("listen", &listen, |hearing| word(&Hearing::WORDS, hearing));
        let zone = file.zone.unwrap_or(Given::default(None));
        self.note("zone", &zone, |zone| format!("{:?}", zone.as_deref().unwrap_or("auto")));
        let refuse = file.refuse.unwrap_or(Given::default(Refuse::Drop));
        self.note("refuse", &refuse, |refuse| {
            word(&[("drop", Refuse::Drop), ("reject", Refuse::Reject)], refuse)
        });
        let trusted: Given<Vec<IpNet>> = file.trusted.unwrap_or(Given::default(Vec::new()));
        self.note("trusted", &trusted, |networks| quoted(networks));
        let on_exit = file.remove_on_exit.unwrap_or(Given::default(false));
        self.note("on_exit", &on_exit, |remove| word(&[("keep", false), ("remove", true)], remove));
        for door in doors.iter().filter(|door| !door.is_default()) {
            let key = |key: &str| format!("doors.{}.{key}", door.name.value);
            self.note(&key("ports"), &door.ports, |ports| quoted(ports));
            self.note(&key("sequence"), &door.sequence, |sequence| list(sequence.ports()));
            self.note(&key("open_for"), &door.open_for, in_seconds);
        }

        let rules = Rules {
            doors: doors.iter().map(Resolved::for_core).collect(),
            quiet_after_wrong: quiet.value,
            forget_after: forget.value,
        };
        fit_together(&rules, &doors, listen.value)?;
        let plan = Plan {
            doors: doors.iter().map(Resolved::for_firewall).collect(),
            trusted: trusted.value,
            refuse: refuse.value,
            zone: zone.value,
            check_every: check.value,
            clean_every: clean.value,
            remove_on_exit: on_exit.value,
        };
        let warnings = warnings::of(&rules, &plan, listen.value, firewall.value);
        Ok(Config {
            rules,
            plan,
            hearing: listen.value,
            firewall: firewall.value,
            path,
            settings: self.settings,
            warnings,
        })
    }

    fn note<T>(&mut self, key: &str, from: &Given<T>, text: impl FnOnce(&T) -> String) {
        let (value, origin) = (text(&from.value), from.origin.clone());
        self.settings.push(Setting { key: key.to_owned(), value, origin });
    }
}

impl Resolved {
    /// Whether the two old keys made it.
    fn is_default(&self) -> bool {
        self.name.origin == Origin::Default
    }

    fn for_core(&self) -> Door {
        Door {
            name: self.name.value.clone(),
            sequence: self.sequence.value.clone(),
            open_for: self.open_for.value,
        }
    }

    fn for_firewall(&self) -> PlannedDoor {
        PlannedDoor {
            name: self.name.value.clone(),
            ports: self.ports.value.clone(),
            open_for: self.open_for.value,
        }
    }
}

/// The doors, with everything they need. The door `default` is there if anybody says anything of it,
/// or if there is no other.
fn doors(
    default: DefaultDoor,
    others: Vec<file::FileDoor>,
    open_for: &Given<Duration>,
) -> Result<Vec<Resolved>, ConfigError> {
    let mut doors = Vec::new();
    let wanted = default.ports.is_some() || default.sequence.is_some() || others.is_empty();
    if wanted
        && let (Ok(name), Ok(published)) = (DoorName::new(DEFAULT_DOOR), Sequence::new(&Sequence::PUBLISHED))
    {
        doors.push(Resolved {
            name: Given::default(name),
            ports: default.ports.unwrap_or(Given::default(vec![Ports::tcp(22)])),
            sequence: default.sequence.unwrap_or(Given::default(published)),
            open_for: open_for.clone(),
        });
    }
    for door in others {
        if doors.iter().any(|other: &Resolved| other.name.value == door.name.value) {
            let what = match door.name.value.as_str() {
                DEFAULT_DOOR => "`default` is the door of ports_to_controls and opening_sequence; \
                                 choose another name"
                    .to_owned(),
                name => format!("there is another door called `{name}`; choose another name"),
            };
            return Err(ConfigError::at(&door.name.origin, what));
        }
        if doors.len() >= limits::DOORS {
            let what = format!("this is one door too many; there may be {}", limits::DOORS);
            return Err(ConfigError::at(&door.name.origin, what));
        }
        doors.push(Resolved {
            open_for: door.open_for.unwrap_or(open_for.clone()),
            name: door.name,
            ports: door.ports,
            sequence: door.sequence,
        });
    }
    Ok(doors)
}

/// A file has both of the two old keys, or doors and neither.
fn complete(file: &File, path: Option<&Path>) -> Result<(), ConfigError> {
    let Some(path) = path else { return Ok(()) };
    let incomplete =
        |what: &str| Err(ConfigError::Incomplete { path: path.to_owned(), what: what.to_owned() });
    match (&file.ports_to_controls, &file.opening_sequence, &file.doors[..]) {
        (Some(_), Some(_), _) | (None, None, [_, ..]) => Ok(()),
        (None, None, []) => incomplete(
            "there is no door; add `ports_to_controls` and `opening_sequence`, or a table [[doors]]",
        ),
        (Some(_), None, _) => incomplete(
            "there is `ports_to_controls` and no `opening_sequence`; add it, with 5 to 20 UDP ports of your own",
        ),
        (None, Some(_), _) => incomplete(
            "there is `opening_sequence` and no `ports_to_controls`; add it, for example: \
             ports_to_controls = [22]",
        ),
    }
}

/// What no single value is to blame for.
fn fit_together(rules: &Rules, doors: &[Resolved], listen: Hearing) -> Result<(), ConfigError> {
    if let Err(conflict) = Sequences::new(&rules.doors) {
        let of = |name: &DoorName| doors.iter().find(|door| door.name.value == *name);
        let origin = of(&conflict.second).map_or(Origin::Default, |door| door.sequence.origin.clone());
        return Err(ConfigError::at(&origin, conflict.to_string()));
    }
    if listen == Hearing::Capture {
        return Ok(());
    }
    for door in doors {
        for port in doors.iter().flat_map(|other| other.sequence.value.ports()) {
            let guards = |ports: &&Ports| {
                ports.protocol == crate::firewall::plan::Protocol::Udp && ports.range().contains(port)
            };
            if let Some(ports) = door.ports.value.iter().find(guards) {
                let what = format!(
                    "the door `{}` closes {ports}, and a sequence knocks on {port}, which could then not be \
                     heard; choose another port for the sequence, or set listen = \"capture\"",
                    door.name.value
                );
                return Err(ConfigError::at(&door.ports.origin, what));
            }
        }
    }
    Ok(())
}

/// What an option, or else a variable, says.
fn outside(
    option: &'static str,
    given: &Option<String>,
    variable: &'static str,
    set: &Option<OsString>,
) -> Result<Option<Given<String>>, ConfigError> {
    if let Some(given) = given {
        return Ok(Some(Given::new(given.clone(), Origin::Option(option))));
    }
    let Some(set) = set else { return Ok(None) };
    let origin = Origin::Variable(variable);
    match set.to_str() {
        Some(text) => Ok(Some(Given::new(text.to_owned(), origin))),
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

fn find_file(surroundings: &Surroundings) -> Result<Option<(PathBuf, String)>, ConfigError> {
    if let Some(path) = &surroundings.conf {
        let text = file::read(path)?.ok_or_else(|| {
            let source = std::io::Error::from_raw_os_error(libc::ENOENT);
            ConfigError::Read { path: path.clone(), source }
        })?;
        return Ok(Some((path.clone(), text)));
    }
    for path in path_in_home(surroundings.home.as_deref()).into_iter().chain([PathBuf::from(IN_ETC)]) {
        if let Some(text) = file::read(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

fn in_seconds(time: &Duration) -> String {
    time.as_secs().to_string()
}

fn list(ports: &[u16]) -> String {
    format!("{ports:?}")
}

fn quoted<T: ToString>(items: &[T]) -> String {
    format!("{:?}", items.iter().map(ToString::to_string).collect::<Vec<_>>())
}

fn word<T: PartialEq>(words: &[(&str, T)], value: &T) -> String {
    let found = words.iter().find(|(_, other)| other == value);
    format!("{:?}", found.map_or("", |(word, _)| word))
}
