//! What a rule says, and what an element does with those who look for it.

use super::abi::{self, data, expression, register, rule};
use crate::netlink::message::Writer;

/// The expressions of one rule, in the order in which the kernel evaluates them.
#[derive(Debug)]
pub(super) struct Expressions<'a>(pub(super) &'a mut Writer);

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

pub(super) fn verdict(writer: &mut Writer, code: i32, chain: Option<&str>) {
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
pub(super) fn once(expression: &mut Writer) {
    const A_WEEK: u64 = 7 * 24 * 3600;
    limit(expression, 1, A_WEEK, 1, 0);
}

/// `limit rate over 1000000/second burst 1000000 packets`, in the element itself: the first million packets
/// that look for it do not find it.
pub(super) fn never(expression: &mut Writer) {
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
