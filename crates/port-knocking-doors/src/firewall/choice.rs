//! Which firewall, and why.

use std::{fmt, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    FirewallError, can_follow,
    firewalld::{
        self,
        bus::{self, Bus},
    },
    nftables,
};
use crate::{
    config::{Config, FirewallChoice},
    netlink::NetlinkError,
};
use doorknock::errors::in_one_line;

/// Nobody waits longer for a bus that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// After a bus that could not be used, the next try comes this much later.
const AGAIN: Duration = Duration::from_secs(10);

/// Where there is no bus at all, there will hardly be one: it is looked for this seldom.
const SELDOM: Duration = Duration::from_secs(60);

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
    /// stayed with the gate would open doors before a wall. The bus may be late, too, or begin anew.
    pub(crate) async fn firewalld_comes(&self) -> Self {
        if !self.firewalld_may_come {
            return std::future::pending().await;
        }
        loop {
            let wait = match timeout(PATIENCE, Bus::connect()).await {
                Ok(Ok(bus)) => match bus.firewalld_comes().await {
                    Ok(()) => break,
                    Err(_) => AGAIN,
                },
                Ok(Err(error)) if bus::is_missing(&error) => SELDOM,
                Ok(Err(_)) | Err(_) => AGAIN,
            };
            sleep(wait).await;
        }
        let why = "firewalld has come to the system bus".to_owned();
        Self { kind: Kind::Firewalld, why, firewalld_runs: true, firewalld_may_come: false }
    }
}

/// What can be seen of firewalld.
enum Seen {
    /// It is on the bus, or is not.
    Bus { firewalld: bool },
    /// There is a bus, and it does not say. Why that is known.
    Unclear(String),
    /// There is no bus, and why that is known.
    NoBus(String),
}

impl Seen {
    /// Looks, and does not wait for long.
    async fn look() -> Self {
        let asked = async {
            let bus = Bus::connect().await?;
            bus.firewalld_runs().await
        };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(firewalld)) => Self::Bus { firewalld },
            Ok(Err(error)) if bus::is_missing(&error) => Self::NoBus(in_one_line(&error)),
            Ok(Err(error)) => {
                Self::Unclear(format!("the system bus cannot be used ({})", in_one_line(&error)))
            }
            Err(_) => Self::Unclear("the system bus does not answer".to_owned()),
        }
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

/// Whether the daemon could start with this firewall, as far as can be seen. Touches nothing.
///
/// # Errors
/// What would come in its way.
pub(crate) async fn possible(config: &Config, choice: &Choice) -> Result<(), FirewallError> {
    can_follow(choice.kind, &config.plan)?;
    match choice.kind {
        Kind::Firewalld if choice.firewalld_runs => firewalld::zone_is_known(&config.plan).await,
        Kind::Firewalld | Kind::Nftables => Ok(()),
    }
}

/// Chooses as the configuration says. Touches nothing.
///
/// # Errors
/// If the configuration wants firewalld and there is no system bus, or one that does not answer.
pub async fn choose(config: &Config) -> Result<Choice, FirewallError> {
    let seen = Seen::look().await;
    let is = |kind, why: &str| (kind, why.to_owned());
    let (kind, why) = match (config.firewall, &seen) {
        (FirewallChoice::Auto, Seen::Bus { firewalld: true }) => {
            is(Kind::Firewalld, "firewalld is on the system bus")
        }
        (FirewallChoice::Auto, Seen::Bus { firewalld: false }) => {
            is(Kind::Nftables, "firewalld is not on the system bus")
        }
        (FirewallChoice::Auto, Seen::Unclear(why)) => {
            (Kind::Nftables, format!("{why}, and firewalld cannot be seen without it"))
        }
        (FirewallChoice::Auto, Seen::NoBus(error)) => {
            tracing::debug!("the system bus: {error}");
            is(Kind::Nftables, "there is no system bus to find firewalld on")
        }
        (FirewallChoice::Firewalld, Seen::NoBus(error)) => return Err(FirewallError::NoBus(error.clone())),
        (FirewallChoice::Firewalld, Seen::Unclear(why)) => return Err(FirewallError::SilentBus(why.clone())),
        (FirewallChoice::Firewalld, Seen::Bus { .. }) => is(Kind::Firewalld, "the configuration says so"),
        (FirewallChoice::Nftables, _) => is(Kind::Nftables, "the configuration says so"),
    };
    Ok(Choice {
        kind,
        why,
        firewalld_runs: matches!(seen, Seen::Bus { firewalld: true }),
        firewalld_may_come: config.firewall == FirewallChoice::Auto && kind == Kind::Nftables,
    })
}
