//! Shows what happens, as it happens.

use std::{
    io::{self, Write as _},
    net::IpAddr,
};

use doors_text::safe_text::escaped;

use super::{Common, LiveError, date, json, parameters};
use crate::control::interface::WatchReply;

pub(super) fn run(common: &Common, address: Option<IpAddr>, client: Option<&str>) -> Result<(), LiveError> {
    let mut connection = common.connect()?;
    let given = parameters([
        ("address", address.map(|address| address.to_string().into())),
        ("client", client.map(Into::into)),
    ]);
    let mut printed = Ok(());
    connection.stream("Watch", given, true, |reply: WatchReply| {
        printed = print(common, &reply);
        printed.is_ok()
    })?;
    Ok(printed?)
}

fn print(common: &Common, reply: &WatchReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (common.json, &reply.event) {
        (true, Some(_)) => writeln!(out, "{}", json(reply)?)?,
        (false, Some(event)) => {
            if reply.lost > 0 {
                writeln!(out, "({} events are lost: more happened than could be shown)", reply.lost)?;
            }
            writeln!(out, "{}  {:<5}  {}", date(event.time), event.level, escaped(&event.text))?;
        }
        (false, None) => writeln!(io::stderr(), "watching; end it with Ctrl-C")?,
        (true, None) => {}
    }
    out.flush()
}
