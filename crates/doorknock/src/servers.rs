//! The store of servers: one TOML file for each, that no other user may read.
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

mod error;
mod file;
mod key_path;
mod name;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use etcetera::BaseStrategy as _;

use self::file::{LONGEST, parse, parse_former, text_of, with_doors};
pub use self::{
    error::ServersError,
    file::{Former, Server, USUAL_PORT},
    key_path::KeyPath,
    name::ServerName,
};
use crate::{
    private_file,
    trusted_file::{TrustedDirectory, TrustedFile},
};

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
            return Err(ServersError::Exists { name: name.as_str().to_owned() });
        }
        let text = text_of(&path, server)?;
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
        read.flatten().ok_or_else(|| ServersError::Unknown { name: name.as_str().to_owned() })
    }

    /// What a file says that is going to be replaced, also if its card is not valid; `None` if there is no file.
    ///
    /// # Errors
    /// [`ServersError`] if the file cannot be used.
    pub fn former(&self, name: &ServerName) -> Result<Option<Former>, ServersError> {
        let Some(directory) = TrustedDirectory::open(&self.directory)? else { return Ok(None) };
        let read = directory.read(&format!("{}.toml", name.as_str()), LONGEST)?;
        read.map(|TrustedFile { bytes, .. }| parse_former(&self.path(name), &bytes)).transpose()
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
        let Some(file) = directory.read(&format!("{}.toml", name.as_str()), LONGEST)? else { return Ok(()) };
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
            io::ErrorKind::NotFound => ServersError::Unknown { name: name.as_str().to_owned() },
            _ => ServersError::File { what: "remove", path, source },
        })
    }

    fn read(&self, directory: &TrustedDirectory, name: &ServerName) -> Result<Option<Server>, ServersError> {
        let read = directory.read(&format!("{}.toml", name.as_str()), LONGEST)?;
        read.map(|TrustedFile { bytes, .. }| parse(&self.path(name), &bytes)).transpose()
    }

    fn path(&self, name: &ServerName) -> PathBuf {
        self.directory.join(format!("{}.toml", name.as_str()))
    }
}
