//! What is known of firewalld and what is left to do, whether firewalld is there or not.

mod looks;
mod sight;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use doors_core::{
    door::GrantKey,
    engine::{Change, Report},
    lease::{GrantedTo, Lease},
    time::Moment,
};
use doors_os::clock::Clock;
use tokio::sync::{mpsc, oneshot};

use self::sight::Sight;
use super::{
    Role,
    bus::{Code, code},
    installed::{Holdings, Installed, Place},
    operation::{Outcome, Task},
    preflight::Explained,
    queue::{Queue, Waiting},
    quota::Quota,
    restore::Restoring,
    rule::{Rule, Texts},
    sanitize::in_one_line,
    stale_rules::StaleRules,
};
use crate::{News, Order, ledger::Ledger, nftables, plan::Plan};

/// A grant that ends this soon is not missed: firewalld counts in seconds, and may have been first.
const NOT_MISSED: Duration = Duration::from_secs(2);

/// What is known and what is left to do, whether firewalld is there or not.
pub(in super::super) struct State {
    role: Role,
    /// Whether the configuration names firewalld, or it was there.
    pub(super) is_expected: bool,
    sight: Sight,
    /// What was said of the zones.
    explained: Explained,
    pub(super) plan: Plan,
    pub(super) clock: Clock,
    news: mpsc::UnboundedSender<News>,
    ledger: Ledger,
    /// Those of them that need a rule.
    ruled: BTreeSet<GrantKey>,
    jobs: Queue,
    room: Quota,
    held: Holdings,
    /// Doors to close before their time, with the rules to take out.
    closing: BTreeMap<GrantKey, Vec<Rule>>,
    leftovers: StaleRules,
    /// Grants whose rules a firewalld had that ended without removing them. Of what it finds in the kernel when it
    /// starts again, 1.3.3 knows nothing.
    strays: BTreeSet<IpAddr>,
    /// Whether firewalld has been reloaded since the last look, and nothing was put back for that.
    pub(super) has_forgotten: bool,
    /// Rules that firewalld says were taken out, and that were where they had to be.
    removed: BTreeMap<Rule, Place>,
    texts: Texts,
    restoring: Option<Restoring>,
    /// The zone of before, while that of a new plan has not been looked at.
    zone_before: Option<Option<String>>,
    /// Callers that wait until all is done.
    ending: Vec<oneshot::Sender<()>>,
}

impl State {
    pub(in super::super) fn new(
        role: Role,
        plan: Plan,
        clock: Clock,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        Self {
            role,
            is_expected: true,
            sight: Sight::Unknown(None),
            explained: Explained::default(),
            plan,
            clock,
            news,
            ledger: Ledger::default(),
            ruled: BTreeSet::new(),
            jobs: Queue::default(),
            room: Quota::default(),
            held: Holdings::new(),
            closing: BTreeMap::new(),
            leftovers: StaleRules::default(),
            strays: BTreeSet::new(),
            has_forgotten: false,
            removed: BTreeMap::new(),
            texts: Texts::from(clock.wall().0),
            restoring: None,
            zone_before: None,
            ending: Vec::new(),
        }
    }

    /// Takes an order.
    pub(super) fn note(&mut self, order: Order) {
        match order {
            Order::Change(Change::Open(lease)) => self.note_grant(lease, true),
            Order::Keep(lease) => self.note_grant(lease, false),
            Order::Change(Change::Close(admission)) => {
                self.ledger.strike(&admission);
                let had_rule = self.ruled.remove(&admission) || !self.leftovers.is_empty();
                let source = admission.source;
                if self.role == Role::BesideGate
                    && !had_rule
                    && !self.held.keys().any(|rule| rule.source == source)
                {
                    // The gate has closed it, and there is nothing else.
                    return;
                }
                // The door may be gone from the plan when its turn comes.
                self.closing.insert(admission.clone(), self.rules(&admission));
                self.jobs.add_fresh(admission, true);
            }
            // Grants for one connection are the gate's alone.
            Order::Change(Change::Watch(_)) => {}
            Order::Follow(plan) => {
                if plan.zone != self.plan.zone {
                    // That of before is the last that firewalld is known to have.
                    let before = self.zone_before.take().unwrap_or_else(|| self.plan.zone.clone());
                    self.zone_before =
                        Some(before).filter(|before| plan.zone.is_some() && plan.zone != *before);
                }
                self.plan = *plan;
                // Ports and zones may have changed: every grant is made true anew.
                self.unsettle();
                self.add_all_again();
            }
            // Beside the gate, that has done it.
            Order::Cut { keys, own, answer } => nftables::answer_cut(&self.plan, keys, own, answer),
            Order::End(done) => self.ending.push(done),
        }
    }

    /// Takes a grant. If it is `fresh`, a client waits to hear that it is true.
    fn note_grant(&mut self, lease: Lease, fresh: bool) {
        let (now, admission) = (self.clock.now(), lease.key.clone());
        if self.is_let_in(&admission, lease.link) {
            self.closing.remove(&admission);
            self.ruled.remove(&admission);
            self.ledger.note(lease, now);
            if fresh {
                self.tell(News::Report(Report::Done(admission)));
            }
            return;
        }
        let runs = self.ruled.contains(&admission) && self.ledger.get(&admission, now).is_some();
        let with_key = lease.granted_to != GrantedTo::Sequence;
        if !runs && !self.has_room(with_key, now) {
            // The core says of it that it was never opened.
            return;
        }
        self.closing.remove(&admission);
        self.ledger.note(lease, now);
        self.ruled.insert(admission.clone());
        match fresh {
            true => self.jobs.add_fresh(admission, runs || with_key),
            false => self.jobs.add_again(admission),
        }
    }

    /// Whether one more grant may have a rule; if not, says so now and then.
    fn has_room(&mut self, with_key: bool, now: Moment) -> bool {
        if !Quota::is_there(self.ruled.len(), with_key) {
            self.prune(now);
        }
        let is_there = Quota::is_there(self.ruled.len(), with_key);
        if !is_there && let Some(refused) = self.room.refuse(now) {
            self.tell(News::Warning(refused.to_string()));
        }
        is_there
    }

    /// Whether the gate guards the doors.
    pub(super) fn is_beside_gate(&self) -> bool {
        self.role == Role::BesideGate
    }

    /// firewalld is there and has forgotten everything.
    pub(super) fn put_back_all(&mut self, why: &str) {
        self.sight = Sight::Unknown(None);
        self.has_forgotten = false;
        self.held.clear();
        self.leftovers.forget();
        let missing = self.add_all_again();
        match missing.is_empty() {
            true => self.tell(News::Info(format!("{why}; no door needed it"))),
            false => self.restore(Some(why), missing),
        }
    }

    /// Work was broken off, and it is not known how far it came.
    pub(super) fn broken_off(&mut self, admission: GrantKey, waiting: Waiting) {
        match waiting.fresh {
            true => self.jobs.add_fresh(admission, waiting.known),
            false => self.jobs.add_again(admission),
        }
    }

    /// The next grant to make true or false, and what to do for it; `None` also if the zones are not known.
    pub(super) fn next_task(&mut self) -> Option<(GrantKey, Waiting, Task)> {
        self.zones()?;
        let now = self.clock.now();
        loop {
            let (admission, waiting) = self.jobs.next(now)?;
            let link = self.ledger.get(&admission, now).map(|lease| lease.link);
            // The grant waited for the zones, and needs no rule.
            if link.is_some_and(|link| self.is_let_in(&admission, link)) {
                self.ruled.remove(&admission);
                self.has_been_done(admission, waiting, now);
                continue;
            }
            let task = self.task(&admission);
            return Some((admission, waiting, task));
        }
    }

    /// Notes that a grant is as it must be.
    fn has_been_done(&mut self, admission: GrantKey, waiting: Waiting, now: Moment) {
        let runs = self.ledger.get(&admission, now).is_some();
        if let Some(restoring) = self.restoring.as_mut().filter(|_| runs) {
            restoring.is_back(&admission);
        }
        if waiting.fresh {
            self.tell(News::Report(Report::Done(admission)));
        }
    }

    /// When a retry is due.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.jobs.next_retry()
    }

    fn restore(&mut self, why: Option<&str>, missing: BTreeSet<GrantKey>) {
        let now = self.clock.now();
        match &mut self.restoring {
            Some(restoring) => restoring.again(why, missing),
            none => *none = Some(Restoring::new(why, missing, now)),
        }
    }

    /// Makes every running grant true anew that needs a rule. Says which there are.
    pub(super) fn add_all_again(&mut self) -> BTreeSet<GrantKey> {
        let now = self.clock.now();
        self.prune(now);
        let running = self.ruled.clone();
        for admission in &running {
            self.jobs.add_again(admission.clone());
        }
        running
    }

    /// Forgets the grants that are over.
    fn prune(&mut self, now: Moment) {
        let Self { ledger, ruled, .. } = self;
        ledger.prune(now);
        ruled.retain(|admission| ledger.get(admission, now).is_some());
    }

    /// The rules of a grant.
    fn rules(&self, admission: &GrantKey) -> Vec<Rule> {
        let ports = self.plan.door(&admission.door).map_or(&[][..], |door| &door.ports);
        ports.iter().map(|ports| Rule { source: admission.source, ports: *ports }).collect()
    }

    /// The rules that running grants want, and until when: as long as the longest of them.
    fn wanted(&self, now: Moment) -> BTreeMap<Rule, Moment> {
        let mut wanted = BTreeMap::new();
        for admission in &self.ruled {
            let Some(lease) = self.ledger.get(admission, now) else { continue };
            for rule in self.rules(admission) {
                let until = wanted.entry(rule).or_insert(lease.until);
                *until = lease.until.max(*until);
            }
        }
        wanted
    }

    /// Takes the zone of a new plan that has to be looked at before anything is put into it.
    pub(super) fn new_zone(&self) -> Option<String> {
        self.zone_before.as_ref().and_then(|_| self.plan.zone.clone())
    }

    /// Takes the result of the look: whether firewalld has the zone, or which zones it has.
    pub(super) fn zone_is_known(&mut self, zone: &str, known: Result<(), String>) {
        let Some(before) = self.zone_before.take() else { return };
        if let Err(zones) = known {
            let why = format!("firewalld has no such zone; it has: {zones}; the zone of before stays");
            self.tell(News::Failed { what: format!("use the zone {zone}"), why });
            self.plan.zone = before;
        }
    }

    /// The task that makes the grant as it must be at this moment.
    fn task(&mut self, admission: &GrantKey) -> Task {
        let now = self.clock.now();
        let wanted = self.wanted(now);
        let link = self.ledger.get(admission, now).map(|lease| lease.link).unwrap_or_default();
        let closing = self.closing.get(admission);
        let of_grant = self.rules(admission).into_iter().chain(closing.into_iter().flatten().copied());
        // Rules of this source that are not wanted any more go, too: its door may have other ports by now.
        let of_source = self.held.keys().filter(|rule| rule.source == admission.source).copied();
        let rules: BTreeSet<Rule> =
            of_grant.chain(of_source.filter(|rule| !wanted.contains_key(rule))).collect();
        let mut held = Holdings::new();
        for rule in &rules {
            let mut of_rule = self.held.get(rule).cloned().unwrap_or_default();
            of_rule.stale.extend(self.leftovers.take(*rule));
            held.insert(*rule, of_rule);
        }
        let until = |rule: &Rule| wanted.get(rule).map(|until| (*rule, *until));
        let arrives = || self.zones().map(|zones| zones.of(admission.source, link)).unwrap_or_default();
        Task {
            zone: self.plan.zone.clone().unwrap_or_else(arrives),
            wanted: rules.iter().filter_map(until).collect(),
            unwanted: rules.iter().filter(|rule| !wanted.contains_key(rule)).copied().collect(),
            closing: closing.is_some(),
            held,
            clock: self.clock,
            texts: self.texts.clone(),
        }
    }

    /// Takes the result of a task.
    pub(super) fn done(&mut self, admission: GrantKey, waiting: Waiting, outcome: Outcome) {
        let now = self.clock.now();
        let Outcome { held, failure, closing } = outcome;
        let wanted = self.wanted(now);
        let is_there = held.values().any(|held| !held.is_nothing());
        let outlives =
            |(rule, held): (&Rule, &Installed)| held.outlives(wanted.get(rule).copied().unwrap_or(now));
        let too_long = held.iter().any(outlives);
        for (rule, held) in held {
            match held.is_nothing() {
                true => drop(self.held.remove(&rule)),
                false => drop(self.held.insert(rule, held)),
            }
        }
        let runs = self.ledger.get(&admission, now).is_some();
        match failure {
            None if closing => {
                self.closing.remove(&admission);
                // Beside the gate it was closed before.
                if self.role == Role::Alone {
                    self.tell(News::Report(Report::Closed(admission)));
                }
            }
            None => {
                // The time of a rule is counted from when firewalld did the call, and may be over by now.
                // Once is enough: a firewalld that is always slow is not made faster by asking more.
                if too_long && !(waiting.corrected && runs) {
                    self.jobs.correct(admission.clone());
                }
                self.has_been_done(admission, waiting, now);
            }
            Some(error) => {
                if waiting.tries == 0 {
                    let verb = if closing { "close" } else { "open" };
                    let what = format!("{verb} the door {} for {}", admission.door, admission.source);
                    self.tell(News::Failed { what, why: in_one_line(&error) });
                }
                match code(&error) {
                    // What was missing stays missing, and what cannot be taken out stays until its time.
                    Code::Hopeless | Code::NoZone => drop(self.closing.remove(&admission)),
                    _ if closing || runs || is_there => self.jobs.retry(admission, waiting, now),
                    _ => {}
                }
            }
        }
    }

    /// Nothing is under way: if nothing is left to do, says that everything is back and done.
    pub(super) fn when_idle(&mut self) {
        if !self.jobs.is_empty() {
            return;
        }
        if let Some(restoring) = self.restoring.take()
            && let Some(news) = restoring.end(self.clock.now())
        {
            self.tell(news);
        }
        self.answer_end();
    }

    /// Answers the order to end: nothing is left to do, or firewalld is not there to do it.
    pub(super) fn answer_end(&mut self) {
        for done in self.ending.drain(..) {
            let _ = done.send(());
        }
    }

    pub(super) fn tell(&self, news: News) {
        // The receiver is gone only when the daemon ends.
        let _ = self.news.send(news);
    }

    /// How often to look.
    pub(super) fn check_every(&self) -> Duration {
        self.plan.check_every.min(self.plan.clean_every)
    }
}

#[cfg(test)]
mod tests;
