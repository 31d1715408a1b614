//! Our own nftables chain: it drops new connections to guarded ports unless they are granted.
//!
//! It works beside any other firewall, because it only ever closes. It never touches a table that is
//! not ours, and never needs us alive to close a door.

mod repair;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use doors_core::{door::GrantKey, lease::Lease, time::Moment};
use doors_os::{
    clock::Clock,
    instance_lock::{InstanceLock, InstanceLockError},
    netlink::socket::{Family, NetlinkError, Socket},
};
use doors_text::error_chain::in_one_line;
use tokio::sync::mpsc;

use super::{
    datagrams::Services,
    monitor::Monitor,
    prior_connections::Sessions,
    ruleset::{self, TABLE},
    snapshot::{self, Snapshot},
};
use crate::{News, ledger::Ledger, plan::Plan};

/// A grant that ends this soon is not missed: the kernel may have closed the door a moment before us.
const NOT_MISSED: Duration = Duration::from_millis(200);

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// nftables cannot be reached at all.
    #[error("cannot use nftables; root or the capability CAP_NET_ADMIN is needed")]
    Denied(#[source] NetlinkError),
    /// The kernel has no nftables, or not enough of it.
    #[error("the kernel refuses our nftables table `inet {TABLE}`")]
    Table(#[source] NetlinkError),
    /// A daemon runs, and would put the table back.
    #[error(
        "a port-knocking-doors runs and would put the gate back at once; stop it first, for example \
         with: systemctl stop port-knocking-doors"
    )]
    WouldComeBack,
    /// It is not known whether a daemon runs.
    #[error(transparent)]
    InstanceLockError(InstanceLockError),
}

/// The gate, and the connection to the kernel that holds it.
#[derive(Debug)]
pub struct Gate {
    socket: Socket,
    clock: Clock,
    plan: Plan,
    ledger: Ledger,
    /// How the kernel shows the unchanged table of this plan. `None` while that is not known: then every check
    /// makes the table anew.
    intact: Option<Snapshot>,
    /// The table may lack grants, because they could not be put back.
    is_short: bool,
    /// Connections from before the gate.
    sessions: Sessions,
    /// What has not been reported yet.
    untold: Untold,
    news: mpsc::UnboundedSender<News>,
}

/// What was found on the way, to be reported with the next findings.
#[derive(Debug, Default)]
struct Untold {
    /// What was missing or changed, and how long the repair took.
    repaired: Option<(String, Duration)>,
    /// Grants for one connection that were found gone.
    gone: Vec<(Lease, Gone)>,
}

/// How a grant for one connection has gone out of the kernel. It is not put back in any case: it is better to knock once
/// more than to let in a second connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Gone {
    /// A packet has used it up: the kernel tells of everything else.
    Used,
    /// Another program has deleted this element alone.
    ByHand,
    /// Another program has deleted the whole table. The grant may have been used before that.
    WithTable,
}

/// What a look at the kernel's table brought.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What was found missing or changed, and how long its repair took.
    pub repaired: Option<(String, Duration)>,
    /// Grants that we did not know of.
    pub found: Vec<Lease>,
    /// Grants for one connection that are gone, and how.
    pub gone: Vec<(Lease, Gone)>,
    /// Grants that were deleted by hand.
    pub withdrawn: Vec<Lease>,
}

impl Gate {
    /// Makes the table anew. Grants that run in the kernel go on, and are among the findings.
    pub(super) fn set_up(
        plan: Plan,
        clock: Clock,
        monitor: &mut Monitor,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<(Self, Findings), GateError> {
        let socket = Socket::open(Family::Netfilter).map_err(GateError::Denied)?;
        monitor.pass_over(socket.port());
        let (ledger, sessions, untold) = (Ledger::default(), Sessions::default(), Untold::default());
        let mut gate =
            Self { socket, clock, plan, ledger, intact: None, is_short: false, sessions, untold, news };
        let asked = clock.now();
        let held = gate.held().map_err(GateError::Table)?;
        let found = gate.adopt_unknown(&held, asked).map_err(GateError::Table)?;
        gate.say_what_is_cut();
        gate.make_anew(monitor, &BTreeSet::new()).map_err(GateError::Table)?;
        Ok((gate, Findings { found, ..Findings::default() }))
    }

    /// Takes the table away, when no daemon runs. Says whether there was one.
    pub fn remove_by_hand() -> Result<bool, GateError> {
        let _alone = InstanceLock::claim().map_err(|error| match error {
            InstanceLockError::AlreadyRuns => GateError::WouldComeBack,
            other @ InstanceLockError::Socket(_) => GateError::InstanceLockError(other),
        })?;
        let mut socket = Socket::open(Family::Netfilter).map_err(GateError::Denied)?;
        match socket.request(&ruleset::remove()) {
            Ok(()) => Ok(true),
            Err(error) if error.number() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(GateError::Table(error)),
        }
    }

    /// Makes grants true, all in one transaction. Grants that have expired by now are left out. For the grants in `owed`
    /// the first packet is traced.
    pub fn open(
        &mut self,
        grants: &[Lease],
        owed: &[(GrantKey, Duration)],
        refused: &BTreeSet<GrantKey>,
    ) -> Result<(), NetlinkError> {
        let now = self.clock.now();
        for lease in grants {
            self.ledger.note(lease.clone(), now);
        }
        let running = grants.iter().map(|lease| (lease, lease.until.remaining(now)));
        let batch = ruleset::change(&self.plan, running.filter(|(_, left)| !left.is_zero()), [], owed);
        // None of these can be used up, whatever has become of the table.
        self.write(&batch, &|key| refused.contains(key) || grants.iter().any(|lease| lease.key == *key))
    }

    /// Has the next packet through some grants traced.
    pub fn trace(&mut self, owed: &[(GrantKey, Duration)]) -> Result<(), NetlinkError> {
        self.socket.request(&ruleset::change(&self.plan, [], [], owed))
    }

    /// The grants that run, and until when.
    pub fn running(&self) -> Vec<(GrantKey, Moment)> {
        let running = self.ledger.running(self.clock.now());
        running.map(|(lease, _)| (lease.key.clone(), lease.until)).collect()
    }

    /// Makes a grant false. A door that is gone from the plan has lost its set already.
    pub fn close(&mut self, admission: &GrantKey, refused: &BTreeSet<GrantKey>) -> Result<(), NetlinkError> {
        self.ledger.strike(admission);
        match self.plan.door(&admission.door) {
            Some(_) => {
                self.write(&ruleset::change(&self.plan, [], [admission], &[]), &|key| refused.contains(key))
            }
            None => Ok(()),
        }
    }

    /// Follows another plan. Grants of doors that are in it go on. A plan that makes the same table changes nothing in
    /// the kernel: with a thousand doors that takes a while, and doors have to open meanwhile.
    pub(super) fn follow(
        &mut self,
        plan: Plan,
        refused: &BTreeSet<GrantKey>,
        monitor: &mut Monitor,
    ) -> Result<(), NetlinkError> {
        if self.intact.is_some() && ruleset::replace(&plan, []) == ruleset::replace(&self.plan, []) {
            self.plan = plan;
            return Ok(());
        }
        // Without an answer, every grant for one connection counts as used up.
        let held = self.held().unwrap_or_default();
        let deleted = monitor.was_deleted();
        self.is_short |= deleted;
        self.forget_gone(&held, &|key| refused.contains(key), deleted, Some(monitor));
        self.plan = plan;
        self.intact = None;
        self.make_anew(monitor, refused)
    }

    /// Whether it is known how the kernel shows the table, so that every change to it is noticed.
    pub fn is_certain(&self) -> bool {
        self.intact.is_some()
    }

    /// Whether connections from before the gate have to be looked after.
    pub fn keeps_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    /// Takes the table away, for an orderly stop.
    pub fn remove(&mut self) -> Result<(), NetlinkError> {
        self.socket.request(&ruleset::remove())
    }

    /// A grant that runs.
    pub fn lease(&self, admission: &GrantKey) -> Option<&Lease> {
        self.ledger.get(admission, self.clock.now())
    }

    /// False for a grant that is about to expire: its absence would prove nothing.
    pub fn is_missed(&self, admission: &GrantKey) -> bool {
        let now = self.clock.now();
        self.ledger.get(admission, now).is_some_and(|lease| lease.until.remaining(now) > NOT_MISSED)
    }

    /// The sources that have a grant in this set of the kernel.
    pub fn sources_in(&mut self, set: &str) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let held = snapshot::grants(&mut self.socket, set)?;
        Ok(held.into_iter().map(|entry| entry.source).collect())
    }

    /// The plan that is followed.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Sends a change, which makes some grants anew. If the table is not there any more, it is put back
    /// with the change in it.
    fn write(&mut self, batch: &[u8], not_gone: &dyn Fn(&GrantKey) -> bool) -> Result<(), NetlinkError> {
        match self.socket.request(batch) {
            Err(error) if error.number() == Some(libc::ENOENT) => {
                let began = self.clock.now();
                let table = Snapshot::take(&mut self.socket)?;
                let damage = self.damage(&table);
                let held = self.held()?;
                self.forget_gone(&held, not_gone, true, None);
                let back = self.repair()?;
                self.note_repair(damage.zip(Some(back)), began);
                Ok(())
            }
            other => other,
        }
    }

    /// Says which UDP flows the gate will cut, before it cuts them.
    fn say_what_is_cut(&self) {
        // Logged at once: it is said before it is done, and at the start alone, when no knock waits for this thread.
        match Services::before_the_gate(&self.plan) {
            Ok(None) => {}
            Ok(Some(services)) if services.are_unknown() => tracing::warn!("{}", services.fate()),
            Ok(Some(services)) => tracing::info!("{}", services.fate()),
            Err(error) => tracing::warn!("cannot see which UDP the gate cuts: {}", in_one_line(&error)),
        }
    }

    /// Says something. If the daemon does not hear it any more, it has ended.
    fn tell(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// Keeps connections that are older than the gate. If the kernel cannot do that, the gate still guards.
    fn make_sessions_known(&mut self) {
        match self.sessions.make_known(&self.plan, &mut self.socket) {
            Ok(introduced) if introduced.is_nothing() => {}
            Ok(introduced) => {
                self.tell(News::Info(format!("connections that were there before go on: {introduced}")));
            }
            Err(error) => self.tell(News::Warning(format!(
                "connections to guarded ports that are there already may hang: the kernel does not take \
                 them into connection tracking: {}",
                in_one_line(&error)
            ))),
        }
    }

    /// A connection from before the gate goes on even if connection tracking has forgotten it.
    fn keep_sessions_known(&mut self) {
        if let Err(error) = self.sessions.keep_known(&self.plan, &mut self.socket) {
            self.tell(News::Warning(format!(
                "connections from before the gate may hang: the kernel does not take them into connection \
                 tracking again: {}",
                in_one_line(&error)
            )));
        }
    }
}
