//! Cards and sequences, which other users of this machine must not see.
//!
//! The arguments of a process stand in the list of processes, for everybody to read. So there is another way for
//! all that is secret, and a warning about this one.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _},
    path::Path,
};

use doors_spa::card::Card;
use zeroize::Zeroizing;

use super::{Failure, Ports, complain};
use crate::{host::Host, sequence, servers::ServerName, trusted_file};

/// More than a card, or a sequence, and the white space around it.
const LONGEST: u64 = 4096;

/// The card of an argument, or of standard input.
pub(super) fn card(argument: &str, server: &ServerName, host: &Host, quiet: bool) -> Result<Card, Failure> {
    if argument == "-" {
        return Ok(standard_input("card")?.parse()?);
    }
    let card = argument.parse()?;
    warn("card", &format!("doorknock add {} {host} -", server.as_str()), quiet);
    Ok(card)
}

/// The ports of an argument, of standard input, or of a file.
pub(super) fn ports(
    argument: Option<Ports>,
    file: Option<&Path>,
    host: &Host,
    quiet: bool,
) -> Result<Vec<u16>, Failure> {
    match (argument, file) {
        (Some(Ports::Here(ports)), _) => {
            warn_of_ports(&format!("doorknock sequence {host} -, or --sequence-file FILE"), quiet);
            Ok(ports)
        }
        (_, Some(file)) => ports_in(file),
        (Some(Ports::StandardInput) | None, None) => {
            parse_ports(&standard_input("sequence")?, "standard input".to_owned())
        }
    }
}

/// The ports in a file that other users cannot have written, and may not read.
pub(super) fn ports_in(path: &Path) -> Result<Vec<u16>, Failure> {
    let file = trusted_file::read(path, LONGEST)?;
    if let Some(mode) = file.open_to_others {
        return Err(Failure::SequenceOpen { path: path.to_owned(), mode });
    }
    parse_ports(&String::from_utf8_lossy(&file.bytes), path.display().to_string())
}

/// Says that the sequence can be seen by others, and what to use instead.
pub(super) fn warn_of_ports(rather: &str, quiet: bool) {
    warn("sequence", rather, quiet);
}

fn warn(what: &str, rather: &str, quiet: bool) {
    if !quiet {
        complain(&format!(
            "other users of this machine can read the {what} in the list of processes; better: {rather}"
        ));
    }
}

fn parse_ports(text: &str, place: String) -> Result<Vec<u16>, Failure> {
    sequence::parse_ports(text).map_err(|reason| Failure::Sequence { place, reason })
}

/// All of standard input; of a terminal, the line that is asked for.
fn standard_input(what: &'static str) -> Result<Zeroizing<String>, Failure> {
    let input = io::stdin().lock();
    let is_terminal = input.is_terminal();
    // With room for all of it, so that no part of it stays behind when the text grows.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(LONGEST).unwrap_or_default()));
    let mut input = input.take(LONGEST);
    let read = match is_terminal {
        true => {
            let _ = write!(io::stderr(), "The {what}: ");
            input.read_line(&mut text)
        }
        false => input.read_to_string(&mut text),
    };
    read.map_err(|source| Failure::Input { what, source })?;
    Ok(text)
}
