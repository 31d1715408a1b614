//! One request at one address of a server, from the first knock to the receipt, without I/O.
//!
//! ```text
//!             ┌── Knock ──► unsigned knock ──► (signer signs) ──► seal ──► datagram ──► socket
//!   next ─────┼── Wait
//!             ├── Settled(receipt)                socket ──► heard ──┐
//!             └── Over                                ▲              │ opens with the key of a knock
//!                                                     └── ignored ◄──┘ that is still out, or not
//! ```
//!
//! Never believes a datagram that no key of its own opens, and never sends the same bytes twice: a repeated
//! knock has a new nonce, a new time and a new envelope, so the gateway does not take it for a replay.

use std::{net::IpAddr, time::Duration};

use doors_spa::{
    KNOCK,
    card::Card,
    identity::ClientKey,
    receipt::{Answer, BadReceipt, Receipt, ReceiptKey},
    request::{Operation, Request},
    seal::{SealError, UnsignedKnock},
};
use rand_core::CryptoRng;

/// Knocks that are sent without hearing anything: the fifth is lost once in a hundred thousand times if
/// every tenth datagram is.
const TRIES: u32 = 5;
/// A receipt from the other side of the earth takes less.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// An answer that has not come until then does not come.
const IN_ALL: Duration = Duration::from_secs(5);
/// What every knock is given, however late it leaves: an agent may ask its user first.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// Challenges that are answered. One is enough; the second is for one that ran out on its way.
const CHALLENGES: u32 = 2;

/// What is wanted of a server.
#[derive(Clone, Copy, Debug)]
pub struct Errand {
    /// What is to be done.
    pub operation: Operation,
    /// Who knocks.
    pub client: ClientKey,
    /// Whom to admit; `None` for the source of the datagram.
    pub address: Option<IpAddr>,
}

/// One errand at one address.
///
/// Moments are durations since any start, and never go backwards.
#[derive(Debug)]
pub struct Exchange {
    errand: Errand,
    challenge: [u8; 8],
    challenges_left: u32,
    tries_left: u32,
    wait: Duration,
    knock_at: Duration,
    over_at: Option<Duration>,
    outstanding: Vec<ReceiptKey>,
    settled: Option<Result<Receipt, BadReceipt>>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Next {
    /// Have a knock signed, and send it.
    Knock,
    /// Listen for so long.
    Wait(Duration),
    /// Nothing more: the gateway has answered.
    Settled(Receipt),
    /// Nothing more: the gateway has answered, and its answer cannot be read.
    Unreadable(BadReceipt),
    /// Nothing more: there is no answer.
    Over,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// Nothing that a key of ours opens.
    Nothing,
    /// A challenge, to be answered at once. The gateway's clock, in milliseconds since 1970.
    Challenge(u64),
    /// The answer.
    Answer,
}

impl Exchange {
    /// Begins; the first knock is due at once.
    #[must_use]
    pub fn new(errand: Errand) -> Self {
        Self {
            errand,
            challenge: [0; 8],
            challenges_left: CHALLENGES,
            tries_left: TRIES,
            wait: FIRST_WAIT,
            knock_at: Duration::ZERO,
            over_at: None,
            outstanding: Vec::new(),
            settled: None,
        }
    }

    /// What is to be done at this moment.
    pub fn next(&mut self, now: Duration) -> Next {
        match self.settled.take() {
            Some(Ok(receipt)) => return Next::Settled(receipt),
            Some(Err(bad)) => return Next::Unreadable(bad),
            None => {}
        }
        let left = self.over_at.map(|over| over.saturating_sub(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Next::Over;
        }
        if self.tries_left > 0 && now >= self.knock_at {
            return Next::Knock;
        }
        let until_over = left.unwrap_or(IN_ALL);
        Next::Wait(match self.tries_left {
            0 => until_over,
            _ => until_over.min(self.knock_at.saturating_sub(now)),
        })
    }

    /// A new knock, to be signed. `time` is the clock, in milliseconds since 1970.
    ///
    /// # Errors
    /// [`SealError`] if the card is no use.
    pub fn unsigned(
        &self,
        card: &Card,
        time: u64,
        random: &mut impl CryptoRng,
    ) -> Result<UnsignedKnock, SealError> {
        let mut nonce = [0; 8];
        random.fill_bytes(&mut nonce);
        let Errand { operation, client, address } = self.errand;
        let (id, challenge) = (client.id(), self.challenge);
        let request = Request { operation, time, nonce, client: id, address, challenge };
        UnsignedKnock::new(card, &client, &request, random)
    }

    /// The datagram of a knock that has been signed. It leaves now.
    ///
    /// # Errors
    /// [`SealError`] if it cannot be sealed.
    pub fn seal(
        &mut self,
        unsigned: UnsignedKnock,
        signature: &[u8; 64],
        now: Duration,
    ) -> Result<[u8; KNOCK], SealError> {
        let (knock, key) = unsigned.seal(signature)?;
        self.outstanding.push(key);
        self.tries_left = self.tries_left.saturating_sub(1);
        self.knock_at = now.saturating_add(self.wait);
        self.wait = self.wait.saturating_mul(2);
        let over = self.over_at.unwrap_or_else(|| now.saturating_add(IN_ALL));
        self.over_at = Some(over.max(now.saturating_add(LAST_WAIT)));
        Ok(knock)
    }

    /// Takes a datagram that came from the server's address, which says nothing about who sent it.
    pub fn heard(&mut self, datagram: &[u8], now: Duration) -> Heard {
        let Some(answer) = self.outstanding.iter().find_map(|key| key.unseal(datagram)) else {
            return Heard::Nothing;
        };
        // The knocks before were made by the same clock. What becomes of them is of no interest, and a
        // second challenge for one of them must not look like a refusal of this one's answer.
        self.outstanding.clear();
        let Ok(receipt) = answer else {
            self.settled = Some(answer);
            return Heard::Answer;
        };
        let challenged = receipt.answer == Answer::Stale && receipt.challenge != [0; 8];
        if challenged && self.challenges_left > 0 {
            self.challenge = receipt.challenge;
            self.challenges_left = self.challenges_left.saturating_sub(1);
            self.tries_left = self.tries_left.max(1);
            self.wait = FIRST_WAIT;
            self.knock_at = now;
            // There is time for this one knock, even if the challenge came last.
            self.over_at = self.over_at.map(|over| over.max(now.saturating_add(LAST_WAIT)));
            return Heard::Challenge(receipt.time);
        }
        self.settled = Some(Ok(receipt));
        Heard::Answer
    }
}

#[cfg(test)]
mod tests;
