//! The configuration for a start, whatever has become of its file.

use std::path::PathBuf;

use super::{CopyError, Store};
use crate::config::{self, Config, ConfigError, Inputs, Unusable};

/// What a daemon starts with.
pub(crate) fn load(surroundings: &Inputs, store: &Store) -> Result<Config, NoConfig> {
    let Unusable { error, file } = match load_now(surroundings, store) {
        Ok(config) => return Ok(config),
        Err(unusable) => unusable,
    };
    // Nothing that was in force would make an option right.
    let Some(file) = file else { return Err(NoConfig { error, instead: None }) };
    let instead = match store.read(&file) {
        Ok(Some(texts)) => match Config::again(surroundings, &texts, &error) {
            Ok(config) => return Ok(config),
            Err(error) => Instead::Wrong(error),
        },
        Ok(None) => Instead::Nothing,
        Err(error) => Instead::Unusable(error),
    };
    Err(NoConfig { error, instead: Some(instead) })
}

/// What stands in the file now, for a reload.
pub(crate) fn reload(surroundings: &Inputs, store: &Store) -> Result<Config, ConfigError> {
    load_now(surroundings, store).map_err(|unusable| unusable.error)
}

/// Default values guard ssh with a sequence that everybody knows, and nothing else. A file that was in force and is
/// gone has not asked for that.
fn load_now(surroundings: &Inputs, store: &Store) -> Result<Config, Unusable> {
    let config = Config::load_or_blame(surroundings)?;
    let gone = || store.latest(config::looked_for(surroundings));
    match if config.path.is_none() { gone() } else { None } {
        Some(path) => {
            let copy = store.path_of(&path);
            Err(Unusable { error: ConfigError::Gone { path: path.clone(), copy }, file: Some(path) })
        }
        None => Ok(config),
    }
}

/// A file that cannot be used now, and what is kept of it.
pub(crate) fn kept_instead(surroundings: &Inputs, store: &Store) -> Option<(PathBuf, PathBuf)> {
    let file = load_now(surroundings, store).err()?.file?;
    let copy = store.path_of(&file);
    copy.exists().then_some((file, copy))
}

/// Why a daemon does not start.
#[derive(Debug)]
pub(crate) struct NoConfig {
    /// What is wrong with the file, an option or a variable.
    pub(crate) error: ConfigError,
    /// What is wrong with what was last in force, if that would help.
    pub(crate) instead: Option<Instead>,
}

/// Why what was last in force is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Instead {
    /// There is none.
    #[error("nothing is kept that was in force from this file")]
    Nothing,
    /// The copy.
    #[error("what was last in force cannot be used")]
    Unusable(#[source] CopyError),
    /// Another version of the program took it, or it does not fit to an option.
    #[error("what was last in force cannot be used with this program and these options")]
    Wrong(#[source] ConfigError),
}
