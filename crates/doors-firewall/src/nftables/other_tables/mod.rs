//! Other tables of nftables: do they keep a door closed that we open?
//!
//! Our `accept` does not override a `drop` of another table. So this works out what other tables do with a connection, as
//! far as that can be done without a packet. Where it cannot, one line names the chain that decides.

mod bridges;
mod elements;
mod hairpin;
mod left;
mod news;
mod remedy;
mod rule;
mod search;
mod untracked;
mod walk;
mod words;
mod xt;

use std::{collections::BTreeSet, fs};

pub(in super::super) use self::left::left_by_firewalld;
pub(super) use self::news::{Told, remarks};
use self::{
    rule::{FromWhom, Rule, Verdict},
    walk::{Connection, Decides, Fate, Packet, Ruleset},
};
use super::{
    abi,
    ruleset::TABLE,
    snapshot::list,
    trace::{Dropped, Place},
};
use crate::{
    Obstacle, Obstacles,
    plan::{Mark, Plan, Ports, Protocol},
};
use doors_os::netlink::socket::{Family, NetlinkError, Socket};

/// firewalld's table. While firewalld runs, we ask firewalld itself instead.
const FIREWALLD: &str = "firewalld";
/// The chain through which firewalld's iptables backend sends what comes in.
const OF_IPTABLES_BACKEND: &str = "INPUT_ZONES";

/// A base chain: packets meet it at a hook on their way in, or answers on their way out.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct BaseChain {
    /// First prerouting, then input, then output.
    hook: u32,
    family: u8,
    table: String,
    name: String,
    drops: bool,
    /// Whether it is of the type that translates addresses (`type nat`).
    is_nat: bool,
    /// Whether the gate comes after it.
    before_gate: bool,
    priority: i32,
}

/// What other tables do with the doors' ports, as far as that can be seen.
pub(super) fn obstacles(plan: &Plan, firewalld_runs: bool) -> Result<Obstacles, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut found = Obstacles::default();
    let mut look = Look::new(plan);
    for base in base_chains(&mut socket)?.into_iter().filter(|base| base.hook != abi::NF_INET_LOCAL_OUT) {
        let chains = chains(&mut socket, base.family, &base.table)?;
        // While firewalld runs, we ask it itself.
        if firewalld_runs && is_of_firewalld(base.family, &base.table, &chains) {
            continue;
        }
        let ruleset = ruleset(&mut socket, base.family, &base.table)?;
        // Ports with the same message share one line.
        let mut fates: Vec<(Fate, Vec<Ports>)> = Vec::new();
        for ports in plan.doors.iter().flat_map(|door| &door.ports) {
            for fate in look.fates(&ruleset, &base, *ports) {
                match fates.iter_mut().find(|(other, _)| *other == fate) {
                    Some((_, all)) if all.contains(ports) => {}
                    Some((_, all)) => all.push(*ports),
                    None => fates.push((fate, vec![*ports])),
                }
            }
        }
        for (fate, ports) in fates {
            tell(&mut found, &base, &chains, &fate, &ports, plan.mark);
        }
    }
    found.lines.extend(ingress(&mut socket)?);
    found.lines.extend(legacy());
    Ok(found)
}

/// A line about tables that are not nftables'.
fn legacy() -> Option<String> {
    let names =
        |of: &str| fs::read_to_string(format!("/proc/thread-self/net/{of}_tables_names")).unwrap_or_default();
    let [v4, v6] = ["ip", "ip6"].map(names);
    let mut tables: Vec<&str> = v4.split_whitespace().chain(v6.split_whitespace()).collect();
    tables.sort_unstable();
    tables.dedup();
    (!tables.is_empty()).then(|| {
        format!(
            "iptables-legacy has tables here ({}), which cannot be read over nftables: whether they let the doors' ports \
             through is not known; iptables-legacy -S shows them",
            tables.join(", ")
        )
    })
}

/// What is known of connections, besides their ports, while we go from chain to chain.
struct Look {
    mark: u32,
    links: Vec<String>,
    /// What is translated before it comes to input, if it comes there at all, and then to another port.
    translated: BTreeSet<(u8, Protocol, u16)>,
}

impl Look {
    fn new(plan: &Plan) -> Self {
        Self { mark: plan.mark.map_or(0, Mark::bits), links: links(), translated: BTreeSet::new() }
    }

    /// What becomes of the first and of the last of some ports, in each family: each that is not the same once.
    fn fates(&mut self, ruleset: &Ruleset, base: &BaseChain, ports: Ports) -> Vec<Fate> {
        let mark = if base.before_gate { 0 } else { self.mark };
        let mut fates = Vec::new();
        for family in walk::families(base.family) {
            for port in [ports.first, ports.last] {
                let (protocol, links) = (ports.protocol, &self.links[..]);
                if base.hook == abi::NF_INET_LOCAL_IN && self.translated.contains(&(*family, protocol, port))
                {
                    continue;
                }
                let packet = Packet::First;
                let connection = Connection { packet, family: *family, protocol, port, mark, links };
                let fate = ruleset.fate(&base.name, base.drops, &connection);
                if matches!(fate, Fate::Translated { .. }) {
                    self.translated.insert((*family, protocol, port));
                }
                merge(&mut fates, fate);
            }
        }
        fates
    }
}

/// If both families end in the same place, one message tells of both.
fn merge(fates: &mut Vec<Fate>, fate: Fate) {
    let Fate::Closed { by, some } = &fate else {
        if fate != Fate::Passes && !fates.contains(&fate) {
            fates.push(fate);
        }
        return;
    };
    let is_there = |other: &&mut Fate| matches!(other, Fate::Closed { by: other, .. } if other == by);
    match fates.iter_mut().find(is_there) {
        Some(Fate::Closed { some: before, .. }) => *before |= *some,
        _ => fates.push(fate),
    }
}

/// The interfaces of this thread's network but the loopback interface.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|name| name != "lo").collect()
}

fn tell(
    found: &mut Obstacles,
    base: &BaseChain,
    chains: &[String],
    fate: &Fate,
    ports: &[Ports],
    mark: Option<Mark>,
) {
    let place = remedy::Place { family: base.family, table: &base.table, entry: &base.name, chains };
    let Some(first) = ports.first() else { return };
    let names = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let in_words = |(chain, rule): &Decides| {
        let decides = match rule {
            None => "its policy is drop".to_owned(),
            Some(rule) => by_rule(rule.handle, rule.words().or_else(|| rule.not_understood())),
        };
        (format!("{} {} {chain}", family_name(base.family), base.table), decides)
    };
    match fate {
        Fate::Passes => {}
        Fate::Closed { by, some } => {
            let (chain, decides) = in_words(by);
            let what = match some {
                true => format!(
                    "the chain {chain} lets {names} in for some addresses, and drops the rest ({decides}): for others \
                     no knock can open it"
                ),
                false => format!("the chain {chain} drops {names} ({decides}): no knock can open it"),
            };
            let remedy = match base.before_gate {
                true => format!("let {names} through there; it comes before the gate, so that a mark is of no help"),
                false => place.remedy(*first, mark),
            };
            found.warnings.push(Obstacle::closed(format!("{what}; {remedy}")));
        }
        Fate::ClosedToSome { by, from } => {
            let (chain, decides) = in_words(by);
            let said = |whom| {
                format!("the chain {chain} drops {names} {whom} ({decides}): for these no knock can open it")
            };
            match from {
                FromWhom::Some => found.lines.push(said("from some addresses")),
                FromWhom::AllButSome => {
                    found.warnings.push(Obstacle::closed(said("from all but some addresses")));
                }
            }
        }
        Fate::Translated { by } => {
            let (chain, decides) = in_words(by);
            found.lines.push(format!(
                "the chain {chain} leads {names} to another port or machine ({decides}): whether it gets through the \
                 chains behind cannot be said without a packet; the first connection through a grant tells"
            ));
        }
        Fate::Unclear { by: (chain, None) } => found.lines.push(format!(
            "whether {names} gets through the chain {} {} {chain} cannot be said: it has too many rules; the first \
             connection through a grant tells",
            family_name(base.family),
            base.table
        )),
        Fate::Unclear { by } => {
            let (chain, decides) = in_words(by);
            found.lines.push(format!(
                "whether {names} gets through the chain {chain} cannot be said without a packet, it is decided {decides}; \
                 the first connection through a grant tells"
            ));
        }
    }
}

/// Names the rule for a person.
fn by_rule(handle: u64, words: Option<String>) -> String {
    let words = words.map_or_else(String::new, |words| format!(": {words}"));
    format!("by its rule with handle {handle}{words}")
}

/// The rules of a table and what its sets hold, as far as rules ask them for ports.
fn ruleset(socket: &mut Socket, family: u8, table: &str) -> Result<Ruleset, NetlinkError> {
    let mut ruleset = Ruleset::default();
    for rule in rules(socket, family, table, None)? {
        for set in rule.sets_of_ports() {
            if !ruleset.sets.contains_key(set) {
                let ports = elements::ports(socket, family, table, set)?;
                ruleset.sets.insert(set.to_owned(), ports);
            }
        }
        if let Some(map) = rule.map()
            && !ruleset.maps.contains_key(map)
        {
            let verdicts = elements::verdicts(socket, family, table, map)?;
            ruleset.maps.insert(map.to_owned(), verdicts);
        }
        ruleset.rules.entry(rule.chain.clone()).or_default().push(rule);
    }
    Ok(ruleset)
}

fn base_chains(socket: &mut Socket) -> Result<Vec<BaseChain>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETCHAIN, abi::NFPROTO_UNSPEC, |_| {});
    let mut found = socket.dump(&request, |message| {
        let family = *message.body.first()?;
        let attributes = message.attributes(4);
        let (table, hook) =
            (attributes.text(abi::NFTA_CHAIN_TABLE)?, attributes.nested(abi::NFTA_CHAIN_HOOK));
        let number = hook.u32_be(abi::NFTA_HOOK_HOOKNUM)?;
        let priority = hook.u32_be(abi::NFTA_HOOK_PRIORITY)?.cast_signed();
        let is_ours = family == abi::NFPROTO_INET && table == TABLE;
        let looked_at =
            [abi::NF_INET_LOCAL_IN, abi::NF_INET_PRE_ROUTING, abi::NF_INET_LOCAL_OUT].contains(&number);
        let ip = [abi::NFPROTO_INET, abi::NFPROTO_IPV4, abi::NFPROTO_IPV6].contains(&family);
        (looked_at && ip && !is_ours).then(|| BaseChain {
            hook: number,
            family,
            table,
            name: attributes.text(abi::NFTA_CHAIN_NAME).unwrap_or_default(),
            drops: attributes.u32_be(abi::NFTA_CHAIN_POLICY) == Some(abi::NF_DROP.cast_unsigned()),
            is_nat: attributes.text(abi::NFTA_CHAIN_TYPE).as_deref() == Some("nat"),
            before_gate: number == abi::NF_INET_PRE_ROUTING && priority < abi::NF_IP_PRI_MANGLE,
            priority,
        })
    })?;
    found.sort_unstable();
    Ok(found)
}

/// A line for each chain at the ingress hook of a device that may drop something: such a chain comes before all the
/// chains that are examined here, and before connection tracking.
fn ingress(socket: &mut Socket) -> Result<Vec<String>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETCHAIN, abi::NFPROTO_UNSPEC, |_| {});
    let chains = socket.dump(&request, |message| {
        let family = *message.body.first()?;
        let attributes = message.attributes(4);
        let hook = attributes.nested(abi::NFTA_CHAIN_HOOK);
        let number = hook.u32_be(abi::NFTA_HOOK_HOOKNUM)?;
        let is_ingress =
            [(abi::NFPROTO_NETDEV, abi::NF_NETDEV_INGRESS), (abi::NFPROTO_INET, abi::NF_INET_INGRESS)];
        let drops = attributes.u32_be(abi::NFTA_CHAIN_POLICY) == Some(abi::NF_DROP.cast_unsigned());
        let of_several = hook.nested(abi::NFTA_HOOK_DEVS).filter(|(kind, _)| *kind == abi::NFTA_DEVICE_NAME);
        let text =
            |name: &[u8]| String::from_utf8_lossy(name).trim_end_matches('\0').escape_debug().to_string();
        let mut devices: Vec<String> = of_several.map(|(_, name)| text(name)).collect();
        if devices.is_empty() {
            devices.extend(hook.find(abi::NFTA_HOOK_DEV).map(text));
        }
        let (table, name) = (attributes.text(abi::NFTA_CHAIN_TABLE)?, attributes.text(abi::NFTA_CHAIN_NAME)?);
        is_ingress.contains(&(family, number)).then_some((family, table, name, drops, devices))
    })?;
    let mut lines = Vec::new();
    for (family, table, name, drops, devices) in chains {
        let passes =
            |rule: &Rule| matches!(rule.verdict, Verdict::Continue | Verdict::Accept | Verdict::Return);
        if drops || !rules(socket, family, &table, None)?.iter().all(passes) {
            lines.push(format!(
                "the chain {} {table} {name} sees what arrives at {} before everything else, and may drop it: what it does \
                 with the doors' ports is not judged here",
                family_name(family),
                devices.join(", "),
            ));
        }
    }
    Ok(lines)
}

/// Whether a table is firewalld's, or holds what its iptables backend has made.
fn is_of_firewalld(family: u8, table: &str, chains: &[String]) -> bool {
    (family == abi::NFPROTO_INET && table == FIREWALLD)
        || chains.iter().any(|chain| chain == OF_IPTABLES_BACKEND)
}

/// A warning about a packet that the gate has let in, and another table has dropped. `None` if our work with firewalld is
/// about to open the port: that reports by itself, and a client may be quicker.
pub(super) fn dropped(
    Dropped { packet, entry, place }: &Dropped,
    mark: Option<Mark>,
    beside_firewalld: bool,
) -> Result<Option<String>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let Place { family, table, chain, rule } = place;
    let chains = chains(&mut socket, *family, table)?;
    if beside_firewalld && is_of_firewalld(*family, table, &chains) {
        return Ok(None);
    }
    let (decides, is_always_so) = match rule {
        None => ("its policy is drop".to_owned(), true),
        Some(handle) => {
            let mut rules = rules(&mut socket, *family, table, Some(chain))?.into_iter();
            let rule = rules.find(|rule| rule.handle == *handle);
            let words = rule.as_ref().and_then(|rule| rule.words().or_else(|| rule.not_understood()));
            let is_always_so = rule.is_some_and(|rule| rule.looks_at_ports_and_sources_alone());
            (by_rule(*handle, words), is_always_so)
        }
    };
    let what_now = match is_always_so {
        true => "no knock can open that",
        false => "that was this packet; whether it drops others cannot be said",
    };
    let remedy = remedy::Place { family: *family, table, entry, chains: &chains }.remedy(packet.ports, mark);
    let (source, ports, family) = (packet.source, packet.ports, family_name(*family));
    Ok(Some(format!(
        "the gate has let {source} in at {ports}, and the chain {family} {table} {chain} has dropped the connection \
         ({decides}): {what_now}; {remedy}"
    )))
}

/// The rules of a table, or of one chain of it, in their order.
fn rules(socket: &mut Socket, family: u8, table: &str, of: Option<&str>) -> Result<Vec<Rule>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETRULE, family, |writer| {
        writer.put_text(abi::NFTA_RULE_TABLE, table);
        if let Some(chain) = of {
            writer.put_text(abi::NFTA_RULE_CHAIN, chain);
        }
    });
    socket.dump(&request, |message| {
        let is_of_it = message.attributes(4).text(abi::NFTA_RULE_TABLE).as_deref() == Some(table);
        is_of_it.then(|| Rule::read(message)).flatten()
    })
}

/// The names of the chains of a table.
fn chains(socket: &mut Socket, family: u8, of: &str) -> Result<Vec<String>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETCHAIN, family, |_| {});
    socket.dump(&request, |message| {
        let attributes = message.attributes(4);
        let is_of_it = message.body.first() == Some(&family)
            && attributes.text(abi::NFTA_CHAIN_TABLE).as_deref() == Some(of);
        is_of_it.then(|| attributes.text(abi::NFTA_CHAIN_NAME)).flatten()
    })
}

fn family_name(family: u8) -> &'static str {
    match family {
        abi::NFPROTO_IPV4 => "ip",
        abi::NFPROTO_IPV6 => "ip6",
        abi::NFPROTO_NETDEV => "netdev",
        _ => "inet",
    }
}
