//! Which firewall, and why.

use std::{fmt, time::Duration};

use doors_os::netlink::NetlinkError;
use doors_text::error_chain::in_one_line;
use tokio::time::timeout;

use super::{
    FirewallError, Obstacle, Obstacles,
    firewalld::{
        self, Explained,
        bus::{self, Bus},
    },
    nftables,
    plan::Plan,
    worker::can_follow,
};

/// How long a bus that hangs is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which firewall the administrator wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FirewallChoice {
    /// Our own gate, with firewalld beside it if it is there.
    #[default]
    Auto,
    /// Our own gate, with firewalld beside it.
    Firewalld,
    /// Our own gate alone.
    Nftables,
    /// firewalld's rich rules alone.
    RichRules,
}

impl FirewallChoice {
    /// The words for it in the configuration.
    pub const WORDS: [(&str, Self); 4] = [
        ("auto", Self::Auto),
        ("firewalld", Self::Firewalld),
        ("nftables", Self::Nftables),
        ("rich-rules", Self::RichRules),
    ];
}

/// Which firewall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Our own gate in nftables.
    Nftables,
    /// The gate, and rich rules of firewalld where that would close the port.
    Firewalld,
    /// Rich rules of firewalld, and no gate.
    RichRules,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Firewalld => "nftables and firewalld",
            Self::RichRules => "firewalld's rich rules alone",
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
    /// Whether firewalld runs, whichever firewall was chosen.
    pub firewalld_runs: bool,
    /// Whether firewalld is to be worked with when it comes.
    pub firewalld_may_come: bool,
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

/// What makes knocking pointless, as far as can be seen: ports that stay open to everybody, or closed. Then, which
/// UDP the gate would cut when it comes.
/// Touches nothing.
///
/// # Errors
/// If the kernel does not let us look.
pub async fn obstacles(plan: &Plan, choice: &Choice) -> Result<Obstacles, NetlinkError> {
    match choice.kind {
        Kind::RichRules if !choice.firewalld_runs => {
            let said = "firewalld does not run, and with firewall = \"rich-rules\" nothing else closes a port: its doors \
                        keep no stranger out; start firewalld, or set firewall = \"auto\"";
            Ok(vec![Obstacle { said: said.to_owned(), keeps_no_stranger_out: true }].into())
        }
        Kind::RichRules => Ok(firewalld::obstacles_with_rich_rules(plan).await.into()),
        Kind::Nftables | Kind::Firewalld => {
            let mut found = nftables::obstacles(plan, choice).await?;
            found.warnings.extend(closed_by_firewalld(plan, choice).await);
            found.warnings.extend(nftables::would_cut(plan)?.map(Obstacle::closed));
            Ok(found)
        }
    }
}

/// Which doors firewalld keeps closed where it is not worked with; where it is, it opens what it closes.
pub(crate) async fn closed_by_firewalld(plan: &Plan, choice: &Choice) -> Vec<Obstacle> {
    if !choice.firewalld_runs || choice.kind != Kind::Nftables {
        return Vec::new();
    }
    firewalld::obstacles_beside_firewalld(plan).await.into_iter().map(Obstacle::closed).collect()
}

/// What firewalld does with the doors' ports, where that is worked with. Touches nothing.
pub async fn explained(plan: &Plan, choice: &Choice) -> Explained {
    match choice.kind {
        Kind::Firewalld if choice.firewalld_runs => firewalld::explained(plan).await,
        Kind::Nftables | Kind::Firewalld | Kind::RichRules => Explained::default(),
    }
}

/// Whether the daemon could start with this firewall, as far as can be seen. Touches nothing.
///
/// # Errors
/// What would come in its way.
pub async fn possible(plan: &Plan, choice: &Choice) -> Result<(), FirewallError> {
    can_follow(choice.kind, plan)?;
    match choice.kind {
        Kind::Firewalld | Kind::RichRules if choice.firewalld_runs => firewalld::zone_is_known(plan).await,
        Kind::Firewalld | Kind::RichRules | Kind::Nftables => Ok(()),
    }
}

/// Chooses as the configuration says. Touches nothing.
///
/// # Errors
/// If the configuration wants firewalld and there is no system bus, or one that does not answer.
pub async fn choose(wanted: FirewallChoice) -> Result<Choice, FirewallError> {
    let seen = Seen::look().await;
    let is = |kind, why: &str| (kind, why.to_owned());
    let (kind, why) = match (wanted, &seen) {
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
        (FirewallChoice::Firewalld | FirewallChoice::RichRules, Seen::NoBus(error)) => {
            return Err(FirewallError::NoBus(error.clone()));
        }
        (FirewallChoice::Firewalld | FirewallChoice::RichRules, Seen::Unclear(why)) => {
            return Err(FirewallError::SilentBus(why.clone()));
        }
        (FirewallChoice::Firewalld, Seen::Bus { .. }) => is(Kind::Firewalld, "the configuration says so"),
        (FirewallChoice::RichRules, Seen::Bus { .. }) => is(Kind::RichRules, "the configuration says so"),
        (FirewallChoice::Nftables, _) => is(Kind::Nftables, "the configuration says so"),
    };
    Ok(Choice {
        kind,
        why,
        firewalld_runs: matches!(seen, Seen::Bus { firewalld: true }),
        firewalld_may_come: wanted == FirewallChoice::Auto && kind == Kind::Nftables,
    })
}
