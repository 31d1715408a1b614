//! Compares what firewalld holds with what it should.

use std::{collections::BTreeSet, net::IpAddr};

use doors_core::{door::GrantKey, engine::Report};

use super::{NOT_MISSED, State};
use crate::{
    News,
    firewalld::{Role, rule::Rule, sanitize::in_one_line, stale_rules::Leftover},
    nftables::left_by_firewalld,
};

impl State {
    /// firewalld says that a rule was taken out. It may be what we have just asked for.
    pub(in super::super) fn note_removal(&mut self, written: &str) {
        let place_of = |rule: &Rule| self.held.get(rule).and_then(|held| held.place.clone());
        match Rule::read(written) {
            Some((rule, text)) => {
                let place = place_of(&rule).filter(|(_, other)| *other == text);
                self.removed.extend(place.map(|place| (rule, place)));
            }
            // A rule in other words than firewalld's own may be ours all the same, if it names the address.
            None => {
                let named = |rule: &&Rule| written.contains(&rule.source.to_string());
                let places = self.held.keys().filter(named);
                self.removed.extend(places.filter_map(|rule| Some((*rule, place_of(rule)?))));
            }
        }
    }

    /// Whether a rule was taken out that has to be there. To be asked when nothing is under way: what we
    /// have asked for ourselves is known by then.
    pub(in super::super) fn misses_a_rule(&mut self) -> bool {
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
    pub(in super::super) fn zones_with_rules(&self) -> impl Iterator<Item = String> {
        self.held.values().filter_map(|held| held.place.as_ref()).map(|(zone, _)| zone.clone())
    }

    /// Whether firewalld may hold rules that have to be compared.
    pub(in super::super) fn has_rules(&self) -> bool {
        !(self.held.is_empty() && self.leftovers.is_empty() && self.strays.is_empty())
    }

    /// Compares what firewalld holds, zone by zone, with what it should. Gives the rules of ours that
    /// have been there too long and must go.
    pub(in super::super) fn compare(&mut self, held: &[(String, Vec<String>)]) -> Vec<Leftover> {
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
        let without: BTreeSet<GrantKey> = self
            .ledger
            .running(now)
            .filter(|(lease, _)| self.ruled.contains(&lease.key))
            .filter(|(lease, _)| self.rules(&lease.key).iter().any(|rule| missing.contains(rule)))
            .map(|(lease, _)| lease.key.clone())
            .collect();
        let has_forgotten = std::mem::take(&mut self.has_forgotten);
        let is_by_hand =
            |admission: &GrantKey| self.rules(admission).iter().any(|rule| by_hand.contains(rule));
        let withdrawn: BTreeSet<GrantKey> = match has_forgotten {
            true => BTreeSet::new(),
            false => without.iter().filter(|admission| is_by_hand(admission)).cloned().collect(),
        };
        let without: BTreeSet<GrantKey> = without.difference(&withdrawn).cloned().collect();
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

    /// An administrator has removed rules by hand: their grants are withdrawn, in firewalld and everywhere else.
    fn withdraw(&mut self, admissions: BTreeSet<GrantKey>) {
        let now = self.clock.now();
        for admission in admissions {
            let Some(lease) = self.ledger.get(&admission, now).cloned() else { continue };
            // What is left of it goes when the core says so.
            self.tell(News::Report(Report::Withdrawn(lease)));
        }
    }

    /// Looks for rules in the kernel that firewalld knows nothing of, of clients that have no grant any more.
    pub(in super::super) fn look_for_strays(&mut self) {
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
}
