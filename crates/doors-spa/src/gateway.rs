//! The gateway's key, and how it opens a knock: cheapest check first, and it stops at the first that fails.

use alloc::{string::String, vec::Vec};
use core::{fmt, str::FromStr};

use hpke::{Deserializable as _, Kem as _, Serializable as _, inout::InOutBuf};
use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    KNOCK,
    card::{BadCard, Card, from_text, to_text},
    identity::{ClientId, ClientKey},
    receipt::ReceiptKey,
    request::Request,
    signature,
    suite::{self, Aead, FRONT, HINT, Kdf, Kem, TAG},
};

/// A gateway's secret: an X25519 private key and the site secret, 32 bytes each.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct GatewayKey {
    private: [u8; 32],
    site: [u8; 32],
}

const PREFIX: &str = "doors1-secret-";

impl GatewayKey {
    /// Generates a new key.
    #[must_use]
    pub fn generate(random: &mut impl CryptoRng) -> Self {
        let mut key = Self { private: [0; 32], site: [0; 32] };
        random.fill_bytes(&mut key.private);
        random.fill_bytes(&mut key.site);
        key
    }

    /// The card for its clients.
    #[must_use]
    pub fn card(&self) -> Card {
        Card { gateway: self.public(), site: self.site }
    }

    /// The key as one line of text, for a file that only the daemon may read.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        to_text(PREFIX, &self.private, &self.site)
    }

    fn private(&self) -> Option<<Kem as hpke::Kem>::PrivateKey> {
        <Kem as hpke::Kem>::PrivateKey::from_bytes(&self.private).ok()
    }

    fn public(&self) -> [u8; 32] {
        self.private().map_or([0; 32], |private| Kem::sk_to_pk(&private).to_bytes().into())
    }
}

impl FromStr for GatewayKey {
    type Err = BadCard;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (private, site) = from_text(PREFIX, text)?;
        Ok(Self { private, site })
    }
}

impl fmt::Debug for GatewayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GatewayKey(…)")
    }
}

/// Why a datagram is not a knock. A value, never an error: strangers cause these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoKnock {
    /// Not sealed for this gateway, or altered on its way.
    Sealed,
    /// The request has a field whose value has no meaning here.
    Request,
}

/// The first two bytes of the ID of the client that a knock claims to be from. They serve to find its
/// [`TagKey`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Hint([u8; HINT]);

impl Hint {
    /// The hint of a client.
    #[must_use]
    pub fn at(client: ClientId) -> Self {
        let [c0, c1, ..] = client.0;
        Self([c0, c1])
    }
}

/// Recognises datagrams in the name of one client. Making one takes the card and that client's public key.
#[derive(Clone)]
pub struct TagKey(Zeroizing<[u8; 32]>);

impl TagKey {
    /// Checks whether a datagram was made in the name of this client; `None` if not.
    #[must_use]
    pub fn fits<'a>(&self, datagram: &'a [u8; KNOCK]) -> Option<Tagged<'a>> {
        let (hint, rest) = datagram.split_first_chunk::<HINT>()?;
        let (received, rest) = rest.split_first_chunk::<TAG>()?;
        let tag = suite::tag(&self.0, *hint, rest);
        bool::from(received.ct_eq(&tag)).then_some(Tagged(rest))
    }
}

impl fmt::Debug for TagKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TagKey(…)")
    }
}

/// The part after the tag, of a datagram whose tag is right. Only [`TagKey::fits`] makes one, so no
/// public-key work is done for other datagrams.
#[derive(Clone, Copy, Debug)]
pub struct Tagged<'a>(&'a [u8]);

/// A gateway key with everything derived from it that opening knocks needs.
pub struct Gateway {
    private: <Kem as hpke::Kem>::PrivateKey,
    site: Zeroizing<[u8; 32]>,
    hint_key: Zeroizing<[u8; 32]>,
    info: Vec<u8>,
}

impl Gateway {
    /// Derives everything from a key; `None` if its private key is not valid.
    #[must_use]
    pub fn new(key: &GatewayKey) -> Option<Self> {
        Some(Self {
            private: key.private()?,
            site: Zeroizing::new(key.site),
            hint_key: suite::hint_key(&key.site),
            info: suite::info(&key.public()),
        })
    }

    /// The key that recognises the datagrams of a client.
    #[must_use]
    pub fn tag_key(&self, client: &ClientKey) -> TagKey {
        TagKey(suite::tag_key(&self.site, client))
    }

    /// The hint of a datagram. A stranger's datagram costs this, and one [`TagKey::fits`] for each client
    /// that it happens to hint at.
    #[must_use]
    pub fn hint(&self, datagram: &[u8; KNOCK]) -> Option<Hint> {
        let (hint, _) = datagram.split_first_chunk::<HINT>()?;
        let (_, rest) = datagram.split_first_chunk::<FRONT>()?;
        let (enc, _) = rest.split_first_chunk::<32>()?;
        Some(Hint(suite::hint(&self.hint_key, enc, *hint)))
    }

    /// Decrypts a datagram. Its client's signature is not verified yet.
    ///
    /// # Errors
    /// [`NoKnock`] if it is not a knock for this gateway.
    pub fn open(&self, tagged: Tagged<'_>) -> Result<Unproven, NoKnock> {
        let (enc, rest) = tagged.0.split_first_chunk::<32>().ok_or(NoKnock::Sealed)?;
        let (inner, sealed) = rest.split_first_chunk::<128>().ok_or(NoKnock::Sealed)?;
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(enc).map_err(|_| NoKnock::Sealed)?;
        let sealed = hpke::aead::AeadTag::<Aead>::from_bytes(sealed).map_err(|_| NoKnock::Sealed)?;
        let psk = hpke::PskBundle::new(&*self.site, suite::PSK_ID).map_err(|_| NoKnock::Sealed)?;
        let mode = hpke::OpModeR::Psk(psk);
        let mut context =
            hpke::setup_receiver::<Aead, Kdf, Kem>(&mode, &self.private, &encapsulated, &self.info)
                .map_err(|_| NoKnock::Sealed)?;
        let mut inner = *inner;
        context
            .open_inout_detached(InOutBuf::from(&mut inner[..]), &[], &sealed)
            .map_err(|_| NoKnock::Sealed)?;
        let (request, signature) = inner.split_first_chunk::<64>().ok_or(NoKnock::Sealed)?;
        let signature: [u8; 64] = signature.try_into().map_err(|_| NoKnock::Sealed)?;
        Ok(Unproven {
            request: Request::decode(request).ok_or(NoKnock::Request)?,
            signed: signature::signed_bytes(&[&self.info, enc, request]),
            signature,
            receipt_key: ReceiptKey::of_receiver(context),
        })
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway(…)")
    }
}

/// A request that was sealed by a holder of the card who claims to be a client.
#[derive(Debug)]
pub struct Unproven {
    request: Request,
    signed: Vec<u8>,
    signature: [u8; 64],
    receipt_key: ReceiptKey,
}

impl Unproven {
    /// Verifies the client's signature; `None` if it is not valid.
    #[must_use]
    pub fn prove(self, key: &ClientKey) -> Option<Proven> {
        let proven = self.request.client == key.id() && key.verifies(&self.signed, &self.signature);
        proven.then_some(Proven { request: self.request, receipt_key: self.receipt_key })
    }
}

/// A request with a verified signature. Only [`Unproven::prove`] makes one.
#[derive(Debug)]
pub struct Proven {
    request: Request,
    receipt_key: ReceiptKey,
}

impl Proven {
    /// The request.
    #[must_use]
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Splits it into the request and the key that seals the receipt.
    #[must_use]
    pub fn into_parts(self) -> (Request, ReceiptKey) {
        (self.request, self.receipt_key)
    }
}
