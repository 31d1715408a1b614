//! What is known of firewalld and what is left to do, whether or not it is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use doors_core::{
    door::Admission,
    doorkeeper::{Change, Report},
    packet::Link,
    time::Moment,
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Role,
    bus::{Code, code},
    held::{Held, Holdings, Place},
    jobs::{Jobs, Waiting},
    leftovers::{Leftover, Leftovers},
    obstacles::Explained,
    restoring::Restoring,
    room::Room,
    rule::{Rule, Texts},
    said::in_one_line,
    work::{Outcome, Task},
    zones::Zones,
};
use crate::{
    clock::Clock,
    firewall::{
        News, Order,
        ledger::{Ledger, Standing},
        nftables::left_by_firewalld,
        plan::Plan,
    },
};

/// A grant that ends this soon is not missed: firewalld counts in seconds, and may have been first.
const NOT_MISSED: Duration = Duration::from_secs(2);

/// What is known of what firewalld closes.
#[derive(Debug)]
enum Sight {
    /// firewalld runs, or may, and what its zones let through has yet to be asked. As they were seen last.
    Unknown(Option<Zones>),
    /// It runs, and these are its zones.
    Zones(Zones),
    /// It does not run, and there is nothing of it in the kernel.
    Absent,
    /// It cannot be reached, and has left its rules in the kernel: they are as they were when it was seen last.
    Left(Option<Zones>),
}

/// What a firewalld that is not there has left in the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Left {
    Nothing,
    /// Its rules, and so many of ours among them.
    Rules {
        ours: usize,
    },
    /// The kernel does not say.
    Unknown,
}

/// What is known and what is left to do, whether or not anybody is there to do it.
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
    ruled: BTreeSet<Admission>,
    jobs: Jobs,
    room: Room,
    held: Holdings,
    /// Doors to close before their time, with the rules to take out.
    closing: BTreeMap<Admission, Vec<Rule>>,
    leftovers: Leftovers,
    /// Whose rules a firewalld had that ended without taking them out. Of what it finds in the kernel when it
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
    /// Who waits until all is done.
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
            jobs: Jobs::default(),
            room: Room::default(),
            held: Holdings::new(),
            closing: BTreeMap::new(),
            leftovers: Leftovers::default(),
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
            Order::Change(Change::Open { admission, link, until, by }) => {
                self.note_grant(admission, Standing { until, link, by }, true);
            }
            Order::Keep(admission, standing) => self.note_grant(admission, standing, false),
            Order::Change(Change::Close { admission }) => {
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
            Order::Follow(plan) => {
                if plan.zone != self.plan.zone {
                    // That of before is the last that firewalld is known to have.
                    let before = self.zone_before.take().unwrap_or_else(|| self.plan.zone.clone());
                    self.zone_before =
                        Some(before).filter(|before| plan.zone.is_some() && plan.zone != *before);
                }
                self.plan = *plan;
                // Ports and zones may be others: every grant is made true anew.
                self.unsettle();
                self.add_all_again();
            }
            Order::End(done) => self.ending.push(done),
        }
    }

    /// Takes a grant. If it is `fresh`, somebody waits to hear that it is true.
    fn note_grant(&mut self, admission: Admission, standing: Standing, fresh: bool) {
        let now = self.clock.now();
        if self.is_let_in(&admission, standing.link) {
            self.closing.remove(&admission);
            self.ruled.remove(&admission);
            self.ledger.note(admission.clone(), standing, now);
            if fresh {
                self.tell(News::Report(Report::Done { admission }));
            }
            return;
        }
        let runs = self.ruled.contains(&admission) && self.ledger.get(&admission, now).is_some();
        let with_key = standing.by.is_some();
        if !runs && !self.has_room(with_key, now) {
            // The core says of it that it was never opened.
            return;
        }
        self.closing.remove(&admission);
        self.ledger.note(admission.clone(), standing, now);
        self.ruled.insert(admission.clone());
        match fresh {
            true => self.jobs.add_fresh(admission, runs || with_key),
            false => self.jobs.add_again(admission),
        }
    }

    /// Whether firewalld would let a client through to a door without a rule, for certain.
    fn is_let_in(&self, admission: &Admission, link: Link) -> bool {
        let zones = match (self.role, &self.sight) {
            (Role::Alone, _) | (_, Sight::Unknown(_) | Sight::Left(None)) => return false,
            (_, Sight::Absent) => return true,
            (_, Sight::Zones(zones) | Sight::Left(Some(zones))) => zones,
        };
        let Some(door) = self.plan.door(&admission.door) else { return false };
        let fixed = self.plan.zone.as_deref();
        door.ports.iter().all(|ports| zones.let_in(admission.source, link, fixed, *ports))
    }

    /// Whether one more grant may have a rule; if not, says so now and then.
    fn has_room(&mut self, with_key: bool, now: Moment) -> bool {
        if !Room::is_there(self.ruled.len(), with_key) {
            self.prune(now);
        }
        let is_there = Room::is_there(self.ruled.len(), with_key);
        if !is_there && let Some(refused) = self.room.refuse(now) {
            self.tell(News::Warning(refused.to_string()));
        }
        is_there
    }

    /// Whether the zones have to be asked for before anything can be done.
    pub(super) fn needs_zones(&self) -> bool {
        !matches!(self.sight, Sight::Zones(_))
    }

    /// The zones, if they are known.
    pub(super) fn zones(&self) -> Option<&Zones> {
        match &self.sight {
            Sight::Zones(zones) => Some(zones),
            Sight::Unknown(_) | Sight::Absent | Sight::Left(_) => None,
        }
    }

    /// What the zones let through may be different from here on.
    pub(super) fn unsettle(&mut self) {
        self.sight = match std::mem::replace(&mut self.sight, Sight::Absent) {
            Sight::Zones(zones) => Sight::Unknown(Some(zones)),
            other => other,
        };
    }

    /// Learns which zones there are. What needs a rule now, and did not before, gets one.
    pub(super) fn learn(&mut self, zones: Zones) {
        self.sight = Sight::Zones(zones);
        if self.role == Role::Alone {
            return;
        }
        self.explain();
        let now = self.clock.now();
        let running: Vec<(Admission, Link, bool)> = self
            .ledger
            .running(now)
            .filter(|(admission, ..)| !self.ruled.contains(admission))
            .map(|(admission, standing, _)| (admission.clone(), standing.link, standing.by.is_some()))
            .collect();
        for (admission, link, with_key) in running {
            if !self.is_let_in(&admission, link) && self.has_room(with_key, now) {
                self.ruled.insert(admission.clone());
                self.jobs.add_again(admission);
            }
        }
    }

    /// Says what the zones do with the doors' ports, if that is news.
    fn explain(&mut self) {
        let Sight::Zones(zones) = &self.sight else { return };
        let explained = Explained::of(zones, &self.plan);
        for line in explained.lines.iter().filter(|line| !self.explained.lines.contains(line)) {
            self.tell(News::Info(line.clone()));
        }
        for warning in explained.warnings.iter().filter(|one| !self.explained.warnings.contains(one)) {
            self.tell(News::Warning(warning.clone()));
        }
        self.explained = explained;
    }

    /// firewalld is there, and nothing is known of it.
    pub(super) fn comes_into_sight(&mut self) {
        self.sight = Sight::Unknown(None);
        self.add_all_again();
    }

    /// Whether the gate guards the doors.
    pub(super) fn is_beside_gate(&self) -> bool {
        self.role == Role::BesideGate
    }

    /// Whether a firewalld that is gone has left what may close doors.
    pub(super) fn is_in_the_way(&self) -> bool {
        matches!(self.sight, Sight::Left(_))
    }

    /// firewalld is not there when it is looked for. Beside the gate that is no news, unless the configuration
    /// names it, or something of it is in the way.
    pub(super) fn does_not_run(&mut self) {
        let left = self.see_nothing();
        if self.is_expected || left != Left::Nothing {
            self.say_it_is_lost("firewalld is not on the system bus", left);
        }
    }

    /// firewalld is not there, or cannot be reached. What it has left in the kernel counts.
    pub(super) fn see_nothing(&mut self) -> Left {
        let sources: BTreeSet<IpAddr> = self.held.keys().map(|rule| rule.source).collect();
        let left = match left_by_firewalld(&sources.into_iter().collect::<Vec<_>>()) {
            Ok(None) => Left::Nothing,
            Ok(Some(ours)) => Left::Rules { ours },
            // A kernel that does not say is not taken for one that lets everybody through.
            Err(_) => Left::Unknown,
        };
        let before = std::mem::replace(&mut self.sight, Sight::Absent);
        if left != Left::Nothing {
            self.sight = Sight::Left(match before {
                Sight::Zones(zones) => Some(zones),
                Sight::Left(zones) | Sight::Unknown(zones) => zones,
                Sight::Absent => None,
            });
        }
        if self.role == Role::BesideGate {
            self.settle_what_is_let_in();
        }
        left
    }

    /// What waits for firewalld, and needs no rule any more, is true.
    fn settle_what_is_let_in(&mut self) {
        for (admission, waiting) in self.jobs.take_all() {
            let link = self.ledger.get(&admission, self.clock.now()).map(|standing| standing.link);
            if link.is_some_and(|link| self.is_let_in(&admission, link)) {
                self.ruled.remove(&admission);
                if waiting.fresh {
                    self.tell(News::Report(Report::Done { admission }));
                }
            } else if link.is_some() {
                self.broken_off(admission, waiting);
            } else {
                // Its time is over, and firewalld knows nothing of it when it comes.
                self.closing.remove(&admission);
            }
        }
    }

    /// firewalld is not there, and has forgotten everything when it comes.
    pub(super) fn lost(&mut self, why: &str) {
        let left = self.see_nothing();
        self.say_it_is_lost(why, left);
    }

    fn say_it_is_lost(&mut self, why: &str, left: Left) {
        if left != Left::Nothing {
            self.strays.extend(self.held.keys().map(|rule| rule.source));
        }
        let still = match left {
            Left::Nothing => String::new(),
            Left::Unknown => ", and what it had in the kernel may still be there".to_owned(),
            Left::Rules { ours: 0 } => ", and what it had in the kernel is still there".to_owned(),
            Left::Rules { ours: 1 } => {
                ", and what it had in the kernel is still there, with a rule of ours".to_owned()
            }
            Left::Rules { ours } => {
                format!(", and what it had in the kernel is still there, with {ours} rules of ours")
            }
        };
        let remedy = "systemctl restart firewalld";
        self.tell(News::Warning(match (self.role, left) {
            (Role::BesideGate, Left::Nothing) => format!("{why}; the gate goes on guarding the doors"),
            (Role::BesideGate, Left::Rules { .. } | Left::Unknown) => format!(
                "{why}{still}; the gate goes on guarding the doors, but what firewalld closes there opens only when it is \
                 back; try: {remedy}"
            ),
            (Role::Alone, Left::Rules { ours: 1.. }) => format!(
                "{why}{still}: nobody takes them out on time, so those doors stay open; try: {remedy}"
            ),
            (Role::Alone, Left::Rules { ours: 0 } | Left::Nothing | Left::Unknown) => format!(
                "{why}; knocks are judged, and doors open when it is back; until then the ports that it kept closed \
                 may be open to everybody"
            ),
        }));
        self.held.clear();
    }

    /// firewalld may be there, and cannot be reached.
    pub(super) fn cannot_be_reached(&self, why: &str) {
        let what = "work with firewalld".to_owned();
        match self.sight {
            // Most machines have none.
            Sight::Absent => tracing::debug!("firewalld: {why}"),
            _ => self.tell(News::Failed { what, why: why.to_owned() }),
        }
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

    /// Work was broken off, and nobody knows how far it came.
    pub(super) fn broken_off(&mut self, admission: Admission, waiting: Waiting) {
        match waiting.fresh {
            true => self.jobs.add_fresh(admission, waiting.known),
            false => self.jobs.add_again(admission),
        }
    }

    /// The next grant to make true or false, and what to do for it; `None` also if the zones are not known.
    pub(super) fn next_task(&mut self) -> Option<(Admission, Waiting, Task)> {
        self.zones()?;
        let now = self.clock.now();
        loop {
            let (admission, waiting) = self.jobs.next(now)?;
            let link = self.ledger.get(&admission, now).map(|standing| standing.link);
            // It waited for the zones, and needs no rule.
            if link.is_some_and(|link| self.is_let_in(&admission, link)) {
                self.ruled.remove(&admission);
                self.has_been_done(admission, waiting, now);
                continue;
            }
            let task = self.task(&admission);
            return Some((admission, waiting, task));
        }
    }

    /// A grant is as it must be.
    fn has_been_done(&mut self, admission: Admission, waiting: Waiting, now: Moment) {
        let standing = self.ledger.get(&admission, now).is_some();
        if let Some(restoring) = self.restoring.as_mut().filter(|_| standing) {
            restoring.is_back(&admission);
        }
        if waiting.fresh {
            self.tell(News::Report(Report::Done { admission }));
        }
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

    /// The zones in which rules of ours are, as far as we know.
    pub(super) fn zones_with_rules(&self) -> impl Iterator<Item = String> {
        self.held.values().filter_map(|held| held.place.as_ref()).map(|(zone, _)| zone.clone())
    }

    /// Whether there may be rules that are worth a look.
    pub(super) fn has_rules(&self) -> bool {
        !(self.held.is_empty() && self.leftovers.is_empty() && self.strays.is_empty())
    }

    /// Looks for rules in the kernel that firewalld knows nothing of, of clients that have no grant any more.
    pub(super) fn look_for_strays(&mut self) {
        let ruled: BTreeSet<IpAddr> = self.ruled.iter().map(|admission| admission.source).collect();
        let over: Vec<IpAddr> = self.strays.difference(&ruled).copied().collect();
        if over.is_empty() {
            return;
        }
        match left_by_firewalld(&over) {
            Ok(Some(count @ 1..)) => self.tell(News::Warning(format!(
                "firewalld has not taken out what it had in the kernel when it was killed, with rules of ours whose \
                 time is over: {count}; {}; try: firewall-cmd --reload",
                match self.role {
                    Role::Alone => "those doors are open",
                    Role::BesideGate => "the gate keeps those doors closed",
                }
            ))),
            Ok(_) => {}
            Err(error) => self.tell(News::Failed {
                what: "look for rules that firewalld has left in the kernel".to_owned(),
                why: in_one_line(&error),
            }),
        }
        self.strays.retain(|source| ruled.contains(source));
    }

    /// Compares what firewalld holds, zone by zone, with what it should. Gives the rules of ours that
    /// have been there too long and must go.
    pub(super) fn compare(&mut self, held: &[(String, Vec<String>)]) -> Vec<Leftover> {
        let now = self.clock.now();
        self.prune(now);
        let mut found: BTreeSet<Leftover> = BTreeSet::new();
        for (zone, rules) in held {
            let ours = rules.iter().filter_map(|written| Rule::read(written));
            found.extend(ours.map(|(rule, text)| (zone.clone(), rule, text)));
        }
        let wanted = self.wanted(now);
        self.held.retain(|rule, held| wanted.contains_key(rule) || !held.is_over(now));
        let (mut missing, mut by_hand) = (BTreeSet::new(), BTreeSet::new());
        for (rule, held) in &mut self.held {
            // Else its timer may have taken it out.
            let must_be_there = held.earliest >= now.after(NOT_MISSED);
            let ends_soon = wanted.get(rule).is_none_or(|until| until.remaining(now) < NOT_MISSED);
            let is_there =
                |(zone, text): &mut (String, _)| ends_soon || found.contains(&(zone.clone(), *rule, *text));
            if held.place.is_some() && held.place.take_if(|place| !is_there(place)).is_some() {
                missing.insert(*rule);
                if must_be_there {
                    by_hand.insert(*rule);
                }
            }
            for (zone, text) in held.place.iter().chain(&held.stale) {
                found.remove(&(zone.clone(), *rule, *text));
            }
        }
        let without: BTreeSet<Admission> = self
            .ledger
            .running(now)
            .filter(|(admission, ..)| self.ruled.contains(admission))
            .filter(|(admission, ..)| self.rules(admission).iter().any(|rule| missing.contains(rule)))
            .map(|(admission, ..)| admission.clone())
            .collect();
        let has_forgotten = std::mem::take(&mut self.has_forgotten);
        let is_by_hand =
            |admission: &Admission| self.rules(admission).iter().any(|rule| by_hand.contains(rule));
        let withdrawn: BTreeSet<Admission> = match has_forgotten {
            true => BTreeSet::new(),
            false => without.iter().filter(|admission| is_by_hand(admission)).cloned().collect(),
        };
        let without: BTreeSet<Admission> = without.difference(&withdrawn).cloned().collect();
        self.withdraw(withdrawn);
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

    /// Somebody has taken rules out by hand: what they were for stays out, in firewalld and wherever else.
    fn withdraw(&mut self, admissions: BTreeSet<Admission>) {
        let now = self.clock.now();
        for admission in admissions {
            let Some(Standing { until, .. }) = self.ledger.get(&admission, now) else { continue };
            // What is left of it goes when the core says so.
            self.tell(News::Report(Report::Withdrawn { admission, until }));
        }
    }

    fn restore(&mut self, why: Option<&str>, missing: BTreeSet<Admission>) {
        let now = self.clock.now();
        match &mut self.restoring {
            Some(restoring) => restoring.again(why, missing),
            none => *none = Some(Restoring::new(why, missing, now)),
        }
    }

    /// Makes every running grant true anew that needs a rule. Says which there are.
    pub(super) fn add_all_again(&mut self) -> BTreeSet<Admission> {
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
    fn rules(&self, admission: &Admission) -> Vec<Rule> {
        let ports = self.plan.door(&admission.door).map_or(&[][..], |door| &door.ports);
        ports.iter().map(|ports| Rule { source: admission.source, ports: *ports }).collect()
    }

    /// The rules that running grants want, and until when: as long as the longest of them.
    fn wanted(&self, now: Moment) -> BTreeMap<Rule, Moment> {
        let mut wanted = BTreeMap::new();
        for admission in &self.ruled {
            let Some(standing) = self.ledger.get(admission, now) else { continue };
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
        let link = standing.map(|standing| standing.link).unwrap_or_default();
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
                // Beside the gate it was closed before.
                if self.role == Role::Alone {
                    self.tell(News::Report(Report::Closed { admission }));
                }
            }
            None => {
                // The time of a rule is counted from when firewalld did the call, and may be over by now.
                // Once is enough: a firewalld that is always slow is not made faster by asking more.
                if too_long && !(waiting.corrected && standing) {
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
        self.answer_end();
    }

    /// Whoever waits for the end has waited long enough: nothing is left to do, or nobody is there to do it.
    pub(super) fn answer_end(&mut self) {
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
