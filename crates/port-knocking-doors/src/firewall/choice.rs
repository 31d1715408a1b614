//! Which firewall, and why.

use std::{fmt, time::Duration};

use super::{
    FirewallError,
    firewalld::{self, bus::Bus},
    nftables,
};
use crate::{
    config::{Config, FirewallChoice},
    netlink::NetlinkError,
};
use doorknock::errors::in_one_line;

/// Nobody waits longer for a bus that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which firewall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// firewalld, over D-Bus.
    Firewalld,
    /// Our own gate in nftables.
    Nftables,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Firewalld => "firewalld",
            Self::Nftables => "nftables",
        })
    }
}

/// Which firewall, and why.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which firewall.
    pub kind: Kind,
    /// Why that one.
    pub why: String,
    /// Whether firewalld runs, whoever was chosen.
    pub(crate) firewalld_runs: bool,
    /// Whether firewalld would have been chosen, had it been there.
    pub(crate) firewalld_may_come: bool,
}

impl Choice {
    /// Returns when firewalld comes, if it was to be chosen and was not there; else never.
    ///
    /// At boot firewalld may be late. It keeps the ports closed that the gate guards, so a daemon that
    /// stayed with the gate would open doors before a wall.
    pub(crate) async fn firewalld_comes(&self) -> Self {
        if self.firewalld_may_come
            && let Ok(bus) = Bus::connect().await
            && bus.firewalld_comes().await.is_ok()
        {
            let why = "firewalld has come to the system bus".to_owned();
            return Self { kind: Kind::Firewalld, why, firewalld_runs: true, firewalld_may_come: false };
        }
        std::future::pending().await
    }
}

/// What makes knocking pointless, as far as can be seen: ports that stay open to everybody, or closed.
/// Touches nothing.
///
/// # Errors
/// If the kernel does not let us look.
pub(crate) async fn obstacles(config: &Config, choice: &Choice) -> Result<Vec<String>, NetlinkError> {
    match choice.kind {
        Kind::Firewalld => Ok(firewalld::obstacles_with_firewalld(&config.plan).await),
        Kind::Nftables => nftables::obstacles(&config.plan, choice.firewalld_runs).await,
    }
}

/// Chooses as the configuration says. Touches nothing.
///
/// # Errors
/// If the configuration wants firewalld and there is no system bus.
pub async fn choose(config: &Config) -> Result<Choice, FirewallError> {
    let asked = async {
        let bus = Bus::connect().await?;
        bus.firewalld_runs().await
    };
    let runs = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(runs)) => Ok(runs),
        Ok(Err(error)) => Err(in_one_line(&error)),
        Err(_) => Err("the system bus does not answer".to_owned()),
    };
    let (kind, why) = match (config.firewall, &runs) {
        (FirewallChoice::Auto, Ok(true)) => (Kind::Firewalld, "firewalld is on the system bus".to_owned()),
        (FirewallChoice::Auto, Ok(false)) => {
            (Kind::Nftables, "firewalld is not on the system bus".to_owned())
        }
        (FirewallChoice::Auto, Err(error)) => {
            tracing::debug!("the system bus: {error}");
            (Kind::Nftables, "there is no system bus to find firewalld on".to_owned())
        }
        (FirewallChoice::Firewalld, Err(error)) => return Err(FirewallError::NoBus(error.clone())),
        (FirewallChoice::Firewalld, Ok(_)) => (Kind::Firewalld, "the configuration says so".to_owned()),
        (FirewallChoice::Nftables, _) => (Kind::Nftables, "the configuration says so".to_owned()),
    };
    let firewalld_may_come =
        config.firewall == FirewallChoice::Auto && kind == Kind::Nftables && runs.is_ok();
    Ok(Choice { kind, why, firewalld_runs: runs == Ok(true), firewalld_may_come })
}
