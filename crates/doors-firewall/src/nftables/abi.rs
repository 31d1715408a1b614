//! Numbers of the kernel's nftables interface.
//!
//! Source: `linux/netfilter/nf_tables.h`, `linux/netfilter/nfnetlink.h`, `linux/netfilter.h`. The kernel
//! never changes them.

/// `NFNL_SUBSYS_NFTABLES`.
pub(super) const SUBSYSTEM: u16 = 10;
/// `NFNLGRP_NFTABLES`, as a bit.
pub(super) const GROUP: u32 = 1 << 6;
/// `NFNLGRP_NFTRACE`, as a bit.
pub(super) const TRACE_GROUP: u32 = 1 << 8;
/// `NFNL_MSG_BATCH_BEGIN`.
pub(super) const BATCH_BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`.
pub(super) const BATCH_END: u16 = 0x11;

/// `NFPROTO_UNSPEC`: every family, in a dump.
pub(super) const FAMILY_ANY: u8 = 0;
/// `NFPROTO_INET`.
pub(super) const FAMILY_INET: u8 = 1;
/// `NFPROTO_IPV4`.
pub(super) const FAMILY_IPV4: u8 = 2;
/// `NFPROTO_NETDEV`.
pub(super) const FAMILY_NETDEV: u8 = 5;
/// `NFPROTO_IPV6`.
pub(super) const FAMILY_IPV6: u8 = 10;

/// `enum nf_tables_msg_types`, with the subsystem in front.
pub(super) mod message {
    use super::SUBSYSTEM;

    const fn of(number: u16) -> u16 {
        SUBSYSTEM << 8 | number
    }

    pub(in super::super) const NEW_TABLE: u16 = of(0);
    pub(in super::super) const GET_TABLE: u16 = of(1);
    pub(in super::super) const DELETE_TABLE: u16 = of(2);
    pub(in super::super) const NEW_CHAIN: u16 = of(3);
    pub(in super::super) const GET_CHAIN: u16 = of(4);
    pub(in super::super) const NEW_RULE: u16 = of(6);
    pub(in super::super) const GET_RULE: u16 = of(7);
    pub(in super::super) const NEW_SET: u16 = of(9);
    pub(in super::super) const GET_SET: u16 = of(10);
    pub(in super::super) const NEW_ELEMENT: u16 = of(12);
    pub(in super::super) const GET_ELEMENT: u16 = of(13);
    pub(in super::super) const DELETE_ELEMENT: u16 = of(14);
    pub(in super::super) const NEW_GENERATION: u16 = of(15);
    pub(in super::super) const TRACE: u16 = of(17);
}

/// `enum nft_table_attributes`.
pub(super) mod table {
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const FLAGS: u16 = 2;
}

/// `enum nft_chain_attributes` and `enum nft_hook_attributes`.
pub(super) mod chain {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 3;
    pub(in super::super) const HOOK: u16 = 4;
    pub(in super::super) const POLICY: u16 = 5;
    pub(in super::super) const TYPE: u16 = 7;
    pub(in super::super) const HOOK_NUMBER: u16 = 1;
    pub(in super::super) const HOOK_PRIORITY: u16 = 2;
    /// `NFTA_HOOK_DEV`, `NFTA_HOOK_DEVS` with `NFTA_DEVICE_NAME`.
    pub(in super::super) const HOOK_DEVICE: u16 = 3;
    pub(in super::super) const HOOK_DEVICES: u16 = 4;
    pub(in super::super) const DEVICE_NAME: u16 = 1;
    /// `NF_NETDEV_INGRESS`, in the family `netdev`; `NF_INET_INGRESS`.
    pub(in super::super) const NETDEV_INGRESS: u32 = 0;
    pub(in super::super) const INGRESS: u32 = 5;
    /// `NF_INET_PRE_ROUTING`.
    pub(in super::super) const PREROUTING: u32 = 0;
    /// `NF_INET_LOCAL_IN`.
    pub(in super::super) const INPUT: u32 = 1;
    /// `NF_INET_FORWARD`.
    pub(in super::super) const FORWARD: u32 = 2;
    /// `NF_INET_LOCAL_OUT`.
    pub(in super::super) const OUTPUT: u32 = 3;
    /// `NF_IP_PRI_CONNTRACK`, at prerouting and output.
    pub(in super::super) const PRIORITY_CONNTRACK: i32 = -200;
    /// `NF_IP_PRI_MANGLE`: after connection tracking (-200); at prerouting, before destination NAT (-100).
    pub(in super::super) const PRIORITY_MANGLE: i32 = -150;
}

/// `enum nft_rule_attributes`, `enum nft_expr_attributes`, `enum nft_list_attributes`.
pub(super) mod rule {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const HANDLE: u16 = 3;
    pub(in super::super) const EXPRESSIONS: u16 = 4;
    pub(in super::super) const LIST_ELEMENT: u16 = 1;
    pub(in super::super) const EXPRESSION_NAME: u16 = 1;
    pub(in super::super) const EXPRESSION_DATA: u16 = 2;
}

/// `enum nft_set_attributes` and what belongs to it.
pub(super) mod set {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const NAME: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const KEY_TYPE: u16 = 4;
    pub(in super::super) const KEY_LENGTH: u16 = 5;
    pub(in super::super) const DATA_TYPE: u16 = 6;
    pub(in super::super) const DATA_LENGTH: u16 = 7;
    pub(in super::super) const DESCRIPTION: u16 = 9;
    pub(in super::super) const ID: u16 = 10;
    pub(in super::super) const TIMEOUT: u16 = 11;
    pub(in super::super) const DESCRIPTION_SIZE: u16 = 1;
    pub(in super::super) const DESCRIPTION_CONCATENATION: u16 = 2;
    pub(in super::super) const FIELD_LENGTH: u16 = 1;
    pub(in super::super) const FLAG_INTERVAL: u32 = 0x4;
    pub(in super::super) const FLAG_MAP: u32 = 0x8;
    pub(in super::super) const FLAG_TIMEOUT: u32 = 0x10;
    /// `NFT_SET_EVAL`, which `nft` calls `dynamic`: packets may change it.
    pub(in super::super) const FLAG_DYNAMIC: u32 = 0x20;
    pub(in super::super) const FLAG_CONCATENATION: u32 = 0x80;
    /// Types as `nft` numbers them, so that it can print them: `ipv4_addr`, `ipv6_addr`, and six bits for each
    /// of several behind each other, as `inet_proto` (12) and `inet_service` (13).
    pub(in super::super) const TYPE_IPV4: u32 = 7;
    pub(in super::super) const TYPE_IPV6: u32 = 8;
    pub(in super::super) const TYPE_PROTOCOL_PORT: u32 = 12 << 6 | 13;
    pub(in super::super) const TYPE_IPV4_PACKET: u32 = TYPE_IPV4 << 12 | TYPE_PROTOCOL_PORT;
    pub(in super::super) const TYPE_IPV6_PACKET: u32 = TYPE_IPV6 << 12 | TYPE_PROTOCOL_PORT;
}

/// `enum nft_set_elem_attributes` and `enum nft_set_elem_list_attributes`.
pub(super) mod element {
    pub(in super::super) const LIST_TABLE: u16 = 1;
    pub(in super::super) const LIST_SET: u16 = 2;
    pub(in super::super) const LIST_ELEMENTS: u16 = 3;
    pub(in super::super) const KEY: u16 = 1;
    pub(in super::super) const DATA: u16 = 2;
    pub(in super::super) const FLAGS: u16 = 3;
    pub(in super::super) const TIMEOUT: u16 = 4;
    pub(in super::super) const EXPIRATION: u16 = 5;
    pub(in super::super) const EXPRESSION: u16 = 7;
    /// What `nft` shows as `comment`: of libnftnl's own shape, a type (0), a length, and the text with a zero
    /// behind it.
    pub(in super::super) const USER_DATA: u16 = 6;
    pub(in super::super) const KEY_END: u16 = 10;
    /// `NFT_SET_ELEM_INTERVAL_END`.
    pub(in super::super) const FLAG_INTERVAL_END: u32 = 1;
}

/// `enum nft_data_attributes`, `enum nft_verdict_attributes`, `enum nft_verdicts`.
pub(super) mod data {
    pub(in super::super) const VALUE: u16 = 1;
    pub(in super::super) const VERDICT: u16 = 2;
    pub(in super::super) const VERDICT_CODE: u16 = 1;
    pub(in super::super) const VERDICT_CHAIN: u16 = 2;
    /// `NFT_DATA_VERDICT`, the type of a map's data.
    pub(in super::super) const TYPE_VERDICT: u32 = 0xffff_ff00;
    pub(in super::super) const DROP: i32 = 0;
    pub(in super::super) const ACCEPT: i32 = 1;
    pub(in super::super) const CONTINUE: i32 = -1;
    pub(in super::super) const JUMP: i32 = -3;
    pub(in super::super) const GOTO: i32 = -4;
    pub(in super::super) const RETURN: i32 = -5;
}

/// `enum nft_trace_attributes`, `enum nft_trace_types`.
pub(super) mod trace {
    pub(in super::super) const TABLE: u16 = 1;
    pub(in super::super) const CHAIN: u16 = 2;
    pub(in super::super) const RULE: u16 = 3;
    pub(in super::super) const TYPE: u16 = 4;
    pub(in super::super) const VERDICT: u16 = 5;
    pub(in super::super) const ID: u16 = 6;
    pub(in super::super) const NETWORK_HEADER: u16 = 8;
    pub(in super::super) const TRANSPORT_HEADER: u16 = 9;
    pub(in super::super) const POLICY: u16 = 16;
    pub(in super::super) const OF_POLICY: u32 = 1;
}

/// `enum nft_registers`.
pub(super) mod register {
    /// `NFT_REG_VERDICT`.
    pub(in super::super) const VERDICT: u32 = 0;
    /// `NFT_REG_1`, sixteen bytes.
    pub(in super::super) const FIRST: u32 = 1;
    /// `NFT_REG32_00`, the first four bytes of it.
    pub(in super::super) const WORD_0: u32 = 8;

    /// `NFT_REG32_00` and the four bytes so many words behind them.
    pub(in super::super) const fn word(number: u32) -> u32 {
        WORD_0.saturating_add(number)
    }
}

/// The attributes of the expressions that we write, by expression.
pub(super) mod expression {
    pub(in super::super) const META_REGISTER: u16 = 1;
    pub(in super::super) const META_KEY: u16 = 2;
    /// `NFTA_META_SREG`: the register to set it from.
    pub(in super::super) const META_SOURCE: u16 = 3;
    /// `NFT_META_MARK`.
    pub(in super::super) const META_MARK: u32 = 3;
    /// `NFT_META_IIF`, `NFT_META_NFPROTO`, `NFT_META_L4PROTO`, `NFT_META_PKTTYPE`; `PACKET_HOST`.
    pub(in super::super) const META_INTERFACE: u32 = 4;
    /// `NFT_META_IIFNAME`, `NFT_META_NFTRACE`.
    pub(in super::super) const META_INTERFACE_NAME: u32 = 6;
    /// `NFT_META_OIF`, `NFT_META_OIFNAME`.
    pub(in super::super) const META_OUT_INTERFACE: u32 = 5;
    pub(in super::super) const META_OUT_INTERFACE_NAME: u32 = 7;
    pub(in super::super) const META_TRACE: u32 = 12;
    pub(in super::super) const META_FAMILY: u32 = 15;
    pub(in super::super) const META_PROTOCOL: u32 = 16;
    pub(in super::super) const META_PACKET_TYPE: u32 = 19;
    pub(in super::super) const PACKET_HOST: u8 = 0;

    pub(in super::super) const CT_REGISTER: u16 = 1;
    pub(in super::super) const CT_KEY: u16 = 2;
    /// `NFTA_CT_DIRECTION`, and `IP_CT_DIR_ORIGINAL` in it.
    pub(in super::super) const CT_DIRECTION: u16 = 3;
    pub(in super::super) const CT_ORIGINAL: u8 = 0;
    /// `NFTA_CT_SREG`: the register to set it from.
    pub(in super::super) const CT_SOURCE: u16 = 4;
    /// `NFT_CT_DIRECTION`, of the packet at hand; `NFT_CT_MARK`.
    pub(in super::super) const CT_OF_DIRECTION: u32 = 1;
    pub(in super::super) const CT_MARK: u32 = 3;
    /// `NFT_CT_STATE`; the bit of it that says established.
    pub(in super::super) const CT_STATE: u32 = 0;
    pub(in super::super) const CT_ESTABLISHED: u32 = 2;
    /// `NFT_CT_STATUS`; `IPS_DST_NAT`, of `linux/netfilter/nf_conntrack_common.h`.
    pub(in super::super) const CT_STATUS: u32 = 2;
    pub(in super::super) const CT_DNAT: u32 = 1 << 5;
    /// `NFT_CT_PROTO_DST`: the destination port.
    pub(in super::super) const CT_PROTO_DST: u32 = 12;

    /// Flags of a TCP segment (RFC 9293, section 3.1): SYN alone, and FIN, SYN, RST and ACK together.
    pub(in super::super) const TCP_SYN: u8 = 0x02;
    pub(in super::super) const TCP_FIN_SYN_RST_ACK: u8 = 0x17;

    pub(in super::super) const BITWISE_SOURCE: u16 = 1;
    pub(in super::super) const BITWISE_TARGET: u16 = 2;
    pub(in super::super) const BITWISE_LENGTH: u16 = 3;
    pub(in super::super) const BITWISE_MASK: u16 = 4;
    pub(in super::super) const BITWISE_XOR: u16 = 5;
    /// `NFTA_BITWISE_OP`; 0 for mask and xor.
    pub(in super::super) const BITWISE_OPERATION: u16 = 6;

    pub(in super::super) const COMPARE_REGISTER: u16 = 1;
    pub(in super::super) const COMPARE_HOW: u16 = 2;
    pub(in super::super) const COMPARE_DATA: u16 = 3;
    pub(in super::super) const EQUAL: u32 = 0;
    pub(in super::super) const NOT_EQUAL: u32 = 1;
    /// `NFT_CMP_LT`, `NFT_CMP_LTE`, `NFT_CMP_GT` and `NFT_CMP_GTE`.
    pub(in super::super) const LESS: u32 = 2;
    pub(in super::super) const GREATER: u32 = 4;
    pub(in super::super) const NOT_GREATER: u32 = 3;
    pub(in super::super) const NOT_LESS: u32 = 5;

    /// `NFTA_RANGE_FROM_DATA`, `NFTA_RANGE_TO_DATA`.
    pub(in super::super) const RANGE_FROM: u16 = 3;
    pub(in super::super) const RANGE_TO: u16 = 4;

    /// `NFTA_MATCH_NAME`, `NFTA_MATCH_REV`, `NFTA_MATCH_INFO`; the same for targets.
    pub(in super::super) const MATCH_NAME: u16 = 1;
    pub(in super::super) const MATCH_REVISION: u16 = 2;
    pub(in super::super) const MATCH_INFO: u16 = 3;

    pub(in super::super) const PAYLOAD_REGISTER: u16 = 1;
    pub(in super::super) const PAYLOAD_BASE: u16 = 2;
    pub(in super::super) const PAYLOAD_OFFSET: u16 = 3;
    pub(in super::super) const PAYLOAD_LENGTH: u16 = 4;
    pub(in super::super) const NETWORK_HEADER: u32 = 1;
    pub(in super::super) const TRANSPORT_HEADER: u32 = 2;

    pub(in super::super) const LOOKUP_SET: u16 = 1;
    pub(in super::super) const LOOKUP_REGISTER: u16 = 2;
    pub(in super::super) const LOOKUP_TARGET: u16 = 3;
    /// `NFTA_LOOKUP_FLAGS`, `NFT_LOOKUP_F_INV`.
    pub(in super::super) const LOOKUP_FLAGS: u16 = 5;
    pub(in super::super) const LOOKUP_NOT: u32 = 1;

    /// `enum nft_dynset_attributes`, `NFT_DYNSET_OP_ADD`, `NFT_DYNSET_OP_DELETE`.
    pub(in super::super) const DYNSET_SET: u16 = 1;
    pub(in super::super) const DYNSET_OPERATION: u16 = 3;
    pub(in super::super) const DYNSET_KEY_REGISTER: u16 = 4;
    pub(in super::super) const DYNSET_ADD: u32 = 0;
    pub(in super::super) const DYNSET_DELETE: u32 = 2;

    /// `enum nft_limit_attributes`, `enum nft_limit_flags`; the type of packets is 0.
    pub(in super::super) const LIMIT_RATE: u16 = 1;
    pub(in super::super) const LIMIT_UNIT: u16 = 2;
    pub(in super::super) const LIMIT_BURST: u16 = 3;
    pub(in super::super) const LIMIT_TYPE: u16 = 4;
    pub(in super::super) const LIMIT_FLAGS: u16 = 5;
    pub(in super::super) const LIMIT_OVER: u32 = 1;

    /// `NFTA_NAT_TYPE`, and `NFT_NAT_SNAT` in it.
    pub(in super::super) const NAT_TYPE: u16 = 1;
    pub(in super::super) const NAT_SOURCE: u32 = 0;

    pub(in super::super) const FIB_REGISTER: u16 = 1;
    pub(in super::super) const FIB_RESULT: u16 = 2;
    pub(in super::super) const FIB_FLAGS: u16 = 3;
    /// `NFT_FIB_RESULT_ADDRTYPE`.
    pub(in super::super) const FIB_ADDRESS_TYPE: u32 = 3;
    /// `NFTA_FIB_F_SADDR`, `NFTA_FIB_F_PRESENT`, `NFTA_FIB_F_DADDR`.
    pub(in super::super) const FIB_PRESENT: u32 = 1 << 5;
    pub(in super::super) const FIB_OF_SOURCE: u32 = 1;
    pub(in super::super) const FIB_OF_DESTINATION: u32 = 2;
    /// `RTN_UNICAST`, of `linux/rtnetlink.h`.
    pub(in super::super) const FIB_UNICAST: u32 = 1;
    pub(in super::super) const FIB_LOCAL: u32 = 2;

    pub(in super::super) const IMMEDIATE_REGISTER: u16 = 1;
    pub(in super::super) const IMMEDIATE_DATA: u16 = 2;

    pub(in super::super) const COUNTER_PACKETS: u16 = 2;

    pub(in super::super) const REJECT_TYPE: u16 = 1;
    pub(in super::super) const REJECT_CODE: u16 = 2;
    /// `NFT_REJECT_TCP_RST`, `NFT_REJECT_ICMPX_UNREACH`, `NFT_REJECT_ICMPX_PORT_UNREACH`.
    pub(in super::super) const REJECT_TCP_RESET: u32 = 1;
    pub(in super::super) const REJECT_ICMPX: u32 = 2;
    pub(in super::super) const REJECT_PORT_UNREACHABLE: u8 = 1;
}
