//! What a rule says, and what an element does with those who look for it.

use doors_os::netlink::message::Writer;

use super::abi;
use crate::plan::{Mark, Protocol};

/// The expressions of one rule, in the order in which the kernel evaluates them.
#[derive(Debug)]
pub(super) struct Expressions<'a>(pub(super) &'a mut Writer);

impl Expressions<'_> {
    /// `tcp flags & (fin | syn | rst | ack) != syn`: a segment that does not ask for a connection.
    pub(super) fn if_tcp_and_not_syn(&mut self) {
        self.if_protocol(Protocol::Tcp);
        self.load_tcp_flags();
        self.compare(abi::NFT_CMP_NEQ, &[abi::TCP_SYN]);
    }

    /// `tcp flags & (fin | syn | rst | ack) == syn`: a segment that asks for a connection.
    pub(super) fn if_tcp_syn(&mut self) {
        self.if_protocol(Protocol::Tcp);
        self.load_tcp_flags();
        self.compare(abi::NFT_CMP_EQ, &[abi::TCP_SYN]);
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
        self.meta(abi::NFT_META_L4PROTO, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_NEQ, &[protocol.number()]);
    }

    /// `ct state established`
    pub(super) fn if_established(&mut self) {
        self.conntrack(abi::NFT_CT_STATE, abi::NFT_REG_1);
        self.mask(&abi::CT_STATE_ESTABLISHED.to_ne_bytes());
        self.compare(abi::NFT_CMP_NEQ, &0_u32.to_ne_bytes());
    }

    /// `iif <index>`
    pub(super) fn if_interface(&mut self, index: u32) {
        self.meta(abi::NFT_META_IIF, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_EQ, &index.to_ne_bytes());
    }

    /// `fib daddr type unicast`: to be passed on to another machine.
    pub(super) fn if_passed_on(&mut self) {
        self.if_destination_is(abi::RTN_UNICAST);
    }

    /// `fib daddr type local meta pkttype host`: to an address of this machine, and not on its way to another machine.
    pub(super) fn if_for_this_machine_alone(&mut self) {
        self.if_destination_is(abi::RTN_LOCAL);
        self.meta(abi::NFT_META_PKTTYPE, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_EQ, &[abi::PACKET_HOST]);
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
        self.change_set(passing, abi::NFT_DYNSET_OP_ADD);
        self.take_out(grants);
    }

    /// `delete @set { … }`, with the key that was looked up before.
    pub(super) fn take_out(&mut self, set: &str) {
        self.change_set(set, abi::NFT_DYNSET_OP_DELETE);
    }

    /// `meta l4proto <number>`
    pub(super) fn if_protocol(&mut self, protocol: Protocol) {
        self.meta(abi::NFT_META_L4PROTO, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_EQ, &[protocol.number()]);
    }

    /// `meta l4proto . th dport vmap @map`
    pub(super) fn port_map(&mut self, map: &str) {
        self.meta(abi::NFT_META_L4PROTO, abi::NFT_REG32_00);
        self.payload(abi::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, abi::reg32(1));
        self.expression("lookup", |data| {
            data.put_text(abi::NFTA_LOOKUP_SET, map);
            data.put_u32_be(abi::NFTA_LOOKUP_SREG, abi::NFT_REG32_00);
            data.put_u32_be(abi::NFTA_LOOKUP_DREG, abi::NFT_REG_VERDICT);
        });
    }

    /// `ct status dnat`: its destination was translated.
    pub(super) fn if_translated(&mut self) {
        self.conntrack(abi::NFT_CT_STATUS, abi::NFT_REG_1);
        self.mask(&abi::IPS_DST_NAT.to_ne_bytes());
        self.compare(abi::NFT_CMP_NEQ, &0_u32.to_ne_bytes());
    }

    /// `ct original proto-dst <first>-<last>`: the port that it was sent to, before any translation.
    pub(super) fn if_sent_to(&mut self, first: u16, last: u16) {
        self.conntrack(abi::NFT_CT_PROTO_DST, abi::NFT_REG_1);
        if first == last {
            return self.compare(abi::NFT_CMP_EQ, &first.to_be_bytes());
        }
        self.compare(abi::NFT_CMP_GTE, &first.to_be_bytes());
        self.compare(abi::NFT_CMP_LTE, &last.to_be_bytes());
    }

    /// `ct state established ct direction original ct mark & <bits> == <bits>`: it comes from the client of a
    /// connection whose first packet was marked. That one is not asked: others may use the same bits.
    pub(super) fn if_of_marked_connection(&mut self, mark: Mark) {
        self.if_established();
        self.conntrack(abi::NFT_CT_DIRECTION, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_EQ, &[abi::IP_CT_DIR_ORIGINAL]);
        let bits = mark.bits().to_ne_bytes();
        self.conntrack(abi::NFT_CT_MARK, abi::NFT_REG_1);
        self.mask(&bits);
        self.compare(abi::NFT_CMP_EQ, &bits);
    }

    /// `meta mark set meta mark | <bits>`
    pub(super) fn mark_packet(&mut self, mark: Mark) {
        self.meta(abi::NFT_META_MARK, abi::NFT_REG_1);
        self.set_bits(mark);
        self.expression("meta", |data| {
            data.put_u32_be(abi::NFTA_META_KEY, abi::NFT_META_MARK);
            data.put_u32_be(abi::NFTA_META_SREG, abi::NFT_REG_1);
        });
    }

    /// `ct mark set ct mark | <bits>`. The rule ends here for a packet that connection tracking does not see.
    pub(super) fn mark_connection(&mut self, mark: Mark) {
        self.conntrack(abi::NFT_CT_MARK, abi::NFT_REG_1);
        self.set_bits(mark);
        self.expression("ct", |data| {
            data.put_u32_be(abi::NFTA_CT_KEY, abi::NFT_CT_MARK);
            data.put_u32_be(abi::NFTA_CT_SREG, abi::NFT_REG_1);
        });
    }

    /// `meta nftrace set 1`
    pub(super) fn trace(&mut self) {
        self.expression("immediate", |data| {
            data.put_u32_be(abi::NFTA_IMMEDIATE_DREG, abi::NFT_REG_1);
            data.nest(abi::NFTA_IMMEDIATE_DATA, |nest| nest.put(abi::NFTA_DATA_VALUE, &[1]));
        });
        self.expression("meta", |data| {
            data.put_u32_be(abi::NFTA_META_KEY, abi::NFT_META_NFTRACE);
            data.put_u32_be(abi::NFTA_META_SREG, abi::NFT_REG_1);
        });
    }

    fn change_set(&mut self, set: &str, operation: u32) {
        self.expression("dynset", |data| {
            data.put_text(abi::NFTA_DYNSET_SET_NAME, set);
            data.put_u32_be(abi::NFTA_DYNSET_OP, operation);
            data.put_u32_be(abi::NFTA_DYNSET_SREG_KEY, abi::NFT_REG_1);
        });
    }

    /// `counter`
    pub(super) fn counter(&mut self) {
        self.expression("counter", |_| {});
    }

    pub(super) fn accept(&mut self) {
        self.verdict(abi::NF_ACCEPT, None);
    }

    pub(super) fn go_to(&mut self, chain: &str) {
        self.verdict(abi::NFT_GOTO, Some(chain));
    }

    pub(super) fn jump(&mut self, chain: &str) {
        self.verdict(abi::NFT_JUMP, Some(chain));
    }

    pub(super) fn drop(&mut self) {
        self.verdict(abi::NF_DROP, None);
    }

    /// `reject with tcp reset`
    pub(super) fn reject_with_reset(&mut self) {
        self.expression("reject", |data| {
            data.put_u32_be(abi::NFTA_REJECT_TYPE, abi::NFT_REJECT_TCP_RST);
            data.put(abi::NFTA_REJECT_ICMP_CODE, &[0]);
        });
    }

    /// `reject with icmpx port-unreachable`
    pub(super) fn reject_with_port_unreachable(&mut self) {
        self.expression("reject", |data| {
            data.put_u32_be(abi::NFTA_REJECT_TYPE, abi::NFT_REJECT_ICMPX_UNREACH);
            data.put(abi::NFTA_REJECT_ICMP_CODE, &[abi::NFT_REJECT_ICMPX_PORT_UNREACH]);
        });
    }

    /// `fib daddr type <kind>`
    fn if_destination_is(&mut self, kind: u32) {
        self.expression("fib", |data| {
            data.put_u32_be(abi::NFTA_FIB_DREG, abi::NFT_REG_1);
            data.put_u32_be(abi::NFTA_FIB_RESULT, abi::NFT_FIB_RESULT_ADDRTYPE);
            data.put_u32_be(abi::NFTA_FIB_FLAGS, abi::NFTA_FIB_F_DADDR);
        });
        self.compare(abi::NFT_CMP_EQ, &kind.to_ne_bytes());
    }

    fn if_family(&mut self, family: u8) {
        self.meta(abi::NFT_META_NFPROTO, abi::NFT_REG_1);
        self.compare(abi::NFT_CMP_EQ, &[family]);
    }

    fn load_source(&mut self, family: u8) {
        let (offset, length) = if family == abi::NFPROTO_IPV4 { (12, 4) } else { (8, 16) };
        self.payload(abi::NFT_PAYLOAD_NETWORK_HEADER, offset, length, abi::NFT_REG_1);
    }

    /// Loads protocol and source port behind the source.
    fn load_packet_behind_source(&mut self, family: u8) {
        let first = if family == abi::NFPROTO_IPV4 { 1 } else { 4 };
        self.meta(abi::NFT_META_L4PROTO, abi::reg32(first));
        self.payload(abi::NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, abi::reg32(first.saturating_add(1)));
    }

    /// The flags FIN, SYN, RST and ACK of a TCP segment.
    fn load_tcp_flags(&mut self) {
        self.payload(abi::NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, abi::NFT_REG_1);
        self.mask(&[abi::TCP_FIN_SYN_RST_ACK]);
    }

    fn lookup(&mut self, set: &str) {
        self.expression("lookup", |data| {
            data.put_text(abi::NFTA_LOOKUP_SET, set);
            data.put_u32_be(abi::NFTA_LOOKUP_SREG, abi::NFT_REG_1);
        });
    }

    /// Loads from connection tracking; what belongs to a direction, from the original one.
    fn conntrack(&mut self, key: u32, register: u32) {
        self.expression("ct", |data| {
            data.put_u32_be(abi::NFTA_CT_DREG, register);
            data.put_u32_be(abi::NFTA_CT_KEY, key);
            if key == abi::NFT_CT_PROTO_DST {
                data.put(abi::NFTA_CT_DIRECTION, &[abi::IP_CT_DIR_ORIGINAL]);
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
            data.put_u32_be(abi::NFTA_BITWISE_SREG, abi::NFT_REG_1);
            data.put_u32_be(abi::NFTA_BITWISE_DREG, abi::NFT_REG_1);
            data.put_u32_be(abi::NFTA_BITWISE_LEN, u32::try_from(and.len()).unwrap_or(0));
            data.nest(abi::NFTA_BITWISE_MASK, |nest| nest.put(abi::NFTA_DATA_VALUE, and));
            data.nest(abi::NFTA_BITWISE_XOR, |nest| nest.put(abi::NFTA_DATA_VALUE, xor));
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |data| {
            data.put_u32_be(abi::NFTA_META_KEY, key);
            data.put_u32_be(abi::NFTA_META_DREG, register);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32, register: u32) {
        self.expression("payload", |data| {
            data.put_u32_be(abi::NFTA_PAYLOAD_DREG, register);
            data.put_u32_be(abi::NFTA_PAYLOAD_BASE, base);
            data.put_u32_be(abi::NFTA_PAYLOAD_OFFSET, offset);
            data.put_u32_be(abi::NFTA_PAYLOAD_LEN, length);
        });
    }

    fn compare(&mut self, how: u32, value: &[u8]) {
        self.expression("cmp", |data| {
            data.put_u32_be(abi::NFTA_CMP_SREG, abi::NFT_REG_1);
            data.put_u32_be(abi::NFTA_CMP_OP, how);
            data.nest(abi::NFTA_CMP_DATA, |nest| nest.put(abi::NFTA_DATA_VALUE, value));
        });
    }

    fn verdict(&mut self, code: i32, chain: Option<&str>) {
        self.expression("immediate", |data| {
            data.put_u32_be(abi::NFTA_IMMEDIATE_DREG, abi::NFT_REG_VERDICT);
            data.nest(abi::NFTA_IMMEDIATE_DATA, |data| verdict(data, code, chain));
        });
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Writer)) {
        self.0.nest(abi::NFTA_LIST_ELEM, |element| {
            element.put_text(abi::NFTA_EXPR_NAME, name);
            element.nest(abi::NFTA_EXPR_DATA, body);
        });
    }
}

pub(super) fn verdict(writer: &mut Writer, code: i32, chain: Option<&str>) {
    writer.nest(abi::NFTA_DATA_VERDICT, |verdict| {
        verdict.put(abi::NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = chain {
            verdict.put_text(abi::NFTA_VERDICT_CHAIN, chain);
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
    limit(expression, 1_000_000, 1, 1_000_000, abi::NFT_LIMIT_F_INV);
}

fn limit(expression: &mut Writer, packets: u64, seconds: u64, burst: u32, flags: u32) {
    expression.put_text(abi::NFTA_EXPR_NAME, "limit");
    expression.nest(abi::NFTA_EXPR_DATA, |limit| {
        limit.put(abi::NFTA_LIMIT_RATE, &packets.to_be_bytes());
        limit.put(abi::NFTA_LIMIT_UNIT, &seconds.to_be_bytes());
        limit.put_u32_be(abi::NFTA_LIMIT_BURST, burst);
        limit.put_u32_be(abi::NFTA_LIMIT_TYPE, 0);
        limit.put_u32_be(abi::NFTA_LIMIT_FLAGS, flags);
    });
}
