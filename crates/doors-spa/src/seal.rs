//! How a client seals a knock.
//!
//! ```text
//!   0   2  hint    masked, the first two bytes of the client's ID
//!   2  14  tag     keyed for the client, over the hint and everything after the tag
//!  16  32  enc     the encapsulated key
//!  48 144  sealed  request (64) and signature (64), with an AEAD tag (16)
//! ```

use alloc::vec::Vec;

use hpke::{Serializable as _, aead::AeadCtxS, inout::InOutBuf};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    KNOCK,
    card::Card,
    identity::ClientKey,
    receipt::ReceiptKey,
    request::Request,
    signature,
    suite::{self, AEAD_TAG, Aead, HINT, Kdf, Kem},
};

/// A knock that lacks only its signature.
pub struct UnsignedKnock {
    context: AeadCtxS<Aead, Kdf, Kem>,
    enc: [u8; 32],
    request: [u8; Request::LEN],
    to_sign: Vec<u8>,
    hint: [u8; HINT],
    tag_key: Zeroizing<[u8; 32]>,
}

/// Why a knock cannot be sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The card's public key is not valid.
    #[error("the card's public key is not usable; ask for the card again")]
    Card,
}

impl UnsignedKnock {
    /// Starts a knock of this client for the gateway of this card, with new randomness.
    ///
    /// # Errors
    /// [`SealError`] if the card is not usable.
    pub fn new(
        card: &Card,
        client: &ClientKey,
        request: &Request,
        random: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        Self::of_bytes(card, client, request.encode(), random)
    }

    /// The same with any 64 bytes as the request, for tests: a malicious client can sign anything.
    ///
    /// # Errors
    /// [`SealError`] if the card is not usable.
    pub fn of_bytes(
        card: &Card,
        client: &ClientKey,
        request: [u8; Request::LEN],
        random: &mut impl CryptoRng,
    ) -> Result<Self, SealError> {
        let info = suite::info(&card.gateway);
        let recipient = hpke::Deserializable::from_bytes(&card.gateway).map_err(|_| SealError::Card)?;
        let psk = hpke::PskBundle::new(&card.site, suite::PSK_ID).map_err(|_| SealError::Card)?;
        let mode = hpke::OpModeS::Psk(psk);
        let (encapsulated, context) =
            hpke::setup_sender_with_rng::<Aead, Kdf, Kem>(&mode, &recipient, &info, random)
                .map_err(|_| SealError::Card)?;
        let enc: [u8; 32] = encapsulated.to_bytes().into();
        let [c0, c1, ..] = client.id().0;
        let hint = suite::hint(&suite::hint_key(&card.site), &enc, [c0, c1]);
        let to_sign = signature::signed_bytes(&[&info, &enc, &request]);
        Ok(Self { context, enc, request, to_sign, hint, tag_key: suite::tag_key(&card.site, client) })
    }

    /// The bytes that the client's key has to sign, with plain Ed25519 (RFC 8032).
    #[must_use]
    pub fn to_sign(&self) -> &[u8] {
        &self.to_sign
    }

    /// Seals the knock. Returns it, and the key that opens its receipt.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be sealed.
    pub fn seal(mut self, signature: &[u8; 64]) -> Result<([u8; KNOCK], ReceiptKey), SealError> {
        let mut inner = [0; 128];
        for (to, from) in inner.iter_mut().zip(self.request.iter().chain(signature)) {
            *to = *from;
        }
        let sealed = self.context.seal_inout_detached(InOutBuf::from(&mut inner[..]), &[]);
        let sealed: [u8; AEAD_TAG] = sealed.map_err(|_| SealError::Card)?.to_bytes().into();
        let rest = [&self.enc[..], &inner, &sealed].concat();
        let tag = suite::tag(&self.tag_key, self.hint, &rest);
        let mut knock = [0; KNOCK];
        for (to, from) in knock.iter_mut().zip(self.hint.iter().chain(&tag).chain(&rest)) {
            *to = *from;
        }
        Ok((knock, ReceiptKey::of_sender(self.context)))
    }
}
