//! The set of algorithms: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305 of RFC 9180 in
//! `mode_psk`, and BLAKE2s (RFC 7693) for hint, tag and receipt key.

use alloc::vec::Vec;

use blake2::{
    Blake2sMac,
    digest::{
        KeyInit as _, Mac as _,
        consts::{U2, U14, U32},
    },
};
use zeroize::Zeroizing;

use crate::identity::ClientKey;

pub(crate) type Kem = hpke::kem::X25519HkdfSha256;
pub(crate) type Kdf = hpke::kdf::HkdfSha256;
pub(crate) type Aead = hpke::aead::ChaCha20Poly1305;

/// The lengths of the two fields at the front, in bytes: the hint and the tag.
pub(crate) const HINT: usize = 2;
pub(crate) const TAG: usize = 14;
/// Both together.
pub(crate) const FRONT: usize = HINT + TAG;
/// The AEAD tag of the sealed part.
pub(crate) const AEAD_TAG: usize = 16;

/// The purpose, which is bound into every derived value.
const PURPOSE: &[u8] = b"port-knocking-doors spa/1";
/// The identity of the pre-shared key, which HPKE requires.
pub(crate) const PSK_ID: &[u8] = b"port-knocking-doors spa/1 site";
/// The labels from which the keys of hint and tag are derived.
const HINT_KEY: &[u8] = b"port-knocking-doors spa/1 hint";
const TAG_KEY: &[u8] = b"port-knocking-doors spa/1 tag";

/// `info` of the HPKE context: the purpose, and the gateway's public key.
pub(crate) fn info(gateway: &[u8; 32]) -> Vec<u8> {
    [PURPOSE, gateway].concat()
}

/// The key of all hints, derived from the site secret.
pub(crate) fn hint_key(site: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(mac::<U32>(site, &[HINT_KEY]).into())
}

/// The key of one client's tags, derived from the site secret and the whole digest of the client's public
/// key. With an ID of 8 bytes instead, a holder of the card could find the ID by trying all of them on one
/// recorded knock.
pub(crate) fn tag_key(site: &[u8; 32], client: &ClientKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(mac::<U32>(site, &[TAG_KEY, &client.digest()]).into())
}

/// Masks the first two bytes of a client's ID for a knock with this encapsulated key; or unmasks a hint.
pub(crate) fn hint(key: &[u8; 32], enc: &[u8; 32], [c0, c1]: [u8; HINT]) -> [u8; HINT] {
    let [m0, m1]: [u8; HINT] = mac::<U2>(key, &[enc]).into();
    [c0 ^ m0, c1 ^ m1]
}

/// The tag over the hint and everything after the tag.
pub(crate) fn tag(key: &[u8; 32], hint: [u8; HINT], rest: &[u8]) -> [u8; TAG] {
    mac::<U14>(key, &[&hint, rest]).into()
}

/// The key of one receipt, derived from the secret that the HPKE context exports.
pub(crate) fn receipt_key(exported: &[u8; 32], salt: &[u8; 16]) -> [u8; 32] {
    mac::<U32>(exported, &[salt]).into()
}

fn mac<N>(key: &[u8; 32], parts: &[&[u8]]) -> blake2::digest::array::Array<u8, N>
where
    N: blake2::digest::array::ArraySize
        + blake2::digest::typenum::IsLessOrEqual<U32, Output = blake2::digest::typenum::True>,
{
    let mut mac = Blake2sMac::<N>::new(key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes()
}

#[cfg(test)]
mod tests {
    use hpke::{Deserializable as _, Serializable as _, aead::AeadTag, inout::InOutBuf};
    use rand_core::{TryCryptoRng, TryRng};

    use super::*;

    fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u32> = digits.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap()).collect()
    }

    /// Returns what the test vector calls `ikmE`.
    struct FixedBytes(Vec<u8>);

    impl TryRng for FixedBytes {
        type Error = core::convert::Infallible;

        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            unreachable!("keys are made of bytes")
        }

        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            unreachable!("keys are made of bytes")
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
            bytes.copy_from_slice(&self.0);
            Ok(())
        }
    }

    impl TryCryptoRng for FixedBytes {}

    /// RFC 9180, appendix A.2.2: this suite in `mode_psk`.
    #[test]
    fn the_suite_reproduces_the_rfcs_test_vector() {
        let info = hex("4f6465206f6e2061204772656369616e2055726e");
        let psk = hex("0247fd33b913760fa1fa51e1892d9f307fbe65eb171e8132c2af18555a738b82");
        let psk_id = hex("456e6e796e20447572696e206172616e204d6f726961");
        let public = hex("13640af826b722fc04feaa4de2f28fbd5ecc03623b317834e7ff4120dbe73062");
        let private = hex("77d114e0212be51cb1d76fa99dd41cfd4d0166b08caa09074430a6c59ef17879");
        let enc = hex("2261299c3f40a9afc133b969a97f05e95be2c514e54f3de26cbe5644ac735b04");
        let plain = hex("4265617574792069732074727574682c20747275746820626561757479");
        let sealed = hex("4a177f9c0d6f15cfdf533fb65bf84aecdc6ab16b8b85b4cf65a370e07fc1d78d\
                          28fb073214525276f4a89608ff");
        let exported = hex("ad40e3ae14f21c99bfdebc20ae14ab86f4ca2dc9a4799d200f43a25f99fa78ae");

        let bundle = || hpke::PskBundle::new(&psk, &psk_id).unwrap();
        let recipient = <Kem as hpke::Kem>::PublicKey::from_bytes(&public).unwrap();
        let mut random = FixedBytes(hex("35706a0b09fb26fb45c39c2f5079c709c7cf98e43afa973f14d88ece7e29c2e3"));
        let mode = hpke::OpModeS::Psk(bundle());
        let (encapsulated, mut sender) =
            hpke::setup_sender_with_rng::<Aead, Kdf, Kem>(&mode, &recipient, &info, &mut random).unwrap();
        assert_eq!(encapsulated.to_bytes().to_vec(), enc);
        let mut text = plain.clone();
        let tag = sender.seal_inout_detached(InOutBuf::from(&mut text[..]), b"Count-0").unwrap();
        assert_eq!([&text[..], &tag.to_bytes()].concat(), sealed);
        let mut export = [0; 32];
        sender.export(b"TestContext", &mut export).unwrap();
        assert_eq!(export[..], exported);

        let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&private).unwrap();
        let mode = hpke::OpModeR::Psk(bundle());
        let mut receiver =
            hpke::setup_receiver::<Aead, Kdf, Kem>(&mode, &private, &encapsulated, &info).unwrap();
        let (text, tag) = sealed.split_at(plain.len());
        let mut text = text.to_vec();
        let tag = AeadTag::<Aead>::from_bytes(tag).unwrap();
        receiver.open_inout_detached(InOutBuf::from(&mut text[..]), b"Count-0", &tag).unwrap();
        assert_eq!(text, plain);
        receiver.export(b"TestContext", &mut export).unwrap();
        assert_eq!(export[..], exported);
    }

    #[test]
    fn a_tag_key_is_derived_from_the_whole_digest_and_not_from_the_id_in_a_knock() {
        let (site, line) =
            ([7; 32], "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK7biLi6SRATsiVwFAbWgvrj075/mKGB/AhoOs+Uv9bT");
        let (client, _) = ClientKey::from_openssh(&[line, " x"].concat()).unwrap();
        let digest = client.digest();
        assert_eq!(digest[..8], client.id().0);
        let made_of = |bytes: &[u8]| <[u8; 32]>::from(mac::<U32>(&site, &[TAG_KEY, bytes]));
        assert_eq!(*tag_key(&site, &client), made_of(&digest));
        for shorter in 0..digest.len() {
            assert_ne!(*tag_key(&site, &client), made_of(&digest[..shorter]), "{shorter}");
        }
    }

    /// RFC 7693 has no keyed vector for BLAKE2s; these are from Python's `hashlib.blake2s` with `key =
    /// bytes(range(32))`.
    #[test]
    fn hint_and_tag_are_keyed_blake2s() {
        let key: Vec<u8> = (0..32).collect();
        let key: &[u8; 32] = key[..].try_into().unwrap();
        assert_eq!(tag(key, [1, 2], b"abc").to_vec(), hex("45fdc443933ed40cfdef02d9870f"));
        let there = hint(key, &[0; 32], [0xaa, 0xbb]);
        assert_eq!(there.to_vec(), hex("96b2"));
        assert_eq!(hint(key, &[0; 32], there), [0xaa, 0xbb]);
    }
}
