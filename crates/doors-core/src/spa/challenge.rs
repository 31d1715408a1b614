//! Challenges: how a client whose clock is wrong, or whose gateway's clock is, proves that its request is
//! new.
//!
//! A challenge is a MAC over client, source address, a coarse monotonic time and the client's round, with a
//! key of this run. It is not valid from another address, for another client, after a restart, or after a
//! minute and a half. Only the rounds are stored: when a client has answered more challenges than can be
//! remembered, its round ends, and with it all its challenges become invalid.

use core::net::IpAddr;

use blake2::{
    Blake2sMac,
    digest::{KeyInit as _, Mac as _, consts::U8, consts::U16},
};
use doors_spa::{address, identity::ClientId};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::time::Moment;

/// Random bytes of this run of the daemon. They never leave it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RunKey(pub [u8; 32]);

impl core::fmt::Debug for RunKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("RunKey(…)")
    }
}

/// A challenge is valid in the time slot in which it was made and in the next two: for 60 to 90 seconds, of
/// which a client needs one.
const SLOT_SECONDS: u64 = 30;

impl RunKey {
    /// The challenge for this client at this address. Never zero.
    #[must_use]
    pub fn challenge(&self, client: ClientId, source: IpAddr, round: u64, now: Moment) -> [u8; 8] {
        self.of_slot(client, source, round, slot(now))
    }

    /// Whether this is a challenge that was made recently for this client at this address.
    #[must_use]
    pub fn recognises(
        &self,
        challenge: [u8; 8],
        client: ClientId,
        source: IpAddr,
        round: u64,
        now: Moment,
    ) -> bool {
        (0..3).any(|age| {
            let made = slot(now).checked_sub(age).map(|slot| self.of_slot(client, source, round, slot));
            made.is_some_and(|made| bool::from(made.ct_eq(&challenge)))
        })
    }

    /// A salt for a receipt. A number must not be used twice in a run.
    #[must_use]
    pub fn salt(&self, number: u64) -> [u8; 16] {
        let mut mac = Blake2sMac::<U16>::new((&self.0).into());
        mac.update(b"salt");
        mac.update(&number.to_be_bytes());
        mac.finalize().into_bytes().into()
    }

    fn of_slot(&self, client: ClientId, source: IpAddr, round: u64, slot: u64) -> [u8; 8] {
        let mut mac = Blake2sMac::<U8>::new((&self.0).into());
        mac.update(b"challenge");
        mac.update(&client.0);
        mac.update(&address::encode(Some(source)));
        mac.update(&round.to_be_bytes());
        mac.update(&slot.to_be_bytes());
        let challenge: [u8; 8] = mac.finalize().into_bytes().into();
        // Zero means that there is no challenge.
        if challenge == [0; 8] { [1; 8] } else { challenge }
    }
}

fn slot(now: Moment) -> u64 {
    now.since_start().as_secs().checked_div(SLOT_SECONDS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    const CLIENT: ClientId = ClientId([1; 8]);

    fn at(seconds: u64) -> Moment {
        Moment::new(Duration::from_secs(seconds))
    }

    #[test]
    fn a_challenge_is_for_one_client_at_one_address_in_one_run_and_round() {
        let (key, source) = (RunKey([7; 32]), "192.0.2.7".parse().unwrap());
        let challenge = key.challenge(CLIENT, source, 1, at(100));
        assert!(key.recognises(challenge, CLIENT, source, 1, at(100)));
        assert!(!key.recognises(challenge, CLIENT, source, 2, at(100)));
        assert!(!key.recognises(challenge, ClientId([2; 8]), source, 1, at(100)));
        assert!(!key.recognises(challenge, CLIENT, "192.0.2.8".parse().unwrap(), 1, at(100)));
        assert!(!RunKey([8; 32]).recognises(challenge, CLIENT, source, 1, at(100)));
        assert!(!key.recognises([0; 8], CLIENT, source, 1, at(100)));
    }

    #[test]
    fn a_challenge_lives_for_a_minute_and_not_for_two() {
        let (key, source) = (RunKey([7; 32]), "2001:db8::7".parse().unwrap());
        for made in 0..90 {
            let challenge = key.challenge(CLIENT, source, 0, at(made));
            assert!(key.recognises(challenge, CLIENT, source, 0, at(made + 60)), "{made}");
            assert!(!key.recognises(challenge, CLIENT, source, 0, at(made + 90)), "{made}");
        }
    }
}
