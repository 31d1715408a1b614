//! Tests the filters in the kernel, with datagrams between two Unix sockets: their offset 0 is the first byte of the
//! message.
#![allow(clippy::arithmetic_side_effects, reason = "a test may panic")]

use std::io::{ErrorKind, Read as _};

use socket2::{Domain, Socket, Type};

use super::*;

/// A pair of sockets with an attached filter.
struct Attached {
    sender: Socket,
    receiver: Socket,
}

impl Attached {
    fn new(program: &[SockFilter]) -> Self {
        let (sender, receiver) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        receiver.attach_filter(program).unwrap();
        receiver.set_nonblocking(true).unwrap();
        Self { sender, receiver }
    }

    /// How many bytes of a packet the filter delivers; `None` if it drops the packet.
    fn taken(&mut self, packet: &[u8]) -> Option<usize> {
        self.sender.send(packet).unwrap();
        match self.receiver.read(&mut [0; 2048]) {
            Ok(length) => Some(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    /// Checks that the filter takes the packet, and takes every one-byte change of it unless the change hits a bit in
    /// `matters`: offsets, each with the mask of its significant bits.
    fn takes_exactly(&mut self, packet: &[u8], matters: &[(usize, u8)]) {
        assert_eq!(self.taken(packet), Some(packet.len()));
        for at in 0..packet.len() {
            let mask = matters.iter().find(|(place, _)| *place == at).map_or(0, |(_, mask)| *mask);
            for change in 1..=u8::MAX {
                let mut changed = packet.to_vec();
                changed[at] ^= change;
                let expected = (mask & change == 0).then_some(packet.len());
                assert_eq!(self.taken(&changed), expected, "byte {at} of {changed:02x?}");
            }
        }
    }
}

const SPA_PORT: u16 = 62201;

fn udp(port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let header = [40_000_u16.to_be_bytes(), port.to_be_bytes(), length.to_be_bytes(), [0xab, 0xcd]].concat();
    [&header[..], payload].concat()
}

/// With this many bytes of options.
fn v4(options: usize, udp: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + options + udp.len()).unwrap().to_be_bytes();
    let words = 0x45 + u8::try_from(options / 4).unwrap();
    // With the don't-fragment flag.
    let header =
        [&[words, 0][..], &length, &[0, 1, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 7, 192, 0, 2, 1]].concat();
    [&header[..], &vec![1; options], udp].concat()
}

fn v6(udp: &[u8]) -> Vec<u8> {
    let length = u16::try_from(udp.len()).unwrap().to_be_bytes();
    [&[0x60, 0, 0, 0][..], &length, &[17, 64], &[0x20; 16], &[0x21; 16], udp].concat()
}

/// All bits of these bytes.
fn whole(places: impl IntoIterator<Item = usize>) -> Vec<(usize, u8)> {
    places.into_iter().map(|place| (place, 0xff)).collect()
}

/// Version and header length, fragment, protocol.
fn of_v4() -> Vec<(usize, u8)> {
    [whole([0, 7, 9]), vec![(6, 0x3f)]].concat()
}

/// Version, next header.
fn of_v6() -> Vec<(usize, u8)> {
    vec![(0, 0xf0), (6, 0xff)]
}

#[test]
fn the_filter_takes_knocks_on_any_port_and_drops_those_that_differ_in_one_bit() {
    for spa_port in [None, Some(SPA_PORT)] {
        let mut filter = Attached::new(&knocks(spa_port));
        // A sequence may include the port of clients with a key.
        assert!(filter.taken(&v4(0, &udp(SPA_PORT, Knock::PAYLOAD))).is_some());
        for port in [1, u16::MAX] {
            let knock = udp(port, Knock::PAYLOAD);
            // The UDP length and the payload.
            filter.takes_exactly(&v4(0, &knock), &[of_v4(), whole([24, 25]), whole(28..34)].concat());
            let length = whole([4, 5, 44, 45]);
            filter.takes_exactly(&v6(&knock), &[of_v6(), length, whole(48..54)].concat());
            for options in (4..=40).step_by(4) {
                let packet = v4(options, &knock);
                assert_eq!(filter.taken(&packet), Some(packet.len()), "{options} bytes of options");
            }
            for packet in [v4(0, &knock), v4(40, &knock), v6(&knock)] {
                for length in 0..packet.len() {
                    assert_eq!(filter.taken(&packet[..length]), None, "{length} bytes of {packet:02x?}");
                }
            }
        }
        for payload in [&b""[..], b"knock", b"knock\n\n", b"knock\r\n", &[0; 192]] {
            for packet in [v4(0, &udp(9, payload)), v6(&udp(9, payload))] {
                assert_eq!(filter.taken(&packet), None, "{payload:?}");
            }
        }
    }
}

#[test]
fn the_filter_takes_datagrams_as_long_as_an_spa_knock_on_the_spa_port_only() {
    let spa_knock = udp(SPA_PORT, &[7; 192]);
    let mut filter = Attached::new(&knocks(Some(SPA_PORT)));
    filter.takes_exactly(&v4(0, &spa_knock), &[of_v4(), whole(22..26)].concat());
    filter.takes_exactly(&v6(&spa_knock), &[of_v6(), whole(42..46)].concat());
    // With the longest header the whole packet is delivered.
    assert_eq!(filter.taken(&v4(40, &spa_knock)), Some(60 + 8 + 192));
    for length in [0, 191, 193, 300] {
        let other = udp(SPA_PORT, &vec![7; length]);
        for packet in [v4(0, &other), v6(&other)] {
            assert_eq!(filter.taken(&packet), None, "{length} bytes");
        }
    }
    for none in [None, Some(SPA_PORT + 1)] {
        let mut filter = Attached::new(&knocks(none));
        for packet in [v4(0, &spa_knock), v6(&spa_knock)] {
            assert_eq!(filter.taken(&packet), None, "{none:?}");
        }
    }
}

#[test]
fn the_filters_of_bound_sockets_take_only_their_own_payload() {
    let knock = udp(7001, Knock::PAYLOAD);
    let mut filter = Attached::new(&payloads());
    filter.takes_exactly(&knock, &whole([4, 5, 8, 9, 10, 11, 12, 13]));
    for length in 0..knock.len() {
        assert_eq!(filter.taken(&knock[..length]), None, "{length} bytes");
    }
    let spa_knock = udp(SPA_PORT, &[7; 192]);
    assert_eq!(filter.taken(&spa_knock), None);

    let mut filter = Attached::new(&spa_payloads());
    filter.takes_exactly(&spa_knock, &whole([4, 5]));
    assert_eq!(filter.taken(&knock), None);
}

#[test]
fn only_notifications_about_local_routes_are_taken() {
    let mut filter = Attached::new(&local_routes());
    for (kind, of_route, expected) in [
        (libc::RTM_NEWROUTE, libc::RTN_LOCAL, true),
        (libc::RTM_DELROUTE, libc::RTN_LOCAL, true),
        (libc::RTM_NEWROUTE, libc::RTN_BROADCAST, true),
        (libc::RTM_DELROUTE, libc::RTN_BROADCAST, true),
        (libc::RTM_NEWROUTE, libc::RTN_ANYCAST, true),
        (libc::RTM_DELROUTE, libc::RTN_ANYCAST, true),
        (libc::RTM_NEWROUTE, libc::RTN_UNICAST, false),
        (libc::RTM_DELROUTE, libc::RTN_UNICAST, false),
        (libc::RTM_NEWADDR, libc::RTN_UNICAST, true),
    ] {
        let mut message = vec![0; 28];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[23] = of_route;
        assert_eq!(filter.taken(&message).is_some(), expected, "{kind}, {of_route}");
    }
}

/// Compares the programs with hand-assembled ones.
#[test]
fn the_programs_equal_the_hand_assembled_ones() {
    assert_eq!(
        knocks_or_spa_on(SPA_PORT),
        [
            (0x20, 0, 0, 0xfffff004),
            (0x15, 0, 31, 0x0),
            (0x30, 0, 0, 0x0),
            (0x54, 0, 0, 0xf0),
            (0x15, 1, 0, 0x40),
            (0x15, 14, 27, 0x60),
            (0x30, 0, 0, 0x9),
            (0x15, 0, 25, 0x11),
            (0x28, 0, 0, 0x6),
            (0x45, 23, 0, 0x3fff),
            (0xb1, 0, 0, 0x0),
            (0x48, 0, 0, 0x4),
            (0x15, 3, 0, 0xe),
            (0x15, 0, 19, 0xc8),
            (0x48, 0, 0, 0x2),
            (0x15, 18, 17, 0xf2f9),
            (0x40, 0, 0, 0x8),
            (0x15, 0, 15, 0x6b6e6f63),
            (0x48, 0, 0, 0xc),
            (0x15, 14, 13, 0x6b0a),
            (0x30, 0, 0, 0x6),
            (0x15, 0, 11, 0x11),
            (0x28, 0, 0, 0x2c),
            (0x15, 3, 0, 0xe),
            (0x15, 0, 8, 0xc8),
            (0x28, 0, 0, 0x2a),
            (0x15, 7, 6, 0xf2f9),
            (0x28, 0, 0, 0x4),
            (0x15, 0, 4, 0xe),
            (0x20, 0, 0, 0x30),
            (0x15, 0, 2, 0x6b6e6f63),
            (0x28, 0, 0, 0x34),
            (0x15, 1, 0, 0x6b0a),
            (0x06, 0, 0, 0x0),
            (0x06, 0, 0, 0x120),
        ]
    );
    assert_eq!(
        SPA_PAYLOADS,
        [(0x28, 0, 0, 0x4), (0x15, 1, 0, 0xc8), (0x06, 0, 0, 0x0), (0x06, 0, 0, 0xffffffff),]
    );
    assert_eq!(
        PAYLOADS,
        [
            (0x28, 0, 0, 0x4),
            (0x15, 0, 4, 0xe),
            (0x20, 0, 0, 0x8),
            (0x15, 0, 2, 0x6b6e6f63),
            (0x28, 0, 0, 0xc),
            (0x15, 1, 0, 0x6b0a),
            (0x06, 0, 0, 0x0),
            (0x06, 0, 0, 0xffffffff),
        ]
    );
    assert_eq!(
        SOURCE_IS_DESTINATION_OR_ELSEWHERE,
        [
            (0x20, 0, 0, 0xfffff008),
            (0x15, 0, 17, 0x1),
            (0x20, 0, 0, 0xfff00008),
            (0x07, 0, 0, 0x0),
            (0x20, 0, 0, 0xfff00018),
            (0x1d, 0, 12, 0x0),
            (0x20, 0, 0, 0xfff0000c),
            (0x07, 0, 0, 0x0),
            (0x20, 0, 0, 0xfff0001c),
            (0x1d, 0, 8, 0x0),
            (0x20, 0, 0, 0xfff00010),
            (0x07, 0, 0, 0x0),
            (0x20, 0, 0, 0xfff00020),
            (0x1d, 0, 4, 0x0),
            (0x20, 0, 0, 0xfff00014),
            (0x07, 0, 0, 0x0),
            (0x20, 0, 0, 0xfff00024),
            (0x1d, 1, 0, 0x0),
            (0x06, 0, 0, 0x0),
        ]
    );
    assert_eq!(NOTHING, [(0x06, 0, 0, 0x0),]);
    assert_eq!(
        LOCAL_ROUTES,
        [
            (0x28, 0, 0, 0x4),
            (0x15, 1, 0, kind(24)),
            (0x15, 0, 5, kind(25)),
            (0x30, 0, 0, 0x17),
            (0x15, 3, 0, 0x2),
            (0x15, 2, 0, 0x3),
            (0x15, 1, 0, 0x4),
            (0x06, 0, 0, 0x0),
            (0x06, 0, 0, 0xffffffff),
        ]
    );
}

#[test]
#[should_panic(expected = "a jump to a label that no later instruction has")]
fn a_jump_to_an_unknown_label_panics_and_so_does_not_compile_in_a_constant() {
    assemble([if_equal(1, "nowhere", NEXT), at("behind", take(0))]);
}

#[test]
#[should_panic(expected = "a jump to a label that no later instruction has")]
fn a_jump_backward_panics_too() {
    assemble([at("before", load_byte(0)), if_equal(1, "before", NEXT), take(0)]);
}
