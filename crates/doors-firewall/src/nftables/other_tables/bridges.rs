//! Bridges that have only containers and virtual machines of this machine on them.
//!
//! Source: rtnetlink(7), `linux/if_link.h`, `linux/if_addr.h`.

use std::collections::BTreeMap;

use doors_os::netlink::{
    message::{Attributes, Message, NLM_F_DUMP, Writer},
    socket::{Family, NetlinkError, Socket},
};
use ipnet::IpNet;

use crate::plan::address;

/// The length of `struct ifinfomsg`, and of `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

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
    let links = socket.dump(&list(libc::RTM_GETLINK, LINK_HEADER), link)?;
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
    let addresses = socket.dump(&list(libc::RTM_GETADDR, ADDRESS_HEADER), network)?;
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
    writer.message(kind, NLM_F_DUMP, 0, |writer| writer.raw(&vec![0; header]));
    writer.bytes().to_vec()
}

fn link(message: &Message<'_>) -> Option<Link> {
    let attributes: Attributes<'_> = message.attributes(LINK_HEADER);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    (message.kind == libc::RTM_NEWLINK).then_some(())?;
    Some(Link {
        index: word(message.body.get(4..)?)?,
        name: attributes.text(libc::IFLA_IFNAME)?.escape_debug().to_string(),
        master: attributes.find(libc::IFLA_MASTER).and_then(word),
        kind: attributes.nested(libc::IFLA_LINKINFO).text(libc::IFLA_INFO_KIND).unwrap_or_default(),
    })
}

/// The interface's index, and the network that its address is of.
fn network(message: &Message<'_>) -> Option<(u32, IpNet)> {
    let (head, rest) = message.body.split_first_chunk::<4>()?;
    let [_, length, _, scope] = *head;
    let index = u32::from_ne_bytes(*rest.first_chunk()?);
    let address = address(message.attributes(ADDRESS_HEADER).find(libc::IFA_ADDRESS)?)?;
    let network = IpNet::new(address, length).ok()?.trunc();
    // An address of one link only, or without a network, has nothing behind it.
    let is_one = network.prefix_len() == network.max_prefix_len();
    (message.kind == libc::RTM_NEWADDR && scope != libc::RT_SCOPE_LINK && !is_one).then_some((index, network))
}
