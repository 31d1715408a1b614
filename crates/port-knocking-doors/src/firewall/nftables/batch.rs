//! A transaction for nftables: everything in it becomes true at one moment, or nothing does.

use std::time::Duration;

use doors_core::limits;

use super::abi::{self, chain, data, element, expression, message, register, rule, set, table};
use crate::netlink::message::{APPEND, CREATE, Writer};

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
    /// An address, how long it stays, what a packet does to it, and a remark for whoever lists the set.
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
        batch.boundary(abi::BATCH_BEGIN);
        batch
    }

    /// The whole transaction as bytes.
    ///
    /// Only the last message asks for an answer: errors come in any case, and hundreds of answers
    /// would not fit into the socket.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.writer.want_answer();
        self.boundary(abi::BATCH_END);
        self.writer.bytes().to_vec()
    }

    /// Makes the table if it is not there.
    pub(super) fn add_table(&mut self) {
        let name = self.table;
        self.message(message::NEW_TABLE, CREATE, |writer| writer.put_text(table::NAME, name));
    }

    /// Deletes the table with everything in it; fails if it is not there.
    pub(super) fn delete_table(&mut self) {
        let name = self.table;
        self.message(message::DELETE_TABLE, 0, |writer| writer.put_text(table::NAME, name));
    }

    pub(super) fn add_set(&mut self, name: &str, kind: SetKind) {
        let (of, id) = (self.table, self.sequence);
        let flags = |each| match each {
            Use::Stays => set::FLAG_TIMEOUT,
            Use::Once | Use::Never => set::FLAG_TIMEOUT | set::FLAG_DYNAMIC,
        };
        self.message(message::NEW_SET, CREATE, |writer| {
            writer.put_text(set::TABLE, of);
            writer.put_text(set::NAME, name);
            let (flags, key_type, key_length) = match kind {
                SetKind::Ipv4Grants(_, each) => (flags(each), set::TYPE_IPV4, 4),
                SetKind::Ipv6Grants(_, each) => (flags(each), set::TYPE_IPV6, 16),
                SetKind::Ipv4Ranges => (set::FLAG_INTERVAL, set::TYPE_IPV4, 4),
                SetKind::Ipv6Ranges => (set::FLAG_INTERVAL, set::TYPE_IPV6, 16),
                SetKind::PortMap => {
                    let flags = set::FLAG_INTERVAL | set::FLAG_CONCATENATION | set::FLAG_MAP;
                    (flags, set::TYPE_PROTOCOL_PORT, 8)
                }
            };
            writer.put_u32_be(set::FLAGS, flags);
            writer.put_u32_be(set::KEY_TYPE, key_type);
            writer.put_u32_be(set::KEY_LENGTH, key_length);
            writer.put_u32_be(set::ID, id);
            match kind {
                // What an administrator adds by hand without a time closes by itself, too.
                SetKind::Ipv4Grants(time, each) | SetKind::Ipv6Grants(time, each) => {
                    writer.put(set::TIMEOUT, &millis(time).to_be_bytes());
                    if each != Use::Stays {
                        // A set that packets may change has to be bounded.
                        writer.nest(set::DESCRIPTION, |description| {
                            let size = u32::try_from(limits::GRANTS).unwrap_or(u32::MAX);
                            description.put_u32_be(set::DESCRIPTION_SIZE, size);
                        });
                    }
                }
                SetKind::PortMap => {
                    writer.put_u32_be(set::DATA_TYPE, data::TYPE_VERDICT);
                    writer.put_u32_be(set::DATA_LENGTH, 0);
                    writer.nest(set::DESCRIPTION, |description| {
                        description.nest(set::DESCRIPTION_CONCATENATION, |fields| {
                            for length in [1, 2] {
                                fields.nest(rule::LIST_ELEMENT, |field| {
                                    field.put_u32_be(set::FIELD_LENGTH, length);
                                });
                            }
                        });
                    });
                }
                SetKind::Ipv4Ranges | SetKind::Ipv6Ranges => {}
            }
        });
    }

    /// Adds a chain that others go to.
    pub(super) fn add_chain(&mut self, name: &str) {
        let of = self.table;
        self.message(message::NEW_CHAIN, CREATE, |writer| {
            writer.put_text(chain::TABLE, of);
            writer.put_text(chain::NAME, name);
        });
    }

    /// Adds a chain that every packet meets that comes in: after connection tracking, before
    /// destination NAT.
    pub(super) fn add_prerouting_chain(&mut self, name: &str) {
        let of = self.table;
        self.message(message::NEW_CHAIN, CREATE, |writer| {
            writer.put_text(chain::TABLE, of);
            writer.put_text(chain::NAME, name);
            writer.nest(chain::HOOK, |hook| {
                hook.put_u32_be(chain::HOOK_NUMBER, chain::PREROUTING);
                hook.put(chain::HOOK_PRIORITY, &chain::PRIORITY_MANGLE.to_be_bytes());
            });
            writer.put(chain::POLICY, &data::ACCEPT.to_be_bytes());
            writer.put_text(chain::TYPE, "filter");
        });
    }

    /// Adds a rule at the end of a chain.
    pub(super) fn add_rule(&mut self, chain: &str, expressions: impl FnOnce(&mut Expressions<'_>)) {
        let of = self.table;
        self.message(message::NEW_RULE, CREATE | APPEND, |writer| {
            writer.put_text(rule::TABLE, of);
            writer.put_text(rule::CHAIN, chain);
            writer.nest(rule::EXPRESSIONS, |writer| expressions(&mut Expressions(writer)));
        });
    }

    /// Adds elements; one that is there already stays as it is.
    pub(super) fn add_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(message::NEW_ELEMENT, CREATE, set, elements);
    }

    /// Deletes elements; fails if one is not there.
    pub(super) fn delete_elements(&mut self, set: &str, elements: &[Element]) {
        self.elements(message::DELETE_ELEMENT, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: &[Element]) {
        let of = self.table;
        for chunk in elements.chunks(ELEMENTS_IN_A_MESSAGE) {
            self.message(kind, flags, |writer| {
                writer.put_text(element::LIST_TABLE, of);
                writer.put_text(element::LIST_SET, set);
                writer.nest(element::LIST_ELEMENTS, |list| {
                    for element in chunk {
                        list.nest(rule::LIST_ELEMENT, |writer| element.write(writer));
                    }
                });
            });
        }
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) {
        self.sequence = self.sequence.wrapping_add(1);
        self.writer.message(kind, flags, self.sequence, |writer| {
            writer.raw(&[abi::FAMILY_INET, 0, 0, 0]);
            body(writer);
        });
    }

    fn boundary(&mut self, kind: u16) {
        let [high, low] = abi::SUBSYSTEM.to_be_bytes();
        self.writer.message(kind, 0, 0, |writer| writer.raw(&[0, 0, high, low]));
    }
}

impl Element {
    fn write(&self, writer: &mut Writer) {
        let value = |writer: &mut Writer, kind, key: &[u8]| {
            writer.nest(kind, |nest| nest.put(data::VALUE, key));
        };
        match self {
            Self::Grant(key, time, each, remark) => {
                value(writer, element::KEY, key);
                writer.put(element::TIMEOUT, &millis(*time).to_be_bytes());
                match each {
                    Use::Stays => {}
                    Use::Once => writer.nest(element::EXPRESSION, once),
                    Use::Never => writer.nest(element::EXPRESSION, never),
                }
                let fits = remark.as_ref().filter(|remark| remark.len() <= LONGEST_REMARK);
                if let Some(remark) = fits {
                    let length = u8::try_from(remark.len().saturating_add(1)).unwrap_or(0);
                    writer.put(element::USER_DATA, &[&[0, length], remark.as_bytes(), &[0]].concat());
                }
            }
            Self::Key(key) | Self::RangeStart(key) => value(writer, element::KEY, key),
            Self::RangeEnd(key) => {
                value(writer, element::KEY, key);
                writer.put_u32_be(element::FLAGS, element::FLAG_INTERVAL_END);
            }
            Self::Goto(first, last, chain) => {
                value(writer, element::KEY, first);
                value(writer, element::KEY_END, last);
                writer.nest(element::DATA, |data| verdict(data, data::GOTO, Some(chain)));
            }
        }
    }
}

/// The expressions of one rule, in the order in which the kernel evaluates them.
#[derive(Debug)]
pub(super) struct Expressions<'a>(&'a mut Writer);

impl Expressions<'_> {
    /// `ct state established,related`
    pub(super) fn if_established_or_related(&mut self) {
        self.expression("ct", |data| {
            data.put_u32_be(expression::CT_REGISTER, register::FIRST);
            data.put_u32_be(expression::CT_KEY, expression::CT_STATE);
        });
        self.expression("bitwise", |data| {
            let value = |writer: &mut Writer, kind, number: u32| {
                writer.nest(kind, |nest| nest.put(data::VALUE, &number.to_ne_bytes()));
            };
            data.put_u32_be(expression::BITWISE_SOURCE, register::FIRST);
            data.put_u32_be(expression::BITWISE_TARGET, register::FIRST);
            data.put_u32_be(expression::BITWISE_LENGTH, 4);
            value(data, expression::BITWISE_MASK, expression::CT_ESTABLISHED_OR_RELATED);
            value(data, expression::BITWISE_XOR, 0);
        });
        self.compare(expression::NOT_EQUAL, &0_u32.to_ne_bytes());
    }

    /// `iif <index>`
    pub(super) fn if_interface(&mut self, index: u32) {
        self.meta(expression::META_INTERFACE, register::FIRST);
        self.compare(expression::EQUAL, &index.to_ne_bytes());
    }

    /// `fib daddr type unicast`: to be passed on to another machine.
    pub(super) fn if_passed_on(&mut self) {
        self.if_destination_is(expression::FIB_UNICAST);
    }

    /// `fib daddr type local meta pkttype host`: to an address of this machine, and on its way to nobody else.
    pub(super) fn if_for_this_machine_alone(&mut self) {
        self.if_destination_is(expression::FIB_LOCAL);
        self.meta(expression::META_PACKET_TYPE, register::FIRST);
        self.compare(expression::EQUAL, &[expression::PACKET_HOST]);
    }

    /// `ip saddr @set`
    pub(super) fn if_ipv4_source_in(&mut self, set: &str) {
        self.if_source_in(abi::FAMILY_IPV4, 12, 4, set);
    }

    /// `ip6 saddr @set`
    pub(super) fn if_ipv6_source_in(&mut self, set: &str) {
        self.if_source_in(abi::FAMILY_IPV6, 8, 16, set);
    }

    /// `delete @set { ip saddr }`, behind a rule that has found the source there.
    pub(super) fn use_up(&mut self, set: &str) {
        self.expression("dynset", |data| {
            data.put_text(expression::DYNSET_SET, set);
            data.put_u32_be(expression::DYNSET_OPERATION, expression::DYNSET_DELETE);
            data.put_u32_be(expression::DYNSET_KEY_REGISTER, register::FIRST);
        });
    }

    /// `meta l4proto <number>`
    pub(super) fn if_protocol(&mut self, number: u8) {
        self.meta(expression::META_PROTOCOL, register::FIRST);
        self.compare(expression::EQUAL, &[number]);
    }

    /// `meta l4proto . th dport vmap @map`
    pub(super) fn port_map(&mut self, map: &str) {
        self.meta(expression::META_PROTOCOL, register::WORD_0);
        self.payload(expression::TRANSPORT_HEADER, 2, 2, register::WORD_1);
        self.expression("lookup", |data| {
            data.put_text(expression::LOOKUP_SET, map);
            data.put_u32_be(expression::LOOKUP_REGISTER, register::WORD_0);
            data.put_u32_be(expression::LOOKUP_TARGET, register::VERDICT);
        });
    }

    /// `counter`
    pub(super) fn counter(&mut self) {
        self.expression("counter", |_| {});
    }

    pub(super) fn accept(&mut self) {
        self.verdict(data::ACCEPT, None);
    }

    pub(super) fn drop(&mut self) {
        self.verdict(data::DROP, None);
    }

    /// `reject with tcp reset`
    pub(super) fn reject_with_reset(&mut self) {
        self.expression("reject", |data| {
            data.put_u32_be(expression::REJECT_TYPE, expression::REJECT_TCP_RESET);
            data.put(expression::REJECT_CODE, &[0]);
        });
    }

    /// `reject with icmpx port-unreachable`
    pub(super) fn reject_with_port_unreachable(&mut self) {
        self.expression("reject", |data| {
            data.put_u32_be(expression::REJECT_TYPE, expression::REJECT_ICMPX);
            data.put(expression::REJECT_CODE, &[expression::REJECT_PORT_UNREACHABLE]);
        });
    }

    /// `fib daddr type <kind>`
    fn if_destination_is(&mut self, kind: u32) {
        self.expression("fib", |data| {
            data.put_u32_be(expression::FIB_REGISTER, register::FIRST);
            data.put_u32_be(expression::FIB_RESULT, expression::FIB_ADDRESS_TYPE);
            data.put_u32_be(expression::FIB_FLAGS, expression::FIB_OF_DESTINATION);
        });
        self.compare(expression::EQUAL, &kind.to_ne_bytes());
    }

    fn if_source_in(&mut self, family: u8, offset: u32, length: u32, set: &str) {
        self.meta(expression::META_FAMILY, register::FIRST);
        self.compare(expression::EQUAL, &[family]);
        self.payload(expression::NETWORK_HEADER, offset, length, register::FIRST);
        self.expression("lookup", |data| {
            data.put_text(expression::LOOKUP_SET, set);
            data.put_u32_be(expression::LOOKUP_REGISTER, register::FIRST);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |data| {
            data.put_u32_be(expression::META_KEY, key);
            data.put_u32_be(expression::META_REGISTER, register);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |data| {
            data.put_u32_be(expression::PAYLOAD_REGISTER, register);
            data.put_u32_be(expression::PAYLOAD_BASE, base);
            data.put_u32_be(expression::PAYLOAD_OFFSET, offset);
            data.put_u32_be(expression::PAYLOAD_LENGTH, length);
        });
    }

    fn compare(&mut self, how: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.put_u32_be(expression::COMPARE_REGISTER, register::FIRST);
            data.put_u32_be(expression::COMPARE_HOW, how);
            data.nest(expression::COMPARE_DATA, |nest| nest.put(data::VALUE, value));
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |data| {
            data.put_u32_be(expression::IMMEDIATE_REGISTER, register::VERDICT);
            data.nest(expression::IMMEDIATE_DATA, |data| verdict(data, code, chain));
        });
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Writer)) {
        self.0.nest(rule::LIST_ELEMENT, |element| {
            element.put_text(rule::EXPRESSION_NAME, name);
            element.nest(rule::EXPRESSION_DATA, body);
        });
    }
}

fn verdict(writer: &mut Writer, code: i32, chain: Option<&str>) {
    writer.nest(data::VERDICT, |verdict| {
        verdict.put(data::VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.put_text(data::VERDICT_CHAIN, chain);
        }
    });
}

/// `limit rate 1/week burst 1 packets`, in the element itself: finding the grant spends it, under a lock of
/// its own, so that of two packets on two processors one finds nothing. No grant lasts a week longer than
/// its next.
fn once(expression: &mut Writer) {
    const A_WEEK: u64 = 7 * 24 * 3600;
    limit(expression, 1, A_WEEK, 1, 0);
}

/// `limit rate over 1000000/second burst 1000000 packets`, in the element itself: the first million packets
/// that look for it do not find it.
fn never(expression: &mut Writer) {
    limit(expression, 1_000_000, 1, 1_000_000, expression::LIMIT_OVER);
}

fn limit(expression: &mut Writer, packets: u64, seconds: u64, burst: u32, flags: u32) {
    expression.put_text(rule::EXPRESSION_NAME, "limit");
    expression.nest(rule::EXPRESSION_DATA, |limit| {
        limit.put(expression::LIMIT_RATE, &packets.to_be_bytes());
        limit.put(expression::LIMIT_UNIT, &seconds.to_be_bytes());
        limit.put_u32_be(expression::LIMIT_BURST, burst);
        limit.put_u32_be(expression::LIMIT_TYPE, 0);
        limit.put_u32_be(expression::LIMIT_FLAGS, flags);
    });
}

/// The kernel counts milliseconds, and takes 0 for "for ever": at least 1.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}
