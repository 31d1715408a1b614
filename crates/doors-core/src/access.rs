//! Judges knocks. The only place where a [`Grant`] is made.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use doors_spa::identity::DoorId;

use crate::{
    door::{Door, DoorName, GrantKey},
    eligible::{Ineligible, Own},
    lease::Lease,
    limits,
    packet::{Link, Routes, WayBack},
    sequence::knock::Knock,
    sequence::table::{Knocker, KnockerTable},
    sequence::trie::{Conflict, SequenceTrie, Step, TrieNode},
    spa::client::{Client, ClientLabel, Clients},
    spa::replay::Accepted,
    time::{Moment, Wall},
};

/// Permission for one address to use one door for a while.
///
/// There is no constructor: the only way to hold a `Grant` is to get one from [`Access::judge`] or
/// [`Access::judge_request`]. A function that takes a `Grant` has nothing left to check.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a dropped grant opens nothing"]
pub struct Grant {
    key: GrantKey,
    link: Link,
    open_for: Duration,
    by: Option<ClientLabel>,
    once: bool,
}

impl Grant {
    /// Spends the grant: its time begins.
    pub fn redeem(self, now: Moment) -> Lease {
        let Self { key, link, open_for, by, once } = self;
        Lease { key, link, until: now.after(open_for), by, once }
    }
}

/// What a right knock brings.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict {
    /// One knock further.
    Further {
        /// How many knocks were right.
        right: u8,
    },
    /// The sequence is complete.
    Granted(Grant),
}

/// Why a knock brought its sender no further. A value, never an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The knock just accepted came again, as networks do; it counts for nothing.
    Repeated,
    /// Not the next port of any running sequence; the source has to be quiet for a while.
    Wrong {
        /// How many knocks had been right.
        after: u8,
    },
    /// The source knocked while it had to be quiet; its time begins anew.
    Waiting,
    /// The kernel throws away what comes from this source in this way, so it is forged, and counts for nothing.
    NotAccepted,
    /// There is no such door, or it is not for this client.
    NotAllowed,
    /// No grant can be for the address to let in.
    Address(Ineligible),
}

/// The rules by which knocks are judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The doors, by unique names.
    pub doors: Vec<Door>,
    /// After a wrong knock, a source must be quiet this long before its knocks count.
    pub quiet_after_wrong: Duration,
    /// A knocker is forgotten this long after its last knock.
    pub forget_after: Duration,
    /// Who has a key, and which doors it is for.
    pub clients: Arc<Clients>,
}

impl Rules {
    /// The door of this name.
    #[must_use]
    pub fn door(&self, name: &DoorName) -> Option<&Door> {
        self.doors.iter().find(|door| door.name == *name)
    }

    /// Whether a lease could be had now: there is such a door, and whoever has it may open it for this address. What a
    /// sequence has opened stays open if the sequence is another one now.
    #[must_use]
    pub fn permit(&self, lease: &Lease, wall: Wall) -> bool {
        let GrantKey { door, source } = &lease.key;
        let may_open = |client: &Client| {
            client.doors.contains(door) && client.may_come_from(*source) && !client.has_expired(wall)
        };
        self.door(door).is_some()
            && lease.by.as_ref().is_none_or(|label| self.clients.find(label).is_some_and(may_open))
    }
}

/// The longest time for which this client may have this door.
fn longest(door: &Door, client: &Client) -> Duration {
    client.max_open_for.map_or(door.max_open_for, |longest| longest.min(door.max_open_for))
}

/// Who has knocked what, and what that gives.
#[derive(Clone, Debug)]
pub struct Access {
    rules: Rules,
    sequences: SequenceTrie,
    knockers: KnockerTable,
    own: Own,
}

impl Access {
    /// Judges by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        let sequences = SequenceTrie::new(&rules.doors)?;
        Ok(Self { rules, sequences, knockers: KnockerTable::new(limits::KNOCKERS), own: Own::default() })
    }

    /// Judges by other `rules` from here on.
    ///
    /// Knockers keep their progress if the sequences are the same; else they are forgotten, since
    /// their progress means nothing any more.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart; then nothing has changed.
    pub fn change_rules(&mut self, rules: Rules) -> Result<(), Conflict> {
        let sequences = SequenceTrie::new(&rules.doors)?;
        if sequences != self.sequences {
            self.knockers = KnockerTable::new(limits::KNOCKERS);
            self.sequences = sequences;
        }
        self.rules = rules;
        Ok(())
    }

    /// Gives nothing to these addresses from here on.
    pub fn know_own(&mut self, own: Own) {
        self.own = own;
    }

    /// Judges one knock.
    ///
    /// It must not be able to change what a source has done that the kernel would hear, if the kernel would not hear it.
    /// A first knock changes nothing of that, so `routes` are asked only of a knock that comes in another way than
    /// the one before it from its source, and of one that opens a door.
    ///
    /// A source that waits is refused before anything else is looked at, and told nothing: a guess
    /// made during the wait must not be worth more than none. The next port counts before the
    /// repetition, so that a sequence may hold the same port twice in a row.
    ///
    /// # Errors
    /// [`Refusal`] says why the knock gives nothing.
    pub fn judge(&mut self, knock: &Knock, now: Moment, routes: &mut dyn Routes) -> Result<Verdict, Refusal> {
        let known = self.known(knock, now, routes)?;
        if known.is_some_and(|knocker| knocker.waiting) {
            self.make_wait(knock, now);
            return Err(Refusal::Waiting);
        }
        let (place, last_port) =
            known.map_or((TrieNode::START, 0), |knocker| (knocker.place, knocker.last_port));
        match self.sequences.step(place, knock.port) {
            Some(&Step::On(next)) => {
                self.remember(knock, next, now);
                Ok(Verdict::Further { right: self.sequences.depth(next) })
            }
            Some(Step::Opens(name)) => {
                let key = GrantKey { door: name.clone(), source: knock.source };
                let door = self.rules.door(name);
                let open_for = door.map_or(Duration::ZERO, |door| door.open_for);
                let once = door.is_some_and(|door| door.once);
                self.remember(knock, TrieNode::START, now);
                if !routes.accept(knock.source, knock.arrival) {
                    return Err(Refusal::NotAccepted);
                }
                self.own.judge(knock.source).map_err(Refusal::Address)?;
                Ok(Verdict::Granted(Grant { key, link: knock.arrival.link, open_for, by: None, once }))
            }
            None if last_port == knock.port => Err(Refusal::Repeated),
            None => {
                self.make_wait(knock, now);
                Err(Refusal::Wrong { after: self.sequences.depth(place) })
            }
        }
    }

    /// Judges a client's request to open a door, which is known to be fresh, and to be that client's.
    ///
    /// Whether there is no such door, or it is not for this client, is not told apart: a stolen key must not
    /// learn what else there is.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] or [`Refusal::Address`].
    pub fn judge_request(
        &self,
        fresh: &Accepted,
        client: &Client,
        door: DoorId,
        wanted: Duration,
        way: WayBack,
        wall: Wall,
    ) -> Result<Grant, Refusal> {
        let door = self.door_of(client, door).ok_or(Refusal::NotAllowed)?;
        let source = match fresh.request.address {
            Some(named) => named,
            None if door.require_address => return Err(Refusal::Address(Ineligible::Missing)),
            None => way.to.ip(),
        };
        self.own.judge(source).map_err(Refusal::Address)?;
        if !client.may_come_from(source) {
            return Err(Refusal::Address(Ineligible::NotThisClients(source)));
        }
        let wanted = if wanted.is_zero() { door.open_for } else { wanted };
        Ok(Grant {
            key: GrantKey { door: door.name.clone(), source },
            link: way.link,
            // No grant outlives its client.
            open_for: wanted.min(longest(door, client)).min(client.time_left(wall)),
            by: Some(client.who.clone()),
            once: door.once,
        })
    }

    /// The door that a client calls by this short name, if there is one and it may open it.
    #[must_use]
    pub fn door_of(&self, client: &Client, door: DoorId) -> Option<&Door> {
        let name = client.doors.iter().find(|name| DoorId::of(name.as_str()) == door)?;
        self.rules.door(name)
    }

    /// The doors that a client may open, and the longest time for each.
    pub fn doors_of<'a>(&'a self, client: &'a Client) -> impl Iterator<Item = (&'a DoorName, Duration)> {
        let doors = client.doors.iter().filter_map(|name| self.rules.door(name));
        doors.map(|door| (&door.name, longest(door, client)))
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The table of knockers.
    #[must_use]
    pub fn knockers(&self) -> &KnockerTable {
        &self.knockers
    }

    /// What its sender has done so far, as far as the kernel would have heard of it.
    fn known(&self, knock: &Knock, now: Moment, routes: &mut dyn Routes) -> Result<Option<Knocker>, Refusal> {
        match self.knockers.get(knock.source, now) {
            // Whatever the kernel says of the one, it says of the other.
            Some(known) if known.arrival == knock.arrival => Ok(Some(known)),
            Some(_) if !routes.accept(knock.source, knock.arrival) => Err(Refusal::NotAccepted),
            Some(known) => Ok(routes.accept(knock.source, known.arrival).then_some(known)),
            None => Ok(None),
        }
    }

    fn remember(&mut self, knock: &Knock, place: TrieNode, now: Moment) {
        let until = now.after(self.rules.forget_after);
        let knocker = Knocker { place, last_port: knock.port, waiting: false, arrival: knock.arrival, until };
        self.knockers.put(knock.source, knocker, self.sequences.depth(place), now);
    }

    fn make_wait(&mut self, knock: &Knock, now: Moment) {
        let until = now.after(self.rules.quiet_after_wrong);
        let arrival = knock.arrival;
        let knocker = Knocker { place: TrieNode::START, last_port: 0, waiting: true, arrival, until };
        self.knockers.put(knock.source, knocker, 0, now);
    }
}
