//! Tells datagrams that may be a client's from all others, before anything is spent on them.
//!
//! A stranger without the card, and somebody with the card who does not know the public key of any client
//! here, costs one short hash. Somebody who knows both costs an opening with keys; so each client has a
//! budget for those, and only the client whose key is known can be crowded out.

use alloc::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    vec::Vec,
};

use doors_spa::{
    KNOCK,
    gateway::{Gateway, Hint, TagKey, Tagged},
    identity::ClientId,
};

use crate::{
    budget::Budget,
    limits::{COPIES_PER_CLIENT, OPENINGS},
    spa::client::Clients,
    time::{Moment, Wall},
};

/// A gateway's key, and the date of its end, if it has one.
pub type Lasting = (Arc<Gateway>, Option<Wall>);

/// What tells the datagrams of clients from all others. It takes a hash for each client and gateway key to make,
/// so it is made where nobody waits for it.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    gateways: Vec<Known>,
}

/// What was spent on datagrams that claim to be a client's.
#[derive(Debug, Default)]
pub struct Prefilter {
    budgets: BTreeMap<ClientId, Budget>,
    copied: BTreeMap<ClientId, Copied>,
}

/// The beginnings of the latest datagrams that one client has signed, the oldest first. Nobody makes the same
/// bytes twice, but copying them takes no card.
type Copied = VecDeque<Front>;

/// Hint and tag.
type Front = [u8; 16];

/// The clients at one gateway key, by what hints at them.
#[derive(Clone, Debug)]
struct Known {
    gateway: Arc<Gateway>,
    until: Option<Wall>,
    clients: BTreeMap<Hint, Vec<(ClientId, TagKey)>>,
}

impl Recognition {
    /// Recognises these clients at these gateway keys.
    #[must_use]
    pub fn new(gateways: &[Lasting], clients: &Clients) -> Self {
        let known = |(gateway, until): &Lasting| {
            let mut by_hint: BTreeMap<Hint, Vec<(ClientId, TagKey)>> = BTreeMap::new();
            for (id, client) in clients.with_ids() {
                by_hint.entry(Hint::at(id)).or_default().push((id, gateway.tag_key(&client.key)));
            }
            Known { gateway: Arc::clone(gateway), until: *until, clients: by_hint }
        };
        Self { gateways: gateways.iter().map(known).collect() }
    }

    /// In whose name a datagram was made, and at which key; `None` for nobody's.
    #[must_use]
    pub fn recognise<'a>(
        &self,
        datagram: &'a [u8; KNOCK],
        wall: Wall,
    ) -> Option<(Arc<Gateway>, ClientId, Tagged<'a>)> {
        self.gateways.iter().filter(|known| known.until.is_none_or(|until| wall < until)).find_map(|known| {
            let candidates = known.clients.get(&known.gateway.hint(datagram)?)?;
            let fits = |(client, key): &(ClientId, TagKey)| Some((*client, key.fits(datagram)?));
            let (client, tagged) = candidates.iter().find_map(fits)?;
            Some((Arc::clone(&known.gateway), client, tagged))
        })
    }
}

impl Prefilter {
    /// Forgets the clients that are gone.
    pub fn keep(&mut self, clients: &Clients) {
        self.budgets.retain(|client, _| clients.get(*client).is_some());
        self.copied.retain(|client, _| clients.get(*client).is_some());
    }

    /// Whether this client has signed these very bytes before.
    #[must_use]
    pub fn is_copied(&self, client: ClientId, datagram: &[u8; KNOCK]) -> bool {
        let copied = self.copied.get(&client).zip(datagram.first_chunk());
        copied.is_some_and(|(copied, front)| copied.contains(front))
    }

    /// Remembers bytes that this client is proven to have signed. No others: what anybody can make would push
    /// these out.
    pub fn remember(&mut self, client: ClientId, datagram: &[u8; KNOCK]) {
        let Some(front) = datagram.first_chunk::<16>().copied() else { return };
        let copied = self.copied.entry(client).or_default();
        copied.push_back(front);
        if copied.len() > COPIES_PER_CLIENT {
            copied.pop_front();
        }
    }

    /// Whether one more datagram in the name of this client may be opened.
    pub fn spend(&mut self, client: ClientId, now: Moment) -> bool {
        self.budgets.entry(client).or_default().spend(OPENINGS, now)
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn each_client_has_a_budget_of_its_own() {
        let mut prefilter = Prefilter::default();
        let now = Moment::new(Duration::from_secs(100));
        let (one, other) = (ClientId([1; 8]), ClientId([2; 8]));
        let spent = (0..10_000).filter(|_| prefilter.spend(one, now)).count();
        assert_eq!(spent, OPENINGS.at_once as usize);
        assert!(prefilter.spend(other, now));
    }
}
