//! Has the daemon read its configuration again.

use super::{Common, LiveError, parameters};
use crate::control::interface::ReloadReply;

pub(super) fn run(common: &Common) -> Result<(), LiveError> {
    let reply: ReloadReply = common.connect()?.call("Reload", parameters([]))?;
    common.print(&reply, || {
        let source = reply.configuration.as_deref().unwrap_or("default values");
        let keys = reply.needs_restart.join(", ");
        let restart = if keys.is_empty() { keys } else { format!("; only after a restart: {keys}") };
        format!("in force: {source}, doors: {}{restart}\n", reply.doors)
    })
}
