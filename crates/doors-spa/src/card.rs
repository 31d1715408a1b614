//! The gateway card: what a client has to know of a gateway, as one line of text.
//!
//! ```text
//!   doors1-<base64url of: gateway's public key (32), site secret (32), check (4)>
//! ```
//!
//! Whoever has only the card opens nothing. It is still not for everybody: it lets its holder make the
//! gateway work.

use alloc::{string::String, vec::Vec};
use core::{fmt, str::FromStr};

use base64ct::{Base64UrlUnpadded, Encoding as _};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// What a client has to know of a gateway.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Card {
    pub(crate) gateway: [u8; 32],
    pub(crate) site: [u8; 32],
}

const PREFIX: &str = "doors1-";

impl Card {
    /// The gateway's X25519 public key.
    #[must_use]
    pub fn gateway(&self) -> &[u8; 32] {
        &self.gateway
    }

    /// The card as one line.
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

/// Why a text is no card, or no key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadCard {
    /// It begins in another way.
    #[error("it has to begin with \"{0}\"")]
    Prefix(&'static str),
    /// Characters are missing, are too many, or are none of base64url.
    #[error("it has been cut off, or changed; copy the whole line again")]
    Shape,
    /// It was altered on its way.
    #[error("there is a typing error in it; copy the whole line again")]
    Check,
}

/// Two keys as text, with a check against typing errors.
pub(crate) fn to_text(prefix: &str, first: &[u8; 32], second: &[u8; 32]) -> Zeroizing<String> {
    let check = check(prefix, first, second);
    let bytes = Zeroizing::new([&first[..], second, &check].concat());
    let encoded = Zeroizing::new(Base64UrlUnpadded::encode_string(&bytes));
    Zeroizing::new([prefix, &encoded].concat())
}

/// The two keys out of a text.
pub(crate) fn from_text(prefix: &'static str, text: &str) -> Result<([u8; 32], [u8; 32]), BadCard> {
    let encoded = text.trim().strip_prefix(prefix).ok_or(BadCard::Prefix(prefix))?;
    let bytes = Base64UrlUnpadded::decode_vec(encoded).map_err(|_| BadCard::Shape)?;
    let bytes: Zeroizing<Vec<u8>> = Zeroizing::new(bytes);
    let (first, rest) = bytes.split_first_chunk::<32>().ok_or(BadCard::Shape)?;
    let (second, told) = rest.split_first_chunk::<32>().ok_or(BadCard::Shape)?;
    let told: [u8; 4] = told.try_into().map_err(|_| BadCard::Shape)?;
    match told == check(prefix, first, second) {
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
    fn a_card_is_read_as_it_was_written_and_a_typing_error_is_seen() {
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
    fn nothing_secret_is_printed_for_debugging() {
        let card = Card { gateway: [7; 32], site: [9; 32] };
        assert_eq!(alloc::format!("{card:?}"), "Card(…)");
    }
}
