//! nftables, over netlink. See `ruleset` for the picture of the table.

mod abi;
mod batch;
mod cut;
mod datagrams;
mod diagnosis;
mod expressions;
mod gate;
mod monitor;
mod other_tables;
mod prior_connections;
pub mod render;
mod ruleset;
mod snapshot;
mod trace;
mod worker;

use std::io;

use doors_core::{door::GrantKey, eligible::Own};
use doors_os::netlink::socket::NetlinkError;
use doors_text::error_chain::in_one_line;
use tokio::sync::oneshot;

pub use self::gate::Gate;
pub use self::{gate::GateError, ruleset::TABLE};
pub(super) use self::{other_tables::left_by_firewalld, worker::Worker};
use super::{Choice, Obstacles, plan::Plan};

/// What rules of other tables do with the doors' ports, as far as can be seen.
pub async fn obstacles(plan: &Plan, choice: &Choice) -> Result<Obstacles, NetlinkError> {
    let mut found = closed_by_others(plan, choice).await?;
    let own_plan = plan.clone();
    let Obstacles { warnings, lines } = looked(move || other_tables::remarks(&own_plan)).await?;
    found.warnings.extend(warnings);
    found.lines.extend(lines);
    Ok(found)
}

/// Which doors another firewall keeps closed, as far as can be seen. Where firewalld runs, it is asked itself.
async fn closed_by_others(plan: &Plan, choice: &Choice) -> Result<Obstacles, NetlinkError> {
    let (own_plan, firewalld_runs) = (plan.clone(), choice.firewalld_runs);
    looked(move || other_tables::obstacles(&own_plan, firewalld_runs)).await
}

/// Which UDP the gate would cut when it comes, if it is not there yet.
pub fn would_cut(plan: &Plan) -> Result<Option<String>, NetlinkError> {
    Ok(datagrams::Services::before_the_gate(plan)?.map(|services| services.fate()))
}

/// Ends the connections of these addresses to these doors, and says how many there were, or why not. In a thread of its
/// own: connection tracking may know very many, and doors have to open meanwhile.
pub(super) fn answer_cut(
    plan: &Plan,
    keys: Vec<GrantKey>,
    own: Own,
    answer: oneshot::Sender<Result<usize, String>>,
) {
    let plan = plan.clone();
    tokio::task::spawn_blocking(move || {
        // One who has waited too long has been told so.
        let _ = answer.send(cut::cut(&plan, &keys, &own).map_err(|error| in_one_line(&error)));
    });
}

/// Looks at rules of other tables in a thread of its own: there may be ten thousand, and the gate has to be watched
/// meanwhile.
async fn looked(
    look: impl FnOnce() -> Result<Obstacles, NetlinkError> + Send + 'static,
) -> Result<Obstacles, NetlinkError> {
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|error| NetlinkError::Socket(io::Error::other(error)))?
}
