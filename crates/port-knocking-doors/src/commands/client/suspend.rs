//! Disables a client, and enables it again: one line in its file says so.

use std::path::Path;

use doors_os::{atomic_file::Rights, trusted_file};

use super::{
    ClientError,
    change::{Change, draft},
    remove::{elsewhere, hint},
};
use crate::config::{Inputs, file_of};

/// The key, as a line of a client's file begins with it.
const KEY: &str = "disabled";

/// Disables or enables a client. Gives what there is to print.
pub(super) fn suspend(name: &str, disabled: bool, inputs: &Inputs) -> Result<String, ClientError> {
    let mut change = Change::begin(inputs, false)?;
    let Some(text) = change.texts.clients.text_of(name) else {
        return Err(match change.named(name) {
            Some(place) => elsewhere(&change, place),
            None => ClientError::Unknown { name: name.to_owned(), hint: hint(&change, name) },
        });
    };
    let new = with_line(text, disabled);
    let word = if disabled { "disabled" } else { "enabled" };
    if new == text {
        return change.settle(format!("is {word} already: {name}"));
    }
    let mut texts = change.texts.clone();
    texts.clients.remove(name);
    texts.clients.insert(name, new.clone());
    change.check(&texts).map_err(ClientError::New)?;
    replace(&file_of(&change.directory, name), &new)?;
    change.texts = texts;
    change.finish(format!("{word}: {name}"))
}

/// The text of a client's file with or without the line. A file of a client has no tables, so every line is one of its
/// keys, or goes on with the one before.
fn with_line(text: &str, disabled: bool) -> String {
    let is_it = |line: &&str| {
        let rest = line.trim_start().strip_prefix(KEY);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let mut new: String = text.split_inclusive('\n').filter(|line| !is_it(line)).collect();
    if disabled {
        if !new.is_empty() && !new.ends_with('\n') {
            new.push('\n');
        }
        new.push_str("disabled = true\n");
    }
    new
}

/// Replaces the file, whose rights stay as they are.
fn replace(path: &Path, text: &str) -> Result<(), ClientError> {
    let unwritten = |source| ClientError::Write { path: path.to_owned(), source };
    let rights = trusted_file::open(path).map_err(|untrusted| unwritten(untrusted.into()))?;
    let rights = Rights::of(&rights.metadata().map_err(unwritten)?);
    draft(path)?.replace(text.as_bytes(), rights).map_err(unwritten)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_added_or_taken_out_and_all_others_stay() {
        let text = "# Anna's\nkey = \"ssh-ed25519 A\" # disabled = 1\ndoors = [\"ssh\"]";
        let disabled =
            "# Anna's\nkey = \"ssh-ed25519 A\" # disabled = 1\ndoors = [\"ssh\"]\ndisabled = true\n";
        assert_eq!(with_line(text, true), disabled);
        assert_eq!(with_line(disabled, true), disabled);
        assert_eq!(with_line(disabled, false), format!("{text}\n"));
        assert_eq!(with_line("disabled=false\ndoors = []\n", true), "doors = []\ndisabled = true\n");
        assert_eq!(with_line("disabled_since = 1\n", false), "disabled_since = 1\n");
    }
}
