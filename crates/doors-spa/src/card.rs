//! The gateway card: what a client has to know about a gateway, as one line of text.
//!
//! ```text
//!   doors1-<base64url of: gateway's public key (32), site secret (32), check (4)>
//! ```
//!
//! The card alone opens nothing. Keep it from the public all the same: its holder can make datagrams that
//! cost the gateway public-key work.

use alloc::{string::String, vec::Vec};
use core::{fmt, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a client has to know about a gateway.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Card {
    pub(crate) gateway: [u8; 32],
    pub(crate) site: [u8; 32],
}

const PREFIX: &str = "doors1-";

impl Card {
    /// The gateway's X25519 public key (RFC 7748), 32 bytes.
    #[must_use]
    pub fn gateway(&self) -> &[u8; 32] {
        &self.gateway
    }

    /// The card as one line of text.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        to_text(PREFIX, &self.gateway, &self.site)
    }
}

impl FromStr for Card {
    type Err = BadCard;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (gateway, site) = from_text(PREFIX, text)?;
        Ok(Self { gateway, site })
    }
}

impl PartialEq for Card {
    fn eq(&self, other: &Self) -> bool {
        (self.gateway.ct_eq(&other.gateway) & self.site.ct_eq(&other.site)).into()
    }
}

impl Eq for Card {}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Card(…)")
    }
}

/// Why a text is not a valid card or gateway key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCard {
    /// It does not start with this prefix.
    #[error("it does not begin with \"{0}\"")]
    Prefix(&'static str),
    /// It is too short or too long, or not base64url (RFC 4648, section 5).
    #[error("it is truncated or altered; copy the whole line again")]
    Shape,
    /// The checksum is wrong: it has been altered.
    #[error("it has a typing error; copy the whole line again")]
    Check,
}

/// Encodes two keys as text, with a checksum against typing errors.
pub(crate) fn to_text(prefix: &str, first: &[u8; 32], second: &[u8; 32]) -> Zeroizing<String> {
    let check = check(prefix, first, second);
    let bytes = Zeroizing::new([&first[..], second, &check].concat());
    let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
    Zeroizing::new([prefix, &encoded].concat())
}

/// Decodes such a text, and verifies the checksum.
pub(crate) fn from_text(prefix: &'static str, text: &str) -> Result<([u8; 32], [u8; 32]), BadCard> {
    let encoded = text.trim().strip_prefix(prefix).ok_or(BadCard::Prefix(prefix))?;
    let bytes = Base64UrlUnpadded::decode_vec(encoded).map_err(|_| BadCard::Shape)?;
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(bytes);
    let (first, rest) = bytes.split_first_chunk::<32>().ok_or(BadCard::Shape)?;
    let (second, checksum) = rest.split_first_chunk::<32>().ok_or(BadCard::Shape)?;
    let checksum: [u8; 4] = checksum.try_into().map_err(|_| BadCard::Shape)?;
    match checksum == check(prefix, first, second) {
        true => Ok((*first, *second)),
        false => Err(BadCard::Check),
    }
}

fn check(prefix: &str, first: &[u8; 32], second: &[u8; 32]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(prefix).chain_update(first).chain_update(second).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;

    use super::*;

    #[test]
    fn a_card_is_read_as_it_was_written_and_a_typing_error_is_detected() {
        let card = Card { gateway: [7; 32], site: [9; 32] };
        let text = card.to_text();
        assert_eq!(text.len(), 98);
        assert_eq!(text.parse::<Card>().as_ref(), Ok(&card));
        assert_eq!(alloc::format!(" {}\n", *text).parse::<Card>().as_ref(), Ok(&card));
        for at in PREFIX.len()..text.len() {
            let mut wrong = text.to_string().into_bytes();
            wrong[at] = if wrong[at] == b'A' { b'B' } else { b'A' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(wrong.parse::<Card>().is_err(), "{wrong}");
            assert!(text[..at].parse::<Card>().is_err());
        }
        assert_eq!("ssh-ed25519 AAAA".parse::<Card>(), Err(BadCard::Prefix("doors1-")));
    }

    #[test]
    fn debug_output_contains_no_secret() {
        let card = Card { gateway: [7; 32], site: [9; 32] };
        assert_eq!(alloc::format!("{card:?}"), "Card(…)");
    }
}
