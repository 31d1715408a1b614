//! Where a value comes from, and what is wrong with it.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use doors_text::safe_text::escaped;

use super::faults::Faults;

/// Where a value comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    /// An option of the command line.
    Option(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// A place in the configuration file.
    File(Position),
    /// The default.
    #[default]
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "option {name}"),
            Self::Variable(name) => write!(f, "variable {name}"),
            Self::File(position) => write!(f, "{}:{}", position.path.display(), position.line),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A place in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Position {
    /// The file.
    pub path: Arc<Path>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// A place: no file that is read is so long that its lines do not fit.
    pub(super) fn new(path: &Arc<Path>, line: usize, column: usize) -> Self {
        let narrow = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { path: Arc::clone(path), line: narrow(line), column: narrow(column) }
    }
}

/// A value, and where it comes from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sourced<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

impl<T> Sourced<T> {
    /// A value from somewhere.
    pub(crate) fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// The default.
    pub(crate) fn by_default(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

/// Why there is no configuration. The message names the source, what is wrong there, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named is not there.
    #[error(
        "--conf: there is no file {}; name one that is there, or write it (port-knocking-doors \
         --show-configuration-file-help says what goes in)",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file that was in force is not there.
    #[error(
        "there is no file {}, which was in force; put it back, or to use default values take away what is kept of it \
         (rm {}) and restart",
        path.display(),
        copy.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// What is kept of it.
        copy: PathBuf,
    },
    /// The file may not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is no file of text.
    #[error("cannot use the configuration file {}: {what}", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// Every user could have written the file.
    #[error(
        "the configuration file {0} can be changed by everybody (mode {mode:03o}); try: chmod o-w {0}",
        path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A group of other users could have written the file.
    #[error(
        "the configuration file {0} can be changed by its group (mode {mode:03o}); try: chmod g-w {0}",
        path.display()
    )]
    GroupWritable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another user owns the file.
    #[error(
        "the configuration file {0} belongs to another user ({owner}), who can change it at any time; see whether it \
         is as you want it, then: chown {we} {0}",
        path.display()
    )]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        we: u32,
    },
    /// A place in the file is wrong.
    #[error("{}:{}:{}: {what}", position.path.display(), position.line, position.column)]
    InFile {
        /// Where.
        position: Position,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// An option or a variable is wrong.
    #[error("{name}: {what}")]
    Outside {
        /// The option or variable.
        name: &'static str,
        /// What is wrong, and what would be right.
        what: String,
    },
    /// Something is missing from the file as a whole.
    #[error("{}: {what}", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// Something is wrong with a file or a directory that the configuration takes in.
    #[error("{}: {what}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and the way out.
        what: String,
    },
    /// What is found is not what is in force, but another file, or none.
    #[error("{0}")]
    Elsewhere(String),
    /// Values that are right for themselves do not fit together.
    #[error("{0}")]
    Together(String),
    /// More than one thing is wrong.
    #[error("{0}")]
    Several(Faults),
}

impl ConfigError {
    /// Whether files alone are to blame, and no option or variable.
    pub(super) fn is_in_files(&self) -> bool {
        match self {
            Self::Outside { .. } => false,
            Self::Several(faults) => faults.iter().all(Self::is_in_files),
            _ => true,
        }
    }

    /// Something is wrong with a value from there.
    pub(crate) fn at(origin: &Origin, what: String) -> Self {
        let what = escaped(&what);
        match origin {
            Origin::Option(name) | Origin::Variable(name) => Self::Outside { name, what },
            Origin::File(position) => Self::InFile { position: position.clone(), what },
            Origin::Default => Self::Together(what),
        }
    }
}
