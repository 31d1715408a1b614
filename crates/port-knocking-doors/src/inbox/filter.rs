//! The socket filters in the kernel: only a packet with the shape of a knock wakes the daemon.
//!
//! Classic BPF on a cooked packet socket, where offset 0 is the IP header. Every other packet that the machine
//! receives costs a few instructions in the kernel and nothing here.

mod program;

use doors_core::sequence::knock::Knock;
use socket2::SockFilter;

use self::program::{
    END, Instruction, NEXT, and, assemble, at, for_kernel, if_any_bit, if_equal, if_equal_to_index,
    index_is_ipv4_header_length, index_is_loaded, load_byte, load_half, load_half_behind_index, load_word,
    load_word_behind_index, take,
};
use super::LOOPBACK;

/// The packet type as the link layer sees it. `SKF_AD_OFF` is negative, and an offset is unsigned.
const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
const FOR_US: u32 = libc::PACKET_HOST as u32;
/// The interface index.
const INTERFACE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned();
/// Offsets from here on count from the IP header.
const IP_HEADER: u32 = libc::SKF_NET_OFF.cast_unsigned();
const UDP: u32 = libc::IPPROTO_UDP as u32;
/// The more-fragments flag and the fragment offset in an IPv4 header.
const FRAGMENT: u32 = 0x3fff;

/// The bytes of a packet that are delivered: the longest IPv4 header, UDP and a client's knock are 260.
pub(super) const SNAP: u32 = 288;

/// The UDP length of a knock of a sequence, and of a client with a key.
const KNOCK: u32 = 8 + 6;
const SPA: u32 = 8 + 192;

/// The payload of a knock of a sequence, as a word and a half word.
const PAYLOAD: (u32, u32) = {
    let [k0, k1, k2, k3, k4, k5] = *Knock::PAYLOAD;
    (u32::from_be_bytes([k0, k1, k2, k3]), u16::from_be_bytes([k4, k5]) as u32)
};

/// The filter for a packet socket: knocks of sequences on any port, and knocks of clients with a key on their port.
pub(super) fn knocks(spa_port: Option<u16>) -> Vec<SockFilter> {
    // No packet has port 0 as its destination.
    for_kernel(&knocks_or_spa_on(spa_port.unwrap_or(0)))
}

const fn knocks_or_spa_on(spa_port: u16) -> [Instruction; 35] {
    let spa_port = spa_port as u32;
    assemble([
        load_word(PACKET_TYPE),
        if_equal(FOR_US, NEXT, "drop"),
        load_byte(0),
        and(0xf0),
        if_equal(0x40, "IPv4", NEXT),
        if_equal(0x60, "IPv6", "drop"),
        at("IPv4", load_byte(9)),
        if_equal(UDP, NEXT, "drop"),
        load_half(6),
        if_any_bit(FRAGMENT, "drop", NEXT),
        index_is_ipv4_header_length(),
        load_half_behind_index(4),
        if_equal(KNOCK, "IPv4 knock", NEXT),
        if_equal(SPA, NEXT, "drop"),
        load_half_behind_index(2),
        if_equal(spa_port, "take", "drop"),
        at("IPv4 knock", load_word_behind_index(8)),
        if_equal(PAYLOAD.0, NEXT, "drop"),
        load_half_behind_index(12),
        if_equal(PAYLOAD.1, "take", "drop"),
        at("IPv6", load_byte(6)),
        if_equal(UDP, NEXT, "drop"),
        load_half(44),
        if_equal(KNOCK, "IPv6 knock", NEXT),
        if_equal(SPA, NEXT, "drop"),
        load_half(42),
        if_equal(spa_port, "take", "drop"),
        // The payload length of IPv6 has to equal the UDP length.
        at("IPv6 knock", load_half(4)),
        if_equal(KNOCK, NEXT, "drop"),
        load_word(48),
        if_equal(PAYLOAD.0, NEXT, "drop"),
        load_half(52),
        if_equal(PAYLOAD.1, "take", "drop"),
        at("drop", take(0)),
        at("take", take(SNAP)),
    ])
}

// The labels do not depend on the port, so the compiler finds a wrong one here.
const _: [Instruction; 35] = knocks_or_spa_on(0);

/// The filter for the UDP socket of clients with a key, where offset 0 is the UDP header.
pub(super) fn spa_payloads() -> Vec<SockFilter> {
    for_kernel(&SPA_PAYLOADS)
}

const SPA_PAYLOADS: [Instruction; 4] =
    assemble([load_half(4), if_equal(SPA, "take", NEXT), take(0), at("take", take(u32::MAX))]);

/// The filter for a bound UDP socket, where offset 0 is the UDP header.
pub(super) fn payloads() -> Vec<SockFilter> {
    for_kernel(&PAYLOADS)
}

const PAYLOADS: [Instruction; 8] = assemble([
    load_half(4),
    if_equal(KNOCK, NEXT, "drop"),
    load_word(8),
    if_equal(PAYLOAD.0, NEXT, "drop"),
    load_half(12),
    if_equal(PAYLOAD.1, "take", "drop"),
    at("drop", take(0)),
    at("take", take(u32::MAX)),
]);

/// Puts a check before the filter of an IPv6 socket: it drops every datagram that a local user may have sent with a
/// forged source address.
///
/// Such a socket does not learn that a datagram came over loopback: for a datagram to an address of another
/// interface, the kernel names that interface. So the filter has to check it. The filter does not know this machine's
/// addresses; only the destination address is certainly one of them.
pub(super) fn in_our_own_name(then: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut filter = for_kernel(&SOURCE_IS_DESTINATION_OR_ELSEWHERE);
    filter.extend(then);
    filter
}

/// Compares source and destination word by word, if the packet came over loopback.
const SOURCE_IS_DESTINATION_OR_ELSEWHERE: [Instruction; 19] = assemble([
    load_word(INTERFACE),
    if_equal(LOOPBACK, NEXT, END),
    load_word(IP_HEADER + 8),
    index_is_loaded(),
    load_word(IP_HEADER + 24),
    if_equal_to_index(NEXT, "drop"),
    load_word(IP_HEADER + 12),
    index_is_loaded(),
    load_word(IP_HEADER + 28),
    if_equal_to_index(NEXT, "drop"),
    load_word(IP_HEADER + 16),
    index_is_loaded(),
    load_word(IP_HEADER + 32),
    if_equal_to_index(NEXT, "drop"),
    load_word(IP_HEADER + 20),
    index_is_loaded(),
    load_word(IP_HEADER + 36),
    if_equal_to_index(END, NEXT),
    at("drop", take(0)),
]);

/// The filter for a socket that only sends.
pub(super) fn nothing() -> Vec<SockFilter> {
    for_kernel(&NOTHING)
}

const NOTHING: [Instruction; 1] = assemble([take(0)]);

/// The filter for rtnetlink notifications: of those about routes it takes only local, anycast and broadcast routes.
///
/// Offset 0 is the netlink header. The message type is at 4, in the byte order of the machine, and the type of a
/// route at 23.
pub(super) fn local_routes() -> Vec<SockFilter> {
    for_kernel(&LOCAL_ROUTES)
}

const LOCAL_ROUTES: [Instruction; 9] = assemble([
    load_half(4),
    if_equal(kind(libc::RTM_NEWROUTE), "route", NEXT),
    if_equal(kind(libc::RTM_DELROUTE), "route", "take"),
    at("route", load_byte(23)),
    if_equal(libc::RTN_LOCAL as u32, "take", NEXT),
    if_equal(libc::RTN_BROADCAST as u32, "take", NEXT),
    if_equal(libc::RTN_ANYCAST as u32, "take", "drop"),
    at("drop", take(0)),
    at("take", take(u32::MAX)),
]);

/// The message type as the filter loads it, in network byte order.
const fn kind(kind: u16) -> u32 {
    u16::from_be_bytes(kind.to_ne_bytes()) as u32
}

#[cfg(test)]
mod tests;
