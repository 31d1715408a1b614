//! Identities: clients' public keys, and the IDs that stand for clients and doors in a knock.

use alloc::string::String;

use base64ct::{Base64Unpadded, Encoding as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// The prefix that OpenSSH writes before a fingerprint: the name of the digest.
const FINGERPRINT_PREFIX: &str = "SHA256:";

/// A client's Ed25519 public key (RFC 8032). It is known to be a valid point.
///
/// The decoded point is not stored: it takes 160 bytes, there may be a hundred thousand keys, and decoding it
/// again is a small part of a verification.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientKey {
    bytes: [u8; 32],
    digest: [u8; 32],
}

impl ClientKey {
    /// Checks the 32 bytes of an `ssh-ed25519` key (RFC 8709).
    ///
    /// # Errors
    /// [`BadKey::Point`] if they are not a point of the curve, or one of small order, for which anyone can
    /// make signatures.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, BadKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadKey::Point)?;
        match key.is_weak() {
            true => Err(BadKey::Point),
            false => Ok(Self { bytes: *bytes, digest: Sha256::digest(encode(bytes)).into() }),
        }
    }

    /// Reads a line as in `authorized_keys`: type, key and an optional comment, without options. Returns the
    /// key and the comment.
    ///
    /// # Errors
    /// [`BadKey`] says what is wrong with it.
    pub fn from_openssh(line: &str) -> Result<(Self, &str), BadKey> {
        let (kind, rest) = line.trim().split_once([' ', '\t']).ok_or(BadKey::Shape)?;
        let rest = rest.trim_start();
        let (encoded, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if kind != "ssh-ed25519" {
            return Err(BadKey::Type);
        }
        let mut bytes = [0; 51];
        let decoded = base64ct::Base64::decode(encoded, &mut bytes).map_err(|_| BadKey::Encoding)?;
        let (_, point) = decoded.split_last_chunk::<32>().ok_or(BadKey::Encoding)?;
        let key = Self::new(point)?;
        match key.encoded() == *decoded {
            true => Ok((key, comment.trim())),
            false => Err(BadKey::Encoding),
        }
    }

    /// The 32 bytes of the key (RFC 8032, section 5.1.5).
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The key as OpenSSH encodes it: the length and text of its type, the length and bytes of the key
    /// (RFC 8709, section 4).
    #[must_use]
    pub fn encoded(&self) -> [u8; 51] {
        encode(&self.bytes)
    }

    /// The key as a line of `authorized_keys`, without a comment.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        ["ssh-ed25519 ", &base64ct::Base64::encode_string(&self.encoded())].concat()
    }

    /// The ID of this client in a knock: the first 8 bytes of the SHA-256 of the encoded key, which are also
    /// the first of its fingerprint.
    #[must_use]
    pub fn id(&self) -> ClientId {
        ClientId(first_bytes(&self.digest()))
    }

    /// The fingerprint, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        [FINGERPRINT_PREFIX, &Base64Unpadded::encode_string(&self.digest)].concat()
    }

    /// The SHA-256 of the encoded key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether `signature` is this key's signature of these bytes. Strict: no signature has a second valid
    /// form (RFC 8032, section 5.1.7, without points of small order).
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.bytes)
            .is_ok_and(|key| key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok())
    }
}

fn encode(bytes: &[u8; 32]) -> [u8; 51] {
    let mut encoded = [0; 51];
    let parts = [&11_u32.to_be_bytes()[..], b"ssh-ed25519", &32_u32.to_be_bytes(), bytes];
    for (to, from) in encoded.iter_mut().zip(parts.into_iter().flatten()) {
        *to = *from;
    }
    encoded
}

/// Why a text or bytes are not a usable public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadKey {
    /// A key of another type.
    #[error(
        "only keys of the type ssh-ed25519 work; make one with: ssh-keygen -t ed25519, or doorknock keygen"
    )]
    Type,
    /// It does not have the form type, key, comment.
    #[error("a public key looks like: ssh-ed25519 AAAA… comment")]
    Shape,
    /// The key is truncated or altered.
    #[error("the key has been cut off, or changed; copy the whole line again")]
    Encoding,
    /// Not a point of the curve, or one of small order, for which anyone can make signatures.
    #[error("the key is not a usable Ed25519 public key; perhaps it was cut off: copy the whole line again")]
    Point,
}

/// The ID of a client in a knock: the first 8 bytes of the SHA-256 of its encoded key.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub [u8; 8]);

impl ClientId {
    /// The ID of the client whose key has this fingerprint; `None` if it is not in the form that `ssh-keygen
    /// -l` prints.
    #[must_use]
    pub fn of_fingerprint(fingerprint: &str) -> Option<Self> {
        let mut digest = [0; 32];
        let encoded = fingerprint.strip_prefix(FINGERPRINT_PREFIX)?;
        Base64Unpadded::decode(encoded, &mut digest).ok().map(|digest| Self(first_bytes(digest)))
    }
}

/// The ID of a door in a knock: the first 8 bytes of the SHA-256 of its name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DoorId(pub [u8; 8]);

impl DoorId {
    /// The ID of the door with this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(first_bytes(&Sha256::digest(name.as_bytes())))
    }
}

fn first_bytes(digest: &[u8]) -> [u8; 8] {
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_for_which_anyone_can_sign_is_rejected() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(ClientKey::new(&neutral), Err(BadKey::Point));
        // No point of the curve has this encoding.
        neutral[0] = 2;
        assert_eq!(ClientKey::new(&neutral), Err(BadKey::Point));
    }

    /// Made by `ssh-keygen -t ed25519`, with the fingerprint that `ssh-keygen -l` prints.
    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK7biLi6SRATsiVwFAbWgvrj075/mKGB/AhoOs+Uv9bT laptop of a user";

    #[test]
    fn a_public_line_is_read_as_openssh_writes_it() {
        let (key, comment) = ClientKey::from_openssh(LINE).unwrap();
        assert_eq!(comment, "laptop of a user");
        assert!(LINE.starts_with(&key.to_openssh()));
        assert_eq!(key.fingerprint(), "SHA256:g5UmEX139fYkygav3ctASI6asAoS7PAkyvzPMOA5bnc");
        let digest = Base64Unpadded::decode_vec(&key.fingerprint()[7..]).unwrap();
        assert_eq!(key.id().0, digest[..8]);
        assert_eq!(ClientId::of_fingerprint(&key.fingerprint()), Some(key.id()));
        assert_eq!(ClientId::of_fingerprint("MD5:00"), None);
        for (wrong, why) in [
            ("ssh-ed25519", BadKey::Shape),
            ("ssh-rsa AAAAB3NzaC1yc2E= old", BadKey::Type),
            ("ssh-ed25519 AAAAB3NzaC1yc2E= old", BadKey::Encoding),
            (&LINE[..60], BadKey::Encoding),
        ] {
            assert_eq!(ClientKey::from_openssh(wrong), Err(why), "{wrong}");
        }
    }
}
