//! What is known of firewalld and what is left to do, whether or not it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use doors_core::{
    door::Admission,
    doorkeeper::{Change, Report},
    time::Moment,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    bus::{Code, code},
    held::{Held, Holdings, Place},
    jobs::{Jobs, Waiting},
    leftovers::{Leftover, Leftovers},
    restoring::Restoring,
    room::Room,
    rule::{Rule, Texts},
    said::in_one_line,
    work::{Outcome, Task},
};
use crate::{
    clock::Clock,
    firewall::{
        News, Order,
        ledger::{Ledger, Standing},
        plan::Plan,
    },
};

/// A grant that ends this soon is not missed: firewalld counts in seconds, and may have been first.
const NOT_MISSED: Duration = Duration::from_secs(2);

/// What is known and what is left to do, whether or not anybody is there to do it.
pub(super) struct State {
    pub(super) plan: Plan,
    pub(super) clock: Clock,
    news: mpsc::UnboundedSender<News>,
    ledger: Ledger,
    jobs: Jobs,
    room: Room,
    held: Holdings,
    /// Doors to close before their time, with the rules to take out.
    closing: BTreeMap<Admission, Vec<Rule>>,
    leftovers: Leftovers,
    /// Rules that firewalld says were taken out, and that were where they had to be.
    removed: BTreeMap<Rule, Place>,
    texts: Texts,
    restoring: Option<Restoring>,
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
            room: Room::default(),
            held: Holdings::new(),
            closing: BTreeMap::new(),
            leftovers: Leftovers::default(),
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
            Order::Change(Change::Open { admission, link, until, by }) => {
                let now = self.clock.now();
                let runs = self.ledger.get(&admission, now).is_some();
                if !runs && !Room::is_there(self.ledger.running(now).count(), by.is_some()) {
                    // The core says of it that it was never opened.
                    if let Some(refused) = self.room.refuse(now) {
                        self.tell(News::Warning(refused.to_string()));
                    }
                    return;
                }
                self.closing.remove(&admission);
                let known = runs || by.is_some();
                self.ledger.note(admission.clone(), Standing { until, link, by }, now);
                self.jobs.add_fresh(admission, known);
            }
            Order::Change(Change::Close { admission }) => {
                self.ledger.strike(&admission);
                // The door may be gone from the plan when its turn comes.
                self.closing.insert(admission.clone(), self.rules(&admission));
                self.jobs.add_fresh(admission, true);
            }
            Order::Follow(plan) => {
                if plan.zone != self.plan.zone {
                    // That of before is the last that firewalld is known to have.
                    let before = self.zone_before.take().unwrap_or_else(|| self.plan.zone.clone());
                    self.zone_before =
                        Some(before).filter(|before| plan.zone.is_some() && plan.zone != *before);
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
        self.tell(News::Warning(format!(
            "{why}; knocks are judged, and doors open when it is back; until then the ports that it kept closed \
             may be open to everybody"
        )));
        self.held.clear();
    }

    /// firewalld is there and has forgotten everything.
    pub(super) fn put_back_all(&mut self, why: &str) {
        self.held.clear();
        self.leftovers.forget();
        let missing = self.add_all_again();
        match missing.is_empty() {
            true => self.tell(News::Info(format!("{why}; no door was open"))),
            false => self.restore(Some(why), missing),
        }
    }

    /// Work was broken off, and nobody knows how far it came.
    pub(super) fn broken_off(&mut self, admission: Admission, waiting: Waiting) {
        match waiting.fresh {
            true => self.jobs.add_fresh(admission, waiting.known),
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

    /// firewalld says that a rule was taken out. It may be what we have just asked for.
    pub(super) fn note_removal(&mut self, written: &str) {
        let place_of = |rule: &Rule| self.held.get(rule).and_then(|held| held.place.clone());
        match Rule::read(written) {
            Some((rule, text)) => {
                let place = place_of(&rule).filter(|(_, other)| *other == text);
                self.removed.extend(place.map(|place| (rule, place)));
            }
            // In other words than firewalld's own it may be ours all the same, if the address is in it.
            None => {
                let named = |rule: &&Rule| written.contains(&rule.source.to_string());
                let places = self.held.keys().filter(named);
                self.removed.extend(places.filter_map(|rule| Some((*rule, place_of(rule)?))));
            }
        }
    }

    /// Whether a rule was taken out that has to be there. To be asked when nothing is under way: what we
    /// have asked for ourselves is known by then.
    pub(super) fn misses_a_rule(&mut self) -> bool {
        if self.removed.is_empty() {
            return false;
        }
        let now = self.clock.now();
        let wanted = self.wanted(now);
        std::mem::take(&mut self.removed).into_iter().any(|(rule, place)| {
            self.held.get(&rule).is_some_and(|held| held.place.as_ref() == Some(&place))
                && wanted.get(&rule).is_some_and(|until| until.remaining(now) >= NOT_MISSED)
        })
    }

    /// Whether there may be rules that are worth a look.
    pub(super) fn has_rules(&self) -> bool {
        !(self.held.is_empty() && self.leftovers.is_empty())
    }

    /// Compares what firewalld holds, zone by zone, with what it should. Gives the rules of ours that
    /// have been there too long and must go.
    pub(super) fn compare(&mut self, held: &[(String, Vec<String>)]) -> Vec<Leftover> {
        let now = self.clock.now();
        self.ledger.prune(now);
        let mut found: BTreeSet<Leftover> = BTreeSet::new();
        for (zone, rules) in held {
            let ours = rules.iter().filter_map(|written| Rule::read(written));
            found.extend(ours.map(|(rule, text)| (zone.clone(), rule, text)));
        }
        let wanted = self.wanted(now);
        self.held.retain(|rule, held| wanted.contains_key(rule) || !held.is_over(now));
        let mut missing = BTreeSet::new();
        for (rule, held) in &mut self.held {
            let ends_soon = wanted.get(rule).is_none_or(|until| until.remaining(now) < NOT_MISSED);
            let is_there =
                |(zone, text): &mut (String, _)| ends_soon || found.contains(&(zone.clone(), *rule, *text));
            if held.place.is_some() && held.place.take_if(|place| !is_there(place)).is_some() {
                missing.insert(*rule);
            }
            for (zone, text) in held.place.iter().chain(&held.stale) {
                found.remove(&(zone.clone(), *rule, *text));
            }
        }
        let without: BTreeSet<Admission> = self
            .ledger
            .running(now)
            .filter(|(admission, ..)| self.rules(admission).iter().any(|rule| missing.contains(rule)))
            .map(|(admission, ..)| admission.clone())
            .collect();
        for admission in &without {
            self.jobs.add_again(admission.clone());
        }
        if !without.is_empty() {
            self.restore(None, without);
        }
        self.leftovers.note(found, now);
        let longest = self.plan.doors.iter().map(|door| door.max_open_for).max().unwrap_or_default();
        self.leftovers.overdue(longest, now)
    }

    fn restore(&mut self, why: Option<&str>, missing: BTreeSet<Admission>) {
        let now = self.clock.now();
        match &mut self.restoring {
            Some(restoring) => restoring.again(why, missing),
            none => *none = Some(Restoring::new(why, missing, now)),
        }
    }

    /// Makes every running grant true anew. Says which there are.
    pub(super) fn add_all_again(&mut self) -> BTreeSet<Admission> {
        let now = self.clock.now();
        self.ledger.prune(now);
        let running: BTreeSet<Admission> =
            self.ledger.running(now).map(|(admission, ..)| admission.clone()).collect();
        for admission in &running {
            self.jobs.add_again(admission.clone());
        }
        running
    }

    /// The rules of a grant.
    fn rules(&self, admission: &Admission) -> Vec<Rule> {
        let ports = self.plan.door(&admission.door).map_or(&[][..], |door| &door.ports);
        ports.iter().map(|ports| Rule { source: admission.source, ports: *ports }).collect()
    }

    /// The rules that running grants want, and until when: as long as the longest of them.
    fn wanted(&self, now: Moment) -> BTreeMap<Rule, Moment> {
        let mut wanted = BTreeMap::new();
        for (admission, standing, _) in self.ledger.running(now) {
            for rule in self.rules(admission) {
                let until = wanted.entry(rule).or_insert(standing.until);
                *until = standing.until.max(*until);
            }
        }
        wanted
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
    fn task(&mut self, admission: &Admission) -> Task {
        let now = self.clock.now();
        let wanted = self.wanted(now);
        let standing = self.ledger.get(admission, now);
        let closing = self.closing.get(admission);
        let of_grant = self.rules(admission).into_iter().chain(closing.into_iter().flatten().copied());
        // What this source has and nobody wants goes, too: its door may have other ports by now.
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
        Task {
            source: admission.source,
            link: standing.map(|standing| standing.link).unwrap_or_default(),
            zone: self.plan.zone.clone(),
            wanted: rules.iter().filter_map(until).collect(),
            unwanted: rules.iter().filter(|rule| !wanted.contains_key(rule)).copied().collect(),
            closing: closing.is_some(),
            held,
            clock: self.clock,
            texts: self.texts.clone(),
        }
    }

    /// Takes what came of a task.
    pub(super) fn done(&mut self, admission: Admission, waiting: Waiting, outcome: Outcome) {
        let now = self.clock.now();
        let Outcome { held, failure, closing } = outcome;
        let wanted = self.wanted(now);
        let is_there = held.values().any(|held| !held.is_nothing());
        let outlives = |(rule, held): (&Rule, &Held)| held.outlives(wanted.get(rule).copied().unwrap_or(now));
        let too_long = held.iter().any(outlives);
        for (rule, held) in held {
            match held.is_nothing() {
                true => drop(self.held.remove(&rule)),
                false => drop(self.held.insert(rule, held)),
            }
        }
        let standing = self.ledger.get(&admission, now).is_some();
        match failure {
            None if closing => {
                self.closing.remove(&admission);
                self.tell(News::Report(Report::Closed { admission }));
            }
            None => {
                if let Some(restoring) = self.restoring.as_mut().filter(|_| standing) {
                    restoring.is_back(&admission);
                }
                // The time of a rule is counted from when firewalld did the call, and may be over by now.
                // Once is enough: a firewalld that is always slow is not made faster by asking more.
                if too_long && !(waiting.corrected && standing) {
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
                    // What was missing stays missing, and what cannot be taken out stays until its time.
                    Code::Hopeless | Code::NoZone => drop(self.closing.remove(&admission)),
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
        if let Some(restoring) = self.restoring.take()
            && let Some(news) = restoring.end(self.clock.now())
        {
            self.tell(news);
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

#[cfg(test)]
mod tests;
