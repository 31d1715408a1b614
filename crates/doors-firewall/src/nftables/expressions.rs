//! What a rule says, and what an element does with those who look for it.

use doors_os::netlink::message::Writer;

use super::abi::{self, data, expression, register, rule};
use crate::plan::{Mark, Protocol};

/// The expressions of one rule, in the order in which the kernel evaluates them.
#[derive(Debug)]
pub(super) struct Expressions<'a>(pub(super) &'a mut Writer);

impl Expressions<'_> {
    /// `tcp flags & (fin | syn | rst | ack) != syn`: a segment that does not ask for a connection.
    pub(super) fn if_tcp_and_not_syn(&mut self) {
        self.if_protocol(Protocol::Tcp);
        self.load_tcp_flags();
        self.compare(expression::NOT_EQUAL, &[expression::TCP_SYN]);
    }

    /// `tcp flags & (fin | syn | rst | ack) == syn`: a segment that asks for a connection.
    pub(super) fn if_tcp_syn(&mut self) {
        self.if_protocol(Protocol::Tcp);
        self.load_tcp_flags();
        self.compare(expression::EQUAL, &[expression::TCP_SYN]);
    }

    /// What may be the first packet of a connection: a SYN, or any datagram.
    pub(super) fn if_first_of(&mut self, protocol: Protocol) {
        match protocol {
            Protocol::Tcp => self.if_tcp_syn(),
            Protocol::Udp => self.if_protocol(protocol),
        }
    }

    /// `meta l4proto != <number>`
    pub(super) fn if_not_protocol(&mut self, protocol: Protocol) {
        self.meta(expression::META_PROTOCOL, register::FIRST);
        self.compare(expression::NOT_EQUAL, &[protocol.number()]);
    }

    /// `ct state established`
    pub(super) fn if_established(&mut self) {
        self.conntrack(expression::CT_STATE, register::FIRST);
        self.mask(&expression::CT_ESTABLISHED.to_ne_bytes());
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

    /// `ip saddr @set`, or `ip6 saddr @set`
    pub(super) fn if_source_in(&mut self, family: u8, set: &str) {
        self.if_family(family);
        self.load_source(family);
        self.lookup(set);
    }

    /// `ip saddr . meta l4proto . th sport @set`, or the same of IPv6.
    pub(super) fn if_packet_in(&mut self, family: u8, set: &str) {
        self.if_family(family);
        self.load_source(family);
        self.load_packet_behind_source(family);
        self.lookup(set);
    }

    /// `add @passing { ip saddr . … } delete @grants { ip saddr }`, behind a rule that has found the source
    /// among the grants.
    pub(super) fn use_up(&mut self, family: u8, grants: &str, passing: &str) {
        self.load_packet_behind_source(family);
        self.change_set(passing, expression::DYNSET_ADD);
        self.take_out(grants);
    }

    /// `delete @set { … }`, with the key that was looked up before.
    pub(super) fn take_out(&mut self, set: &str) {
        self.change_set(set, expression::DYNSET_DELETE);
    }

    /// `meta l4proto <number>`
    pub(super) fn if_protocol(&mut self, protocol: Protocol) {
        self.meta(expression::META_PROTOCOL, register::FIRST);
        self.compare(expression::EQUAL, &[protocol.number()]);
    }

    /// `meta l4proto . th dport vmap @map`
    pub(super) fn port_map(&mut self, map: &str) {
        self.meta(expression::META_PROTOCOL, register::WORD_0);
        self.payload(expression::TRANSPORT_HEADER, 2, 2, register::word(1));
        self.expression("lookup", |data| {
            data.put_text(expression::LOOKUP_SET, map);
            data.put_u32_be(expression::LOOKUP_REGISTER, register::WORD_0);
            data.put_u32_be(expression::LOOKUP_TARGET, register::VERDICT);
        });
    }

    /// `ct status dnat`: its destination was translated.
    pub(super) fn if_translated(&mut self) {
        self.conntrack(expression::CT_STATUS, register::FIRST);
        self.mask(&expression::CT_DNAT.to_ne_bytes());
        self.compare(expression::NOT_EQUAL, &0_u32.to_ne_bytes());
    }

    /// `ct original proto-dst <first>-<last>`: the port that it was sent to, before any translation.
    pub(super) fn if_sent_to(&mut self, first: u16, last: u16) {
        self.conntrack(expression::CT_PROTO_DST, register::FIRST);
        if first == last {
            return self.compare(expression::EQUAL, &first.to_be_bytes());
        }
        self.compare(expression::NOT_LESS, &first.to_be_bytes());
        self.compare(expression::NOT_GREATER, &last.to_be_bytes());
    }

    /// `ct state established ct direction original ct mark & <bits> == <bits>`: it comes from the client of a
    /// connection whose first packet was marked. That one is not asked: others may use the same bits.
    pub(super) fn if_of_marked_connection(&mut self, mark: Mark) {
        self.if_established();
        self.conntrack(expression::CT_OF_DIRECTION, register::FIRST);
        self.compare(expression::EQUAL, &[expression::CT_ORIGINAL]);
        let bits = mark.bits().to_ne_bytes();
        self.conntrack(expression::CT_MARK, register::FIRST);
        self.mask(&bits);
        self.compare(expression::EQUAL, &bits);
    }

    /// `meta mark set meta mark | <bits>`
    pub(super) fn mark_packet(&mut self, mark: Mark) {
        self.meta(expression::META_MARK, register::FIRST);
        self.set_bits(mark);
        self.expression("meta", |data| {
            data.put_u32_be(expression::META_KEY, expression::META_MARK);
            data.put_u32_be(expression::META_SOURCE, register::FIRST);
        });
    }

    /// `ct mark set ct mark | <bits>`. The rule ends here for a packet that connection tracking does not see.
    pub(super) fn mark_connection(&mut self, mark: Mark) {
        self.conntrack(expression::CT_MARK, register::FIRST);
        self.set_bits(mark);
        self.expression("ct", |data| {
            data.put_u32_be(expression::CT_KEY, expression::CT_MARK);
            data.put_u32_be(expression::CT_SOURCE, register::FIRST);
        });
    }

    /// `meta nftrace set 1`
    pub(super) fn trace(&mut self) {
        self.expression("immediate", |data| {
            data.put_u32_be(expression::IMMEDIATE_REGISTER, register::FIRST);
            data.nest(expression::IMMEDIATE_DATA, |nest| nest.put(data::VALUE, &[1]));
        });
        self.expression("meta", |data| {
            data.put_u32_be(expression::META_KEY, expression::META_TRACE);
            data.put_u32_be(expression::META_SOURCE, register::FIRST);
        });
    }

    fn change_set(&mut self, set: &str, operation: u32) {
        self.expression("dynset", |data| {
            data.put_text(expression::DYNSET_SET, set);
            data.put_u32_be(expression::DYNSET_OPERATION, operation);
            data.put_u32_be(expression::DYNSET_KEY_REGISTER, register::FIRST);
        });
    }

    /// `counter`
    pub(super) fn counter(&mut self) {
        self.expression("counter", |_| {});
    }

    pub(super) fn accept(&mut self) {
        self.verdict(data::ACCEPT, None);
    }

    pub(super) fn go_to(&mut self, chain: &str) {
        self.verdict(data::GOTO, Some(chain));
    }

    pub(super) fn jump(&mut self, chain: &str) {
        self.verdict(data::JUMP, Some(chain));
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

    fn if_family(&mut self, family: u8) {
        self.meta(expression::META_FAMILY, register::FIRST);
        self.compare(expression::EQUAL, &[family]);
    }

    fn load_source(&mut self, family: u8) {
        let (offset, length) = if family == abi::FAMILY_IPV4 { (12, 4) } else { (8, 16) };
        self.payload(expression::NETWORK_HEADER, offset, length, register::FIRST);
    }

    /// Loads protocol and source port behind the source.
    fn load_packet_behind_source(&mut self, family: u8) {
        let first = if family == abi::FAMILY_IPV4 { 1 } else { 4 };
        self.meta(expression::META_PROTOCOL, register::word(first));
        self.payload(expression::TRANSPORT_HEADER, 0, 2, register::word(first.saturating_add(1)));
    }

    /// The flags FIN, SYN, RST and ACK of a TCP segment.
    fn load_tcp_flags(&mut self) {
        self.payload(expression::TRANSPORT_HEADER, 13, 1, register::FIRST);
        self.mask(&[expression::TCP_FIN_SYN_RST_ACK]);
    }

    fn lookup(&mut self, set: &str) {
        self.expression("lookup", |data| {
            data.put_text(expression::LOOKUP_SET, set);
            data.put_u32_be(expression::LOOKUP_REGISTER, register::FIRST);
        });
    }

    /// Loads from connection tracking; what belongs to a direction, from the original one.
    fn conntrack(&mut self, key: u32, register: u32) {
        self.expression("ct", |data| {
            data.put_u32_be(expression::CT_REGISTER, register);
            data.put_u32_be(expression::CT_KEY, key);
            if key == expression::CT_PROTO_DST {
                data.put(expression::CT_DIRECTION, &[expression::CT_ORIGINAL]);
            }
        });
    }

    /// Keeps these bits of the first register.
    fn mask(&mut self, bits: &[u8]) {
        self.bitwise(bits, &vec![0; bits.len()]);
    }

    /// Sets bits of the first register, and leaves the others.
    fn set_bits(&mut self, mark: Mark) {
        self.bitwise(&(!mark.bits()).to_ne_bytes(), &mark.bits().to_ne_bytes());
    }

    fn bitwise(&mut self, and: &[u8], xor: &[u8]) {
        self.expression("bitwise", |data| {
            data.put_u32_be(expression::BITWISE_SOURCE, register::FIRST);
            data.put_u32_be(expression::BITWISE_TARGET, register::FIRST);
            data.put_u32_be(expression::BITWISE_LENGTH, u32::try_from(and.len()).unwrap_or(0));
            data.nest(expression::BITWISE_MASK, |nest| nest.put(data::VALUE, and));
            data.nest(expression::BITWISE_XOR, |nest| nest.put(data::VALUE, xor));
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
