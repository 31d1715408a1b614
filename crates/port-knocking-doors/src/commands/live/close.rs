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
    cut: bool,
) -> Result<(), LiveError> {
    let given = parameters([
        ("door", door.map(Into::into)),
        ("address", address.map(|address| address.to_string().into())),
        ("client", client.map(Into::into)),
        ("all", all.then_some(true.into())),
        ("cut", cut.then_some(true.into())),
    ]);
    let done: CloseReply = common.connect()?.call("Close", given)?;
    common.print(&done, || {
        let doors = match done.closed {
            0 => "nothing like that was open".to_owned(),
            1 => "closed: 1 door".to_owned(),
            count => format!("closed: {count} doors"),
        };
        let connections = match (cut, done.cut, done.closed) {
            (false, _, 0) => "",
            (false, ..) => "; connections that were made through it live on (--cut ends them)",
            (true, 0, _) => "; there were no connections",
            (true, 1, _) => "; ended: 1 connection",
            (true, count, _) => &format!("; ended: {count} connections"),
        };
        format!("{doors}{connections}\n")
    })
}
