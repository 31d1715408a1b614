//! What goes between the daemon and the firewall's thread.

use std::io;
use std::time::Duration;

use doors_core::{
    door::{DoorName, GrantKey},
    eligible::Own,
    engine::{Change, Report},
    lease::Lease,
};
use tokio::sync::oneshot;

use crate::{nftables::GateError, plan::Plan};

/// What the firewall is asked to do.
#[derive(Debug)]
pub enum Order {
    /// Make this true.
    Change(Change),
    /// This was found true in the gate: see that nothing beside it makes it false. No confirmation is needed.
    Keep(Lease),
    /// Work by another plan.
    Follow(Box<Plan>),
    /// End connections.
    Cut {
        /// Of these addresses to these doors.
        keys: Vec<GrantKey>,
        /// The addresses of this machine.
        own: Own,
        /// Gets how many there were, or why they could not be ended.
        answer: oneshot::Sender<Result<usize, String>>,
    },
    /// The daemon stops in order; answer when everything before this is done.
    End(oneshot::Sender<()>),
}

/// What the firewall has to say.
#[derive(Debug)]
pub enum News {
    /// What the core has to hear.
    Report(Report),
    /// Something of ours had been taken away, and is back.
    Repaired {
        /// What was missing.
        missing: String,
        /// How long it took to put it back.
        took: Duration,
        /// It was the gate's; otherwise firewalld's.
        of_gate: bool,
    },
    /// The gate cannot be made or checked, and is tried again; or it is whole again.
    Gate {
        /// Whether it is whole.
        is_whole: bool,
    },
    /// Something did not work.
    Failed {
        /// What was tried.
        what: String,
        /// What came in the way.
        why: String,
    },
    /// Something that the administrator should know.
    Warning(String),
    /// Something that is good to know.
    Info(String),
    /// Something for an administrator who looks for a fault.
    Detail(String),
}

/// What makes knocking pointless for a door.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Obstacle {
    /// In a sentence.
    pub said: String,
    /// Strangers get in without a knock.
    pub keeps_no_stranger_out: bool,
}

impl Obstacle {
    /// One that keeps clients out, or of which nothing is known.
    pub(crate) fn closed(said: String) -> Self {
        Self { said, keeps_no_stranger_out: false }
    }
}

/// What other firewalls do with the doors' ports.
#[derive(Debug, Default)]
pub struct Obstacles {
    /// What makes knocking pointless.
    pub warnings: Vec<Obstacle>,
    /// What cannot be said.
    pub lines: Vec<String>,
}

impl From<Vec<Obstacle>> for Obstacles {
    fn from(warnings: Vec<Obstacle>) -> Self {
        Self { warnings, lines: Vec::new() }
    }
}

/// Why there is no firewall to work with.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The gate cannot be set up.
    #[error("cannot set up the gate")]
    Gate(#[from] GateError),
    /// The gate cannot be set up, and rich rules without it would be possible.
    #[error(
        "cannot set up the gate beside firewalld; on a kernel without nf_tables, set firewall = \"rich-rules\" (what \
         that does not protect from is in docs/firewalls.md)"
    )]
    GateBeside(#[source] GateError),
    /// firewalld was asked for, and there is no bus to reach it.
    #[error("the configuration wants firewalld, and there is no system bus to reach it: {0}")]
    NoBus(String),
    /// firewalld was asked for, and the bus is there and of no use.
    #[error("the configuration wants firewalld, and {0}; try: systemctl status dbus")]
    SilentBus(String),
    /// The zone of the configuration is none of firewalld's.
    #[error("zone = {zone:?}, and firewalld has no such zone; it has: {known}")]
    NoZone {
        /// The zone.
        zone: String,
        /// The zones that there are.
        known: String,
    },
    /// A door lets in one connection only, which a rich rule cannot do.
    #[error(
        "the door `{0}` has grant = \"once\", which rich rules alone cannot do; write grant = \"address\", or let \
         the gate guard it: firewall = \"auto\""
    )]
    Once(DoorName),
    /// Granted connections are to be marked, which a rich rule cannot do.
    #[error(
        "`mark` needs the gate, which marks what it lets in, and firewalld's rich rules alone have none; leave it out, \
         or let the gate guard the doors: firewall = \"auto\""
    )]
    Mark,
    /// The thread or its runtime.
    #[error("cannot start the thread that works on the firewall")]
    Thread(#[source] io::Error),
}

impl FirewallError {
    /// Whether the configuration is to blame, so that trying again is of no use.
    pub fn is_wrong_input(&self) -> bool {
        match self {
            Self::NoZone { .. } | Self::Once(_) | Self::Mark => true,
            Self::Gate(_) | Self::GateBeside(_) | Self::NoBus(_) | Self::SilentBus(_) | Self::Thread(_) => {
                false
            }
        }
    }
}
