//! Clients out of a file of public keys as `sshd` has it (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
//!
//! ```text
//!   from="192.0.2.0/24",doors="ssh,web" ssh-ed25519 AAAA… laptop
//!   └──────── options, perhaps ────────┘ └ type ┘   └ key   └ comment, which names the client
//! ```

use std::{collections::HashSet, net::IpAddr, num::NonZero, path::Path, sync::Arc, thread, time::Duration};

use doors_core::{door::DoorName, time::Wall};
use doors_spa::identity::{BadKey, ClientKey};
use ipnet::IpNet;

use super::{
    dates,
    faults::Faults,
    file::FileClient,
    kinds::DoorNames,
    origin::{ConfigError, Origin, Position, Sourced},
    values::is_client_name,
    warnings::Warning,
};

/// Options that only `sshd` uses: they restrict what a user may do after the login, which is not ours to give.
const FOR_SSHD: [&str; 20] = [
    "agent-forwarding",
    "cert-authority",
    "command",
    "environment",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-touch-required",
    "no-user-rc",
    "no-x11-forwarding",
    "permitlisten",
    "permitopen",
    "port-forwarding",
    "principals",
    "pty",
    "restrict",
    "tunnel",
    "user-rc",
    "verify-required",
    "x11-forwarding",
];

/// Our own, and those of `sshd` that we mean, too.
const OURS: &str = "name, doors, max_open_for, from, expiry-time";

/// Reads the text of such a file. `doors` are for lines that name none.
pub(super) fn parse(
    path: &Path,
    text: &str,
    doors: &DoorNames,
    faults: &mut Faults,
) -> (Vec<FileClient>, Vec<Warning>) {
    let path: Arc<Path> = Arc::from(path);
    let lines: Vec<Line<'_>> = (1..)
        .zip(text.lines().map(str::trim))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, text)| Line { path: &path, number, text })
        .collect();
    let (mut clients, mut warnings) = (Vec::with_capacity(lines.len()), Vec::new());
    let mut names: HashSet<Arc<str>> = HashSet::with_capacity(lines.len());
    for (line, client) in lines.iter().zip(on_all_processors(&lines, |line| line.client(doors))) {
        let number = line.number;
        match client {
            Ok(Some(mut client)) => {
                if let Some(name) = &mut client.name {
                    // Two keys of one person may have one comment.
                    if !names.insert(Arc::clone(&name.value)) {
                        name.value = format!("{}-line-{number}", name.value).into();
                        names.insert(Arc::clone(&name.value));
                    }
                }
                clients.push(client);
            }
            Err(fault) => faults.push(fault),
            Ok(None) => warnings.push(Warning::OtherKey { path: Arc::clone(&path), line: number }),
        }
    }
    (clients, warnings)
}

/// Does the same for each, in the order of the list. Most of the time for a key goes into whether it is a point of
/// the curve.
pub(super) fn on_all_processors<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    // A thread for a few lines would cost more than they do.
    let share = all.len().div_ceil(threads).max(500);
    let work = &work;
    thread::scope(|scope| {
        let begin = |part| (part, thread::Builder::new().spawn_scoped(scope, move || all_of(part, work)));
        let begun: Vec<_> = all.chunks(share).skip(1).map(begin).collect();
        let mut done = all_of(all.chunks(share).next().unwrap_or_default(), work);
        for (part, thread) in begun {
            done.extend(match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(done)) => done,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // No more threads may be started.
                Err(_) => all_of(part, work),
            });
        }
        done
    })
}

fn all_of<T, R>(part: &[T], work: impl Fn(&T) -> R) -> Vec<R> {
    part.iter().map(work).collect()
}

struct Line<'a> {
    path: &'a Arc<Path>,
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn origin(&self) -> Origin {
        Origin::File(Position::new(self.path, self.number, 1))
    }

    /// The client of this line; `None` if its key is of a type that cannot be used.
    fn client(&self, doors: &DoorNames) -> Result<Option<FileClient>, ConfigError> {
        // Once for each line: nothing in here costs as much as a key.
        let (options, read) = match ClientKey::from_openssh(self.text) {
            Err(BadKey::Type) if !is_key_type(self.text) => {
                let (options, key) = self.split()?;
                (options, ClientKey::from_openssh(key))
            }
            read => ("", read),
        };
        let (key, comment) = match read {
            Ok(read) => read,
            // sshd passes over what it cannot use, too; one bad line must not keep everybody else out.
            Err(_) => return Ok(None),
        };
        let mut client = FileClient {
            name: Some(self.given(name_from(comment, &key))),
            key: Some(self.given(key)),
            doors: Some(self.given(Arc::clone(doors))),
            ..FileClient::default()
        };
        for option in split_outside_quotes(options, ',') {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if !self.set(&mut client, &name.to_ascii_lowercase(), value.trim_matches('"'))? {
                return Ok(None);
            }
        }
        if client.doors.as_ref().is_none_or(|doors| doors.value.is_empty()) {
            let what = "this client may open nothing; begin its line with doors=\"…\", or set \
                        authorized_keys_doors in the configuration";
            return Err(self.wrong(what.to_owned()));
        }
        Ok(Some(client))
    }

    /// Takes one option. Says whether the line is a client at all.
    fn set(&self, client: &mut FileClient, name: &str, value: &str) -> Result<bool, ConfigError> {
        match name {
            // The key of an authority belongs to no client.
            "cert-authority" => return Ok(false),
            "name" if is_client_name(value) => client.name = Some(self.given(value.into())),
            "doors" => {
                let door = |name: &str| {
                    let name = name.trim();
                    let door = DoorName::new(name);
                    door.map(|door| Sourced::new(door, self.origin()))
                        .map_err(|bad| self.wrong(format!("doors: \"{}\" {bad}", name.escape_debug())))
                };
                let doors = value.split(',').map(door).collect::<Result<_, _>>()?;
                client.doors = Some(self.given(doors));
            }
            "max_open_for" => {
                let seconds = value.parse().ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
                client.max_open_for = Some(self.given(seconds.ok_or_else(|| self.not_this(name, value))?));
            }
            "from" if client.from.is_some() => {
                return Err(self.wrong("from is there twice; write it once, with commas between".to_owned()));
            }
            "from" => {
                let network = |text: &str| {
                    let text = text.trim();
                    let address = || text.parse::<IpAddr>().map(IpNet::from);
                    text.parse::<IpNet>().or_else(|_| address()).ok().map(|network| network.trunc())
                };
                let networks: Option<Vec<IpNet>> = value.split(',').map(network).collect();
                let networks = networks.ok_or_else(|| {
                    let what = "from: names and patterns cannot be used, only addresses and networks";
                    self.wrong(format!("{what}: \"{}\"", value.escape_debug()))
                })?;
                client.from = Some(self.given(networks));
            }
            "expiry-time" => {
                let until = expiry(value).ok_or_else(|| self.not_this(name, value))?;
                let earliest = client.until.as_ref().map_or(until, |other| other.value.min(until));
                client.until = Some(self.given(earliest));
            }
            "name" => return Err(self.not_this(name, value)),
            other if FOR_SSHD.contains(&other) => {}
            other => {
                let what =
                    format!("\"{}\" is no option; those that count here: {OURS}", other.escape_debug());
                return Err(self.wrong(what));
            }
        }
        Ok(true)
    }

    /// Options, and the key behind them.
    fn split(&self) -> Result<(&'a str, &'a str), ConfigError> {
        let end = split_outside_quotes(self.text, ' ').next().map_or(0, str::len);
        self.text.split_at_checked(end).ok_or_else(|| self.wrong(BadKey::Shape.to_string()))
    }

    fn given<T>(&self, value: T) -> Sourced<T> {
        Sourced::new(value, self.origin())
    }

    fn not_this(&self, name: &str, value: &str) -> ConfigError {
        self.wrong(format!("{name}: \"{}\" is not what can stand there", value.escape_debug()))
    }

    fn wrong(&self, what: String) -> ConfigError {
        ConfigError::at(&self.origin(), what)
    }
}

/// Whether a line begins with the type of a key, of any type.
fn is_key_type(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    ["ssh-", "ecdsa-", "sk-"].iter().any(|begin| word.starts_with(begin)) && !word.contains(['"', '=', ','])
}

/// The comment if it can be a name, else the beginning of the key's fingerprint.
fn name_from(comment: &str, key: &ClientKey) -> Arc<str> {
    let word = comment.split_whitespace().next().unwrap_or_default();
    match is_client_name(word) {
        true => word.into(),
        false => key.id().0.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
    }
}

fn split_outside_quotes(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let split = move |c: char| {
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        let tab = at == ' ' && c == '\t';
        (c == at || tab) && !quoted
    };
    text.split(split).filter(|part| !part.is_empty())
}

/// `YYYYMMDD[HHMM[SS]][Z]`. A day ends the key at its beginning, as with sshd; without a Z, sshd reads it in
/// the machine's time zone, and here it is always UTC.
fn expiry(value: &str) -> Option<Wall> {
    let digits = value.strip_suffix('Z').unwrap_or(value);
    let part = |range: std::ops::Range<usize>| {
        digits.get(range).filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let day = format!("{}-{}-{}", part(0..4)?, part(4..6)?, part(6..8)?);
    let text = match digits.len() {
        8 => format!("{day}T00:00:00Z"),
        12 => format!("{day}T{}:{}:00Z", part(8..10)?, part(10..12)?),
        14 => format!("{day}T{}:{}:{}Z", part(8..10)?, part(10..12)?, part(12..14)?),
        _ => return None,
    };
    dates::end_of(&text.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI";

    fn key(number: u8) -> String {
        let secret = ed25519_dalek::SigningKey::from_bytes(&[number; 32]);
        let key = ClientKey::new(secret.verifying_key().as_bytes()).unwrap();
        key.to_openssh()
    }

    fn parsed(text: &str) -> Result<(Vec<FileClient>, Vec<Warning>), String> {
        let doors: DoorNames = [Sourced::by_default(DoorName::new("ssh").unwrap())].into();
        with_doors(text, &doors)
    }

    fn with_doors(text: &str, doors: &DoorNames) -> Result<(Vec<FileClient>, Vec<Warning>), String> {
        let mut faults = Faults::default();
        let parsed = parse(Path::new("keys"), text, doors, &mut faults);
        faults.into_result().map(|()| parsed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_file_that_sshd_has_serves() {
        let text = format!(
            "# mine\n\n{} anna@laptop\nno-pty,command=\"/bin/true, \\\"or so\\\"\" {} anna@laptop\n\
             ssh-rsa AAAAB3NzaC1yc2E= old\ncert-authority {} authority\n{}\n",
            key(1),
            key(2),
            key(3),
            key(4),
        );
        let (clients, warnings) = parsed(&text).unwrap();
        let names: Vec<&str> = clients.iter().map(|client| &*client.name.as_ref().unwrap().value).collect();
        assert_eq!(names[..2], ["anna@laptop", "anna@laptop-line-4"]);
        assert_eq!(names[2].len(), 16, "a key without a comment is called by its fingerprint");
        assert!(clients.iter().all(|client| client.doors.as_ref().unwrap().value[0].value.as_str() == "ssh"));
        let told: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("keys:5: ") && told[1].starts_with("keys:6: "), "{told:?}");
    }

    #[test]
    fn options_restrict_a_line() {
        let text = format!(
            "from=\"192.0.2.0/24,2001:db8::7\",expiry-time=\"20261231\",name=\"phone\",doors=\"web,admin\",\
             max_open_for=\"600\" {} anna",
            key(1)
        );
        let (clients, _) = parsed(&text).unwrap();
        let client = &clients[0];
        assert_eq!(&*client.name.as_ref().unwrap().value, "phone");
        let doors: Vec<&str> =
            client.doors.as_ref().unwrap().value.iter().map(|door| door.value.as_str()).collect();
        assert_eq!(doors, ["web", "admin"]);
        assert_eq!(client.max_open_for.as_ref().unwrap().value, Duration::from_secs(600));
        let networks: Vec<String> =
            client.from.iter().flat_map(|from| &from.value).map(ToString::to_string).collect();
        assert_eq!(networks, ["192.0.2.0/24", "2001:db8::7/128"]);
        assert_eq!(client.until.as_ref().unwrap().value, Wall(1_798_675_200_000));
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_named() {
        for (line, told) in [
            (format!("from=\"*.example.com\" {} anna", key(1)), "only addresses and networks"),
            (format!("door=\"ssh\" {} anna", key(1)), "\"door\" is no option"),
            (format!("expiry-time=\"soon\" {} anna", key(1)), "expiry-time: \"soon\" is not"),
            (format!("doors=\"\" {} anna", key(1)), "doors: \"\" must begin with a letter"),
        ] {
            let error = parsed(&line).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
        let none = with_doors(&key(1), &DoorNames::default()).unwrap_err();
        assert!(none.contains("this client may open nothing"), "{none}");
        // What is no key at all is passed over, with a warning.
        for line in [format!("{KEY} anna"), "hello".to_owned()] {
            let (clients, warnings) = parsed(&line).unwrap();
            assert_eq!((clients.len(), warnings.len()), (0, 1), "{line}");
        }
    }
}
