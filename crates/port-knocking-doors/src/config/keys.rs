//! Every key of the configuration file: one row for each, with its name, the kind of its value, its default, what it
//! means, and where its value goes.
//!
//! The parser knows a key only from its row; the help, the default file, the manual and the list of values in force
//! are made from the rows, too. A new key is a field of `File`, `FileDoor` or `FileClient`, a row, and its use.

mod client;
mod door;
mod printed;
mod top;

pub use self::printed::{default_file, help, installed_file, manual};
pub(super) use self::{client::CLIENT, door::DOOR, printed::EXAMPLE_SEQUENCE, top::TOP};
use super::{
    file::File,
    kinds::Kind,
    origin::{ConfigError, Origin, Sourced},
    values::{Text, Value},
};

/// The largest configuration file, and the largest file of public keys, in bytes: more than 300 for each of the
/// most clients. A larger one is something else.
pub const LARGEST_FILE: usize = 32 << 20;

/// One key of a table whose values go into a `T`.
pub(super) struct Key<T: 'static> {
    /// Its name, as it is written in the file.
    pub(super) name: &'static str,
    /// What kind of value it has, and where that goes.
    pub(super) field: &'static dyn Field<T>,
    /// What it means.
    pub(super) help: &'static str,
}

/// The value of a key: its kind, its default, and its place in a `T`.
pub(super) trait Field<T> {
    /// What stands behind the key, for a person.
    fn shape(&self) -> String;
    /// What holds if it is left out; `None` if it cannot be left out.
    fn default(&self) -> Option<String>;
    /// A value as it might be written, where the default is none that could be.
    fn example(&self) -> Option<&'static str> {
        None
    }
    /// Reads what is written, and puts it into its place.
    fn read<'a>(&self, into: &mut T, text: &Text<'a>, value: &Value<'a>) -> Result<(), ConfigError>;
    /// Puts the default into its place.
    fn fill(&self, _into: &mut T) {}
    /// What is in force, as TOML; `None` if nothing is.
    fn shown(&self, _of: &mut T) -> Option<(String, Origin)> {
        None
    }
}

/// A key that has a default.
struct Or<K: Kind, T> {
    kind: K,
    default: fn() -> K::Value,
    slot: fn(&mut T) -> &mut Sourced<K::Value>,
}

/// A key without a default.
struct Maybe<K: Kind, T> {
    kind: K,
    /// What holds if it is left out; `None` if it cannot be.
    unset: Option<&'static str>,
    example: Option<&'static str>,
    slot: fn(&mut T) -> &mut Option<Sourced<K::Value>>,
}

/// A list of tables with keys of their own.
struct Tables {
    shape: &'static str,
    read: for<'a> fn(&mut File, &Text<'a>, &Value<'a>) -> Result<(), ConfigError>,
}

impl<K: Kind, T> Field<T> for Or<K, T> {
    fn shape(&self) -> String {
        self.kind.shape()
    }

    fn default(&self) -> Option<String> {
        Some(self.kind.written(&(self.default)()))
    }

    fn read<'a>(&self, into: &mut T, text: &Text<'a>, value: &Value<'a>) -> Result<(), ConfigError> {
        *(self.slot)(into) = self.kind.read(text, value)?;
        Ok(())
    }

    fn fill(&self, into: &mut T) {
        *(self.slot)(into) = Sourced::by_default((self.default)());
    }

    fn shown(&self, of: &mut T) -> Option<(String, Origin)> {
        let Sourced { value, origin } = (self.slot)(of);
        Some((self.kind.written(value), origin.clone()))
    }
}

impl<K: Kind, T> Field<T> for Maybe<K, T> {
    fn shape(&self) -> String {
        self.kind.shape()
    }

    fn default(&self) -> Option<String> {
        self.unset.map(str::to_owned)
    }

    fn example(&self) -> Option<&'static str> {
        self.example
    }

    fn read<'a>(&self, into: &mut T, text: &Text<'a>, value: &Value<'a>) -> Result<(), ConfigError> {
        *(self.slot)(into) = Some(self.kind.read(text, value)?);
        Ok(())
    }

    fn shown(&self, of: &mut T) -> Option<(String, Origin)> {
        let Sourced { value, origin } = (self.slot)(of).as_ref()?;
        Some((self.kind.written(value), origin.clone()))
    }
}

impl Field<File> for Tables {
    fn shape(&self) -> String {
        self.shape.to_owned()
    }

    fn default(&self) -> Option<String> {
        Some("[]".to_owned())
    }

    fn read<'a>(&self, into: &mut File, text: &Text<'a>, value: &Value<'a>) -> Result<(), ConfigError> {
        (self.read)(into, text, value)
    }
}

/// A `T` with the default of every key that has one.
pub(super) fn defaults<T: Default>(keys: &[Key<T>]) -> T {
    let mut all = T::default();
    keys.iter().for_each(|key| key.field.fill(&mut all));
    all
}

/// The key of this name.
pub(super) fn find<T>(keys: &'static [Key<T>], name: &str) -> Option<&'static Key<T>> {
    keys.iter().find(|key| key.name == name)
}

/// Where in the configuration file a key of this name belongs, for an administrator who has written it elsewhere.
pub(super) fn in_file(name: &str) -> Option<&'static str> {
    match (find(TOP, name), find(DOOR, name), find(CLIENT, name)) {
        (Some(_), _, _) => Some("write it at the top of the file, before the first [[doors]] or [[clients]]"),
        (None, Some(_), Some(_)) => Some("write it below a line [[doors]] or [[clients]]"),
        (None, Some(_), None) => Some("write it below a line [[doors]]"),
        (None, None, Some(_)) => Some("write it below a line [[clients]]"),
        (None, None, None) => None,
    }
}

/// The key whose name is most like `name`, if one is like it at all.
pub(super) fn nearest<T>(keys: &'static [Key<T>], name: &str) -> Option<&'static str> {
    let likeness = |key: &Key<T>| strsim::jaro_winkler(key.name, name);
    let best = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best.name)
}

/// What is in force, key by key.
pub(super) fn shown<T: 'static>(
    keys: impl Iterator<Item = &'static Key<T>>,
    of: &mut T,
) -> impl Iterator<Item = (&'static str, String, Origin)> {
    keys.filter_map(|key| key.field.shown(of).map(|(value, origin)| (key.name, value, origin)))
}

/// A key as it is described to a person.
pub(super) struct Described {
    name: &'static str,
    shape: String,
    default: Option<String>,
    example: Option<&'static str>,
    help: &'static str,
}

fn described<T>(keys: &'static [Key<T>]) -> Vec<Described> {
    let of = |key: &Key<T>| Described {
        name: key.name,
        shape: key.field.shape(),
        default: key.field.default(),
        example: key.field.example(),
        help: key.help,
    };
    keys.iter().map(of).collect()
}

/// The names of all keys.
#[must_use]
pub fn names() -> Vec<&'static str> {
    [described(TOP), described(DOOR), described(CLIENT)].iter().flatten().map(|key| key.name).collect()
}

/// The names of the keys at the top of the file.
pub fn names_at_the_top() -> impl Iterator<Item = &'static str> {
    TOP.iter().map(|key| key.name)
}
