//! What the daemon says at the start, and again when another program has changed other tables.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use doors_os::netlink::socket::NetlinkError;
use ipnet::IpNet;

use super::{hairpin::Hairpin, untracked::untracked};
use crate::{Obstacles, plan::Plan};

/// What was reported, so that only news is reported.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Told(Arc<Mutex<Before>>);

#[derive(Debug, Default)]
struct Before {
    /// What was found of `notrack` the last time.
    untracked: BTreeSet<String>,
    /// Networks that were reported as shut out. Container engines make and remove networks all day.
    networks: BTreeSet<IpNet>,
}

/// All of it, whether or not it is news.
pub(in super::super) fn remarks(plan: &Plan) -> Result<Obstacles, NetlinkError> {
    let mut found = untracked(plan)?;
    found.lines.extend(Hairpin::look(plan)?.map(|hairpin| hairpin.said()));
    Ok(found)
}

impl Told {
    /// What was not reported before.
    pub(in super::super) fn news(&self, plan: &Plan) -> Result<Obstacles, NetlinkError> {
        // One look at a time: a second caller waits for the first.
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // All that can fail comes before anything counts as told.
        let (mut found, hairpin) = (untracked(plan)?, Hairpin::look(plan)?);
        let warnings = found.warnings.iter().map(|one| one.said.clone());
        let all: BTreeSet<String> = warnings.chain(found.lines.iter().cloned()).collect();
        found.warnings.retain(|one| !before.untracked.contains(&one.said));
        found.lines.retain(|line| !before.untracked.contains(line));
        before.untracked = all;
        if let Some(hairpin) = hairpin
            && !hairpin.networks.iter().all(|network| before.networks.contains(network))
        {
            found.lines.push(hairpin.said());
            before.networks.extend(hairpin.networks);
        }
        Ok(found)
    }
}
