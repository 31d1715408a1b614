//! Closes open doors.

use std::net::IpAddr;

use super::{Common, LiveError, parameters};
use crate::control::interface::CloseReply;

pub(super) fn run(
    common: &Common,
    door: Option<&str>,
    address: Option<IpAddr>,
    client: Option<&str>,
    all: bool,
) -> Result<(), LiveError> {
    let given = parameters([
        ("door", door.map(Into::into)),
        ("address", address.map(|address| address.to_string().into())),
        ("client", client.map(Into::into)),
        ("all", all.then_some(true.into())),
    ]);
    let done: CloseReply = common.connect()?.call("Close", given)?;
    common.print(&done, || match done.closed {
        0 => "nothing like that was open\n".to_owned(),
        1 => "closed: 1 door; connections that were made through it live on\n".to_owned(),
        count => format!("closed: {count} doors; connections that were made through them live on\n"),
    })
}
