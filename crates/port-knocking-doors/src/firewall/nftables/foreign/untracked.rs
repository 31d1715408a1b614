//! Rules that keep a door's packets from connection tracking (`notrack`).
//!
//! The gate lets a connection live on by what connection tracking knows of it. What is kept from that needs its grant for
//! each packet: the connection dies when the grant ends. It is enough that the answers are kept from it, since then
//! connection tracking takes what the client sends for invalid.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    super::abi::chain,
    BaseChain, base_chains, chains, family_name, links, remedy,
    rule::{Rule, Test, Verdict, What},
    ruleset,
    walk::{self, Applies, Connection, DEEPEST, LONGEST, Packet, Ruleset},
};
use crate::{
    firewall::{
        Obstacle, Obstacles,
        plan::{Plan, Ports, Protocol},
    },
    netlink::socket::{Family, NetlinkError, Socket},
};

/// So many ports of a range are looked at.
const PORTS: usize = 256;

/// For which connections a rule is, of those through a grant.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Reach {
    All,
    /// Depending on where they come from, or over which interface.
    Some,
    /// That cannot be said without a packet.
    Unclear,
}

/// A rule that keeps packets of some ports from connection tracking.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Site {
    reach: Reach,
    answers: bool,
    family: u8,
    table: String,
    /// The chain at which packets come into the table.
    entry: String,
    /// The chain that has the rule, with the family and the table.
    chain: String,
    /// The rule, for a person: without its handle if possible, since the same rule gets another whenever it is loaded.
    rule: String,
    chains: Vec<String>,
    /// Not all ports of the range.
    part: bool,
}

/// What was found the last time, so that only news is told.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Untracked(Arc<Mutex<BTreeSet<String>>>);

impl Untracked {
    /// What is to be said that was not found the last time.
    pub(in super::super) fn news(&self, plan: &Plan) -> Result<Obstacles, NetlinkError> {
        // Who comes later looks later.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = untracked(plan)?;
        let warnings = found.warnings.iter().map(|one| one.said.clone());
        let all: BTreeSet<String> = warnings.chain(found.lines.iter().cloned()).collect();
        found.warnings.retain(|one| !told.contains(&one.said));
        found.lines.retain(|line| !told.contains(line));
        *told = all;
        Ok(found)
    }
}

/// What is to be said of rules that keep the doors' ports from connection tracking.
pub(in super::super) fn untracked(plan: &Plan) -> Result<Obstacles, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let links = links();
    // Ports of which the same is to be said stand in one line.
    let mut by_port: BTreeMap<Ports, BTreeSet<Site>> = BTreeMap::new();
    for base in base_chains(&mut socket)?.into_iter().filter(comes_before_tracking) {
        let ruleset = ruleset(&mut socket, base.family, &base.table)?;
        if !ruleset.rules.values().flatten().any(|rule| rule.untracks) {
            continue;
        }
        let chains = chains(&mut socket, base.family, &base.table)?;
        for ports in plan.doors.iter().flat_map(|door| &door.ports) {
            let found = sites(&ruleset, &base, &chains, *ports, &links);
            if !found.is_empty() {
                by_port.entry(*ports).or_default().extend(found);
            }
        }
    }
    let mut groups: BTreeMap<BTreeSet<Site>, Vec<Ports>> = BTreeMap::new();
    for (ports, sites) in by_port {
        groups.entry(sites).or_default().push(ports);
    }
    let mut found = Obstacles::default();
    for (sites, ports) in groups {
        let (unclear, clear): (Vec<Site>, Vec<Site>) =
            sites.into_iter().partition(|site| site.reach == Reach::Unclear);
        if clear.is_empty() {
            found.lines.push(said(&unclear, &ports));
        } else {
            found.warnings.push(Obstacle::closed(said(&clear, &ports)));
        }
    }
    Ok(found)
}

/// A chain of the priority of connection tracking comes before it or after, depending on which was there first.
fn comes_before_tracking(base: &BaseChain) -> bool {
    [chain::PREROUTING, chain::OUTPUT].contains(&base.hook) && base.priority <= chain::PRIORITY_CONNTRACK
}

/// The rules behind a base chain that keep some ports from connection tracking.
fn sites(
    ruleset: &Ruleset,
    base: &BaseChain,
    chains: &[String],
    ports: Ports,
    links: &[String],
) -> BTreeSet<Site> {
    let packet = if base.hook == chain::OUTPUT { Packet::Answer } else { Packet::Later };
    let candidates = candidates(ruleset, ports);
    let mut counted: BTreeMap<Site, usize> = BTreeMap::new();
    for port in &candidates {
        let mut here: Vec<Site> = Vec::new();
        for family in walk::families(base.family) {
            let (family, protocol, port) = (*family, ports.protocol, *port);
            let connection = Connection { packet, family, protocol, port, mark: 0, links };
            let Some(found) = ruleset.untracks(&base.name, &connection) else { continue };
            let site = Site::new(found, base, chains);
            match here.iter_mut().find(|other| (&other.chain, &other.rule) == (&site.chain, &site.rule)) {
                // One family is not as the other.
                Some(other) if other.reach != site.reach => other.reach = Reach::Some,
                Some(_) => {}
                None => here.push(site),
            }
        }
        for site in here {
            let count = counted.entry(site).or_default();
            *count = count.saturating_add(1);
        }
    }
    let part = |(site, count)| Site { part: count < candidates.len(), ..site };
    counted.into_iter().map(part).collect()
}

/// The ports of a range at which rules begin or end to say something else.
fn candidates(ruleset: &Ruleset, ports: Ports) -> BTreeSet<u16> {
    let asked = ruleset.rules.values().flatten().flat_map(|rule| &rule.tests);
    let of_tests = asked.filter_map(|test| match &test.what {
        What::Port(ranges) | What::SourcePort(ranges) => Some(ranges),
        _ => None,
    });
    let of_sets = ruleset.sets.values().flatten();
    let ends = |range: &RangeInclusive<u16>| [Some(*range.start()), range.end().checked_add(1)];
    let ends = of_tests.chain(of_sets).flatten().flat_map(ends).flatten();
    let inside = ends.filter(|port| ports.range().contains(port));
    [ports.first, ports.last].into_iter().chain(inside).take(PORTS).collect()
}

/// What is said of ports with their rules, of which there is at least one.
fn said(sites: &[Site], ports: &[Ports]) -> String {
    let part = if sites.iter().all(|site| site.part) { "ports of " } else { "" };
    let names = ports.iter().map(|ports| format!("{part}{ports}")).collect::<Vec<_>>().join(", ");
    let reach = sites.iter().map(|site| site.reach).min();
    let rules: Vec<String> = sites.iter().map(Site::in_words).collect();
    let rules = rules.join(", and ");
    // Connections of TCP from before the start are made known to connection tracking, but not to its rules.
    let at_start = match sites.iter().all(|site| site.answers)
        && ports.iter().all(|ports| ports.protocol == Protocol::Tcp)
    {
        true => "",
        false => ", and when the daemon starts",
    };
    // Several rules of one chain have one remedy.
    let past: BTreeSet<String> = match ports {
        [first, ..] => sites.iter().map(|site| site.past(*first)).collect(),
        [] => BTreeSet::new(),
    };
    let past = past.into_iter().collect::<Vec<_>>().join(" and ");
    let remedy = format!("leave {names} out there, for example with {past}; see docs/firewalls.md");
    match reach {
        Some(Reach::Unclear) => format!(
            "whether connections to {names} are kept from connection tracking cannot be said without a packet: {rules}; if they \
             are, they die when their grant ends{at_start}: {remedy}"
        ),
        reach => {
            let some = if reach == Some(Reach::Some) { "some " } else { "" };
            format!("{some}connections to {names} die when their grant ends{at_start}: {rules}; {remedy}")
        }
    }
}

impl Site {
    fn new((reach, chain, rule): Found<'_>, base: &BaseChain, chains: &[String]) -> Self {
        let is_certain = base.priority < chain::PRIORITY_CONNTRACK;
        Self {
            reach: if is_certain { reach } else { Reach::Unclear },
            answers: base.hook == chain::OUTPUT,
            family: base.family,
            table: base.table.clone(),
            entry: base.name.clone(),
            chain: format!("{} {} {chain}", family_name(base.family), base.table),
            rule: rule.words().map_or_else(
                || format!("by its rule with handle {}", rule.handle),
                |words| format!("by its rule: {words}"),
            ),
            chains: chains.to_owned(),
            part: false,
        }
    }

    fn in_words(&self) -> String {
        let what = if self.answers { "the answers" } else { "what comes in" };
        let may = if self.reach == Reach::Unclear { "may keep" } else { "keeps" };
        format!("the chain {} {may} {what} from connection tracking ({})", self.chain, self.rule)
    }

    fn past(&self, ports: Ports) -> String {
        let Self { family, table, entry, chains, .. } = self;
        remedy::Place { family: *family, table, entry, chains }.past(ports, self.answers)
    }
}

/// A rule that keeps something from connection tracking, and the chain that has it.
type Found<'a> = (Reach, &'a str, &'a Rule);

/// A search for such rules.
#[derive(Debug, Default)]
struct Search<'a> {
    best: Option<Found<'a>>,
    rules: usize,
}

impl Ruleset {
    /// The first rule that keeps the most of a connection's packets from connection tracking.
    fn untracks<'a>(&'a self, chain: &'a str, connection: &Connection<'_>) -> Option<Found<'a>> {
        let mut search = Search::default();
        self.search(chain, connection, Reach::All, 0, &mut search);
        search.best
    }

    /// Looks for them from a chain on, into which so many of the packets come. Gives how many of them come out at its end.
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
            if search.rules > LONGEST || depth > DEEPEST {
                return None;
            }
            let Some(reach) = self.reach(rule, connection) else { continue };
            let inside = within.max(reach);
            if rule.untracks && search.best.is_none_or(|(best, ..)| inside < best) {
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

    /// For which packets a rule is; `None` for none.
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
