//! Opens a door by hand.

use std::{net::IpAddr, time::Duration};

use serde_json::Value;

use super::{Common, LiveError, date, parameters, span};
use crate::control::interface::OpenReply;

pub(super) fn run(
    common: &Common,
    door: &str,
    address: IpAddr,
    open_for: Option<Duration>,
    note: &str,
) -> Result<(), LiveError> {
    let given = parameters([
        ("door", Some(door.into())),
        ("address", Some(address.to_string().into())),
        ("seconds", open_for.map(|time| time.as_secs().into())),
        ("note", Some(note).filter(|note| !note.is_empty()).map(Value::from)),
    ]);
    let opened: OpenReply = common.connect()?.call("Open", given)?;
    common.print(&opened, || {
        format!(
            "door {door} is open for {address}, until {} ({})\n",
            date(opened.until),
            span(opened.seconds_left)
        )
    })
}
