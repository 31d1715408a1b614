//! `doorknock add`, `list` and `remove`

use std::num::NonZeroU16;

use doors_spa::card::Card;
use doors_text::error_chain::in_one_line;
use serde::Serialize;

use super::{Failure, complain, print, remark};
use crate::{
    host::Host,
    output::ExitStatus,
    servers::{Entry, Former, KeyPath, Server, ServerName, Servers, USUAL_PORT},
    spa::own_address::Whom,
};

/// What `doorknock add` was told. What was not said is `None`.
pub(super) struct Given {
    pub(super) host: Host,
    pub(super) port: Option<NonZeroU16>,
    pub(super) card: Card,
    pub(super) key: Option<KeyPath>,
    pub(super) whom: Option<Whom>,
}

/// Stores a server. One that takes the place of another keeps what is not given anew, and says so: a new card
/// needs no memory of what was chosen with the old one.
pub(super) fn add(name: &ServerName, given: Given, replace: bool, quiet: bool) -> Result<(), Failure> {
    let servers = Servers::of_user()?;
    let former = match servers.former(name) {
        _ if !replace => None,
        Ok(former) => former,
        Err(error) => {
            remark(&format!("nothing of the former file is kept: {}", in_one_line(&error)), quiet);
            None
        }
    };
    let differences = former.as_ref().map(|former| differences(former, &given));
    let server = merged(given, former);
    servers.add(name, &server, replace)?;
    if quiet {
        return Ok(());
    }
    let Server { host, port, key, whom, .. } = server;
    let key = key.map(|key| format!(", signed with {}", key.as_path().display())).unwrap_or_default();
    let seen = if whom == Whom::Seen { ", for the address that it sees" } else { "" };
    let is_stored = if differences.is_some() { "is replaced" } else { "is stored" };
    let differences = differences.unwrap_or_default();
    let name = name.as_str();
    print(&format!(
        "{name} {is_stored}: knocks go to {host}, UDP port {port}{key}{seen}{differences}; doorknock ask {name} \
         shows what you may open"
    ))
}

/// What is given, and for the rest what was there.
fn merged(given: Given, former: Option<Former>) -> Server {
    let Given { host, port, card, key, whom } = given;
    let Some(former) = former else {
        let (port, whom) = (port.unwrap_or(USUAL_PORT), whom.unwrap_or_default());
        return Server { host, port, card, key, whom, doors: Vec::new() };
    };
    let port = port.unwrap_or(former.port);
    // Another host may have other doors.
    let doors = if host == former.host { former.doors } else { Vec::new() };
    Server { port, card, key: key.or(former.key), whom: whom.unwrap_or(former.whom), doors, host }
}

/// What differs from the file that was there, and what is kept of it because it is not given.
fn differences(former: &Former, given: &Given) -> String {
    let is_other = |given: bool, same: bool| given && !same;
    let changed = [
        ("host", given.host != former.host),
        ("port", is_other(given.port.is_some(), given.port == Some(former.port))),
        ("card", former.card.as_ref() != Ok(&given.card)),
        ("key", is_other(given.key.is_some(), given.key == former.key)),
        ("address", is_other(given.whom.is_some(), given.whom == Some(former.whom))),
    ];
    let kept = [
        ("port", given.port.is_none() && former.port != USUAL_PORT),
        ("key", given.key.is_none() && former.key.is_some()),
        ("address", given.whom.is_none() && former.whom != Whom::default()),
    ];
    let words = |all: &[(&'static str, bool)]| {
        all.iter().filter(|(_, holds)| *holds).map(|(word, _)| *word).collect::<Vec<_>>().join(", ")
    };
    let (changed, kept) = (words(&changed), words(&kept));
    let changed = if changed.is_empty() { "nothing".to_owned() } else { changed };
    let kept = if kept.is_empty() { kept } else { format!("; kept: {kept}") };
    format!("; changed: {changed}{kept}")
}

pub(super) fn remove(name: &ServerName) -> Result<(), Failure> {
    Ok(Servers::of_user()?.remove(name)?)
}

/// One server, for programs. All keys are always there.
#[derive(Serialize)]
struct Listed<'a> {
    name: Option<&'a str>,
    host: Option<&'a str>,
    port: Option<u16>,
    error: Option<String>,
}

/// Shows all servers. What is wrong with one of them hides no other, and is told with the way out.
pub(super) fn list(json: bool) -> Result<ExitStatus, Failure> {
    let all = match Servers::of_user().and_then(|servers| servers.all()) {
        Ok(all) => all,
        Err(error) if json => {
            let error = Some(in_one_line(&error));
            print(&crate::json::json(&Listed { name: None, host: None, port: None, error }))?;
            return Ok(ExitStatus::Failed);
        }
        Err(error) => return Err(error.into()),
    };
    let mut ending = ExitStatus::Done;
    for Entry { name, server } in all {
        if server.is_err() {
            ending = ExitStatus::Failed;
        }
        let error = server.as_ref().err().map(|error| in_one_line(error));
        match (server, error) {
            (server, error) if json => {
                let server = server.as_ref().ok();
                let (host, port) =
                    (server.map(|server| server.host.as_str()), server.map(|server| server.port.get()));
                print(&crate::json::json(&Listed { name: Some(&name), host, port, error }))?;
            }
            (Ok(server), _) => print(&format!("{name}  {}  {}", server.host, server.port))?,
            (Err(_), error) => complain(&error.unwrap_or_default()),
        }
    }
    Ok(ending)
}
