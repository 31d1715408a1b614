//! What is known of what firewalld closes: its zones while it runs, and what it has left when it does not.

use std::{collections::BTreeSet, net::IpAddr};

use doors_core::{door::GrantKey, engine::Report, lease::GrantedTo, packet::Link};

use super::State;
use crate::{
    News,
    firewalld::{Role, preflight::Explained, zones::Zones},
    nftables::left_by_firewalld,
};

/// What is known of what firewalld closes.
#[derive(Debug)]
pub(super) enum Sight {
    /// firewalld runs, or may run, and has yet to be asked what its zones let through. Holds what was seen last.
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
pub(in super::super) enum Left {
    Nothing,
    /// Its rules, and so many of ours among them.
    Rules {
        ours: usize,
    },
    /// The kernel does not say.
    Unknown,
}

impl State {
    /// Whether firewalld would let a client through to a door without a rule, for certain.
    pub(super) fn is_let_in(&self, admission: &GrantKey, link: Link) -> bool {
        let zones = match (self.role, &self.sight) {
            (Role::Alone, _) | (_, Sight::Unknown(_) | Sight::Left(None)) => return false,
            (_, Sight::Absent) => return true,
            (_, Sight::Zones(zones) | Sight::Left(Some(zones))) => zones,
        };
        let Some(door) = self.plan.door(&admission.door) else { return false };
        let fixed = self.plan.zone.as_deref();
        door.ports.iter().all(|ports| zones.let_in(admission.source, link, fixed, *ports))
    }

    /// Whether the zones have to be asked for before anything can be done.
    pub(in super::super) fn needs_zones(&self) -> bool {
        !matches!(self.sight, Sight::Zones(_))
    }

    /// The zones, if they are known.
    pub(in super::super) fn zones(&self) -> Option<&Zones> {
        match &self.sight {
            Sight::Zones(zones) => Some(zones),
            Sight::Unknown(_) | Sight::Absent | Sight::Left(_) => None,
        }
    }

    /// What the zones let through may have changed.
    pub(in super::super) fn unsettle(&mut self) {
        self.sight = match std::mem::replace(&mut self.sight, Sight::Absent) {
            Sight::Zones(zones) => Sight::Unknown(Some(zones)),
            other => other,
        };
    }

    /// Takes the list of zones. Grants that need a rule now, and did not before, get one.
    pub(in super::super) fn learn(&mut self, zones: Zones) {
        self.sight = Sight::Zones(zones);
        if self.role == Role::Alone {
            return;
        }
        self.explain();
        let now = self.clock.now();
        let running: Vec<(GrantKey, Link, bool)> = self
            .ledger
            .running(now)
            .filter(|(lease, _)| !self.ruled.contains(&lease.key))
            .map(|(lease, _)| (lease.key.clone(), lease.link, lease.granted_to != GrantedTo::Sequence))
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
    pub(in super::super) fn comes_into_sight(&mut self) {
        self.sight = Sight::Unknown(None);
        self.add_all_again();
    }

    /// Whether a firewalld that is gone has left what may close doors.
    pub(in super::super) fn is_in_the_way(&self) -> bool {
        matches!(self.sight, Sight::Left(_))
    }

    /// firewalld is not there when it is looked for. Beside the gate that is no news, unless the configuration
    /// names it, or something of it is in the way.
    pub(in super::super) fn does_not_run(&mut self) {
        let left = self.see_nothing();
        if self.is_expected || left != Left::Nothing {
            self.say_it_is_lost("firewalld is not on the system bus", left);
        }
    }

    /// firewalld is not there, or cannot be reached. What it has left in the kernel counts.
    pub(in super::super) fn see_nothing(&mut self) -> Left {
        let sources: BTreeSet<IpAddr> = self.held.keys().map(|rule| rule.source).collect();
        let left = match left_by_firewalld(&sources.into_iter().collect::<Vec<_>>()) {
            Ok(None) => Left::Nothing,
            Ok(Some(ours)) => Left::Rules { ours },
            // If the kernel does not say, firewalld's rules count as there.
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

    /// Grants that wait for firewalld and need no rule any more are true.
    fn settle_what_is_let_in(&mut self) {
        for (admission, waiting) in self.jobs.take_all() {
            let link = self.ledger.get(&admission, self.clock.now()).map(|lease| lease.link);
            if link.is_some_and(|link| self.is_let_in(&admission, link)) {
                self.ruled.remove(&admission);
                if waiting.fresh {
                    self.tell(News::Report(Report::Done(admission)));
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
    pub(in super::super) fn lost(&mut self, why: &str) {
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
    pub(in super::super) fn cannot_be_reached(&self, why: &str) {
        let what = "work with firewalld".to_owned();
        match self.sight {
            // Most machines have no firewalld.
            Sight::Absent => self.tell(News::Detail(format!("firewalld: {why}"))),
            _ => self.tell(News::Failed { what, why: why.to_owned() }),
        }
    }
}
