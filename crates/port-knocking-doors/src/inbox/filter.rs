//! The filter in the kernel: only what has the shape of a knock wakes us.
//!
//! Classic BPF over a cooked packet socket, where offset 0 is the IP header. Everything else that the
//! machine receives costs a few instructions in the kernel and nothing here.
//!
//! Source: `linux/filter.h`, `linux/bpf_common.h`.

use doors_core::sequence::knock::Knock;
use socket2::SockFilter;

use super::{LOOPBACK, addresses};

/// `BPF_LD|BPF_W|BPF_ABS` and so on.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
/// The same, relative to the index register.
const LOAD_WORD_INDEXED: u16 = 0x40;
const LOAD_HALF_INDEXED: u16 = 0x48;
/// `BPF_LDX|BPF_B|BPF_MSH`: the length of an IPv4 header.
const LOAD_INDEX_HEADER_LENGTH: u16 = 0xb1;
const AND: u16 = 0x54;
/// `BPF_MISC|BPF_TAX`: copies into the index register, with which `BPF_JMP|BPF_JEQ|BPF_X` compares.
const TO_INDEX: u16 = 0x07;
const JUMP_IF_EQUAL_INDEX: u16 = 0x1d;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: for whom the packet is, as the link sees it.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// `SKF_AD_OFF + SKF_AD_IFINDEX`: the interface.
const INTERFACE: u32 = 0xffff_f000 + 8;
/// `SKF_NET_OFF`: from here on offsets count from the IP header.
const IP_HEADER: u32 = 0xfff0_0000;
/// `PACKET_HOST`: for us.
const FOR_US: u32 = 0;

/// Bytes of a packet that are delivered: the longest IPv4 header, UDP and a client's knock are 260.
pub(super) const SNAP: u32 = 288;

/// The length in the UDP header of a knock of a sequence, and of a client with a key.
const KNOCK: u32 = 8 + 6;
const SPA: u32 = 8 + 192;

/// Where a jump goes that gives the packet up.
const GIVE_UP: usize = usize::MAX;

/// The filter for a packet socket: knocks of sequences on any port, and of clients with a key on theirs.
pub(super) fn knocks(spa_port: Option<u16>) -> Vec<SockFilter> {
    let [k0, k1, k2, k3, k4, k5] = *Knock::PAYLOAD;
    let start = u32::from_be_bytes([k0, k1, k2, k3]);
    let end = u32::from(u16::from_be_bytes([k4, k5]));
    // Nobody can send to port 0.
    let spa_port = u32::from(spa_port.unwrap_or(0));

    // (code, jump if true, jump if false, operand); jumps are places in this list.
    let v6 = 20;
    let accept = 34;
    let program = [
        (LOAD_WORD, 0, 0, PACKET_TYPE),
        (JUMP_IF_EQUAL, 2, GIVE_UP, FOR_US),
        (LOAD_BYTE, 0, 0, 0),
        (AND, 0, 0, 0xf0),
        (JUMP_IF_EQUAL, 6, 5, 0x40),
        (JUMP_IF_EQUAL, v6, GIVE_UP, 0x60),
        // IPv4: UDP, no fragment, the right length, the payload or the port.
        (LOAD_BYTE, 0, 0, 9),
        (JUMP_IF_EQUAL, 8, GIVE_UP, 17),
        (LOAD_HALF, 0, 0, 6),
        (JUMP_IF_ANY_BIT, GIVE_UP, 10, 0x3fff),
        (LOAD_INDEX_HEADER_LENGTH, 0, 0, 0),
        (LOAD_HALF_INDEXED, 0, 0, 4),
        (JUMP_IF_EQUAL, 16, 13, KNOCK),
        (JUMP_IF_EQUAL, 14, GIVE_UP, SPA),
        (LOAD_HALF_INDEXED, 0, 0, 2),
        (JUMP_IF_EQUAL, accept, GIVE_UP, spa_port),
        (LOAD_WORD_INDEXED, 0, 0, 8),
        (JUMP_IF_EQUAL, 18, GIVE_UP, start),
        (LOAD_HALF_INDEXED, 0, 0, 12),
        (JUMP_IF_EQUAL, accept, GIVE_UP, end),
        // IPv6: the same.
        (LOAD_BYTE, 0, 0, 6),
        (JUMP_IF_EQUAL, 22, GIVE_UP, 17),
        (LOAD_HALF, 0, 0, 44),
        (JUMP_IF_EQUAL, 27, 24, KNOCK),
        (JUMP_IF_EQUAL, 25, GIVE_UP, SPA),
        (LOAD_HALF, 0, 0, 42),
        (JUMP_IF_EQUAL, accept, GIVE_UP, spa_port),
        (LOAD_HALF, 0, 0, 4),
        (JUMP_IF_EQUAL, 29, GIVE_UP, KNOCK),
        (LOAD_WORD, 0, 0, 48),
        (JUMP_IF_EQUAL, 31, GIVE_UP, start),
        (LOAD_HALF, 0, 0, 52),
        (JUMP_IF_EQUAL, accept, GIVE_UP, end),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, SNAP),
    ];
    assemble(&program)
}

/// The filter for the UDP socket of clients with a key, where offset 0 is the UDP header.
pub(super) fn spa_payloads() -> Vec<SockFilter> {
    assemble(&[
        (LOAD_HALF, 0, 0, 4),
        (JUMP_IF_EQUAL, 3, GIVE_UP, SPA),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, u32::MAX),
    ])
}

/// The filter for a bound UDP socket, where offset 0 is the UDP header.
pub(super) fn payloads() -> Vec<SockFilter> {
    let [k0, k1, k2, k3, k4, k5] = *Knock::PAYLOAD;
    let program = [
        (LOAD_HALF, 0, 0, 4),
        (JUMP_IF_EQUAL, 2, GIVE_UP, KNOCK),
        (LOAD_WORD, 0, 0, 8),
        (JUMP_IF_EQUAL, 4, GIVE_UP, u32::from_be_bytes([k0, k1, k2, k3])),
        (LOAD_HALF, 0, 0, 12),
        (JUMP_IF_EQUAL, 7, GIVE_UP, u32::from(u16::from_be_bytes([k4, k5]))),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, u32::MAX),
    ];
    assemble(&program)
}

/// What comes before the filter of an IPv6 socket: it gives up what a local user may have sent in a foreign name.
///
/// Such a socket is not told that a datagram came over loopback: of one to an address of another interface, the kernel
/// names that interface. So it has to be seen here, where nothing is known of this machine's addresses, and only the
/// address to which it was sent is sure to be one.
pub(super) fn in_our_own_name(then: Vec<SockFilter>) -> Vec<SockFilter> {
    // Source and destination, word by word.
    const WORDS: [(u32, u32); 4] = [(8, 24), (12, 28), (16, 32), (20, 36)];
    let elsewhere = 19;
    let mut program = vec![(LOAD_WORD, 0, 0, INTERFACE), (JUMP_IF_EQUAL, 2, elsewhere, LOOPBACK)];
    for (number, (source, destination)) in WORDS.into_iter().enumerate() {
        let next = number.saturating_mul(4).saturating_add(6);
        let next = if number == 3 { elsewhere } else { next };
        program.extend([
            (LOAD_WORD, 0, 0, IP_HEADER.saturating_add(source)),
            (TO_INDEX, 0, 0, 0),
            (LOAD_WORD, 0, 0, IP_HEADER.saturating_add(destination)),
            (JUMP_IF_EQUAL_INDEX, next, GIVE_UP, 0),
        ]);
    }
    program.extend([(RETURN, 0, 0, 0), (RETURN, 0, 0, u32::MAX)]);
    let mut filter = assemble(&program);
    // Instead of taking it, the other filter is asked.
    filter.truncate(elsewhere);
    filter.extend(then);
    filter
}

/// The filter for a socket that only sends.
pub(super) fn nothing() -> Vec<SockFilter> {
    assemble(&[(RETURN, 0, 0, 0)])
}

/// The filter for announcements of rtnetlink: of those about routes, only the ones that tell
/// which addresses are this machine's own, also as anycast ones, and which a network's broadcast address.
///
/// Offset 0 is the header of the message; its kind is at 4, in the byte order of the machine, and the type
/// of a route at 23.
pub(super) fn local_routes() -> Vec<SockFilter> {
    let kind = |kind: u16| u32::from(u16::from_be_bytes(kind.to_ne_bytes()));
    let accept = 8;
    let program = [
        (LOAD_HALF, 0, 0, 4),
        (JUMP_IF_EQUAL, 3, 2, kind(addresses::NEW_ROUTE)),
        (JUMP_IF_EQUAL, 3, accept, kind(addresses::DELETE_ROUTE)),
        (LOAD_BYTE, 0, 0, 23),
        (JUMP_IF_EQUAL, accept, 5, u32::from(addresses::LOCAL)),
        (JUMP_IF_EQUAL, accept, 6, u32::from(addresses::BROADCAST)),
        (JUMP_IF_EQUAL, accept, GIVE_UP, u32::from(addresses::ANYCAST)),
        (RETURN, 0, 0, 0),
        (RETURN, 0, 0, u32::MAX),
    ];
    assemble(&program)
}

/// Turns places into distances. To give up is to go to the last but one, which returns nothing.
fn assemble(program: &[(u16, usize, usize, u32)]) -> Vec<SockFilter> {
    let give_up = program.len().saturating_sub(2);
    let assemble = |(at, (code, yes, no, operand)): (usize, &(u16, usize, usize, u32))| {
        let distance = |place: usize| {
            let place = if place == GIVE_UP { give_up } else { place };
            u8::try_from(place.saturating_sub(at).saturating_sub(1)).unwrap_or(u8::MAX)
        };
        match *code {
            JUMP_IF_EQUAL | JUMP_IF_EQUAL_INDEX | JUMP_IF_ANY_BIT => {
                SockFilter::new(*code, distance(*yes), distance(*no), *operand)
            }
            _ => SockFilter::new(*code, 0, 0, *operand),
        }
    };
    program.iter().enumerate().map(assemble).collect()
}

#[cfg(test)]
mod tests;
