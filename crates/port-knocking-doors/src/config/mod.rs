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
mod dates;
mod doors;
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

use doors_core::{access::Rules, door::Sequence, time::Wall};
use ipnet::IpNet;

pub(crate) use self::warnings::without_effect;
pub use self::{clients::KeyAccess, origin::ConfigError, warnings::Warning};
use self::{
    doors::{DefaultDoor, Resolved},
    file::File,
    origin::{Given, Origin},
};
use crate::firewall::{
    Kind,
    plan::{Plan, Refuse},
};

/// The file in the home directory.
const IN_HOME: &str = ".port_knocker.toml";
/// The file for the whole machine.
const IN_ETC: &str = "/etc/port_knocker.toml";
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
    /// What is needed for clients with keys; `None` if there are none.
    pub key_access: Option<KeyAccess>,
    /// Where the gateway's key is, or will be.
    pub gateway_key: PathBuf,
    /// Where it is kept which knocks were seen.
    pub state_dir: PathBuf,
    /// The file that was read; `None` if there is none.
    pub path: Option<PathBuf>,
    /// Every value in force.
    pub settings: Vec<Setting>,
    /// What is allowed and unwise, whichever firewall it is.
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
                let mut file = file::parse(&path, &text)?;
                let left_out = clients::read_authorized_keys(&mut file)?;
                let mut config = Self::resolve(surroundings, file, Some(path.clone()))?;
                config.warnings.extend(left_out);
                let etc = PathBuf::from(IN_ETC);
                if surroundings.conf.is_none() && path != etc && etc.exists() {
                    config.warnings.push(Warning::Shadowed(etc));
                }
                Ok(config)
            }
            None => Self::resolve(surroundings, File::default(), None),
        }
    }

    /// Reads and resolves everything, with another text in place of the file's.
    ///
    /// # Errors
    /// [`ConfigError`] names the source that cannot be used, and the way out.
    pub fn with_text(surroundings: &Surroundings, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut file = file::parse(path, text)?;
        clients::read_authorized_keys(&mut file)?;
        Self::resolve(surroundings, file, Some(path.to_owned()))
    }

    /// Resolves the text of a file, with nothing around it. Does no I/O, so it knows no `authorized_keys`.
    ///
    /// # Errors
    /// [`ConfigError`] names the place in the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::resolve(&Surroundings::default(), file::parse(path, text)?, Some(path.to_owned()))
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

    /// What is allowed and unwise with this firewall.
    pub(crate) fn warnings_with(&self, kind: Kind) -> impl Iterator<Item = Warning> {
        self.warnings.iter().cloned().chain(without_effect(&self.plan, kind))
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
        if let (Some(old), Some(new)) = (&self.key_access, &new.key_access)
            && old.state_dir != new.state_dir
        {
            changed.push("state_dir");
        }
        changed
    }

    fn resolve(surroundings: &Surroundings, file: File, path: Option<PathBuf>) -> Result<Self, ConfigError> {
        let sequence =
            outside("--magic-seq", &surroundings.magic_seq, "KNOCKER_SEQ", &surroundings.knocker_seq)?;
        let sequence = sequence.map(|Given { value, origin }| {
            let right = "5 to 20 ports of your own, with commas between";
            let ports = values::port_texts(&value, &origin, right)?;
            values::sequence(&ports, &origin, "").map(|value| Given::new(value, origin))
        });
        let ports = outside("--ports", &surroundings.ports, "KNOCKER_PORTS", &surroundings.knocker_ports)?;
        let ports = ports.map(|Given { value, origin }| {
            let ports = values::port_texts(&value, &origin, "ports with commas between, like 22,8080")?;
            values::tcp_ports(&ports, &origin, "").map(|value| Given::new(value, origin))
        });
        complete(&file, path.as_deref())?;
        let default_door = DefaultDoor {
            ports: ports.transpose()?.or(file.ports_to_controls.clone()),
            sequence: sequence.transpose()?.or(file.opening_sequence.clone()),
        };
        whole(&default_door, &file)?;
        Resolver { settings: Vec::new() }.resolve(default_door, file, path)
    }
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
        let doors = doors::resolve(default_door, file.doors, &open_for)?;
        for door in doors.iter().filter(|door| door.is_default()) {
            let ports: Vec<u16> = door.ports.value.iter().map(|ports| ports.first).collect();
            self.note("ports_to_controls", &door.ports, |_| list(&ports));
            if let Some(sequence) = &door.sequence {
                self.note("opening_sequence", sequence, |sequence| list(sequence.ports()));
            }
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
            if let Some(sequence) = &door.sequence {
                self.note(&key("sequence"), sequence, |sequence| list(sequence.ports()));
            }
            self.note(&key("open_for"), &door.open_for, in_seconds);
            self.note(&key("max_open_for"), &door.max_open_for, in_seconds);
            self.note(&key("grant"), &door.once, |once| word(&file::GRANT_WORDS, once));
            self.note(&key("require_address"), &door.require_address, ToString::to_string);
        }

        let rules = Rules {
            doors: doors.iter().map(Resolved::for_core).collect(),
            quiet_after_wrong: quiet.value,
            forget_after: forget.value,
        };
        let gateway_key = clients::gateway_key(file.gateway_key.as_ref());
        let state_dir = clients::state_dir(file.state_dir.as_ref());
        let key_access = clients::resolve(
            file.clients,
            clients::Given {
                port: file.spa_port,
                window: file.spa_window,
                gateway_key: file.gateway_key,
                state_dir: file.state_dir,
                authorized_keys: file.authorized_keys,
                authorized_keys_doors: file.authorized_keys_doors,
            },
            &rules,
            |key, value, origin| self.settings.push(Setting { key: key.to_owned(), value, origin }),
        )?;
        let spa_port = key_access.as_ref().map(|access| access.port);
        doors::fit_together(&rules, &doors, listen.value, firewall.value, spa_port)?;
        let known = key_access.as_ref().map(|access| &access.clients);
        let plan = Plan {
            doors: doors.iter().map(|door| door.for_firewall(known)).collect(),
            trusted: trusted.value,
            refuse: refuse.value,
            zone: zone.value,
            check_every: check.value,
            clean_every: clean.value,
            remove_on_exit: on_exit.value,
        };
        let mut warnings = warnings::of(&rules, listen.value);
        warnings.extend(warnings::everybody(&plan.trusted));
        warnings.extend(warnings::useless(&rules, known));
        Ok(Config {
            rules,
            plan,
            hearing: listen.value,
            firewall: firewall.value,
            key_access,
            gateway_key,
            state_dir,
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

/// Where a file has doors of its own, nobody who says one half of the door `default` means the other to be the
/// default: with that, everybody who knows the published sequence would get in.
fn whole(door: &DefaultDoor, file: &File) -> Result<(), ConfigError> {
    let (there, half, others) = match (&door.ports, &door.sequence) {
        _ if file.doors.is_empty() => return Ok(()),
        (Some(ports), None) => (&ports.origin, "sequence", "--magic-seq or KNOCKER_SEQ"),
        (None, Some(sequence)) => (&sequence.origin, "ports", "--ports or KNOCKER_PORTS"),
        (Some(_), Some(_)) | (None, None) => return Ok(()),
    };
    let what = format!(
        "this is for the door `default`, whose {half} nobody has given, and the file has [[doors]] of its own; give \
         it with {others}, or leave this out"
    );
    Err(ConfigError::at(there, what))
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
        let text = file::read(path)?.ok_or_else(|| ConfigError::Missing { path: path.clone() })?;
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

/// The last day before a date, for a person.
pub(crate) fn day(until: Wall) -> String {
    dates::last_day(until)
}
