//! A directory with a file for each client: `NAME.toml` holds what `[[clients]]` holds, and the name is the file's.
//!
//! ```text
//!   clients.d/  ──► judged: whose? who may write? ──► laptop.toml   read, as every file that says who gets in
//!                                                     phone.toml
//!                                                     phone.toml~   an editor's, passed over
//!                                                     README        passed over, with a warning
//! ```
//!
//! A program can add or remove a client here without a look at what an administrator has written.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File as OpenFile, Metadata},
    io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use doors_core::limits;
use doors_os::trusted_file::{self, Demands, Untrusted};
use doors_text::error_chain::in_one_line;
use sha2::{Digest as _, Sha256};

use super::{
    authorized_keys::on_all_processors,
    faults::Faults,
    file::{self, File, FileClient},
    keys::LARGEST_FILE,
    origin::{ConfigError, Origin, Sourced},
    values::is_client_name,
    warnings::Warning,
};

/// Where it is for the file of the whole machine.
const FOR_ETC: &str = "/etc/port-knocking-doors/clients.d";
/// What it is called beside any other file.
const NAME: &str = "clients.d";
/// What the name of a client's file ends with.
const ENDING: &str = ".toml";
/// The longest file of one client, in bytes: a few thousand networks.
const LONGEST: usize = 64 << 10;

/// The directory, and the texts of its files.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ClientFiles {
    /// The directory, if it is there.
    pub(crate) directory: Option<PathBuf>,
    /// The names of the clients, in order, and what stands in their files.
    pub(crate) texts: Vec<(String, String)>,
}

impl ClientFiles {
    /// The text of a client's file.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.position(name).ok().and_then(|at| self.texts.get(at)).map(|(_, text)| &**text)
    }

    /// With one client more.
    pub(crate) fn insert(&mut self, name: &str, text: String) {
        if let Err(at) = self.position(name) {
            self.texts.insert(at, (name.to_owned(), text));
        }
    }

    /// With one client less.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.texts.remove(at);
        }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.texts.binary_search_by(|(other, _)| other.as_str().cmp(name))
    }
}

/// Which files were read. It is another one after each change, and tells nothing of what stands in them: other users
/// can see it, because the daemon locks a byte by this number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Version(pub(crate) u64);

/// Where the directory is, if the file does not say.
pub(super) fn default_for(conf: &Path) -> PathBuf {
    if conf == Path::new(super::IN_ETC) {
        return PathBuf::from(FOR_ETC);
    }
    // It means the same wherever a program was started, and by whatever link the file is named.
    std::fs::canonicalize(conf)
        .or_else(|_| std::path::absolute(conf))
        .unwrap_or_else(|_| conf.to_owned())
        .with_file_name(NAME)
}

/// The file of a client.
pub(crate) fn file_of(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}{ENDING}"))
}

/// Reads the files of the directory. What is wrong goes to the faults of the configuration.
pub(super) fn read(config: &mut File, conf: &Path) -> (ClientFiles, Version, Vec<Warning>) {
    let named = config.clients_dir.clone();
    let directory = named.as_ref().map_or_else(|| default_for(conf), |named| named.value.clone());
    let mut warnings = Vec::new();
    let mut reading = Reading { directory: &directory, named: named.as_ref(), faults: &mut config.faults };
    let Some(names) = reading.names(&mut warnings) else { return Default::default() };
    let mut digest = Sha256::new();
    let mut total: usize = 0;
    let mut files =
        ClientFiles { directory: Some(directory.clone()), texts: Vec::with_capacity(names.len()) };
    for name in names {
        let Some((text, metadata)) = reading.text(&name) else { continue };
        let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        digest.update(name.as_bytes());
        digest.update([metadata.ino(), metadata.size()].map(u64::to_be_bytes).concat());
        digest.update(times.map(i64::to_be_bytes).concat());
        total = total.saturating_add(text.len());
        if total > LARGEST_FILE {
            reading.wrong::<()>(
                "holds more than 32 megabytes, which is more than the most clients need".to_owned(),
            );
            break;
        }
        files.texts.push((name, text));
    }
    let version = digest.finalize().iter().take(7).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (files, Version(version), warnings)
}

/// The directory that is read, and to whom its faults are told.
struct Reading<'a> {
    directory: &'a Path,
    named: Option<&'a Sourced<PathBuf>>,
    faults: &'a mut Faults,
}

impl Reading<'_> {
    /// The names of the clients, in order; `None` if there is no directory that can be used.
    fn names(&mut self, warnings: &mut Vec<Warning>) -> Option<BTreeSet<String>> {
        let opened = match trusted_file::open(self.directory) {
            Ok(opened) => opened,
            // It is the default directory, and no client has a file.
            Err(Untrusted::Missing) if self.named.is_none() => return None,
            Err(untrusted) => return self.unusable(untrusted),
        };
        match opened.metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return self.wrong("is no directory".to_owned()),
            Err(error) => return self.unusable(Untrusted::Unreadable(error)),
        }
        if let Err(untrusted) = trusted_file::judge_directory(&opened) {
            return self.unusable(untrusted);
        }
        match self.listed(warnings) {
            Ok(names) => names,
            Err(error) => self.unusable(Untrusted::Unreadable(error)),
        }
    }

    fn listed(&mut self, warnings: &mut Vec<Warning>) -> io::Result<Option<BTreeSet<String>>> {
        let mut names = BTreeSet::new();
        let (mut first, mut others): (Option<OsString>, usize) = (None, 0);
        for entry in fs::read_dir(self.directory)? {
            let file_name = entry?.file_name();
            match client_of(&file_name) {
                Some(Ok(name)) => {
                    names.insert(name.to_owned());
                    if names.len() > limits::CLIENTS {
                        return Ok(self.wrong(format!("holds more than {} clients", limits::CLIENTS)));
                    }
                }
                Some(Err(bad)) => self.faults.push(ConfigError::File {
                    path: self.directory.join(&file_name),
                    what: format!(
                        "\"{}\" is no name for a client; call the file NAME.toml, with a name of 1 to 64 letters and \
                         digits, with . _ - @ between",
                        bad.escape_debug()
                    ),
                }),
                None if is_passed_over(&file_name) => {}
                None => {
                    others = others.saturating_add(1);
                    first = Some(first.map_or_else(|| file_name.clone(), |first| first.min(file_name.clone())));
                }
            }
        }
        warnings.extend(first.map(|first| Warning::NoClient {
            path: self.directory.join(first),
            others: others.saturating_sub(1),
        }));
        Ok(Some(names))
    }

    /// What stands in the file of a client; `None` if it cannot be read, or has just been removed.
    fn text(&mut self, name: &str) -> Option<(String, Metadata)> {
        let path = file_of(self.directory, name);
        let (bytes, metadata) = match read_file(&path) {
            Ok(read) => read,
            Err(Untrusted::Missing) => return None,
            Err(untrusted) => {
                self.faults.push(ConfigError::File { path: path.clone(), what: why_not(&path, untrusted) });
                return None;
            }
        };
        let text = String::from_utf8(bytes)
            .map_err(|_| ConfigError::File { path, what: "it is not UTF-8 text".to_owned() });
        self.faults.note(text).map(|text| (text, metadata))
    }

    fn unusable<T>(&mut self, untrusted: Untrusted) -> Option<T> {
        let directory = self.directory.display();
        self.wrong(match untrusted {
            Untrusted::Missing => {
                format!("is not there; make it (mkdir {directory}), or leave `clients_dir` out")
            }
            Untrusted::Dangling => "is a link to nothing; put back what it names, or remove it".to_owned(),
            Untrusted::Unreadable(error) => format!("cannot be read: {}", in_one_line(&error)),
            Untrusted::Kind | Untrusted::Long => "is no directory".to_owned(),
            Untrusted::Owner { owner, we } => format!(
                "says who gets in, and belongs to another user ({owner}); see whether it is as you want it, then: \
                 chown {we} {directory}"
            ),
            Untrusted::Mode(mode) => format!(
                "says who gets in, and can be changed by others (mode {mode:03o}); try: chmod go-w {directory}"
            ),
        })
    }

    /// Something is wrong with the directory.
    fn wrong<T>(&mut self, what: String) -> Option<T> {
        self.faults.push(match self.named {
            Some(named) => {
                ConfigError::at(&named.origin, format!("`clients_dir`: {} {what}", self.directory.display()))
            }
            None => {
                ConfigError::File { path: self.directory.to_owned(), what: format!("this directory {what}") }
            }
        });
        None
    }
}

/// The name of the client whose file is called so, or what stands in its place; `None` if it is no client's file.
fn client_of(file_name: &OsStr) -> Option<Result<&str, String>> {
    if is_passed_over(file_name) {
        return None;
    }
    let stem = file_name.as_bytes().strip_suffix(ENDING.as_bytes())?;
    match std::str::from_utf8(stem) {
        Ok(name) if is_client_name(name) => Some(Ok(name)),
        _ => Some(Err(String::from_utf8_lossy(stem).into_owned())),
    }
}

/// Whether an editor or a program has left it, or will rename it when it is whole.
fn is_passed_over(file_name: &OsStr) -> bool {
    let name = file_name.as_bytes();
    let ends = ["~", ".new", ".bak", ".orig", ".swp", ".swo", ".tmp"];
    name.starts_with(b".") || name.starts_with(b"#") || ends.iter().any(|end| name.ends_with(end.as_bytes()))
}

fn read_file(path: &Path) -> Result<(Vec<u8>, Metadata), Untrusted> {
    let opened: OpenFile = trusted_file::open(path)?;
    // Asked before the bytes are read: of a file that is written at this moment, the version is then an old one.
    let metadata = opened.metadata().map_err(Untrusted::Unreadable)?;
    let mut read = trusted_file::read_opened(&opened, &Demands::public(LONGEST))?;
    Ok((std::mem::take(&mut *read.bytes), metadata))
}

/// Why the file of a client is not read.
fn why_not(path: &Path, untrusted: Untrusted) -> String {
    let path = path.display();
    match untrusted {
        Untrusted::Missing => "it is not there".to_owned(),
        Untrusted::Dangling => {
            format!("it is a link to nothing; put back what it names, or remove it (rm {path})")
        }
        Untrusted::Unreadable(error) => format!("it cannot be read: {}", in_one_line(&error)),
        Untrusted::Kind => format!("it is no regular file; remove it (rm {path})"),
        Untrusted::Owner { owner, we } => format!(
            "it says who gets in, and belongs to another user ({owner}); see whether it is as you want it, then: chown \
             {we} {path}"
        ),
        Untrusted::Mode(mode) => {
            format!(
                "it says who gets in, and can be changed by others (mode {mode:03o}); try: chmod go-w {path}"
            )
        }
        Untrusted::Long => {
            format!("it is longer than {} kilobytes, which no client needs", LONGEST >> 10)
        }
    }
}

/// Adds the clients of the files. Does no I/O.
pub(super) fn add(config: &mut File, files: &ClientFiles) {
    let Some(directory) = &files.directory else { return };
    let parsed = on_all_processors(&files.texts, |(name, text)| parse(&file_of(directory, name), name, text));
    for client in parsed {
        match client {
            Ok(client) => config.clients.push(client),
            Err(faults) => config.faults.append(faults),
        }
    }
}

/// Reads what stands in the file of a client.
pub(super) fn parse(path: &Path, name: &str, text: &str) -> Result<FileClient, Faults> {
    let (mut client, origin) = file::parse_client(path, text)?;
    match &client.name {
        Some(given) if *given.value != *name => {
            let what = format!(
                "`name` is \"{}\", and the client of this file is \"{name}\"; leave `name` out, or rename the file \
                 ({}{ENDING})",
                given.value, given.value
            );
            let mut faults = Faults::default();
            faults.push(ConfigError::at(&given.origin, what));
            Err(faults)
        }
        Some(_) => Ok(client),
        None => {
            client.name = Some(Sourced::new(name.into(), Origin::File(origin)));
            Ok(client)
        }
    }
}
