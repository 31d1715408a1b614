//! `doorknock add`, `list`, `remove` and `ssh-config`

use std::{
    io::{self, Read as _, Write as _},
    path::PathBuf,
};

use serde::Serialize;
use zeroize::Zeroizing;

use super::{Failure, Place};
use crate::servers::{Server, ServerName, Servers};

/// More than a card and the white space around it.
const LONGEST_INPUT: u64 = 4096;

pub(super) fn add(
    name: &ServerName,
    host: String,
    card: &str,
    port: u16,
    identity: Option<PathBuf>,
    replace: bool,
) -> Result<(), Failure> {
    let card = match card {
        "-" => {
            let mut text = Zeroizing::new(String::new());
            io::stdin().take(LONGEST_INPUT).read_to_string(&mut text).map_err(Failure::CardInput)?;
            text.parse()?
        }
        card => card.parse()?,
    };
    // It is read from other directories, too.
    let key = identity.map(|path| std::path::absolute(&path).unwrap_or(path));
    Ok(Servers::of_user()?.add(name, &Server { host, port, card, key }, replace)?)
}

pub(super) fn remove(name: &ServerName) -> Result<(), Failure> {
    Ok(Servers::of_user()?.remove(name)?)
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    host: &'a str,
    port: u16,
}

pub(super) fn list(json: bool) -> Result<(), Failure> {
    let servers = Servers::of_user()?;
    for name in servers.names()? {
        let Server { host, port, .. } = servers.get(&name)?;
        let listed = Listed { name: name.as_str(), host: &host, port };
        let line = match json {
            // Text and numbers can always be written.
            true => serde_json::to_string(&listed).unwrap_or_default(),
            false => format!("{}  {host}  {port}", name.as_str()),
        };
        writeln!(io::stdout(), "{line}").map_err(Failure::Print)?;
    }
    Ok(())
}

pub(super) fn ssh_config(at: &Place) -> Result<(), Failure> {
    let Place { server, door } = at;
    // ssh gives the line to a shell.
    if !door.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-')) || door.starts_with('-') {
        return Err(Failure::DoorInConfig { door: door.clone() });
    }
    let host = Servers::of_user()?.get(server)?.host;
    let host = host.trim_matches(['[', ']']);
    let server = server.as_str();
    let lines = format!(
        "Host {server}\n    HostName {host}\n    ProxyCommand doorknock proxy %h %p --server {server} --door {door}"
    );
    writeln!(io::stdout(), "{lines}").map_err(Failure::Print)
}
