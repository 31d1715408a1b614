//! Bridges that have only containers and virtual machines of this machine on them.
//!
//! Source: rtnetlink(7), `linux/if_link.h`, `linux/if_addr.h`.

use std::collections::BTreeMap;

use doors_os::netlink::{
    message::{Attributes, DUMP, Message, Writer},
    socket::{Family, NetlinkError, Socket},
};
use ipnet::IpNet;

use crate::plan::address;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// The length of `struct ifinfomsg`, and of `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// `IFLA_IFNAME`, `IFLA_MASTER`, `IFLA_LINKINFO` with `IFLA_INFO_KIND`; `IFA_ADDRESS`.
const NAME: u16 = 3;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const KIND: u16 = 1;
const ADDRESS: u16 = 1;
/// `RT_SCOPE_LINK`, of addresses that are good on one link only.
const LINK_SCOPE: u8 = 253;

struct Link {
    index: u32,
    name: String,
    /// The bridge that it is a port of.
    master: Option<u32>,
    kind: String,
}

/// The networks on such bridges, with the bridge's name.
///
/// A bridge that has anything else on it, like a card of this machine, may lead outside.
pub(super) fn inside() -> Result<Vec<(String, IpNet)>, NetlinkError> {
    let mut socket = Socket::open(Family::Route)?;
    let links = socket.dump(&list(GET_LINK, LINK_HEADER), link)?;
    let is_of_guest = |link: &Link| ["veth", "tun"].contains(&link.kind.as_str());
    let bridges: BTreeMap<u32, &str> = links
        .iter()
        .filter(|bridge| bridge.kind == "bridge")
        .filter(|bridge| links.iter().all(|port| port.master != Some(bridge.index) || is_of_guest(port)))
        .map(|bridge| (bridge.index, bridge.name.as_str()))
        .collect();
    if bridges.is_empty() {
        return Ok(Vec::new());
    }
    let addresses = socket.dump(&list(GET_ADDRESS, ADDRESS_HEADER), network)?;
    let mut found: Vec<(String, IpNet)> = addresses
        .into_iter()
        .filter_map(|(index, network)| Some(((*bridges.get(&index)?).to_owned(), network)))
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A request for everything of a kind, in all families.
fn list(kind: u16, header: usize) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(kind, DUMP, 0, |writer| writer.raw(&vec![0; header]));
    writer.bytes().to_vec()
}

fn link(message: &Message<'_>) -> Option<Link> {
    let attributes: Attributes<'_> = message.attributes(LINK_HEADER);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    (message.kind == NEW_LINK).then_some(())?;
    Some(Link {
        index: word(message.body.get(4..)?)?,
        name: attributes.text(NAME)?.escape_debug().to_string(),
        master: attributes.find(MASTER).and_then(word),
        kind: attributes.nested(INFO).text(KIND).unwrap_or_default(),
    })
}

/// The interface's index, and the network that its address is of.
fn network(message: &Message<'_>) -> Option<(u32, IpNet)> {
    let (head, rest) = message.body.split_first_chunk::<4>()?;
    let [_, length, _, scope] = *head;
    let index = u32::from_ne_bytes(*rest.first_chunk()?);
    let address = address(message.attributes(ADDRESS_HEADER).find(ADDRESS)?)?;
    let network = IpNet::new(address, length).ok()?.trunc();
    // An address without a network has nothing behind it.
    let is_one = network.prefix_len() == network.max_prefix_len();
    (message.kind == NEW_ADDRESS && scope != LINK_SCOPE && !is_one).then_some((index, network))
}
