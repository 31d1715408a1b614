//! Looks for a rule of another table that a connection may meet, as far as that can be done without a packet.

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{
    rule::{Rule, Test, Verdict, What},
    walk::{Applies, Connection, LONGEST, NFT_JUMP_STACK_SIZE, Ruleset},
};
use crate::plan::Ports;

/// The search tries at most so many ports of a range.
const PORTS: usize = 256;

/// For which connections a rule is, of those through a grant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reach {
    All,
    /// Depending on where they come from, or over which interface.
    Some,
    /// Not known without a packet.
    Unclear,
}

/// A rule that was looked for, the sources that it is for, and the chain that has it.
pub(super) type Found<'a> = (Reach, &'a str, &'a Rule);

/// A search for a rule.
struct Search<'a> {
    wanted: fn(&Rule) -> bool,
    best: Option<Found<'a>>,
    rules: usize,
}

impl Ruleset {
    /// The ports of a range at which rules begin or end to say something else.
    pub(super) fn ends(&self, ports: Ports) -> BTreeSet<u16> {
        let asked = self.rules.values().flatten().flat_map(|rule| &rule.tests);
        let of_tests = asked.filter_map(|test| match &test.what {
            What::Port(ranges) | What::SourcePort(ranges) => Some(ranges),
            _ => None,
        });
        let of_sets = self.sets.values().flatten();
        let ends = |range: &RangeInclusive<u16>| [Some(*range.start()), range.end().checked_add(1)];
        let ends = of_tests.chain(of_sets).flatten().flat_map(ends).flatten();
        // Each counts once, or many rules for one port would leave no place for another.
        let inside: BTreeSet<u16> = ends.filter(|port| ports.range().contains(port)).collect();
        inside.into_iter().take(PORTS).chain([ports.first, ports.last]).collect()
    }

    /// The first rule of a kind that is for most of a connection's packets.
    pub(super) fn first<'a>(
        &'a self,
        chain: &'a str,
        connection: &Connection<'_>,
        wanted: fn(&Rule) -> bool,
    ) -> Option<Found<'a>> {
        let mut search = Search { wanted, best: None, rules: 0 };
        self.search(chain, connection, Reach::All, 0, &mut search);
        search.best
    }

    /// Searches from a chain on that so many of the packets enter. Returns how many of them leave at its end.
    fn search<'a>(
        &'a self,
        chain: &'a str,
        connection: &Connection<'_>,
        mut within: Reach,
        depth: usize,
        search: &mut Search<'a>,
    ) -> Option<Reach> {
        for rule in self.rules.get(chain).into_iter().flatten() {
            search.rules = search.rules.saturating_add(1);
            if search.rules > LONGEST || depth > NFT_JUMP_STACK_SIZE {
                return None;
            }
            let Some(reach) = self.reach(rule, connection) else { continue };
            let inside = within.max(reach);
            if (search.wanted)(rule) && search.best.is_none_or(|(best, ..)| inside < best) {
                search.best = Some((inside, chain, rule));
            }
            let mut into = |to| self.search(to, connection, inside, depth.saturating_add(1), search);
            let (comes_out, goes_on) = match self.verdict(rule, connection) {
                Some(Verdict::Continue | Verdict::Map { .. }) => continue,
                None | Some(Verdict::Unknown(_)) => {
                    within = Reach::Unclear;
                    continue;
                }
                Some(Verdict::Accept | Verdict::Drop | Verdict::Reject | Verdict::Translate) => (None, true),
                Some(Verdict::Return) => (Some(inside), false),
                Some(Verdict::Jump(to)) => (into(to), true),
                Some(Verdict::Goto(to)) => (into(to), false),
            };
            within = match (reach, comes_out, goes_on) {
                (Reach::All, comes_out, false) | (Reach::All, comes_out @ None, true) => return comes_out,
                // All that went in, comes out.
                (_, Some(comes_out), true) if comes_out == inside => within,
                (_, Some(comes_out), true) => within.max(comes_out),
                _ => inside,
            };
        }
        Some(within)
    }

    /// Which packets a rule is for; `None` if it is for no packet.
    fn reach(&self, rule: &Rule, connection: &Connection<'_>) -> Option<Reach> {
        let one = |test: &Test| match (self.test(test, connection), &test.what) {
            (Applies::No, _) => None,
            (Applies::Yes, _) => Some(Reach::All),
            (Applies::ToSome, _)
            | (
                Applies::Unclear,
                What::Interface { .. } | What::OutInterface { .. } | What::Port(_) | What::SourcePort(_),
            ) => Some(Reach::Some),
            (Applies::Unclear, _) => Some(Reach::Unclear),
        };
        rule.tests.iter().map(one).try_fold(Reach::All, |reach, one| Some(reach.max(one?)))
    }
}
