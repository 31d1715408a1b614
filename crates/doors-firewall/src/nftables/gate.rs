//! Our own nftables chain: it drops new connections to guarded ports unless they are granted.
//!
//! It works beside any other firewall, because it only ever closes. It never touches a table that is
//! not ours, and never needs us alive to close a door.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::{GrantedTo, Lease},
    time::Moment,
};
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
    snapshot::{self, Entry, Snapshot},
};
use crate::{
    News,
    ledger::{self, Ledger},
    plan::Plan,
};

/// A grant that ends this soon is not missed: the kernel may have closed the door a moment before us.
const NOT_MISSED: Duration = Duration::from_millis(200);

/// An element that is missing from so many lists is not in the set.
const LISTS: usize = 3;

/// Grants that come back with the gate, in one transaction, which takes milliseconds.
const GRANTS_AT_ONCE: usize = 1024;

/// A transaction that takes longer makes grants last longer than they should.
const SLOW: Duration = Duration::from_millis(50);

/// The table is made anew at most so many times in a row, until we know how the kernel shows it. Once is nearly
/// always enough: only a program that changes our table without a pause makes a second time necessary.
const TRIES: usize = 3;

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

    /// Compares the kernel's table with what it must be, and repairs what is wrong. Grants that the kernel has
    /// `refused` so far count as missing, not as used up. If single grants are missing and the table was not deleted,
    /// they were deleted by hand, and are not put back.
    pub(super) fn check(
        &mut self,
        refused: &BTreeSet<GrantKey>,
        monitor: &mut Monitor,
    ) -> Result<Findings, NetlinkError> {
        let began = self.clock.now();
        self.ledger.prune(began);
        let mut deleted = monitor.was_deleted();
        let table = Snapshot::take(&mut self.socket)?;
        let asked = self.clock.now();
        let held = self.held()?;
        // Also if that was while we looked.
        deleted |= monitor.was_deleted();
        self.is_short |= deleted;
        let found = self.adopt_unknown(&held, asked)?;
        self.forget_gone(&held, &|key| refused.contains(key), deleted || table.is_empty(), Some(monitor));
        let damage = self.damage(&table);
        let mut withdrawn: Vec<Lease> = Vec::new();
        let repaired = match (&self.intact, &damage) {
            (None, _) => {
                self.make_anew(monitor, refused)?;
                damage.zip(Some(self.clock.now()))
            }
            (Some(_), Some(_)) => damage.zip(Some(self.repair()?)),
            (Some(_), None) if self.is_short => self.put_back(&held, |_| true)?.zip(Some(self.clock.now())),
            (Some(_), None) => {
                let by_hand = self.missing(&held).filter(|(lease, _)| !refused.contains(&lease.key));
                withdrawn = by_hand.map(|(lease, _)| lease.clone()).collect();
                // That the kernel takes now what it has refused so far is no repair.
                self.put_back(&held, |lease| refused.contains(&lease.key))?;
                None
            }
        };
        for lease in &withdrawn {
            self.ledger.strike(&lease.key);
        }
        self.note_repair(repaired, began);
        self.keep_sessions_known();
        let Untold { repaired, gone } = std::mem::take(&mut self.untold);
        Ok(Findings { repaired, found, gone, withdrawn })
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

    /// What is wrong with the table. While it is not known how the table has to look, only its absence is noticed.
    fn damage(&self, table: &Snapshot) -> Option<String> {
        match &self.intact {
            Some(intact) => intact.difference(table),
            None if table.is_empty() => Some("the table was gone".to_owned()),
            None => None,
        }
    }

    /// Notes what was missing, and when it was back.
    fn note_repair(&mut self, repair: Option<(String, Moment)>, began: Moment) {
        if let Some((missing, back)) = repair {
            self.untold.repaired = Some((missing, back.remaining(began)));
        }
    }

    /// Forgets the grants for one connection that the kernel does not hold any more, unless they are made just now or were never in it, and
    /// notes how they have gone: with the table, if that was deleted, or as the monitor has heard.
    fn forget_gone(
        &mut self,
        held: &Held,
        not_gone: &dyn Fn(&GrantKey) -> bool,
        with_table: bool,
        monitor: Option<&mut Monitor>,
    ) {
        let once = |admission: &GrantKey| self.plan.door(&admission.door).is_some_and(|door| door.once);
        let gone = |admission: &GrantKey| !held.contains_key(admission) && !not_gone(admission);
        let gone: Vec<Lease> = self
            .ledger
            .running(self.clock.now())
            .filter(|(lease, left)| *left > NOT_MISSED && once(&lease.key) && gone(&lease.key))
            .map(|(lease, _)| lease.clone())
            .collect();
        if !gone.is_empty() && !with_table {
            self.settle();
        }
        let taken_out = monitor.map(Monitor::taken_out).unwrap_or_default();
        for lease in gone {
            let how = match taken_out.contains(&(ruleset::set_of(&lease.key), lease.key.source)) {
                _ if with_table => Gone::WithTable,
                true => Gone::ByHand,
                false => Gone::Used,
            };
            self.ledger.strike(&lease.key);
            self.untold.gone.push((lease, how));
        }
    }

    /// Waits until the kernel has announced the changes that others have made so far. It shows a change before it
    /// announces it, at the end of the transaction; and a transaction of ours waits for the end of another's.
    fn settle(&mut self) {
        // If the table is gone, it has waited all the same.
        let _ = self.socket.request(&ruleset::nothing());
    }

    /// Makes the table of a plan for the first time, and learns how the kernel shows it.
    ///
    /// The table that is read back counts only if no other program has changed it since we made it; the kernel
    /// announces every change. Without this check, a change in between would pass for what the table has to be.
    /// Changes of other tables do not matter.
    fn make_anew(&mut self, monitor: &mut Monitor, refused: &BTreeSet<GrantKey>) -> Result<(), NetlinkError> {
        // Before the gate comes, or the next packet of a session would look like the first of another.
        self.make_sessions_known();
        for number in 0..TRIES {
            if number > 0 {
                // What was used up since is not put back.
                let held = self.held()?;
                let deleted = monitor.was_deleted();
                self.forget_gone(&held, &|key| refused.contains(key), deleted, Some(monitor));
            }
            monitor.heard();
            self.replace()?;
            let table = Snapshot::take(&mut self.socket)?;
            self.settle();
            if !monitor.heard() {
                self.intact = Some(table);
                break;
            }
        }
        Ok(())
    }

    /// Puts the table back, and says when it was there. First the gate, which is open as long as it is away: the
    /// kernel takes seconds for as many grants as there can be, so many of them come after it.
    fn repair(&mut self) -> Result<Moment, NetlinkError> {
        let are_many = self.ledger.running(self.clock.now()).nth(GRANTS_AT_ONCE).is_some();
        let back = if are_many {
            self.is_short = true;
            self.socket.request(&ruleset::replace(&self.plan, []))?;
            let back = self.clock.now();
            self.fill()?;
            back
        } else {
            self.replace()?;
            self.clock.now()
        };
        self.make_sessions_known();
        Ok(back)
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

    fn replace(&mut self) -> Result<(), NetlinkError> {
        self.forget_what_cannot_be();
        let now = self.clock.now();
        self.socket.request(&ruleset::replace(&self.plan, self.ledger.running(now)))?;
        self.is_short = false;
        if self.clock.now().remaining(now) > SLOW {
            self.correct_times()?;
        }
        Ok(())
    }

    /// Gives grants the time that they have left. In the kernel their time begins in the middle of the transaction that
    /// makes them: after a slow one they last longer than they should.
    fn correct_times(&mut self) -> Result<(), NetlinkError> {
        let once = |lease: &Lease| self.plan.door(&lease.key.door).is_some_and(|door| door.once);
        let (once, lasting): (Vec<_>, Vec<_>) = self.running_leases().into_iter().partition(once);
        self.in_parts(&lasting, |plan, part| ruleset::change(plan, part, [], &[]))?;
        for part in once.chunks(GRANTS_AT_ONCE) {
            match self.in_parts(part, |plan, part| ruleset::change_times(plan, part)) {
                // A packet has used one of them up meanwhile: then each by itself.
                Err(error) if error.number() == Some(libc::ENOENT) => self.correct_one_by_one(part)?,
                other => other?,
            }
        }
        Ok(())
    }

    fn correct_one_by_one(&mut self, once: &[Lease]) -> Result<(), NetlinkError> {
        for lease in once {
            match self.in_parts(std::slice::from_ref(lease), |plan, one| ruleset::change_times(plan, one)) {
                Err(error) if error.number() == Some(libc::ENOENT) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// The grants that run.
    fn running_leases(&self) -> Vec<Lease> {
        self.ledger.running(self.clock.now()).map(|(lease, _)| lease.clone()).collect()
    }

    /// Sends grants in parts, each with the time that it has left when its part is sent.
    fn in_parts(
        &mut self,
        leases: &[Lease],
        transaction: impl Fn(&Plan, Vec<(&Lease, Duration)>) -> Vec<u8>,
    ) -> Result<(), NetlinkError> {
        for part in leases.chunks(GRANTS_AT_ONCE) {
            let now = self.clock.now();
            let left = part.iter().map(|lease| (lease, lease.until.remaining(now)));
            let left: Vec<(&Lease, Duration)> = left.filter(|(_, left)| !left.is_zero()).collect();
            if !left.is_empty() {
                self.socket.request(&transaction(&self.plan, left))?;
            }
        }
        Ok(())
    }

    /// Puts all grants into a table that has none.
    fn fill(&mut self) -> Result<(), NetlinkError> {
        self.forget_what_cannot_be();
        self.in_parts(&self.running_leases(), |plan, part| ruleset::fill(plan, part))?;
        self.is_short = false;
        Ok(())
    }

    /// What has no set would make the whole transaction fail.
    fn forget_what_cannot_be(&mut self) {
        self.ledger.prune(self.clock.now());
        let doors: BTreeSet<&DoorName> = self.plan.doors.iter().map(|door| &door.name).collect();
        self.ledger.retain(|name| doors.contains(name));
    }

    /// The grants that the kernel holds, and for how much longer; none if there is no table.
    ///
    /// A list of a set that comes in several messages goes on by counting, and an element that the kernel takes
    /// out meanwhile makes it pass over another. So what is missing is looked for in three lists.
    fn held(&mut self) -> Result<Held, NetlinkError> {
        let mut held = self.list()?;
        for _ in 1..LISTS {
            let now = self.clock.now();
            let is_missing =
                |(lease, left): (&Lease, Duration)| left > NOT_MISSED && !held.contains_key(&lease.key);
            if !self.ledger.running(now).any(is_missing) {
                break;
            }
            held.extend(self.list()?);
        }
        Ok(held)
    }

    fn list(&mut self) -> Result<Held, NetlinkError> {
        let mut held = Held::new();
        for door in &self.plan.doors {
            for set in ruleset::sets(&door.name) {
                for Entry { source, left, by } in snapshot::grants(&mut self.socket, &set)? {
                    held.insert(GrantKey { door: door.name.clone(), source }, (left, by));
                }
            }
        }
        Ok(held)
    }

    /// Notes the grants that the kernel holds and we do not know of, or know to end sooner. One for
    /// ever is given the time of its door: no door stays open. Times count from `now`, when the kernel was asked.
    fn adopt_unknown(&mut self, held: &Held, now: Moment) -> Result<Vec<Lease>, NetlinkError> {
        let mut adopted = Vec::new();
        let mut for_ever = Vec::new();
        for (admission, (left, by)) in held {
            let known = self.ledger.get(admission, now);
            let link = known.map(|lease| lease.link).unwrap_or_default();
            let known = known.map(|lease| lease.until);
            let door = self.plan.door(&admission.door);
            let open_for = door.map_or(Duration::ZERO, |door| door.open_for);
            let until = match left {
                Some(left) => now.after(*left),
                None => known.unwrap_or(now.after(open_for)),
            };
            let once = door.is_some_and(|door| door.once);
            let lease = Lease { key: admission.clone(), link, until, granted_to: by.clone(), once };
            if left.is_none() {
                for_ever.push((lease.clone(), until.remaining(now)));
            }
            if known.is_none_or(|known| until > known.after(NOT_MISSED)) && until > now {
                self.ledger.note(lease.clone(), now);
                adopted.push(lease);
            }
        }
        if !for_ever.is_empty() {
            let for_ever = for_ever.iter().map(|(lease, left)| (lease, *left));
            self.socket.request(&ruleset::change(&self.plan, for_ever, [], &[]))?;
        }
        Ok(adopted)
    }

    /// The grants that the kernel does not hold and should, and how much longer.
    fn missing<'a>(&'a self, held: &'a Held) -> impl Iterator<Item = (&'a Lease, Duration)> {
        let running = self.ledger.running(self.clock.now());
        running.filter(|(lease, left)| *left > NOT_MISSED && !held.contains_key(&lease.key))
    }

    /// Puts back those of the `wanted` grants that the kernel does not hold and should. Says how many were missing.
    fn put_back(
        &mut self,
        held: &Held,
        wanted: impl Fn(&Lease) -> bool,
    ) -> Result<Option<String>, NetlinkError> {
        let missing = self.missing(held).filter(|(lease, _)| wanted(lease));
        let grants: Vec<Lease> = missing.map(|(lease, _)| lease.clone()).collect();
        let Some(what) = ledger::missing(grants.len()) else {
            self.is_short = false;
            return Ok(None);
        };
        self.in_parts(&grants, |plan, part| ruleset::change(plan, part, [], &[]))?;
        self.is_short = false;
        Ok(Some(what))
    }
}

/// Grants in the kernel, how much longer each lasts (`None` for ever), and whose key it was, if it says so.
type Held = BTreeMap<GrantKey, (Option<Duration>, GrantedTo)>;
