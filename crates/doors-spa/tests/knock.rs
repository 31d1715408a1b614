//! A knock from the client to the gateway, and its receipt back.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::net::IpAddr;

use doors_spa::{
    KNOCK,
    gateway::{Gateway, GatewayKey, Hint, NoKnock, Proven},
    identity::{ClientId, ClientKey, DoorId},
    receipt::{Answer, BadReceipt, Receipt, ReceiptKey, ToldDoor},
    request::{Operation, Request},
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use rand_core::{TryCryptoRng, TryRng};

/// The same bytes in every run, different ones for every seed.
struct Fixed(u8);

impl TryRng for Fixed {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(5).wrapping_add(3);
            *byte = self.0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Fixed {}

fn gateway_key(seed: u8) -> GatewayKey {
    GatewayKey::generate(&mut Fixed(seed))
}

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn client(seed: u8) -> ClientKey {
    ClientKey::new(signer(seed).verifying_key().as_bytes()).unwrap()
}

fn request() -> Request {
    Request {
        operation: Operation::Open { door: DoorId::of("ssh"), wanted: 30 },
        time: 1_800_000_000_000,
        nonce: *b"a nonce!",
        client: client(3).id(),
        address: Some("192.0.2.7".parse::<IpAddr>().unwrap()),
        challenge: [0; 8],
    }
}

fn knock(request: &Request) -> ([u8; KNOCK], ReceiptKey) {
    let unsigned = UnsignedKnock::new(&gateway_key(1).card(), &client(3), request, &mut Fixed(2)).unwrap();
    let signature = signer(3).sign(unsigned.to_sign()).to_bytes();
    unsigned.seal(&signature).unwrap()
}

/// How far a datagram gets at a gateway with one client.
#[derive(Debug, Eq, PartialEq)]
enum Dropped {
    Length,
    Hint,
    Tag,
    Inside(NoKnock),
    Signature,
}

fn open_at(gateway: &GatewayKey, bytes: &[u8]) -> Result<Proven, Dropped> {
    let gateway = Gateway::new(gateway).unwrap();
    let bytes: &[u8; KNOCK] = bytes.try_into().map_err(|_| Dropped::Length)?;
    if gateway.hint(bytes) != Some(Hint::at(client(3).id())) {
        return Err(Dropped::Hint);
    }
    let tagged = gateway.tag_key(&client(3)).fits(bytes).ok_or(Dropped::Tag)?;
    gateway.open(tagged).map_err(Dropped::Inside)?.prove(&client(3)).ok_or(Dropped::Signature)
}

fn open(bytes: &[u8]) -> Result<Proven, Dropped> {
    open_at(&gateway_key(1), bytes)
}

fn receipt() -> Receipt {
    Receipt {
        answer: Answer::Granted,
        seconds: 30,
        time: 1_800_000_000_123,
        seen: "198.51.100.7:4711".parse().unwrap(),
        challenge: [0; 8],
        doors_in_all: 2,
        doors: vec![ToldDoor { name: "ssh".to_owned(), longest: 3600 }],
    }
}

#[test]
fn a_knock_carries_its_request_to_its_gateway() {
    let (bytes, _) = knock(&request());
    assert_eq!(open(&bytes).unwrap().request(), &request());
}

#[test]
fn a_receipt_carries_its_answer_to_its_client_only() {
    let (bytes, client_side) = knock(&request());
    let (_, gateway_side) = open(&bytes).unwrap().into_parts();
    let answer = gateway_side.seal(&receipt(), [5; 16]);
    assert_eq!(client_side.open(&answer), Some(receipt()));
    // It opens for no other knock, and with no bit changed.
    let mut other = request();
    other.nonce = *b"another!";
    let unsigned = UnsignedKnock::new(&gateway_key(1).card(), &client(3), &other, &mut Fixed(77)).unwrap();
    let (_, other) = unsigned.seal(&[0; 64]).unwrap();
    assert_eq!(other.open(&answer), None);
    for bit in 0..KNOCK * 8 {
        let mut changed = answer;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(client_side.open(&changed), None, "bit {bit}");
    }
}

#[test]
fn two_salts_give_two_keys() {
    let (bytes, _) = knock(&request());
    let (_, key) = open(&bytes).unwrap().into_parts();
    let (one, two) = (key.seal(&receipt(), [5; 16]), key.seal(&receipt(), [6; 16]));
    assert_ne!(one[16..], two[16..]);
}

#[test]
fn a_knock_with_any_bit_changed_is_dropped() {
    let (bytes, _) = knock(&request());
    for bit in 0..KNOCK * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        let dropped = open(&changed).unwrap_err();
        assert!([Dropped::Hint, Dropped::Tag].contains(&dropped), "bit {bit}: {dropped:?}");
    }
    for length in [0, 1, 48, KNOCK - 1] {
        assert_eq!(open(&bytes[..length]).unwrap_err(), Dropped::Length);
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(open(&longer).unwrap_err(), Dropped::Length);
}

#[test]
fn another_gateway_drops_the_knock() {
    let (bytes, _) = knock(&request());
    let dropped = open_at(&gateway_key(9), &bytes).unwrap_err();
    assert!([Dropped::Hint, Dropped::Tag].contains(&dropped), "{dropped:?}");
}

#[test]
fn two_knocks_of_one_client_have_nothing_in_common() {
    let seal = |seed| {
        let unsigned =
            UnsignedKnock::new(&gateway_key(1).card(), &client(3), &request(), &mut Fixed(seed)).unwrap();
        unsigned.seal(&[0; 64]).unwrap().0
    };
    // The hint is masked with a value that is new in every knock.
    assert_ne!(seal(2)[..2], seal(99)[..2]);
}

#[test]
fn the_card_alone_proves_nothing() {
    // Not even the tag is right without a public key of a client here.
    let unknown = Request { client: client(4).id(), ..request() };
    let unsigned = UnsignedKnock::new(&gateway_key(1).card(), &client(4), &unknown, &mut Fixed(2)).unwrap();
    let dropped = open(&unsigned.seal(&[0; 64]).unwrap().0).unwrap_err();
    assert!([Dropped::Hint, Dropped::Tag].contains(&dropped), "{dropped:?}");
    for signer in [signer(4), signer(5)] {
        let unsigned =
            UnsignedKnock::new(&gateway_key(1).card(), &client(3), &request(), &mut Fixed(2)).unwrap();
        let signature = signer.sign(unsigned.to_sign()).to_bytes();
        let (bytes, _) = unsigned.seal(&signature).unwrap();
        assert_eq!(open(&bytes).unwrap_err(), Dropped::Signature);
    }
}

#[test]
fn a_signature_counts_only_for_the_knock_that_it_was_made_for() {
    let first = UnsignedKnock::new(&gateway_key(1).card(), &client(3), &request(), &mut Fixed(2)).unwrap();
    let signature = signer(3).sign(first.to_sign()).to_bytes();
    // The same request with another encapsulated key, and another request with the same.
    let mut other = request();
    other.operation = Operation::Open { door: DoorId::of("admin"), wanted: 30 };
    for (request, seed) in [(request(), 60), (other, 2)] {
        let unsigned =
            UnsignedKnock::new(&gateway_key(1).card(), &client(3), &request, &mut Fixed(seed)).unwrap();
        assert_ne!(unsigned.to_sign(), first.to_sign());
        let (bytes, _) = unsigned.seal(&signature).unwrap();
        assert_eq!(open(&bytes).unwrap_err(), Dropped::Signature);
    }
    // The signature counts only for the client whose ID is in the request.
    let mut renamed = request();
    renamed.client = ClientId([0; 8]);
    let (bytes, _) = knock(&renamed);
    assert_eq!(open(&bytes).unwrap_err(), Dropped::Signature);
}

#[test]
fn a_signature_has_no_second_valid_form() {
    let unsigned = UnsignedKnock::new(&gateway_key(1).card(), &client(3), &request(), &mut Fixed(2)).unwrap();
    let mut signature = signer(3).sign(unsigned.to_sign()).to_bytes();
    // The group's order (RFC 8032, section 5.1), little-endian, added to S.
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, more) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = u8::try_from(sum & 0xff).unwrap();
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    let (bytes, _) = unsigned.seal(&signature).unwrap();
    assert_eq!(open(&bytes).unwrap_err(), Dropped::Signature);
}

#[test]
fn a_receipt_lists_as_many_doors_as_fit() {
    let (bytes, client_side) = knock(&request());
    let (_, gateway_side) = open(&bytes).unwrap().into_parts();
    let doors = (0..50).map(|number| ToldDoor { name: format!("door-{number}"), longest: number });
    let receipt = Receipt { doors: Vec::new(), ..receipt() }.with_doors(doors);
    let told = client_side.open(&gateway_side.seal(&receipt, [1; 16])).unwrap();
    assert_eq!(told, receipt);
    assert_eq!(told.doors.len(), 10);
}

#[test]
fn a_receipt_with_an_invalid_door_name_is_recognised_as_the_gateways_and_rejected() {
    let (bytes, client_side) = knock(&request());
    let (_, gateway_side) = open(&bytes).unwrap().into_parts();
    for name in ["s\u{1b}[2J", "s\u{202e}hss", "s\u{200b}sh", "", "trusted"] {
        let doors = vec![ToldDoor { name: name.to_owned(), longest: 30 }];
        let sealed = gateway_side.seal(&Receipt { doors, ..receipt() }, [1; 16]);
        assert!(matches!(client_side.unseal(&sealed), Some(Err(BadReceipt::Name(_)))), "{name:?}");
        assert_eq!(client_side.open(&sealed), None);
    }
}

#[test]
fn debug_output_contains_no_key() {
    let key = gateway_key(1);
    let text = format!("{:?} {:?} {:?} {:?}", key, Gateway::new(&key), key.card(), knock(&request()).1);
    assert_eq!(text, "GatewayKey(…) Some(Gateway(…)) Card(…) ReceiptKey(…)");
    assert_eq!(key.to_text().parse::<GatewayKey>().unwrap().to_text(), key.to_text());
}

proptest! {
    #[test]
    fn no_random_bytes_make_the_gateway_panic_or_accept(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&bytes).is_err());
    }

    #[test]
    fn no_random_bytes_make_the_client_panic_or_accept(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_, key) = knock(&request());
        prop_assert_eq!(key.open(&bytes), None);
    }
}
