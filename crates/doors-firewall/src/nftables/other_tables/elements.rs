//! What the sets and maps of another table hold.

use std::ops::RangeInclusive;

use doors_os::netlink::{
    message::Attributes,
    socket::{NetlinkError, Socket},
};

use super::super::{abi, snapshot::list};
use super::rule::{Verdict, verdict};

/// One element, or one end of a range.
struct Element {
    key: u32,
    last: Option<u32>,
    is_end: bool,
    verdict: Option<Verdict>,
}

/// What a map says of its keys, each from the first to the last.
pub(super) type Verdicts = Vec<(RangeInclusive<u32>, Verdict)>;

/// The ports in a set; `None` if it holds something else.
pub(super) fn ports(
    socket: &mut Socket,
    family: u8,
    table: &str,
    set: &str,
) -> Result<Option<Vec<RangeInclusive<u16>>>, NetlinkError> {
    let ranges = ranges(socket, family, table, set)?;
    let port = |number: u32| u16::try_from(number).ok();
    Ok(ranges.and_then(|ranges| {
        ranges.into_iter().map(|(range, _)| Some(port(*range.start())?..=port(*range.end())?)).collect()
    }))
}

/// What a map says of each key; `None` if its keys are not understood.
pub(super) fn verdicts(
    socket: &mut Socket,
    family: u8,
    table: &str,
    map: &str,
) -> Result<Option<Verdicts>, NetlinkError> {
    let ranges = ranges(socket, family, table, map)?;
    Ok(ranges.and_then(|ranges| ranges.into_iter().map(|(range, verdict)| Some((range, verdict?))).collect()))
}

type Ranges = Vec<(RangeInclusive<u32>, Option<Verdict>)>;

fn ranges(socket: &mut Socket, family: u8, table: &str, set: &str) -> Result<Option<Ranges>, NetlinkError> {
    let request = list(abi::NFT_MSG_GETSETELEM, family, |writer| {
        writer.put_text(abi::NFTA_SET_ELEM_LIST_TABLE, table);
        writer.put_text(abi::NFTA_SET_ELEM_LIST_SET, set);
    });
    let chunks = socket.dump(&request, |message| {
        let elements = message.attributes(4).nested(abi::NFTA_SET_ELEM_LIST_ELEMENTS);
        Some(elements.map(|(_, one)| read(Attributes(one))).collect::<Vec<_>>())
    })?;
    let elements: Option<Vec<Element>> = chunks.into_iter().flatten().collect();
    Ok(elements.map(paired))
}

/// Reads an element; `None` if its key is not a number.
fn read(one: Attributes<'_>) -> Option<Element> {
    let number = |bytes: &[u8]| match *bytes {
        [one] => Some(u32::from(one)),
        // A port.
        [high, low] => Some(u32::from(u16::from_be_bytes([high, low]))),
        // A state, in the byte order of this machine.
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    };
    Some(Element {
        key: number(one.nested(abi::NFTA_SET_ELEM_KEY).find(abi::NFTA_DATA_VALUE)?)?,
        last: one.nested(abi::NFTA_SET_ELEM_KEY_END).find(abi::NFTA_DATA_VALUE).and_then(number),
        is_end: one.u32_be(abi::NFTA_SET_ELEM_FLAGS).unwrap_or(0) & abi::NFT_SET_ELEM_INTERVAL_END != 0,
        verdict: verdict(one.nested(abi::NFTA_SET_ELEM_DATA)),
    })
}

/// In a set of ranges, each goes on until the next element begins or its own end.
fn paired(mut elements: Vec<Element>) -> Ranges {
    elements.sort_by_key(|element| (element.key, !element.is_end));
    let are_ranges = elements.iter().any(|element| element.is_end);
    let keys: Vec<u32> = elements.iter().map(|element| element.key).collect();
    let mut found = Vec::new();
    for (at, element) in elements.into_iter().enumerate().filter(|(_, element)| !element.is_end) {
        let next = keys.get(at.saturating_add(1)).and_then(|next| next.checked_sub(1));
        let last = match are_ranges {
            true => next.unwrap_or(u32::from(u16::MAX)),
            false => element.last.unwrap_or(element.key),
        };
        found.push((element.key..=last, element.verdict));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_ranges_holds_what_is_between_their_ends() {
        let element = |key, is_end| Element { key, last: None, is_end, verdict: None };
        let ranges = |elements| paired(elements).into_iter().map(|(range, _)| range).collect::<Vec<_>>();
        // As the kernel lists them: from the last to the first, or the other way round.
        let mut all = vec![
            element(0, true),
            element(22, false),
            element(23, true),
            element(1000, false),
            element(1011, true),
        ];
        assert_eq!(ranges(vec![element(80, false), element(22, false)]), [22..=22, 80..=80]);
        all.reverse();
        assert_eq!(ranges(all), [22..=22, 1000..=1010]);
        assert_eq!(ranges(vec![element(0, true), element(1024, false)]), [1024..=65535]);
        // Where one range begins, another ends.
        let touching = vec![element(5, false), element(9, true), element(9, false), element(12, true)];
        assert_eq!(ranges(touching), [5..=8, 9..=11]);
    }
}
