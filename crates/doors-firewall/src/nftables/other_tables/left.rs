//! What a firewalld that is gone has left.

use std::net::IpAddr;

use doors_os::netlink::{
    message::Attributes,
    socket::{Family, NetlinkError, Socket},
};

use super::{
    super::{abi, snapshot::list},
    FIREWALLD, OF_IPTABLES_BACKEND,
};
use crate::plan::octets;

/// What a firewalld that is gone has left in the kernel: in how many of its rules one of these addresses stands.
/// `None` if it has left nothing. We recognize its iptables backend by the name of a chain, if this machine's iptables
/// works through nftables; rules of the legacy iptables cannot be seen here.
pub(in super::super::super) fn left_by_firewalld(sources: &[IpAddr]) -> Result<Option<usize>, NetlinkError> {
    let mut socket = Socket::open(Family::Netfilter)?;
    let request = list(abi::NFT_MSG_GETCHAIN, abi::NFPROTO_UNSPEC, |_| {});
    let mut tables = socket.dump(&request, |message| {
        let attributes = message.attributes(4);
        let (family, table) = (*message.body.first()?, attributes.text(abi::NFTA_CHAIN_TABLE)?);
        let is_its_own = table == FIREWALLD && family == abi::NFPROTO_INET;
        let of_backend = attributes.text(abi::NFTA_CHAIN_NAME).as_deref() == Some(OF_IPTABLES_BACKEND);
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
        let request =
            list(abi::NFT_MSG_GETRULE, family, |writer| writer.put_text(abi::NFTA_RULE_TABLE, &table));
        let rules = socket.dump(&request, |message| {
            let mut expressions = message.attributes(4).nested(abi::NFTA_RULE_EXPRESSIONS);
            let names_one = expressions.any(|(_, one)| {
                let inner = Attributes(one).nested(abi::NFTA_EXPR_DATA);
                let value = inner.nested(abi::NFTA_CMP_DATA).find(abi::NFTA_DATA_VALUE);
                value.is_some_and(|value| wanted.iter().any(|source| source == value))
            });
            names_one.then_some(())
        })?;
        count = count.saturating_add(rules.len());
    }
    Ok(Some(count))
}
