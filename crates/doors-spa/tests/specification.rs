//! The test vector in `docs/spa.md`: this code makes exactly the bytes of that knock and its receipt.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test may panic"
)]

use std::{collections::BTreeMap, fs, path::Path};

use base64ct::Encoding as _;
use doors_spa::{
    gateway::{Gateway, GatewayKey},
    identity::{ClientKey, DoorId},
    receipt::{Answer, Receipt, ToldDoor},
    request::{Operation, Request},
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use rand_core::{TryCryptoRng, TryRng};

/// Reads the lines `name = hexadecimal digits` of the specification. Long values continue on the next line.
fn specification() -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spa.md");
    let text = fs::read_to_string(path).unwrap();
    let block = text.split("```vector\n").nth(1).unwrap().split("```").next().unwrap();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut name = String::new();
    for line in block.lines() {
        let digits = match line.split_once(" = ") {
            Some((next, digits)) => {
                next.trim().clone_into(&mut name);
                digits
            }
            None => line,
        };
        values.entry(name.clone()).or_default().push_str(digits.trim());
    }
    values.into_iter().map(|(name, digits)| (name, hex(&digits))).collect()
}

fn hex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// Returns these bytes, in order.
struct FixedBytes(Vec<u8>);

impl TryRng for FixedBytes {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unreachable!("keys are made of bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unreachable!("keys are made of bytes")
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        let rest = self.0.split_off(bytes.len());
        bytes.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for FixedBytes {}

#[test]
fn the_code_reproduces_the_specifications_test_vector() {
    let values = specification();
    let value =
        |name: &str| values.get(name).unwrap_or_else(|| panic!("the specification has no {name}")).clone();
    let key =
        GatewayKey::generate(&mut FixedBytes([value("gateway private"), value("site secret")].concat()));
    let card = key.card();
    assert_eq!(card.gateway()[..], value("gateway public"));
    assert_eq!(card.to_text().as_bytes(), value("card"));

    let signer = SigningKey::from_bytes(value("client seed")[..].try_into().unwrap());
    let client = ClientKey::new(signer.verifying_key().as_bytes()).unwrap();
    assert_eq!(client.bytes()[..], value("client public"));
    let fingerprint = base64ct::Base64Unpadded::encode_string(&value("fingerprint"));
    assert_eq!(client.fingerprint(), format!("SHA256:{fingerprint}"));
    assert_eq!(client.id().0[..], value("client"));
    let request = Request {
        operation: Operation::Open { door: DoorId::of("ssh"), wanted: 600 },
        time: 1_800_000_000_123,
        nonce: value("nonce")[..].try_into().unwrap(),
        client: client.id(),
        address: Some("203.0.113.7".parse().unwrap()),
        challenge: [0; 8],
    };
    assert_eq!(request.encode()[..], value("request"));

    let unsigned = UnsignedKnock::new(&card, &client, &request, &mut FixedBytes(value("ikmE"))).unwrap();
    assert_eq!(unsigned.to_sign(), value("to sign"));
    let signature = signer.sign(unsigned.to_sign()).to_bytes();
    assert_eq!(signature[..], value("signature"));
    let (knock, client_side) = unsigned.seal(&signature).unwrap();
    assert_eq!(knock[..], value("knock"));

    let gateway = Gateway::new(&key).unwrap();
    let tagged = gateway.tag_key(&client).fits(&knock).unwrap();
    let (read, gateway_side) = gateway.open(tagged).unwrap().prove(&client).unwrap().into_parts();
    assert_eq!(read, request);
    let receipt = Receipt {
        answer: Answer::Granted,
        seconds: 600,
        time: 1_800_000_000_456,
        seen: "203.0.113.7:40000".parse().unwrap(),
        challenge: [0; 8],
        doors_in_all: 1,
        doors: vec![ToldDoor { name: "ssh".to_owned(), longest: 3600 }],
    };
    let sealed = gateway_side.seal(&receipt, value("salt")[..].try_into().unwrap());
    assert_eq!(sealed[..], value("receipt"));
    assert_eq!(client_side.open(&sealed), Some(receipt));
}
