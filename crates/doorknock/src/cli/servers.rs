//! `doorknock add`, `list` and `remove`

use doors_text::error_chain::in_one_line;
use serde::Serialize;

use super::{Failure, complain, print};
use crate::{
    output::ExitStatus,
    servers::{Entry, Server, ServerName, Servers},
    spa::own_address::Whom,
};

pub(super) fn add(name: &ServerName, server: &Server, replace: bool, quiet: bool) -> Result<(), Failure> {
    Servers::of_user()?.add(name, server, replace)?;
    if quiet {
        return Ok(());
    }
    let Server { host, port, key, whom, .. } = server;
    let key =
        key.as_ref().map(|key| format!(", signed with {}", key.as_path().display())).unwrap_or_default();
    let seen = if *whom == Whom::Seen { ", for the address that it sees" } else { "" };
    let name = name.as_str();
    print(&format!(
        "{name} is stored: knocks go to {host}, UDP port {port}{key}{seen}; doorknock ask {name} shows what you may open"
    ))
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
