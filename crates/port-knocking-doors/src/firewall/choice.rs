//! Which firewall, and why.

use std::{fmt, time::Duration};

use super::FirewallError;
use crate::{
    config::{Config, FirewallChoice},
    errors::in_one_line,
    firewall::firewalld::bus::Bus,
};

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
            (Kind::Nftables, format!("there is no system bus to find firewalld on ({error})"))
        }
        (FirewallChoice::Firewalld, Err(error)) => return Err(FirewallError::NoBus(error.clone())),
        (FirewallChoice::Firewalld, Ok(_)) => (Kind::Firewalld, "the configuration says so".to_owned()),
        (FirewallChoice::Nftables, _) => (Kind::Nftables, "the configuration says so".to_owned()),
    };
    Ok(Choice { kind, why, firewalld_runs: runs == Ok(true) })
}
