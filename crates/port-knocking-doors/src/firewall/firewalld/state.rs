//! What is known of firewalld and what is left to do, whether or not it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use doorknock::errors::in_one_line;
use doors_core::{
    door::Admission,
    doorkeeper::{Change, Report},
    time::Moment,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    bus::{Code, code},
    jobs::{Jobs, Waiting},
    rule::{Rule, is_ours},
    work::{Installed, Outcome, Task},
};
use crate::{
    clock::Clock,
    firewall::{
        News, Order,
        ledger::{self, Ledger, Standing},
        plan::Plan,
    },
};

/// A rule of ours that nobody granted may be what an earlier run left: it gets as long as the longest
/// door and this, and is then taken out.
const GRACE: Duration = Duration::from_secs(5);

/// A call that took longer than this may have given a rule more time than is left.
const SLOW: Duration = Duration::from_secs(1);

/// A grant that ends this soon is not missed: firewalld counts in seconds, and may have been first.
const NOT_MISSED: Duration = Duration::from_secs(2);

/// What is known and what is left to do, whether or not anybody is there to do it.
pub(super) struct State {
    pub(super) plan: Plan,
    pub(super) clock: Clock,
    news: mpsc::UnboundedSender<News>,
    ledger: Ledger,
    jobs: Jobs,
    installed: BTreeMap<Admission, Installed>,
    /// Doors to close before their time, with the rules to take out.
    closing: BTreeMap<Admission, Vec<Rule>>,
    /// Rules of ours that nobody granted in this run, and when they were first seen.
    orphans: BTreeMap<(String, String), Moment>,
    /// What is being put back, and since when.
    restoring: Option<(String, Moment)>,
    /// The zone of before, while that of a new plan has not been looked at.
    zone_before: Option<Option<String>>,
    /// Who waits until all is done.
    ending: Vec<oneshot::Sender<()>>,
}

impl State {
    pub(super) fn new(plan: Plan, clock: Clock, news: mpsc::UnboundedSender<News>) -> Self {
        Self {
            plan,
            clock,
            news,
            ledger: Ledger::default(),
            jobs: Jobs::default(),
            installed: BTreeMap::new(),
            closing: BTreeMap::new(),
            orphans: BTreeMap::new(),
            restoring: None,
            zone_before: None,
            ending: Vec::new(),
        }
    }

    /// Takes an order.
    pub(super) fn note(&mut self, order: Order) {
        match order {
            Order::Change(Change::Open { admission, link, until, by }) => {
                self.closing.remove(&admission);
                let now = self.clock.now();
                self.ledger.note(admission.clone(), Standing { until, link, by }, now);
                self.jobs.add_fresh(admission);
            }
            Order::Change(Change::Close { admission }) => {
                self.ledger.strike(&admission);
                // The door may be gone from the plan when its turn comes.
                self.closing.insert(admission.clone(), self.rules(&admission));
                self.jobs.add_fresh(admission);
            }
            Order::Follow(plan) => {
                if plan.zone != self.plan.zone && plan.zone.is_some() {
                    self.zone_before = Some(self.plan.zone.clone());
                }
                self.plan = *plan;
                // Ports and zones may be others: every grant is made true anew.
                self.add_all_again();
            }
            // Its rules end by themselves, and guard nothing.
            Order::Retire => {}
            Order::End(done) => self.ending.push(done),
        }
    }

    /// firewalld is not there, and has forgotten everything when it comes.
    pub(super) fn lost(&mut self, why: &str) {
        self.tell(News::Warning(format!("{why}; knocks are judged, and doors open when it is back")));
        self.installed.clear();
    }

    /// firewalld is there and has forgotten everything.
    pub(super) fn put_back_all(&mut self, why: &str) {
        self.installed.clear();
        self.orphans.clear();
        match ledger::missing(self.add_all_again()) {
            Some(missing) => {
                let since = self.restoring.take().map_or(self.clock.now(), |(_, since)| since);
                self.restoring = Some((format!("{why}, and {missing}"), since));
            }
            None => self.tell(News::Info(format!("{why}; no door was open"))),
        }
    }

    /// Work was broken off, and nobody knows how far it came.
    pub(super) fn broken_off(&mut self, admission: Admission, waiting: Waiting) {
        match waiting.fresh {
            true => self.jobs.add_fresh(admission),
            false => self.jobs.add_again(admission),
        }
    }

    /// The next grant to make true or false, and what to do for it. The zone is still to be found.
    pub(super) fn next_task(&mut self) -> Option<(Admission, Waiting, Task)> {
        let (admission, waiting) = self.jobs.next(self.clock.now())?;
        let task = self.task(&admission);
        Some((admission, waiting, task))
    }

    /// When a retry is due.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        self.jobs.next_retry()
    }

    /// Whether there may be rules that are worth a look.
    pub(super) fn has_rules(&self) -> bool {
        !(self.installed.is_empty() && self.orphans.is_empty())
    }

    /// Compares what firewalld holds, zone by zone, with what it should. Gives the rules of ours that
    /// have been there too long and must go.
    pub(super) fn compare(&mut self, held: &[(String, Vec<String>)]) -> Vec<(String, String)> {
        let now = self.clock.now();
        self.ledger.prune(now);
        let ledger = &self.ledger;
        let closing = &self.closing;
        self.installed
            .retain(|admission, _| ledger.get(admission, now).is_some() || closing.contains_key(admission));
        let holds = |zone: &str, text: &str| {
            held.iter().any(|(name, rules)| name == zone && rules.iter().any(|rule| rule == text))
        };
        let mut missing = Vec::new();
        for (admission, rules) in &mut self.installed {
            let ends_soon = ledger.get(admission, now).is_none_or(|s| s.until.remaining(now) < NOT_MISSED);
            let before = rules.len();
            rules.retain(|rule, (zone, text)| ends_soon || holds(zone, &rule.text(*text)));
            if rules.len() < before {
                missing.push(admission.clone());
            }
        }
        if let Some(what) = ledger::missing(missing.len()) {
            self.restoring.get_or_insert((what, now));
        }
        for admission in missing {
            self.jobs.add_again(admission);
        }
        self.overdue(held, now)
    }

    /// Rules of ours that nobody granted in this run, and that are older than any grant can be.
    fn overdue(&mut self, held: &[(String, Vec<String>)], now: Moment) -> Vec<(String, String)> {
        let granted: BTreeSet<(String, String)> = self
            .installed
            .values()
            .flatten()
            .map(|(rule, (zone, text))| (zone.clone(), rule.text(*text)))
            .collect();
        let found: BTreeSet<(String, String)> = held
            .iter()
            .flat_map(|(zone, rules)| rules.iter().map(move |rule| (zone.clone(), rule.clone())))
            .filter(|(zone, rule)| is_ours(rule) && !granted.contains(&(zone.clone(), rule.clone())))
            .collect();
        self.orphans.retain(|orphan, _| found.contains(orphan));
        for orphan in found {
            self.orphans.entry(orphan).or_insert(now);
        }
        let longest = self.plan.doors.iter().map(|door| door.max_open_for).max().unwrap_or_default();
        let too_old = |since: &Moment| since.after(longest).after(GRACE) <= now;
        self.orphans.iter().filter(|(_, since)| too_old(since)).map(|(orphan, _)| orphan.clone()).collect()
    }

    /// Makes every running grant true anew. Says how many there are.
    pub(super) fn add_all_again(&mut self) -> usize {
        let now = self.clock.now();
        self.ledger.prune(now);
        let running: Vec<Admission> =
            self.ledger.running(now).map(|(admission, ..)| admission.clone()).collect();
        let count = running.len();
        for admission in running {
            self.jobs.add_again(admission);
        }
        count
    }

    /// The rules of a grant.
    fn rules(&self, admission: &Admission) -> Vec<Rule> {
        let ports = self.plan.door(&admission.door).map_or(&[][..], |door| &door.ports);
        ports.iter().map(|ports| Rule { source: admission.source, ports: *ports }).collect()
    }

    /// Takes the zone of a new plan that has to be looked at before anything is put into it.
    pub(super) fn new_zone(&self) -> Option<String> {
        self.zone_before.as_ref().and_then(|_| self.plan.zone.clone())
    }

    /// Says what came of the look: whether firewalld has the zone, or which it has.
    pub(super) fn zone_is_known(&mut self, zone: &str, known: Result<(), String>) {
        let Some(before) = self.zone_before.take() else { return };
        if let Err(zones) = known {
            let why = format!("firewalld has no such zone; it has: {zones}; the zone of before stays");
            self.tell(News::Failed { what: format!("use the zone {zone}"), why });
            self.plan.zone = before;
        }
    }

    /// The task that makes the grant as it must be at this moment.
    fn task(&self, admission: &Admission) -> Task {
        let now = self.clock.now();
        let standing = self.ledger.get(admission, now);
        Task {
            source: admission.source,
            wanted: if standing.is_some() { self.rules(admission) } else { Vec::new() },
            zone: self.plan.zone.clone(),
            link: standing.as_ref().map(|standing| standing.link).unwrap_or_default(),
            until: standing.map_or(now, |standing| standing.until),
            closing: self.closing.get(admission).cloned(),
            slowest: Duration::ZERO,
            clock: self.clock,
            installed: self.installed.get(admission).cloned().unwrap_or_default(),
        }
    }

    /// Takes what came of a task.
    pub(super) fn done(&mut self, admission: Admission, waiting: Waiting, outcome: Outcome) {
        let now = self.clock.now();
        let Outcome { installed, failure, closing, slowest } = outcome;
        let is_there = !installed.is_empty();
        match is_there {
            true => drop(self.installed.insert(admission.clone(), installed)),
            false => drop(self.installed.remove(&admission)),
        }
        let standing = self.ledger.get(&admission, now).is_some();
        match failure {
            None if closing => {
                self.closing.remove(&admission);
                self.tell(News::Report(Report::Closed { admission }));
            }
            None => {
                // The time of a rule was counted from when we asked, and may be over by now. Once is enough:
                // a firewalld that is always slow is not made faster by asking more.
                if is_there && slowest > SLOW && !(waiting.corrected && standing) {
                    self.jobs.correct(admission.clone());
                }
                if waiting.fresh {
                    self.tell(News::Report(Report::Done { admission }));
                }
            }
            Some(error) => {
                if waiting.tries == 0 {
                    let verb = if closing { "close" } else { "open" };
                    let what = format!("{verb} the door {} for {}", admission.door, admission.source);
                    self.tell(News::Failed { what, why: in_one_line(&error) });
                }
                match code(&error) {
                    // What was missing stays missing, and nobody shall hear that it is back.
                    Code::Hopeless => self.restoring = None,
                    _ if closing || standing || is_there => self.jobs.retry(admission, waiting, now),
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
        if let Some((missing, since)) = self.restoring.take() {
            self.tell(News::Repaired { missing, took: self.clock.now().remaining(since) });
        }
        for done in self.ending.drain(..) {
            let _ = done.send(());
        }
    }

    pub(super) fn tell(&self, news: News) {
        // Nobody listens any more only when the daemon ends.
        let _ = self.news.send(news);
    }

    /// How often to look.
    pub(super) fn check_every(&self) -> Duration {
        self.plan.check_every.min(self.plan.clean_every)
    }
}
