//! Other people's nftables: do they keep a door closed that we open?
//!
//! An `accept` of ours overrides nobody's drop. Whether another ruleset lets a port through cannot be
//! known without running it, so this only looks for the clear case: a chain for incoming packets
//! that drops what it does not know, in a table in which nothing names the port.

mod remedy;
mod rule;
mod xt;

use std::net::IpAddr;

use self::rule::Rule;
use super::{
    abi::{self, chain, data, element, expression, message},
    ruleset::TABLE,
    snapshot::list,
    trace::{Dropped, Place},
};
use crate::{
    firewall::plan::{Mark, Plan, Ports, octets},
    netlink::{
        message::Attributes,
        socket::{Family, NetlinkError, Socket},
    },
};

/// firewalld's table, of which firewalld itself is asked when it runs.
const FIREWALLD: &str = "firewalld";
/// The chain through which firewalld's iptables backend sends what comes in.
const OF_IPTABLES_BACKEND: &str = "INPUT_ZONES";

/// What a rule says of ports.
enum Says {
    /// It compares with this port, or with a whole range.
    Port(u16),
    /// It compares with something that may hold any port.
    Anything,
    /// It looks ports up in this set.
    Set(String),
}

/// A table that drops what it does not know, in one family.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Dropping {
    family: u8,
    table: String,
    chain: String,
}

/// Warnings about doors that another table keeps closed, as far as that can be seen.
pub(super) fn obstacles(plan: &Plan, firewalld_runs: bool) -> Result<Vec<String>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let mut warnings = Vec::new();
    for dropping in dropping_chains(&mut socket)? {
        if dropping.table == FIREWALLD && firewalld_runs {
            continue;
        }
        let said = says(&mut socket, &dropping)?;
        for ports in plan.doors.iter().flat_map(|door| &door.ports) {
            if !names(&mut socket, &dropping, &said, *ports)? {
                let Dropping { family, table, chain } = &dropping;
                let family = family_name(*family);
                warnings.push(format!(
                    "the nftables chain {family} {table} {chain} drops what it does not know, and nothing in \
                     its table names {ports}: no knock may be able to open it; let that port through there, \
                     the gate guards it"
                ));
            }
        }
    }
    Ok(warnings)
}

/// What a firewalld that is gone has left in the kernel: in how many of its rules one of these addresses stands.
/// `None` if there is nothing of it. Its iptables backend is known by the name of a chain, if the iptables of
/// this machine is the one that works with nftables; of the older one nothing can be seen here.
pub(in super::super) fn left_by_firewalld(sources: &[IpAddr]) -> Result<Option<usize>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let request = list(message::GET_CHAIN, abi::FAMILY_ANY, |_| {});
    let mut tables = socket.dump(&request, |message| {
        let attributes = message.attributes(4);
        let (family, table) = (*message.body.first()?, attributes.text(chain::TABLE)?);
        let is_its_own = table == FIREWALLD && family == abi::FAMILY_INET;
        let of_backend = attributes.text(chain::NAME).as_deref() == Some(OF_IPTABLES_BACKEND);
        (is_its_own || of_backend).then_some((family, table))
    })?;
    tables.sort_unstable();
    tables.dedup();
    if tables.is_empty() {
        return Ok(None);
    }
    let wanted: Vec<Vec<u8>> = sources.iter().map(|source| octets(*source)).collect();
    let mut count: usize = 0;
    for (family, table) in tables {
        let request = list(message::GET_RULE, family, |writer| writer.put_text(abi::rule::TABLE, &table));
        let rules = socket.dump(&request, |message| {
            let mut expressions = message.attributes(4).nested(abi::rule::EXPRESSIONS);
            let names_one = expressions.any(|(_, one)| {
                let inner = Attributes(one).nested(abi::rule::EXPRESSION_DATA);
                let value = inner.nested(expression::COMPARE_DATA).find(data::VALUE);
                value.is_some_and(|value| wanted.iter().any(|source| source == value))
            });
            names_one.then_some(())
        })?;
        count = count.saturating_add(rules.len());
    }
    Ok(Some(count))
}

/// Whether a place is in firewalld's own table.
pub(super) fn is_of_firewalld(place: &Place) -> bool {
    place.family == abi::FAMILY_INET && place.table == FIREWALLD
}

/// A warning about a packet that the gate has let in, and another table has dropped.
pub(super) fn dropped(
    Dropped { packet, entry, place }: &Dropped,
    mark: Option<Mark>,
) -> Result<String, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let Place { family, table, chain, rule } = place;
    let decides = match rule {
        None => "its policy is drop".to_owned(),
        Some(handle) => {
            let words = rules(&mut socket, *family, table, Some(chain))?
                .into_iter()
                .find(|rule| rule.handle == *handle)
                .and_then(|rule| rule.words());
            let words = words.map_or_else(String::new, |words| format!(": {words}"));
            format!("by its rule with handle {handle}{words}")
        }
    };
    let chains = chains(&mut socket, *family, table)?;
    let remedy = remedy::Place { family: *family, table, entry, chains: &chains }.remedy(packet.ports, mark);
    let (source, ports, family) = (packet.source, packet.ports, family_name(*family));
    Ok(format!(
        "the gate has let {source} in at {ports}, and the chain {family} {table} {chain} has dropped the connection \
         ({decides}): no knock can open that; {remedy}"
    ))
}

/// The rules of a table, or of one chain of it, in their order.
fn rules(socket: &mut Socket, family: u8, table: &str, of: Option<&str>) -> Result<Vec<Rule>, NetlinkError> {
    let request = list(message::GET_RULE, family, |writer| {
        writer.put_text(abi::rule::TABLE, table);
        if let Some(chain) = of {
            writer.put_text(abi::rule::CHAIN, chain);
        }
    });
    socket.dump(&request, |message| {
        let is_of_it = message.attributes(4).text(abi::rule::TABLE).as_deref() == Some(table);
        is_of_it.then(|| Rule::read(message)).flatten()
    })
}

/// The names of the chains of a table.
fn chains(socket: &mut Socket, family: u8, of: &str) -> Result<Vec<String>, NetlinkError> {
    let request = list(message::GET_CHAIN, family, |_| {});
    socket.dump(&request, |message| {
        let attributes = message.attributes(4);
        let is_of_it =
            message.body.first() == Some(&family) && attributes.text(chain::TABLE).as_deref() == Some(of);
        is_of_it.then(|| attributes.text(chain::NAME)).flatten()
    })
}

fn dropping_chains(socket: &mut Socket) -> Result<Vec<Dropping>, NetlinkError> {
    let request = list(message::GET_CHAIN, abi::FAMILY_ANY, |_| {});
    let mut found = socket.dump(&request, |message| {
        let family = *message.body.first()?;
        let attributes = message.attributes(4);
        let table = attributes.text(chain::TABLE)?;
        let hook = attributes.nested(chain::HOOK).u32_be(chain::HOOK_NUMBER)?;
        let drops = attributes.u32_be(chain::POLICY) == Some(data::DROP.cast_unsigned());
        let incoming = [chain::INPUT, chain::PREROUTING].contains(&hook);
        let ip = [abi::FAMILY_INET, abi::FAMILY_IPV4, abi::FAMILY_IPV6].contains(&family);
        let concerned = drops && incoming && ip && table != TABLE;
        concerned.then(|| Dropping { family, table, chain: attributes.text(chain::NAME).unwrap_or_default() })
    })?;
    found.sort_unstable();
    Ok(found)
}

/// Everything that the rules of a table say of ports.
fn says(socket: &mut Socket, dropping: &Dropping) -> Result<Vec<Says>, NetlinkError> {
    let request = list(message::GET_RULE, dropping.family, |writer| {
        writer.put_text(abi::rule::TABLE, &dropping.table);
    });
    let rules = socket.dump(&request, |message| {
        let attributes = message.attributes(4);
        (attributes.text(abi::rule::TABLE)? == dropping.table).then(|| {
            let expressions = attributes.nested(abi::rule::EXPRESSIONS);
            expressions.filter_map(|(_, one)| of_expression(Attributes(one))).collect::<Vec<_>>()
        })
    })?;
    Ok(rules.into_iter().flatten().collect())
}

fn of_expression(one: Attributes<'_>) -> Option<Says> {
    let name = one.text(abi::rule::EXPRESSION_NAME)?;
    let inner = one.nested(abi::rule::EXPRESSION_DATA);
    let value = |kind| inner.nested(kind).find(data::VALUE);
    match name.as_str() {
        "cmp" => {
            let port = <[u8; 2]>::try_from(value(expression::COMPARE_DATA)?).ok()?;
            match inner.u32_be(expression::COMPARE_HOW)? {
                expression::EQUAL | expression::NOT_EQUAL => Some(Says::Port(u16::from_be_bytes(port))),
                _ => Some(Says::Anything),
            }
        }
        "range" => {
            let is_port = |kind| value(kind).is_some_and(|bytes| bytes.len() == 2);
            (is_port(expression::RANGE_FROM) && is_port(expression::RANGE_TO)).then_some(Says::Anything)
        }
        "lookup" => inner.text(expression::LOOKUP_SET).map(Says::Set),
        // A match of iptables, whose contents are its own.
        "match" => inner.find(expression::MATCH_INFO).map(|_| Says::Anything),
        _ => None,
    }
}

fn names(
    socket: &mut Socket,
    dropping: &Dropping,
    said: &[Says],
    ports: Ports,
) -> Result<bool, NetlinkError> {
    for says in said {
        let named = match says {
            Says::Anything => true,
            Says::Port(port) => ports.range().contains(port),
            Says::Set(set) => set_names(socket, dropping, set, ports)?,
        };
        if named {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a set may hold the port: as a key of two bytes, or anywhere in a longer one.
fn set_names(
    socket: &mut Socket,
    dropping: &Dropping,
    set: &str,
    ports: Ports,
) -> Result<bool, NetlinkError> {
    let request = list(message::GET_ELEMENT, dropping.family, |writer| {
        writer.put_text(element::LIST_TABLE, &dropping.table);
        writer.put_text(element::LIST_SET, set);
    });
    let found = socket.dump(&request, |message| {
        let elements = message.attributes(4).nested(element::LIST_ELEMENTS);
        Some(
            elements
                .filter_map(|(_, one)| {
                    let one = Attributes(one);
                    let key = one.nested(element::KEY).find(data::VALUE)?;
                    let is_range = one.find(element::FLAGS).is_some() || one.find(element::KEY_END).is_some();
                    let port = |pair: &[u8]| {
                        pair.first_chunk()
                            .map(|pair| u16::from_be_bytes(*pair))
                            .is_some_and(|port| ports.range().contains(&port))
                    };
                    Some((is_range && key.len() == 2) || key.chunks(2).any(port))
                })
                .any(|named| named),
        )
    })?;
    Ok(found.into_iter().any(|named| named))
}

fn family_name(family: u8) -> &'static str {
    match family {
        abi::FAMILY_IPV4 => "ip",
        abi::FAMILY_IPV6 => "ip6",
        _ => "inet",
    }
}
