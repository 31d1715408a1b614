//! Who knocks, and where: public keys, and the short names that stand for them in a knock.

use alloc::string::String;

use base64ct::{Base64Unpadded, Encoding as _};
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// A client's Ed25519 public key. It is known to be a point that can verify.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClientKey(VerifyingKey);

impl ClientKey {
    /// Takes the 32 bytes of an `ssh-ed25519` key (RFC 8709).
    ///
    /// # Errors
    /// [`BadKey`] if they are no point, or one of the few with which anybody could sign.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, BadKey> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| BadKey)?;
        match key.is_weak() {
            true => Err(BadKey),
            false => Ok(Self(key)),
        }
    }

    /// The 32 bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// The key as OpenSSH encodes it: the length and text of its type, the length and bytes of the key
    /// (RFC 8709, section 4).
    #[must_use]
    pub fn encoded(&self) -> [u8; 51] {
        let mut encoded = [0; 51];
        let parts = [&11_u32.to_be_bytes()[..], b"ssh-ed25519", &32_u32.to_be_bytes(), self.bytes()];
        for (to, from) in encoded.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        encoded
    }

    /// The name by which a knock calls this client: the first bytes of the SHA-256 of the encoded key, so
    /// also the first of its fingerprint.
    #[must_use]
    pub fn id(&self) -> ClientId {
        ClientId(first_bytes(&Sha256::digest(self.encoded())))
    }

    /// The fingerprint, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = Sha256::digest(self.encoded());
        ["SHA256:", &Base64Unpadded::encode_string(&digest)].concat()
    }

    /// Whether this key has signed these bytes. Strict: no signature has a second form (RFC 8032, section
    /// 5.1.7, and no point of small order).
    pub(crate) fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

/// Some bytes are no usable Ed25519 public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("is no usable Ed25519 public key")]
pub struct BadKey;

/// The name by which a knock calls a client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClientId(pub [u8; 8]);

/// The name by which a knock calls a door: the first bytes of the SHA-256 of its name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DoorId(pub [u8; 8]);

impl DoorId {
    /// The door of this name.
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
    fn a_key_with_which_anybody_can_sign_is_none() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(ClientKey::new(&neutral), Err(BadKey));
        // No point of the curve has this.
        neutral[0] = 2;
        assert_eq!(ClientKey::new(&neutral), Err(BadKey));
    }
}
