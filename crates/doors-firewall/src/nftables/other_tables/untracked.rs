//! Rules that keep a door's packets from connection tracking (`notrack`).
//!
//! The gate lets a connection go on because connection tracking knows it. A packet that is not tracked needs a grant of its
//! own, so the connection dies when the grant ends. It is enough that the answers are not tracked: then connection
//! tracking takes the client's packets for invalid.

use std::collections::{BTreeMap, BTreeSet};

use doors_os::netlink::socket::{Family, NetlinkError, Socket};

use super::{
    super::abi,
    BaseChain, base_chains, chains, family_name, links, remedy, ruleset,
    search::{Found, Reach},
    walk::{self, Connection, Packet, Ruleset},
};
use crate::{
    Obstacle, Obstacles,
    plan::{Plan, Ports, Protocol},
};

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

/// Messages about rules that keep the doors' ports from connection tracking.
pub(super) fn untracked(plan: &Plan) -> Result<Obstacles, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let links = links();
    // Ports with the same message share one line.
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
    [abi::NF_INET_PRE_ROUTING, abi::NF_INET_LOCAL_OUT].contains(&base.hook)
        && base.priority <= abi::NF_IP_PRI_CONNTRACK
}

/// The rules behind a base chain that keep some ports from connection tracking.
fn sites(
    ruleset: &Ruleset,
    base: &BaseChain,
    chains: &[String],
    ports: Ports,
    links: &[String],
) -> BTreeSet<Site> {
    let packet = if base.hook == abi::NF_INET_LOCAL_OUT { Packet::Answer } else { Packet::Later };
    let candidates = ruleset.ends(ports);
    let mut counted: BTreeMap<Site, usize> = BTreeMap::new();
    for port in &candidates {
        let mut here: Vec<Site> = Vec::new();
        for family in walk::families(base.family) {
            let (family, protocol, port) = (*family, ports.protocol, *port);
            let connection = Connection { packet, family, protocol, port, mark: 0, links };
            let Some(found) = ruleset.first(&base.name, &connection, |rule| rule.untracks) else { continue };
            let site = Site::new(found, base, chains);
            match here.iter_mut().find(|other| (&other.chain, &other.rule) == (&site.chain, &site.rule)) {
                // The two families differ.
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

/// The message about some ports and their rules, at least one.
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
        let is_certain = base.priority < abi::NF_IP_PRI_CONNTRACK;
        Self {
            reach: if is_certain { reach } else { Reach::Unclear },
            answers: base.hook == abi::NF_INET_LOCAL_OUT,
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
