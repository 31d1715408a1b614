//! A transaction for nftables: everything in it becomes true at one moment, or nothing does.

use std::time::Duration;

use doors_core::limits;
use doors_os::netlink::message::{NLM_F_APPEND, NLM_F_CREATE, Writer};

use super::{
    abi,
    expressions::{Expressions, never, once, verdict},
};

/// Elements in one message: an attribute holds at most 64 KiB, an element with its remark takes under 200
/// bytes.
const ELEMENTS_IN_A_MESSAGE: usize = 300;

/// The longest remark that `nft` takes back, without the zero behind it (`NFTNL_UDATA_COMMENT_MAXLEN`).
const LONGEST_REMARK: usize = 127;

/// A transaction that is being written. All of it is about one table.
#[derive(Debug)]
pub(super) struct Batch {
    writer: Writer,
    table: &'static str,
    sequence: u32,
}

/// What a set is.
#[derive(Clone, Copy, Debug)]
pub(super) enum SetKind {
    /// IPv4 addresses, each with its time.
    Ipv4Grants(Duration, Use),
    /// IPv6 addresses, each with its time.
    Ipv6Grants(Duration, Use),
    /// Ranges of IPv4 addresses.
    Ipv4Ranges,
    /// Ranges of IPv6 addresses.
    Ipv6Ranges,
    /// From protocol and port to a chain.
    PortMap,
    /// Source address, protocol and source port of packets that have used a grant up. Each for so long.
    Ipv4Packets(Duration),
    /// The same of IPv6.
    Ipv6Packets(Duration),
}

/// What a packet does to the grant that lets it in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Use {
    /// Nothing.
    Stays,
    /// It uses the grant up.
    Once,
    /// It does not find it: the element stands there only to be deleted by the same transaction.
    Never,
}

/// One element of a set.
#[derive(Clone, Debug)]
pub(super) enum Element {
    /// An address, how long it stays, what a packet does to it, and a remark for the administrator who lists the set.
    Grant(Vec<u8>, Duration, Use, Option<String>),
    /// An address, to delete it.
    Key(Vec<u8>),
    /// Where a range begins.
    RangeStart(Vec<u8>),
    /// The first address behind a range.
    RangeEnd(Vec<u8>),
    /// From one key to another, both included: go to a chain.
    Goto(Vec<u8>, Vec<u8>, String),
}

impl Batch {
    pub(super) fn new(table: &'static str) -> Self {
        let mut batch = Self { writer: Writer::default(), table, sequence: 0 };
        batch.boundary(abi::NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// The whole transaction as bytes.
    ///
    /// Only the last message asks for an answer: errors come in any case, and hundreds of answers
    /// would not fit into the socket.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.writer.want_answer();
        self.boundary(abi::NFNL_MSG_BATCH_END);
        self.writer.bytes().to_vec()
    }

    /// Makes the table if it is not there.
    pub(super) fn add_table(&mut self) {
        let name = self.table;
        self.message(abi::NFT_MSG_NEWTABLE, NLM_F_CREATE, |writer| {
            writer.put_text(abi::NFTA_TABLE_NAME, name)
        });
    }

    /// Deletes the table with everything in it; fails if it is not there.
    pub(super) fn delete_table(&mut self) {
        let name = self.table;
        self.message(abi::NFT_MSG_DELTABLE, 0, |writer| writer.put_text(abi::NFTA_TABLE_NAME, name));
    }

    pub(super) fn add_set(&mut self, name: &str, kind: SetKind) {
        let (of, id) = (self.table, self.sequence);
        let flags = |each| match each {
            Use::Stays => abi::NFT_SET_TIMEOUT,
            Use::Once | Use::Never => abi::NFT_SET_TIMEOUT | abi::NFT_SET_EVAL,
        };
        self.message(abi::NFT_MSG_NEWSET, NLM_F_CREATE, |writer| {
            writer.put_text(abi::NFTA_SET_TABLE, of);
            writer.put_text(abi::NFTA_SET_NAME, name);
            let (flags, key_type, key_length) = match kind {
                SetKind::Ipv4Grants(_, each) => (flags(each), abi::TYPE_IPADDR, 4),
                SetKind::Ipv6Grants(_, each) => (flags(each), abi::TYPE_IP6ADDR, 16),
                SetKind::Ipv4Ranges => (abi::NFT_SET_INTERVAL, abi::TYPE_IPADDR, 4),
                SetKind::Ipv6Ranges => (abi::NFT_SET_INTERVAL, abi::TYPE_IP6ADDR, 16),
                SetKind::PortMap => {
                    let flags = abi::NFT_SET_INTERVAL | abi::NFT_SET_CONCAT | abi::NFT_SET_MAP;
                    (flags, abi::TYPE_PROTOCOL_PORT, 8)
                }
                SetKind::Ipv4Packets(_) | SetKind::Ipv6Packets(_) => {
                    let flags = flags(Use::Once) | abi::NFT_SET_CONCAT;
                    match kind {
                        SetKind::Ipv4Packets(_) => (flags, abi::TYPE_IPV4_PACKET, 12),
                        _ => (flags, abi::TYPE_IPV6_PACKET, 24),
                    }
                }
            };
            writer.put_u32_be(abi::NFTA_SET_FLAGS, flags);
            writer.put_u32_be(abi::NFTA_SET_KEY_TYPE, key_type);
            writer.put_u32_be(abi::NFTA_SET_KEY_LEN, key_length);
            writer.put_u32_be(abi::NFTA_SET_ID, id);
            match kind {
                // What an administrator adds by hand without a time closes by itself, too.
                SetKind::Ipv4Grants(time, each) | SetKind::Ipv6Grants(time, each) => {
                    writer.put(abi::NFTA_SET_TIMEOUT, &millis(time).to_be_bytes());
                    if each != Use::Stays {
                        writer.nest(abi::NFTA_SET_DESC, bounded);
                    }
                }
                SetKind::Ipv4Packets(time) | SetKind::Ipv6Packets(time) => {
                    writer.put(abi::NFTA_SET_TIMEOUT, &millis(time).to_be_bytes());
                    let address = if key_length == 12 { 4 } else { 16 };
                    writer.nest(abi::NFTA_SET_DESC, |description| {
                        bounded(description);
                        concatenated(description, &[address, 1, 2]);
                    });
                }
                SetKind::PortMap => {
                    writer.put_u32_be(abi::NFTA_SET_DATA_TYPE, abi::NFT_DATA_VERDICT);
                    writer.put_u32_be(abi::NFTA_SET_DATA_LEN, 0);
                    writer.nest(abi::NFTA_SET_DESC, |description| concatenated(description, &[1, 2]));
                }
                SetKind::Ipv4Ranges | SetKind::Ipv6Ranges => {}
            }
        });
    }

    /// Adds a chain that others go to.
    pub(super) fn add_chain(&mut self, name: &str) {
        let of = self.table;
        self.message(abi::NFT_MSG_NEWCHAIN, NLM_F_CREATE, |writer| {
            writer.put_text(abi::NFTA_CHAIN_TABLE, of);
            writer.put_text(abi::NFTA_CHAIN_NAME, name);
        });
    }

    /// Adds a chain that packets meet at a hook, after connection tracking; at prerouting, before destination
    /// NAT.
    pub(super) fn add_base_chain(&mut self, name: &str, at: u32) {
        let of = self.table;
        self.message(abi::NFT_MSG_NEWCHAIN, NLM_F_CREATE, |writer| {
            writer.put_text(abi::NFTA_CHAIN_TABLE, of);
            writer.put_text(abi::NFTA_CHAIN_NAME, name);
            writer.nest(abi::NFTA_CHAIN_HOOK, |hook| {
                hook.put_u32_be(abi::NFTA_HOOK_HOOKNUM, at);
                hook.put(abi::NFTA_HOOK_PRIORITY, &abi::NF_IP_PRI_MANGLE.to_be_bytes());
            });
            writer.put(abi::NFTA_CHAIN_POLICY, &abi::NF_ACCEPT.to_be_bytes());
            writer.put_text(abi::NFTA_CHAIN_TYPE, "filter");
        });
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn add_rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Expressions<'_>)) {
        let of = self.table;
        self.message(abi::NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |writer| {
            writer.put_text(abi::NFTA_RULE_TABLE, of);
            writer.put_text(abi::NFTA_RULE_CHAIN, chain);
            writer.nest(abi::NFTA_RULE_EXPRESSIONS, |writer| expressions(&mut Expressions(writer)));
        });
    }

    /// Adds elements; one that is there already stays as it is.
    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(abi::NFT_MSG_NEWSETELEM, NLM_F_CREATE, set, elements);
    }

    /// Deletes elements; fails if one is not there.
    pub(super) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(abi::NFT_MSG_DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let of = self.table;
        for chunk in elements.chunks(ELEMENTS_IN_A_MESSAGE) {
            self.message(kind, flags, |writer| {
                writer.put_text(abi::NFTA_SET_ELEM_LIST_TABLE, of);
                writer.put_text(abi::NFTA_SET_ELEM_LIST_SET, set);
                writer.nest(abi::NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for element in chunk {
                        list.nest(abi::NFTA_LIST_ELEM, |writer| element.write(writer));
                    }
                });
            });
        }
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.sequence = self.sequence.wrapping_add(1);
        self.writer.message(kind, flags, self.sequence, |writer| {
            writer.raw(&[abi::NFPROTO_INET, 0, 0, 0]);
            body(writer);
        });
    }

    fn boundary(&mut self, kind: u16) {
        let [high, low] = abi::NFNL_SUBSYS_NFTABLES.to_be_bytes();
        self.writer.message(kind, 0, 0, |writer| writer.raw(&[0, 0, high, low]));
    }
}

impl Element {
    fn write(&self, writer: &mut Writer) {
        let value = |writer: &mut Writer, kind, key: &[u8]| {
            writer.nest(kind, |nest| nest.put(abi::NFTA_DATA_VALUE, key));
        };
        match self {
            Self::Grant(key, time, each, remark) => {
                value(writer, abi::NFTA_SET_ELEM_KEY, key);
                writer.put(abi::NFTA_SET_ELEM_TIMEOUT, &millis(*time).to_be_bytes());
                match each {
                    Use::Stays => {}
                    Use::Once => writer.nest(abi::NFTA_SET_ELEM_EXPR, once),
                    Use::Never => writer.nest(abi::NFTA_SET_ELEM_EXPR, never),
                }
                let fits = remark.as_ref().filter(|remark| remark.len() <= LONGEST_REMARK);
                if let Some(remark) = fits {
                    let length = u8::try_from(remark.len().saturating_add(1)).unwrap_or(0);
                    writer
                        .put(abi::NFTA_SET_ELEM_USERDATA, &[&[0, length], remark.as_bytes(), &[0]].concat());
                }
            }
            Self::Key(key) | Self::RangeStart(key) => value(writer, abi::NFTA_SET_ELEM_KEY, key),
            Self::RangeEnd(key) => {
                value(writer, abi::NFTA_SET_ELEM_KEY, key);
                writer.put_u32_be(abi::NFTA_SET_ELEM_FLAGS, abi::NFT_SET_ELEM_INTERVAL_END);
            }
            Self::Goto(first, last, chain) => {
                value(writer, abi::NFTA_SET_ELEM_KEY, first);
                value(writer, abi::NFTA_SET_ELEM_KEY_END, last);
                writer.nest(abi::NFTA_SET_ELEM_DATA, |data| verdict(data, abi::NFT_GOTO, Some(chain)));
            }
        }
    }
}

/// A set that packets may change has to be bounded.
fn bounded(description: &mut Writer) {
    let size = u32::try_from(limits::GRANTS).unwrap_or(u32::MAX);
    description.put_u32_be(abi::NFTA_SET_DESC_SIZE, size);
}

/// The lengths of the fields that a key is put together from.
fn concatenated(description: &mut Writer, lengths: &[u32]) {
    description.nest(abi::NFTA_SET_DESC_CONCAT, |fields| {
        for length in lengths {
            fields.nest(abi::NFTA_LIST_ELEM, |field| field.put_u32_be(abi::NFTA_SET_FIELD_LEN, *length));
        }
    });
}

/// The kernel counts milliseconds, and takes 0 for "for ever": at least 1.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
