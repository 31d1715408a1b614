//! What is in the kernel's table, read back.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use doors_core::lease::GrantedTo;
use doors_os::netlink::{
    message::{Attributes, Message, NLM_F_DUMP, Writer},
    socket::{NetlinkError, Socket},
};

use super::{
    abi,
    ruleset::{GUARDED, TABLE, TRUSTED},
};
use crate::plan::address;

/// Everything of our table but the grants, in a form that changes with every change of the table.
///
/// It holds contents, not handles: a rule that is replaced keeps its handle. What counts by itself (packets,
/// users of a set) is left out, so the same table looks the same whenever it is made.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Snapshot {
    parts: BTreeSet<(Part, Vec<u8>)>,
    /// The rules in their order, which is part of what they say.
    rules: Vec<(Part, Vec<u8>)>,
}

/// What a part of the table is, for a person.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Part {
    Table,
    Chain(String),
    Rule(String),
    Set(String),
    Element(String),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Table => write!(f, "the table"),
            Self::Chain(name) => write!(f, "the chain {name}"),
            Self::Rule(chain) => write!(f, "a rule of the chain {chain}"),
            Self::Set(name) => write!(f, "the set {name}"),
            Self::Element(set) => write!(f, "an element of the set {set}"),
        }
    }
}

impl Snapshot {
    /// Reads the table.
    pub(super) fn take(socket: &mut Socket) -> Result<Self, NetlinkError> {
        let mut parts = BTreeSet::new();
        parts.extend(socket.dump(&list(abi::NFT_MSG_GETTABLE, abi::NFPROTO_INET, |_| {}), |message| {
            let attributes = of_inet(message, abi::NFT_MSG_NEWTABLE)?;
            let name = attributes.text(abi::NFTA_TABLE_NAME)?;
            (name == TABLE).then(|| (Part::Table, contents(attributes, &[abi::NFTA_TABLE_FLAGS])))
        })?);
        parts.extend(socket.dump(&list(abi::NFT_MSG_GETCHAIN, abi::NFPROTO_INET, |_| {}), |message| {
            let attributes = of_table(message, abi::NFT_MSG_NEWCHAIN, abi::NFTA_CHAIN_TABLE)?;
            let name = attributes.text(abi::NFTA_CHAIN_NAME)?;
            Some((
                Part::Chain(name),
                contents(attributes, &[abi::NFTA_CHAIN_TYPE, abi::NFTA_CHAIN_HOOK, abi::NFTA_CHAIN_POLICY]),
            ))
        })?);
        let request = list(abi::NFT_MSG_GETRULE, abi::NFPROTO_INET, |writer| {
            writer.put_text(abi::NFTA_RULE_TABLE, TABLE)
        });
        let rules = socket.dump(&request, |message| {
            let attributes = of_table(message, abi::NFT_MSG_NEWRULE, abi::NFTA_RULE_TABLE)?;
            Some((Part::Rule(attributes.text(abi::NFTA_RULE_CHAIN)?), expressions(attributes)))
        })?;
        let request = list(abi::NFT_MSG_GETSET, abi::NFPROTO_INET, |writer| {
            writer.put_text(abi::NFTA_SET_TABLE, TABLE)
        });
        parts.extend(socket.dump(&request, |message| {
            let attributes = of_table(message, abi::NFT_MSG_NEWSET, abi::NFTA_SET_TABLE)?;
            let shape = [
                abi::NFTA_SET_FLAGS,
                abi::NFTA_SET_KEY_TYPE,
                abi::NFTA_SET_KEY_LEN,
                abi::NFTA_SET_DATA_TYPE,
                abi::NFTA_SET_DATA_LEN,
            ];
            let kinds = [&shape[..], &[abi::NFTA_SET_DESC, abi::NFTA_SET_TIMEOUT]].concat();
            Some((Part::Set(attributes.text(abi::NFTA_SET_NAME)?), contents(attributes, &kinds)))
        })?);
        for name in [GUARDED, TRUSTED[0], TRUSTED[1]] {
            if parts.iter().any(|(part, _)| *part == Part::Set(name.to_owned())) {
                let kinds = [
                    abi::NFTA_SET_ELEM_KEY,
                    abi::NFTA_SET_ELEM_KEY_END,
                    abi::NFTA_SET_ELEM_DATA,
                    abi::NFTA_SET_ELEM_FLAGS,
                ];
                let elements = elements(socket, name, |attributes| Some(contents(attributes, &kinds)))?;
                parts.extend(elements.into_iter().map(|raw| (Part::Element(name.to_owned()), raw)));
            }
        }
        Ok(Self { parts, rules })
    }

    /// Whether there is a table at all.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// What is in `self` and not in `found`, or the other way round; nothing if they are the same.
    pub(super) fn difference(&self, found: &Self) -> Option<String> {
        if self == found {
            return None;
        }
        if found.is_empty() {
            return Some("the table was gone".to_owned());
        }
        let (ours, theirs) = (self.all(), found.all());
        Some(match (ours.difference(&theirs).next(), theirs.difference(&ours).next()) {
            (Some((part, _)), _) => format!("{part} was missing or changed"),
            (None, Some((part, _))) => format!("{part} was not ours"),
            (None, None) => "the rules were doubled or in another order".to_owned(),
        })
    }

    fn all(&self) -> BTreeSet<&(Part, Vec<u8>)> {
        self.parts.iter().chain(&self.rules).collect()
    }
}

/// One element of a set of grants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// The address that is let in.
    pub(crate) source: IpAddr,
    /// For how much longer; `None` if it stays for ever.
    pub(crate) left: Option<Duration>,
    /// By what right it is let in, if it says so.
    pub(crate) by: GrantedTo,
}

/// The grants in a set; none if there is no such set.
pub(super) fn grants(socket: &mut Socket, set: &str) -> Result<Vec<Entry>, NetlinkError> {
    elements(socket, set, entry)
}

fn entry(attributes: Attributes<'_>) -> Option<Entry> {
    let source = address(attributes.nested(abi::NFTA_SET_ELEM_KEY).find(abi::NFTA_DATA_VALUE)?)?;
    let left = attributes.u64_be(abi::NFTA_SET_ELEM_EXPIRATION).map(Duration::from_millis);
    let timeout = attributes.u64_be(abi::NFTA_SET_ELEM_TIMEOUT);
    // An element that is about to go may show no time that is left; one for ever has no timeout, or one
    // of zero.
    let left = left.or(timeout.filter(|timeout| *timeout > 0).map(|_| Duration::ZERO));
    Some(Entry {
        source,
        left,
        by: attributes.find(abi::NFTA_SET_ELEM_USERDATA).map_or(GrantedTo::Sequence, remark),
    })
}

/// Reads our own remark. Another's says nothing.
fn remark(user_data: &[u8]) -> GrantedTo {
    let text = || {
        let (kind, rest) = user_data.split_first()?;
        let (length, text) = rest.split_first()?;
        let text = text.get(..usize::from(*length).checked_sub(1)?)?;
        std::str::from_utf8(text).ok().filter(|_| *kind == 0)
    };
    text().map_or(GrantedTo::Sequence, GrantedTo::from_remark)
}

/// A request for everything of a kind.
pub(super) fn list(kind: u16, family: u8, body: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(kind, NLM_F_DUMP, 0, |writer| {
        writer.raw(&[family, 0, 0, 0]);
        body(writer);
    });
    writer.bytes().to_vec()
}

/// Reads the elements of a set of ours; none if there is no such set.
pub(super) fn elements<T>(
    socket: &mut Socket,
    set: &str,
    read: impl Fn(Attributes<'_>) -> Option<T>,
) -> Result<Vec<T>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETSETELEM, abi::NFPROTO_INET, |writer| {
        writer.put_text(abi::NFTA_SET_ELEM_LIST_TABLE, TABLE);
        writer.put_text(abi::NFTA_SET_ELEM_LIST_SET, set);
    });
    let chunks = socket.dump(&request, |message| {
        let attributes = of_inet(message, abi::NFT_MSG_NEWSETELEM)?;
        let list = attributes.nested(abi::NFTA_SET_ELEM_LIST_ELEMENTS);
        Some(list.filter_map(|(_, element)| read(Attributes(element))).collect::<Vec<_>>())
    })?;
    Ok(chunks.into_iter().flatten().collect())
}

/// Some attributes, one behind the other.
fn contents(attributes: Attributes<'_>, kinds: &[u16]) -> Vec<u8> {
    let values = kinds.iter().map(|kind| attributes.find(*kind).unwrap_or_default());
    values.flat_map(|value| [&value.len().to_be_bytes()[..], value].concat()).collect()
}

/// What a rule does, without what its counter has counted.
fn expressions(rule: Attributes<'_>) -> Vec<u8> {
    let each = rule.nested(abi::NFTA_RULE_EXPRESSIONS).map(|(_, expression)| {
        let expression = Attributes(expression);
        let counts = expression.text(abi::NFTA_EXPR_NAME).as_deref() == Some("counter");
        let kinds = [abi::NFTA_EXPR_NAME, abi::NFTA_EXPR_DATA];
        contents(expression, if counts { &kinds[..1] } else { &kinds })
    });
    each.flatten().collect()
}

/// The attributes of a message of this kind about the family `inet`.
fn of_inet<'a>(message: &Message<'a>, kind: u16) -> Option<Attributes<'a>> {
    let inet = message.kind == kind && message.body.first() == Some(&abi::NFPROTO_INET);
    inet.then(|| message.attributes(4))
}

/// The attributes of a message of this kind about our table.
pub(super) fn of_table<'a>(message: &Message<'a>, kind: u16, table: u16) -> Option<Attributes<'a>> {
    of_inet(message, kind).filter(|attributes| attributes.text(table).as_deref() == Some(TABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(timeout: Option<u64>, expiration: Option<u64>) -> Option<Duration> {
        let mut writer = Writer::default();
        writer.nest(abi::NFTA_SET_ELEM_KEY, |key| key.put(abi::NFTA_DATA_VALUE, &[192, 0, 2, 7]));
        for (kind, value) in
            [(abi::NFTA_SET_ELEM_TIMEOUT, timeout), (abi::NFTA_SET_ELEM_EXPIRATION, expiration)]
        {
            if let Some(value) = value {
                writer.put(kind, &value.to_be_bytes());
            }
        }
        entry(Attributes(writer.bytes())).unwrap().left
    }

    #[test]
    fn an_element_without_an_end_is_told_from_one_that_is_about_to_end() {
        assert_eq!(left(Some(10_000), Some(4_000)), Some(Duration::from_secs(4)));
        assert_eq!(left(Some(10_000), None), Some(Duration::ZERO));
        assert_eq!(left(None, None), None);
        assert_eq!(left(Some(0), None), None, "newer kernels take a timeout of zero for never");
    }
}
