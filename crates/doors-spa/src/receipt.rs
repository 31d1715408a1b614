//! Receipts: the gateway's answer to a client with a verified signature.
//!
//! ```text
//!   0  16  salt     never used twice in a run of the gateway
//!  16 160  sealed   the receipt
//! 176  16  tag
//!
//!  receipt, 160 bytes, big-endian
//!   0   1  answer
//!   1   1  number of doors listed here
//!   2   2  number of doors that this client may open, in all
//!   4   4  seconds granted
//!   8   8  the gateway's time, milliseconds since 1970
//!  16  16  the source address that the gateway saw
//!  32   2  the source port
//!  34   2  reserved, zero
//!  36   8  challenge
//!  44 116  doors: for each the length of its name (1), the name, and its longest time in seconds (4)
//! ```
//!
//! The key is BLAKE2s-256 of the salt, keyed with a secret that is exported from the knock's HPKE context
//! (RFC 9180, section 5.3). So only the sender of the knock can read the receipt, and no key seals two
//! receipts.

use alloc::{string::String, vec::Vec};
use core::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
};

use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Tag};
use hpke::{
    aead::{AeadCtxR, AeadCtxS},
    inout::InOutBuf,
};
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    KNOCK, address,
    door::{BadName, NAME_MAX, check_name},
    suite::{AEAD_TAG, Aead, Kdf, Kem},
};

/// The result of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The door is open.
    Granted,
    /// The door is closed.
    Closed,
    /// The receipt lists the doors that the client may open.
    Told,
    /// The door does not exist, or the client may not open it. The receipt does not say which.
    NotAllowed,
    /// The request's time is wrong. The client may knock again with the receipt's challenge.
    Stale,
    /// Too many doors are open or too many requests are in progress.
    TooMany,
    /// The address cannot be let in: the door requires one to be named, or no client can have it, or this
    /// client may not let it in.
    Address,
    /// The gateway cannot record that it has seen this knock, so it opens nothing.
    NotRecorded,
    /// The firewall has not made the change in time.
    Firewall,
}

impl Answer {
    const ALL: [(u8, Self); 9] = [
        (1, Self::Granted),
        (2, Self::Closed),
        (3, Self::Told),
        (4, Self::NotAllowed),
        (5, Self::Stale),
        (6, Self::TooMany),
        (7, Self::Address),
        (8, Self::NotRecorded),
        (9, Self::Firewall),
    ];

    fn number(self) -> u8 {
        Self::ALL.iter().find(|(_, answer)| *answer == self).map_or(0, |(number, _)| *number)
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().find(|(other, _)| *other == number).map(|(_, answer)| *answer)
    }
}

/// A door that a client may open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ToldDoor {
    /// Its name.
    pub name: String,
    /// The longest time for which this client may have it open, in seconds.
    pub longest: u32,
}

/// The content of a receipt.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The result of the request.
    pub answer: Answer,
    /// The seconds for which the door is open from now on.
    pub seconds: u32,
    /// The gateway's clock, in milliseconds since 1970.
    pub time: u64,
    /// The source of the knock, as the gateway saw it.
    pub seen: SocketAddr,
    /// The challenge for the next knock if this one was stale, else zeros.
    pub challenge: [u8; 8],
    /// The number of doors that the client may open, in all.
    pub doors_in_all: u16,
    /// As many of these doors as fit.
    pub doors: Vec<ToldDoor>,
}

const SALT: usize = 16;
const PLAIN: usize = KNOCK - SALT - AEAD_TAG;
const FIXED: usize = 44;

/// The doors that a page lists at least, unless it is the last: that many fit with the longest names.
pub const DOORS_ON_A_PAGE: u16 = 3;

const _: () = assert!((PLAIN - FIXED) / (NAME_MAX + 5) == DOORS_ON_A_PAGE as usize);

impl Receipt {
    /// Adds as many doors as fit.
    #[must_use]
    pub fn with_doors(mut self, doors: impl IntoIterator<Item = ToldDoor>) -> Self {
        let mut room = PLAIN.saturating_sub(FIXED);
        for door in doors {
            let Some(left) = room.checked_sub(door.name.len().saturating_add(5)) else { break };
            room = left;
            self.doors.push(door);
        }
        self
    }

    fn encode(&self) -> [u8; PLAIN] {
        let count = u8::try_from(self.doors.len()).unwrap_or(u8::MAX);
        let mut text = Vec::from([self.answer.number(), count]);
        text.extend(self.doors_in_all.to_be_bytes());
        text.extend(self.seconds.to_be_bytes());
        text.extend(self.time.to_be_bytes());
        text.extend(address::encode(Some(self.seen.ip())));
        text.extend(self.seen.port().to_be_bytes());
        text.extend([0, 0]);
        text.extend(self.challenge);
        for door in &self.doors {
            text.push(u8::try_from(door.name.len()).unwrap_or(u8::MAX));
            text.extend(door.name.as_bytes());
            text.extend(door.longest.to_be_bytes());
        }
        let mut bytes = [0; PLAIN];
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = from;
        }
        bytes
    }

    /// Reads a decrypted receipt. It was sealed by the gateway, but the client does not rely on the gateway
    /// for its memory safety or its terminal. A missing source address is read as the unspecified one.
    ///
    /// # Errors
    /// [`BadReceipt`] if it contains an answer that is not known here, or a value that no gateway sends.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadReceipt> {
        let Fields { answer, mut receipt, doors } = Fields::split(bytes).ok_or(BadReceipt::Shape)?;
        receipt.answer = Answer::from_number(answer).ok_or(BadReceipt::Answer)?;
        for (name, longest) in doors {
            let not_text = BadReceipt::Name(BadName::Character(char::REPLACEMENT_CHARACTER));
            let name = core::str::from_utf8(name).map_err(|_| not_text)?;
            check_name(name).map_err(BadReceipt::Name)?;
            receipt.doors.push(ToldDoor { name: String::from(name), longest });
        }
        Ok(receipt)
    }
}

/// The fields of a receipt. Answer and doors have not been checked yet.
struct Fields<'a> {
    answer: u8,
    /// All fields but answer and doors.
    receipt: Receipt,
    doors: Vec<(&'a [u8], u32)>,
}

impl<'a> Fields<'a> {
    fn split(bytes: &'a [u8]) -> Option<Self> {
        let ([answer, count], rest) = bytes.split_first_chunk()?;
        let (in_all, rest) = rest.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (seen, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let (_, rest) = rest.split_first_chunk::<2>()?;
        let (challenge, mut rest) = rest.split_first_chunk()?;
        let mut doors = Vec::new();
        for _ in 0..*count {
            let (length, behind) = rest.split_first()?;
            let (name, behind) = behind.split_at_checked(usize::from(*length))?;
            let (longest, behind) = behind.split_first_chunk()?;
            doors.push((name, u32::from_be_bytes(*longest)));
            rest = behind;
        }
        let seen = address::decode(*seen).unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        let receipt = Receipt {
            answer: Answer::NotAllowed,
            seconds: u32::from_be_bytes(*seconds),
            time: u64::from_be_bytes(*time),
            seen: SocketAddr::new(seen, u16::from_be_bytes(*port)),
            challenge: *challenge,
            doors_in_all: u16::from_be_bytes(*in_all),
            doors: Vec::new(),
        };
        Some(Self { answer: *answer, receipt, doors })
    }
}

/// Why a receipt cannot be read, although the gateway has sealed it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadReceipt {
    /// It is shorter than its fields say.
    #[error("it is cut off")]
    Shape,
    /// The code of its answer has no meaning here.
    #[error("its kind is not known here; a newer doorknock may know it")]
    Answer,
    /// It names a door that no configuration can have.
    #[error("it names a door whose name {0}")]
    Name(BadName),
}

/// The key that seals and opens the receipt of one knock. Only its client and the gateway have it.
#[derive(Clone)]
pub struct ReceiptKey(Zeroizing<[u8; 32]>);

/// The exporter context for the HPKE export.
const EXPORT: &[u8] = b"port-knocking-doors spa/1 receipt";

impl ReceiptKey {
    pub(crate) fn of_sender(context: AeadCtxS<Aead, Kdf, Kem>) -> Self {
        Self::exported(|label, key| context.export(label, key).is_ok())
    }

    pub(crate) fn of_receiver(context: AeadCtxR<Aead, Kdf, Kem>) -> Self {
        Self::exported(|label, key| context.export(label, key).is_ok())
    }

    fn exported(export: impl Fn(&[u8], &mut [u8]) -> bool) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        // The export fails only for a key that is longer than HKDF can make.
        let exported = export(EXPORT, &mut key[..]);
        debug_assert!(exported, "32 bytes can be exported");
        Self(key)
    }

    /// Seals a receipt. A salt must not be used twice.
    #[must_use]
    pub fn seal(&self, receipt: &Receipt, salt: [u8; SALT]) -> [u8; KNOCK] {
        let mut sealed = receipt.encode();
        let tag =
            self.cipher(&salt).encrypt_inout_detached(&NONCE.into(), &[], InOutBuf::from(&mut sealed[..]));
        let tag = tag.map_or([0; AEAD_TAG], Into::into);
        let mut bytes = [0; KNOCK];
        for (to, from) in bytes.iter_mut().zip(salt.iter().chain(&sealed).chain(&tag)) {
            *to = *from;
        }
        sealed.zeroize();
        bytes
    }

    /// Opens a receipt; `None` if it is not for this knock or cannot be read.
    #[must_use]
    pub fn open(&self, datagram: &[u8]) -> Option<Receipt> {
        self.unseal(datagram)?.ok()
    }

    /// Opens a receipt; `None` if it is not for this knock. If it is, it comes from the gateway, even if it
    /// cannot be read.
    #[must_use]
    pub fn unseal(&self, datagram: &[u8]) -> Option<Result<Receipt, BadReceipt>> {
        let datagram: &[u8; KNOCK] = datagram.try_into().ok()?;
        let (salt, rest) = datagram.split_first_chunk::<SALT>()?;
        let (sealed, tag) = rest.split_first_chunk::<PLAIN>()?;
        let tag: [u8; AEAD_TAG] = tag.try_into().ok()?;
        let mut plain = *sealed;
        self.cipher(salt)
            .decrypt_inout_detached(&NONCE.into(), &[], InOutBuf::from(&mut plain[..]), &Tag::from(tag))
            .ok()?;
        Some(Receipt::decode(&plain))
    }

    /// Each salt gives a key of its own, so the nonce can be constant.
    fn cipher(&self, salt: &[u8; SALT]) -> ChaCha20Poly1305 {
        let key = Zeroizing::new(crate::suite::receipt_key(&self.0, salt));
        ChaCha20Poly1305::new((&*key).into())
    }
}

const NONCE: [u8; 12] = [0; 12];

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptKey(…)")
    }
}
