//! Numbers of the kernel's interface to nftables and connection tracking, under the kernel's own names.
//!
//! The names are those of `linux/netfilter/nf_tables.h`, except where a section names another header. `libc` has some
//! of them as `c_int`; here each has the type that its field in a message has. The kernel never changes them.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "these are constants of the kernel that fit their fields"
)]

use libc::c_int;

// `linux/netfilter/nfnetlink.h`.
pub(super) const NFNL_SUBSYS_NFTABLES: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const NFNL_SUBSYS_CTNETLINK: u16 = libc::NFNL_SUBSYS_CTNETLINK as u16;
pub(super) const NFNL_MSG_BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
pub(super) const NFNL_MSG_BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;
/// `NFNLGRP_NFTABLES`, as a bit.
pub(super) const NFTABLES_GROUP: u32 = 1 << (libc::NFNLGRP_NFTABLES - 1);
/// `NFNLGRP_NFTRACE`, as a bit.
pub(super) const NFTRACE_GROUP: u32 = 1 << (libc::NFNLGRP_NFTRACE - 1);

// `linux/netfilter.h`, `linux/netfilter_ipv4.h`.
/// Every family, in a dump.
pub(super) const NFPROTO_UNSPEC: u8 = libc::NFPROTO_UNSPEC as u8;
pub(super) const NFPROTO_INET: u8 = libc::NFPROTO_INET as u8;
pub(super) const NFPROTO_IPV4: u8 = libc::NFPROTO_IPV4 as u8;
pub(super) const NFPROTO_NETDEV: u8 = libc::NFPROTO_NETDEV as u8;
pub(super) const NFPROTO_IPV6: u8 = libc::NFPROTO_IPV6 as u8;
/// In the family `netdev`.
pub(super) const NF_NETDEV_INGRESS: u32 = libc::NF_NETDEV_INGRESS as u32;
pub(super) const NF_INET_INGRESS: u32 = libc::NF_INET_INGRESS as u32;
pub(super) const NF_INET_PRE_ROUTING: u32 = libc::NF_INET_PRE_ROUTING as u32;
pub(super) const NF_INET_LOCAL_IN: u32 = libc::NF_INET_LOCAL_IN as u32;
pub(super) const NF_INET_FORWARD: u32 = libc::NF_INET_FORWARD as u32;
pub(super) const NF_INET_LOCAL_OUT: u32 = libc::NF_INET_LOCAL_OUT as u32;
/// At prerouting and output.
pub(super) const NF_IP_PRI_CONNTRACK: i32 = libc::NF_IP_PRI_CONNTRACK;
/// After connection tracking (-200) and, at prerouting, before destination NAT (-100).
pub(super) const NF_IP_PRI_MANGLE: i32 = libc::NF_IP_PRI_MANGLE;
pub(super) const NF_DROP: i32 = libc::NF_DROP;
pub(super) const NF_ACCEPT: i32 = libc::NF_ACCEPT;

// `enum nf_tables_msg_types`.
pub(super) const NFT_MSG_NEWTABLE: u16 = message(libc::NFT_MSG_NEWTABLE);
pub(super) const NFT_MSG_GETTABLE: u16 = message(libc::NFT_MSG_GETTABLE);
pub(super) const NFT_MSG_DELTABLE: u16 = message(libc::NFT_MSG_DELTABLE);
pub(super) const NFT_MSG_NEWCHAIN: u16 = message(libc::NFT_MSG_NEWCHAIN);
pub(super) const NFT_MSG_GETCHAIN: u16 = message(libc::NFT_MSG_GETCHAIN);
pub(super) const NFT_MSG_NEWRULE: u16 = message(libc::NFT_MSG_NEWRULE);
pub(super) const NFT_MSG_GETRULE: u16 = message(libc::NFT_MSG_GETRULE);
pub(super) const NFT_MSG_NEWSET: u16 = message(libc::NFT_MSG_NEWSET);
pub(super) const NFT_MSG_GETSET: u16 = message(libc::NFT_MSG_GETSET);
pub(super) const NFT_MSG_NEWSETELEM: u16 = message(libc::NFT_MSG_NEWSETELEM);
pub(super) const NFT_MSG_GETSETELEM: u16 = message(libc::NFT_MSG_GETSETELEM);
pub(super) const NFT_MSG_DELSETELEM: u16 = message(libc::NFT_MSG_DELSETELEM);
pub(super) const NFT_MSG_NEWGEN: u16 = message(libc::NFT_MSG_NEWGEN);
pub(super) const NFT_MSG_TRACE: u16 = message(libc::NFT_MSG_TRACE);

/// The type of a netlink message: the subsystem, and the number of the message within it.
const fn message(number: c_int) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | number as u16
}

// `enum nft_table_attributes`.
pub(super) const NFTA_TABLE_NAME: u16 = 1;
pub(super) const NFTA_TABLE_FLAGS: u16 = 2;

// `enum nft_chain_attributes`, `enum nft_hook_attributes`, `enum nft_devices_attributes`.
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
pub(super) const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_HOOK_DEV: u16 = 3;
pub(super) const NFTA_HOOK_DEVS: u16 = 4;
pub(super) const NFTA_DEVICE_NAME: u16 = 1;

// `enum nft_rule_attributes`, `enum nft_list_attributes`, `enum nft_expr_attributes`.
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;

// `enum nft_set_attributes` and what belongs to it, `enum nft_set_flags`.
pub(super) const NFTA_SET_TABLE: u16 = 1;
pub(super) const NFTA_SET_NAME: u16 = 2;
pub(super) const NFTA_SET_FLAGS: u16 = 3;
pub(super) const NFTA_SET_KEY_TYPE: u16 = 4;
pub(super) const NFTA_SET_KEY_LEN: u16 = 5;
pub(super) const NFTA_SET_DATA_TYPE: u16 = 6;
pub(super) const NFTA_SET_DATA_LEN: u16 = 7;
pub(super) const NFTA_SET_DESC: u16 = 9;
pub(super) const NFTA_SET_ID: u16 = 10;
pub(super) const NFTA_SET_TIMEOUT: u16 = 11;
pub(super) const NFTA_SET_DESC_SIZE: u16 = 1;
pub(super) const NFTA_SET_DESC_CONCAT: u16 = 2;
pub(super) const NFTA_SET_FIELD_LEN: u16 = 1;
pub(super) const NFT_SET_INTERVAL: u32 = libc::NFT_SET_INTERVAL as u32;
pub(super) const NFT_SET_MAP: u32 = libc::NFT_SET_MAP as u32;
pub(super) const NFT_SET_TIMEOUT: u32 = libc::NFT_SET_TIMEOUT as u32;
/// Packets may change the set; `nft` calls it `dynamic`.
pub(super) const NFT_SET_EVAL: u32 = libc::NFT_SET_EVAL as u32;
pub(super) const NFT_SET_CONCAT: u32 = 0x80;

// Types as `nft` numbers them (`enum datatypes` in `include/datatype.h` of nftables), so that it
// can print them.
/// `ipv4_addr`.
pub(super) const TYPE_IPADDR: u32 = 7;
/// `ipv6_addr`.
pub(super) const TYPE_IP6ADDR: u32 = 8;
/// `TYPE_INET_PROTOCOL` and `TYPE_INET_SERVICE`: six bits for each of several behind each other.
pub(super) const TYPE_PROTOCOL_PORT: u32 = 12 << 6 | 13;
pub(super) const TYPE_IPV4_PACKET: u32 = TYPE_IPADDR << 12 | TYPE_PROTOCOL_PORT;
pub(super) const TYPE_IPV6_PACKET: u32 = TYPE_IP6ADDR << 12 | TYPE_PROTOCOL_PORT;

// `enum nft_set_elem_list_attributes`, `enum nft_set_elem_attributes`, `enum nft_set_elem_flags`.
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
pub(super) const NFTA_SET_ELEM_KEY: u16 = 1;
pub(super) const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_SET_ELEM_FLAGS: u16 = 3;
pub(super) const NFTA_SET_ELEM_TIMEOUT: u16 = 4;
pub(super) const NFTA_SET_ELEM_EXPIRATION: u16 = 5;
/// What `nft` shows as `comment`, in the format of libnftnl: a type (0), a length, and the text with a zero
/// behind it.
pub(super) const NFTA_SET_ELEM_USERDATA: u16 = 6;
pub(super) const NFTA_SET_ELEM_EXPR: u16 = 7;
pub(super) const NFTA_SET_ELEM_KEY_END: u16 = 10;
pub(super) const NFT_SET_ELEM_INTERVAL_END: u32 = libc::NFT_SET_ELEM_INTERVAL_END as u32;

// `enum nft_data_attributes`, `enum nft_data_types`, `enum nft_verdict_attributes`, `enum nft_verdicts`.
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;
pub(super) const NFTA_VERDICT_CHAIN: u16 = 2;
/// The type of a map's data.
pub(super) const NFT_DATA_VERDICT: u32 = libc::NFT_DATA_VERDICT;
pub(super) const NFT_CONTINUE: i32 = libc::NFT_CONTINUE;
pub(super) const NFT_JUMP: i32 = libc::NFT_JUMP;
pub(super) const NFT_GOTO: i32 = libc::NFT_GOTO;
pub(super) const NFT_RETURN: i32 = libc::NFT_RETURN;

// `enum nft_trace_attributes`, `enum nft_trace_types`.
pub(super) const NFTA_TRACE_TABLE: u16 = 1;
pub(super) const NFTA_TRACE_CHAIN: u16 = 2;
pub(super) const NFTA_TRACE_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_TRACE_TYPE: u16 = 4;
pub(super) const NFTA_TRACE_VERDICT: u16 = 5;
pub(super) const NFTA_TRACE_ID: u16 = 6;
pub(super) const NFTA_TRACE_NETWORK_HEADER: u16 = 8;
pub(super) const NFTA_TRACE_TRANSPORT_HEADER: u16 = 9;
pub(super) const NFTA_TRACE_POLICY: u16 = 16;
pub(super) const NFT_TRACETYPE_POLICY: u32 = libc::NFT_TRACETYPE_POLICY as u32;

// `enum nft_registers`.
pub(super) const NFT_REG_VERDICT: u32 = libc::NFT_REG_VERDICT as u32;
/// Sixteen bytes.
pub(super) const NFT_REG_1: u32 = libc::NFT_REG_1 as u32;
/// The first four bytes of [`NFT_REG_1`].
pub(super) const NFT_REG32_00: u32 = libc::NFT_REG32_00 as u32;

/// The register of four bytes so many behind [`NFT_REG32_00`].
pub(super) const fn reg32(number: u32) -> u32 {
    NFT_REG32_00.saturating_add(number)
}

// `enum nft_meta_attributes`, `enum nft_meta_keys`; `linux/if_packet.h`.
pub(super) const NFTA_META_DREG: u16 = 1;
pub(super) const NFTA_META_KEY: u16 = 2;
pub(super) const NFTA_META_SREG: u16 = 3;
pub(super) const NFT_META_MARK: u32 = libc::NFT_META_MARK as u32;
pub(super) const NFT_META_IIF: u32 = libc::NFT_META_IIF as u32;
pub(super) const NFT_META_IIFNAME: u32 = libc::NFT_META_IIFNAME as u32;
pub(super) const NFT_META_OIF: u32 = libc::NFT_META_OIF as u32;
pub(super) const NFT_META_OIFNAME: u32 = libc::NFT_META_OIFNAME as u32;
pub(super) const NFT_META_NFTRACE: u32 = libc::NFT_META_NFTRACE as u32;
pub(super) const NFT_META_NFPROTO: u32 = libc::NFT_META_NFPROTO as u32;
pub(super) const NFT_META_L4PROTO: u32 = libc::NFT_META_L4PROTO as u32;
pub(super) const NFT_META_PKTTYPE: u32 = libc::NFT_META_PKTTYPE as u32;
pub(super) const PACKET_HOST: u8 = libc::PACKET_HOST;

// `enum nft_ct_attributes`, `enum nft_ct_keys`; `linux/netfilter/nf_conntrack_common.h`,
// `linux/netfilter/nf_conntrack_tuple_common.h`.
pub(super) const IP_CT_DIR_ORIGINAL: u8 = 0;
pub(super) const NFTA_CT_DREG: u16 = 1;
pub(super) const NFTA_CT_KEY: u16 = 2;
pub(super) const NFTA_CT_DIRECTION: u16 = 3;
pub(super) const NFTA_CT_SREG: u16 = 4;
/// The direction of the packet at hand.
pub(super) const NFT_CT_DIRECTION: u32 = libc::NFT_CT_DIRECTION as u32;
pub(super) const NFT_CT_MARK: u32 = libc::NFT_CT_MARK as u32;
pub(super) const NFT_CT_STATE: u32 = libc::NFT_CT_STATE as u32;
/// A packet that connection tracking cannot place, or has not seen yet.
pub(super) const NF_CT_STATE_INVALID_BIT: u32 = 1 << 0;
/// `NF_CT_STATE_BIT(IP_CT_ESTABLISHED)`.
pub(super) const CT_STATE_ESTABLISHED: u32 = 2;
pub(super) const NFT_CT_STATUS: u32 = libc::NFT_CT_STATUS as u32;
/// `NF_CT_STATE_BIT(IP_CT_RELATED)`.
pub(super) const CT_STATE_RELATED: u32 = 1 << 2;
/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
pub(super) const CT_STATE_NEW: u32 = 1 << 3;
pub(super) const NF_CT_STATE_UNTRACKED_BIT: u32 = 1 << 6;
pub(super) const IPS_SEEN_REPLY: u32 = 1 << 1;
pub(super) const IPS_ASSURED: u32 = 1 << 2;
pub(super) const IPS_CONFIRMED: u32 = 1 << 3;
pub(super) const IPS_DST_NAT: u32 = 1 << 5;
pub(super) const NFT_CT_PROTO_DST: u32 = libc::NFT_CT_PROTO_DST as u32;

// Flags of a TCP segment (RFC 9293, section 3.1): SYN alone, and FIN, SYN, RST and ACK together.
pub(super) const TCP_SYN: u8 = 0x02;
pub(super) const TCP_FIN_SYN_RST_ACK: u8 = 0x17;

// `enum nft_bitwise_attributes`.
pub(super) const NFTA_BITWISE_SREG: u16 = 1;
pub(super) const NFTA_BITWISE_DREG: u16 = 2;
pub(super) const NFTA_BITWISE_LEN: u16 = 3;
pub(super) const NFTA_BITWISE_MASK: u16 = 4;
pub(super) const NFTA_BITWISE_XOR: u16 = 5;
/// 0 for mask and xor.
pub(super) const NFTA_BITWISE_OP: u16 = 6;

// `enum nft_cmp_attributes`, `enum nft_cmp_ops`.
pub(super) const NFTA_CMP_SREG: u16 = 1;
pub(super) const NFTA_CMP_OP: u16 = 2;
pub(super) const NFTA_CMP_DATA: u16 = 3;
pub(super) const NFT_CMP_EQ: u32 = libc::NFT_CMP_EQ as u32;
pub(super) const NFT_CMP_NEQ: u32 = libc::NFT_CMP_NEQ as u32;
pub(super) const NFT_CMP_LT: u32 = libc::NFT_CMP_LT as u32;
pub(super) const NFT_CMP_GT: u32 = libc::NFT_CMP_GT as u32;
pub(super) const NFT_CMP_LTE: u32 = libc::NFT_CMP_LTE as u32;
pub(super) const NFT_CMP_GTE: u32 = libc::NFT_CMP_GTE as u32;

// `enum nft_range_attributes`.
pub(super) const NFTA_RANGE_FROM_DATA: u16 = 3;
pub(super) const NFTA_RANGE_TO_DATA: u16 = 4;

// `enum nft_match_attributes` of `linux/netfilter/nf_tables_compat.h`; `enum nft_target_attributes` is the same.
pub(super) const NFTA_MATCH_NAME: u16 = 1;
pub(super) const NFTA_MATCH_REV: u16 = 2;
pub(super) const NFTA_MATCH_INFO: u16 = 3;

// `enum nft_payload_attributes`, `enum nft_payload_bases`.
pub(super) const NFTA_PAYLOAD_DREG: u16 = 1;
pub(super) const NFTA_PAYLOAD_BASE: u16 = 2;
pub(super) const NFTA_PAYLOAD_OFFSET: u16 = 3;
pub(super) const NFTA_PAYLOAD_LEN: u16 = 4;
pub(super) const NFT_PAYLOAD_NETWORK_HEADER: u32 = libc::NFT_PAYLOAD_NETWORK_HEADER as u32;
pub(super) const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = libc::NFT_PAYLOAD_TRANSPORT_HEADER as u32;

// `enum nft_lookup_attributes`, `enum nft_lookup_flags`.
pub(super) const NFTA_LOOKUP_SET: u16 = 1;
pub(super) const NFTA_LOOKUP_SREG: u16 = 2;
pub(super) const NFTA_LOOKUP_DREG: u16 = 3;
pub(super) const NFTA_LOOKUP_FLAGS: u16 = 5;
pub(super) const NFT_LOOKUP_F_INV: u32 = libc::NFT_LOOKUP_F_INV as u32;

// `enum nft_dynset_attributes`, `enum nft_dynset_ops`.
pub(super) const NFTA_DYNSET_SET_NAME: u16 = 1;
pub(super) const NFTA_DYNSET_OP: u16 = 3;
pub(super) const NFTA_DYNSET_SREG_KEY: u16 = 4;
pub(super) const NFT_DYNSET_OP_ADD: u32 = libc::NFT_DYNSET_OP_ADD as u32;
pub(super) const NFT_DYNSET_OP_DELETE: u32 = 2;

// `enum nft_limit_attributes`, `enum nft_limit_flags`; the type of packets is 0 (`NFT_LIMIT_PKTS`).
pub(super) const NFTA_LIMIT_RATE: u16 = 1;
pub(super) const NFTA_LIMIT_UNIT: u16 = 2;
pub(super) const NFTA_LIMIT_BURST: u16 = 3;
pub(super) const NFTA_LIMIT_TYPE: u16 = 4;
pub(super) const NFTA_LIMIT_FLAGS: u16 = 5;
pub(super) const NFT_LIMIT_F_INV: u32 = libc::NFT_LIMIT_F_INV as u32;

// `enum nft_nat_attributes`, `enum nft_nat_types`.
pub(super) const NFTA_NAT_TYPE: u16 = 1;
pub(super) const NFT_NAT_SNAT: u32 = libc::NFT_NAT_SNAT as u32;

// `enum nft_fib_attributes`, `enum nft_fib_result`, `enum nft_fib_flags`; `linux/rtnetlink.h`.
pub(super) const NFTA_FIB_DREG: u16 = 1;
pub(super) const NFTA_FIB_RESULT: u16 = 2;
pub(super) const NFTA_FIB_FLAGS: u16 = 3;
pub(super) const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
pub(super) const NFTA_FIB_F_PRESENT: u32 = 1 << 5;
pub(super) const NFTA_FIB_F_SADDR: u32 = 1;
pub(super) const NFTA_FIB_F_DADDR: u32 = 2;
pub(super) const RTN_UNICAST: u32 = libc::RTN_UNICAST as u32;
pub(super) const RTN_LOCAL: u32 = libc::RTN_LOCAL as u32;

// `enum nft_immediate_attributes`.
pub(super) const NFTA_IMMEDIATE_DREG: u16 = 1;
pub(super) const NFTA_IMMEDIATE_DATA: u16 = 2;

// `enum nft_counter_attributes`.
pub(super) const NFTA_COUNTER_PACKETS: u16 = 2;

// `enum nft_reject_attributes`, `enum nft_reject_types`, `enum nft_reject_inet_code`.
pub(super) const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = libc::NFT_REJECT_ICMPX_PORT_UNREACH as u8;
pub(super) const NFTA_REJECT_TYPE: u16 = 1;
pub(super) const NFTA_REJECT_ICMP_CODE: u16 = 2;
pub(super) const NFT_REJECT_TCP_RST: u32 = libc::NFT_REJECT_TCP_RST as u32;
pub(super) const NFT_REJECT_ICMPX_UNREACH: u32 = libc::NFT_REJECT_ICMPX_UNREACH as u32;

// `linux/netfilter/nfnetlink_conntrack.h`, `linux/netfilter/nf_conntrack_tcp.h`.
pub(super) const IPCTNL_MSG_CT_NEW: u16 = NFNL_SUBSYS_CTNETLINK << 8;
pub(super) const IPCTNL_MSG_CT_GET: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 1;
pub(super) const IPCTNL_MSG_CT_DELETE: u16 = NFNL_SUBSYS_CTNETLINK << 8 | 2;
pub(super) const CTA_ID: u16 = 12;
pub(super) const CTA_ZONE: u16 = 18;
pub(super) const CTA_TUPLE_ORIG: u16 = 1;
pub(super) const CTA_TUPLE_REPLY: u16 = 2;
pub(super) const CTA_STATUS: u16 = 3;
pub(super) const CTA_PROTOINFO: u16 = 4;
pub(super) const CTA_TIMEOUT: u16 = 7;
pub(super) const CTA_TUPLE_IP: u16 = 1;
pub(super) const CTA_TUPLE_PROTO: u16 = 2;
pub(super) const CTA_IP_V4_SRC: u16 = 1;
pub(super) const CTA_IP_V4_DST: u16 = 2;
pub(super) const CTA_IP_V6_SRC: u16 = 3;
pub(super) const CTA_IP_V6_DST: u16 = 4;
pub(super) const CTA_PROTO_NUM: u16 = 1;
pub(super) const CTA_PROTO_SRC_PORT: u16 = 2;
pub(super) const CTA_PROTO_DST_PORT: u16 = 3;
pub(super) const CTA_PROTOINFO_TCP: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_STATE: u16 = 1;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_ORIGINAL: u16 = 4;
pub(super) const CTA_PROTOINFO_TCP_FLAGS_REPLY: u16 = 5;
pub(super) const TCP_CONNTRACK_ESTABLISHED: u8 = 3;
pub(super) const TCP_CONNTRACK_LAST_ACK: u8 = 6;
pub(super) const IP_CT_TCP_FLAG_BE_LIBERAL: u8 = 0x08;
