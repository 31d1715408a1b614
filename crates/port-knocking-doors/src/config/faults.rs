//! All that is wrong with a configuration, so that one look at it is enough to mend it.

use std::{fmt, path::Path};

use super::origin::ConfigError;

/// So many are shown. The rest is counted: a person mends the first ones, and looks again.
const SHOWN: usize = 20;

/// What is wrong with a configuration, in the order of its places.
#[derive(Debug, Default)]
pub struct Faults {
    first: Vec<ConfigError>,
    count: usize,
}

impl Faults {
    /// Adds one. Of more than are shown, those at the beginning of a file stay: keys are not read in the order of
    /// their lines.
    pub(super) fn push(&mut self, fault: ConfigError) {
        self.count = self.count.saturating_add(1);
        self.first.push(fault);
        self.first.sort_by(|a, b| place(a).cmp(&place(b)));
        self.first.truncate(SHOWN);
    }

    /// Adds what went wrong, if something did.
    pub(super) fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// Adds all of another part.
    pub(super) fn append(&mut self, other: Self) {
        let not_shown = other.count.saturating_sub(other.first.len());
        other.first.into_iter().for_each(|fault| self.push(fault));
        self.count = self.count.saturating_add(not_shown);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// The error, if there is one.
    pub(super) fn into_result(mut self) -> Result<(), ConfigError> {
        match (self.count, self.first.pop()) {
            (_, None) => Ok(()),
            (1, Some(only)) => Err(only),
            (_, Some(last)) => {
                self.first.push(last);
                Err(ConfigError::Several(self))
            }
        }
    }

    /// Those that are shown.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.first.iter()
    }

    /// One line for each, and one for how many are not shown.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let more = self.count.saturating_sub(self.first.len());
        let more = (more > 0).then(|| format!("and {more} more"));
        self.first.iter().map(ToString::to_string).chain(more)
    }
}

impl From<ConfigError> for Faults {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Several(faults) => faults,
            only => Self { first: vec![only], count: 1 },
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} faults", self.count)?;
        let more = self.count.saturating_sub(self.first.len());
        for (number, fault) in (1_usize..).zip(&self.first) {
            write!(f, "{} ({number}) {fault}", if number == 1 { ":" } else { ";" })?;
        }
        if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
    }
}

/// Where a fault stands. What has no place comes first.
fn place(fault: &ConfigError) -> Option<(&Path, u32, u32)> {
    match fault {
        ConfigError::InFile { position, .. } => Some((&position.path, position.line, position.column)),
        ConfigError::File { path, .. } => Some((path, 0, 0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::origin::{Origin, Position};

    #[test]
    fn of_many_faults_the_first_in_the_file_are_shown_and_the_rest_is_counted() {
        let path: Arc<Path> = Arc::from(Path::new("f"));
        let mut faults = Faults::default();
        for line in (1..=100_usize).rev() {
            let origin = Origin::File(Position::new(&path, line, 1));
            faults.push(ConfigError::at(&origin, "wrong".to_owned()));
        }
        let lines: Vec<String> = faults.lines().collect();
        assert_eq!(lines.len(), 21);
        assert_eq!((&*lines[0], &*lines[19], &*lines[20]), ("f:1:1: wrong", "f:20:1: wrong", "and 80 more"));
        let error = faults.into_result().unwrap_err().to_string();
        assert!(error.starts_with("100 faults: (1) f:1:1: wrong; (2) f:2:1: wrong; "), "{error}");
        assert!(error.ends_with("; (20) f:20:1: wrong; and 80 more"), "{error}");
    }
}
