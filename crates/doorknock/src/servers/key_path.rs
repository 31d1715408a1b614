//! Where the key for a server is.

use std::path::{Path, PathBuf};

use doors_text::safe_text::is_seen;
use serde::{Deserialize, Serialize};

/// Where a key is, wherever the client is started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "PathBuf", into = "PathBuf")]
pub struct KeyPath(PathBuf);

impl KeyPath {
    /// Takes a path, from the directory in which the client was started if it is not a whole one.
    ///
    /// # Errors
    /// A message if it cannot be written down.
    pub fn new(path: &Path) -> Result<Self, String> {
        Self::try_from(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<PathBuf> for KeyPath {
    type Error = String;

    fn try_from(path: PathBuf) -> Result<Self, Self::Error> {
        match path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(is_seen)) {
            true => Ok(Self(path)),
            false => Err("write the whole path of a key, without control characters".to_owned()),
        }
    }
}

impl From<KeyPath> for PathBuf {
    fn from(path: KeyPath) -> Self {
        path.0
    }
}
