//! Selects the datagrams that may be a client's, before any public-key work.
//!
//! A sender without the card costs one short hash. So does one with the card that does not know the public
//! key of a client here. A sender that knows both costs a decryption. So each client has a budget for
//! decryptions, and an attacker can exhaust only the budgets of the clients whose keys it knows.

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
    limits::{COPIES_PER_CLIENT, DECRYPTIONS},
    spa::client::Clients,
    time::{Moment, Wall},
};

/// A gateway's key, and the date on which it expires, if there is one.
pub type ExpiringGateway = (Arc<Gateway>, Option<Wall>);

/// The table that maps datagrams to clients. Building it takes a hash for each client and gateway key, so it
/// is built off the packet path.
#[derive(Clone, Debug, Default)]
pub struct Recognition {
    gateways: Vec<GatewayClients>,
}

/// Per client: the budget for decryptions, and the latest datagrams that were verified.
#[derive(Debug, Default)]
pub struct Prefilter {
    budgets: BTreeMap<ClientId, Budget>,
    recent: BTreeMap<ClientId, Recent>,
}

/// The prefixes of the latest datagrams that one client has signed, oldest first. A client never makes the
/// same bytes twice; but copying them takes no card.
type Recent = VecDeque<Prefix>;

/// Hint and tag of a datagram.
type Prefix = [u8; 16];

/// The clients at one gateway key, by hint.
#[derive(Clone, Debug)]
struct GatewayClients {
    gateway: Arc<Gateway>,
    until: Option<Wall>,
    clients: BTreeMap<Hint, Vec<(ClientId, TagKey)>>,
}

impl Recognition {
    /// Builds the table for these clients at these gateway keys.
    #[must_use]
    pub fn new(gateways: &[ExpiringGateway], clients: &Clients) -> Self {
        let known = |(gateway, until): &ExpiringGateway| {
            let mut by_hint: BTreeMap<Hint, Vec<(ClientId, TagKey)>> = BTreeMap::new();
            for (id, client) in clients.with_ids() {
                by_hint.entry(Hint::at(id)).or_default().push((id, gateway.tag_key(&client.key)));
            }
            GatewayClients { gateway: Arc::clone(gateway), until: *until, clients: by_hint }
        };
        Self { gateways: gateways.iter().map(known).collect() }
    }

    /// The client that a datagram claims to be from, and the gateway key that it was made for; `None` if
    /// there is none. Skips gateway keys that have expired.
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
    /// Drops what is stored of clients that are gone.
    pub fn keep(&mut self, clients: &Clients) {
        self.budgets.retain(|client, _| clients.get(*client).is_some());
        self.recent.retain(|client, _| clients.get(*client).is_some());
    }

    /// Whether the datagram is a copy of one that this client has signed recently.
    #[must_use]
    pub fn is_copied(&self, client: ClientId, datagram: &[u8; KNOCK]) -> bool {
        let recent = self.recent.get(&client).zip(datagram.first_chunk());
        recent.is_some_and(|(recent, prefix)| recent.contains(prefix))
    }

    /// Stores the prefix of a datagram whose signature has been verified. Others must not be stored: an
    /// attacker with the card and the client's public key could evict the client's own.
    pub fn remember(&mut self, client: ClientId, datagram: &[u8; KNOCK]) {
        let Some(prefix) = datagram.first_chunk::<16>().copied() else { return };
        let recent = self.recent.entry(client).or_default();
        recent.push_back(prefix);
        if recent.len() > COPIES_PER_CLIENT {
            recent.pop_front();
        }
    }

    /// Spends one decryption from the client's budget, and says whether there was one left.
    pub fn spend(&mut self, client: ClientId, now: Moment) -> bool {
        self.budgets.entry(client).or_default().spend(DECRYPTIONS, now)
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
        assert_eq!(spent, DECRYPTIONS.at_once as usize);
        assert!(prefilter.spend(other, now));
    }
}
