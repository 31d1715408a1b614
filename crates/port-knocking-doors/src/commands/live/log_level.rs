//! Has the daemon log more or less.

use std::time::Duration;

use super::{Common, LiveError, parameters, span};
use crate::control::interface::LevelReply;

pub(super) fn run(common: &Common, level: &str, time: Option<Duration>) -> Result<(), LiveError> {
    let given =
        parameters([("level", Some(level.into())), ("seconds", time.map(|time| time.as_secs().into()))]);
    let reply: LevelReply = common.connect()?.call("SetLogLevel", given)?;
    common.print(&reply, || match time {
        Some(time) => {
            let time = span(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
            format!("the daemon logs at {} for {time}, and then as at its start\n", reply.level)
        }
        None => format!("the daemon logs at {}, until it is restarted\n", reply.level),
    })
}
