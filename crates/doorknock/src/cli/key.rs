//! `doorknock keygen`

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use doors_text::safe_text::escaped;

use super::{Failure, print};
use crate::{
    spa::key_file::ask_on_terminal,
    spa::keygen::{self, KeygenError},
    spa::signer::Signer,
};

pub(super) fn make(file: Option<PathBuf>, no_passphrase: bool) -> Result<(), Failure> {
    let path = match file {
        Some(path) => path,
        None => Signer::own_path()?,
    };
    // Before the user thinks of a passphrase.
    if path.exists() {
        return Err(KeygenError::Exists { path }.into());
    }
    let line = match no_passphrase {
        true => keygen::make(&path, None)?,
        false => {
            let prompt = escaped(&format!("Passphrase for {}: ", path.display()));
            let first = ask_on_terminal(&prompt).map_err(KeygenError::NoTerminal)?;
            if first.is_empty() {
                return Err(KeygenError::Empty.into());
            }
            let second = ask_on_terminal("The same again: ").map_err(KeygenError::NoTerminal)?;
            if first != second {
                return Err(KeygenError::Differ.into());
            }
            keygen::make(&path, Some(&first))?
        }
    };
    let made = format!("{} is made; this line belongs into the server's configuration:", path.display());
    let _ = writeln!(io::stderr(), "{}", escaped(&made));
    print(&line)
}
