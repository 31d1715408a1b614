//! Compares the kernel's table with what it must be, and puts back what is missing. A grant that was used up or deleted
//! by hand is not put back.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use doors_core::{
    door::{DoorName, GrantKey},
    lease::{GrantedTo, Lease},
    time::Moment,
};
use doors_os::netlink::socket::NetlinkError;

use super::{Findings, Gate, Gone, NOT_MISSED, Untold};
use crate::{
    ledger,
    nftables::{
        monitor::Monitor,
        ruleset,
        snapshot::{self, Entry, Snapshot},
    },
    plan::Plan,
};

/// An element that is missing from so many lists is not in the set.
const LISTS: usize = 3;

/// Grants that come back with the gate, in one transaction, which takes milliseconds.
const GRANTS_AT_ONCE: usize = 1024;

/// A transaction that takes longer makes grants last longer than they should.
const SLOW: Duration = Duration::from_millis(50);

/// The table is made anew at most so many times in a row, until we know how the kernel shows it. Once is nearly
/// always enough: only a program that changes our table without a pause makes a second time necessary.
const TRIES: usize = 3;

impl Gate {
    /// Compares the kernel's table with what it must be, and repairs what is wrong. Grants that the kernel has
    /// `refused` so far count as missing, not as used up. If single grants are missing and the table was not deleted,
    /// they were deleted by hand, and are not put back.
    pub(in super::super) fn check(
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

    /// What is wrong with the table. While it is not known how the table has to look, only its absence is noticed.
    pub(super) fn damage(&self, table: &Snapshot) -> Option<String> {
        match &self.intact {
            Some(intact) => intact.difference(table),
            None if table.is_empty() => Some("the table was gone".to_owned()),
            None => None,
        }
    }

    /// Notes what was missing, and when it was back.
    pub(super) fn note_repair(&mut self, repair: Option<(String, Moment)>, began: Moment) {
        if let Some((missing, back)) = repair {
            self.untold.repaired = Some((missing, back.remaining(began)));
        }
    }

    /// Forgets the grants for one connection that the kernel does not hold any more, unless they are made just now or were never in it, and
    /// notes how they have gone: with the table, if that was deleted, or as the monitor has heard.
    pub(super) fn forget_gone(
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
    pub(super) fn make_anew(
        &mut self,
        monitor: &mut Monitor,
        refused: &BTreeSet<GrantKey>,
    ) -> Result<(), NetlinkError> {
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
    pub(super) fn repair(&mut self) -> Result<Moment, NetlinkError> {
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
    pub(super) fn held(&mut self) -> Result<Held, NetlinkError> {
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
    pub(super) fn adopt_unknown(&mut self, held: &Held, now: Moment) -> Result<Vec<Lease>, NetlinkError> {
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
