//! Judges knocks and requests. The only place where a [`Grant`] is made.

use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;

use doors_spa::identity::DoorId;

use crate::{
    door::{Door, DoorName, GrantKey},
    eligible::{Ineligible, Own},
    lease::{GrantedTo, Lease, Note},
    limits::{self, EXTEND_AFTER},
    packet::{Link, Routes, WayBack},
    sequence::knock::Knock,
    sequence::table::{Knocker, KnockerTable},
    sequence::trie::{Conflict, SequenceTrie, Step, TrieNode},
    spa::client::{Client, Clients},
    spa::replay::Accepted,
    time::{Moment, Wall},
};

/// Permission for one address to use one door for a while.
///
/// There is no constructor: the only way to hold a `Grant` is to get one from [`Access::judge`],
/// [`Access::judge_request`] or [`Access::judge_by_hand`]. A function that takes a `Grant` has nothing left to check.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a dropped grant opens nothing"]
pub struct Grant {
    key: GrantKey,
    link: Link,
    open_for: Duration,
    granted_to: GrantedTo,
    once: bool,
}

impl Grant {
    /// Turns the grant into a lease, whose time starts at `now`.
    pub fn redeem(self, now: Moment) -> Lease {
        let Self { key, link, open_for, granted_to, once } = self;
        Lease { key, link, until: now.after(open_for), granted_to, once }
    }
}

/// What a right knock achieves.
#[derive(Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The sequence is not complete yet.
    Further {
        /// The number of right knocks so far.
        right: u8,
    },
    /// The sequence is complete.
    Granted(Grant),
}

/// Why a knock or a request was refused. A value, never an error: strangers cause these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The same datagram again, as networks deliver some twice. It is ignored.
    Repeated,
    /// Not the next port of any sequence in progress. The source's quiet period starts.
    Wrong {
        /// The number of right knocks before it.
        after: u8,
    },
    /// Ignored: the source is in its quiet period, which starts again.
    Waiting,
    /// Ignored: the kernel drops packets from this source on this interface, so the source is forged.
    NotAccepted,
    /// The door does not exist, or the client may not open it.
    NotAllowed,
    /// The address is not one for which a grant can be made.
    Address(Ineligible),
}

/// The rules by which knocks and requests are judged.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The doors. Their names are unique.
    pub doors: Vec<Door>,
    /// A source that knocked wrong must be quiet for this long before its knocks count again.
    pub quiet_after_wrong: Duration,
    /// A source's progress expires this long after its last right knock.
    pub forget_after: Duration,
    /// The clients with a key, and the doors that each may open.
    pub clients: Arc<Clients>,
}

impl Rules {
    /// Finds a door by its name.
    #[must_use]
    pub fn door(&self, name: &DoorName) -> Option<&Door> {
        self.doors.iter().find(|door| door.name == *name)
    }

    /// A lease, shortened to what these rules permit; `None` if they do not permit it. Its door has to exist and, if a
    /// client asked for it, that client may open the door for this address, is not disabled, and its key has not expired. No lease lasts
    /// longer than one that the client would get now. A lease from a sequence or by hand stays permitted as long as its
    /// door exists.
    #[must_use]
    pub fn permit(&self, lease: Lease, now: Moment, wall: Wall) -> Option<Lease> {
        let GrantKey { door: name, source } = &lease.key;
        let door = self.door(name)?;
        let GrantedTo::Client(label) = &lease.granted_to else { return Some(lease) };
        let may_open = |client: &&Client| {
            client.doors.contains(name) && client.may_come_from(*source) && client.is_valid(wall)
        };
        let client = self.clients.find(label).filter(may_open)?;
        let latest = now.after(longest(door, client).min(client.time_left(wall)));
        // A clock that is set makes a difference that is none.
        let is_longer = lease.until > latest.after(EXTEND_AFTER);
        Some(if is_longer { Lease { until: latest, ..lease } } else { lease })
    }
}

/// The longest time for which this client may have this door open.
fn longest(door: &Door, client: &Client) -> Duration {
    client.max_open_for.map_or(door.max_open_for, |longest| longest.min(door.max_open_for))
}

/// Judges knocks and requests by the rules, and keeps the progress of every source.
#[derive(Clone, Debug)]
pub struct Access {
    rules: Rules,
    sequences: SequenceTrie,
    knockers: KnockerTable,
    own: Own,
}

impl Access {
    /// Starts to judge by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        let sequences = SequenceTrie::new(&rules.doors)?;
        Ok(Self { rules, sequences, knockers: KnockerTable::new(limits::KNOCKERS), own: Own::default() })
    }

    /// Replaces the rules.
    ///
    /// Knockers keep their progress if the sequences are unchanged. Otherwise all progress is dropped: it
    /// refers to nodes of the old trie.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart. Then the old rules stay in force.
    pub fn change_rules(&mut self, rules: Rules) -> Result<(), Conflict> {
        let sequences = SequenceTrie::new(&rules.doors)?;
        if sequences != self.sequences {
            self.knockers = KnockerTable::new(limits::KNOCKERS);
            self.sequences = sequences;
        }
        self.rules = rules;
        Ok(())
    }

    /// Sets the addresses of this machine and its networks. No grant is made for them.
    pub fn set_own_addresses(&mut self, own: Own) {
        self.own = own;
    }

    /// The addresses of this machine and its networks.
    #[must_use]
    pub fn own(&self) -> &Own {
        &self.own
    }

    /// Judges one knock.
    ///
    /// A forged knock, one that the kernel would drop, must not change the state of a source that the kernel
    /// would hear. A first knock cannot do that. So `routes` are asked only for a knock that came in by
    /// another way than the previous one from its source, and for one that completes a sequence.
    ///
    /// A source in its quiet period is refused before anything else is looked at, and is told nothing: a
    /// guess during the wait must not be worth more than no guess. The next port is checked before
    /// repetition, so a sequence may use the same port twice in a row.
    ///
    /// # Errors
    /// [`Refusal`] says why the knock is refused.
    pub fn judge(&mut self, knock: &Knock, now: Moment, routes: &mut dyn Routes) -> Result<Verdict, Refusal> {
        let known = self.known(knock, now, routes)?;
        if known.is_some_and(|knocker| knocker.waiting) {
            self.make_wait(knock, now);
            return Err(Refusal::Waiting);
        }
        let (node, last_port) =
            known.map_or((TrieNode::START, 0), |knocker| (knocker.node, knocker.last_port));
        match self.sequences.step(node, knock.port) {
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
                Ok(Verdict::Granted(Grant {
                    key,
                    link: knock.arrival.link,
                    open_for,
                    granted_to: GrantedTo::Sequence,
                    once,
                }))
            }
            None if last_port == knock.port => Err(Refusal::Repeated),
            None => {
                self.make_wait(knock, now);
                Err(Refusal::Wrong { after: self.sequences.depth(node) })
            }
        }
    }

    /// Judges a client's request to open a door. The request is known to be new and signed by that client.
    ///
    /// Does not distinguish a door that does not exist from one that the client may not open: a stolen key
    /// must not reveal which other doors there are.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] or [`Refusal::Address`].
    pub fn judge_request(
        &self,
        accepted: &Accepted,
        client: &Client,
        door: DoorId,
        wanted: Duration,
        way: WayBack,
        wall: Wall,
    ) -> Result<Grant, Refusal> {
        // It may have been disabled while the request waited for the disk.
        let door = self.door_of(client, door).filter(|_| client.is_valid(wall)).ok_or(Refusal::NotAllowed)?;
        let source = match accepted.request.address {
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
            // No grant outlives its client's key.
            open_for: wanted.min(longest(door, client)).min(client.time_left(wall)),
            granted_to: GrantedTo::Client(client.who.clone()),
            once: door.once,
        })
    }

    /// Judges the command of an administrator to open a door, by default for the door's own time. No sequence, key or
    /// maximum time is required; only an address that can never be let in is refused.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if there is no such door, or [`Refusal::Address`].
    pub fn judge_by_hand(
        &self,
        key: GrantKey,
        open_for: Option<Duration>,
        note: Note,
    ) -> Result<Grant, Refusal> {
        let door = self.rules.door(&key.door).ok_or(Refusal::NotAllowed)?;
        self.own.judge(key.source).map_err(Refusal::Address)?;
        Ok(Grant {
            key,
            link: Link::default(),
            open_for: open_for.unwrap_or(door.open_for),
            granted_to: GrantedTo::Administrator(note),
            once: door.once,
        })
    }

    /// Finds the door that a client names by its ID, if the client may open it.
    #[must_use]
    pub fn door_of(&self, client: &Client, door: DoorId) -> Option<&Door> {
        let name = client.doors.iter().find(|name| DoorId::of(name.as_str()) == door)?;
        self.rules.door(name)
    }

    /// The doors that a client may open, with the longest time for each.
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

    /// The recorded progress of the knock's source, leaving out what a forged knock recorded.
    fn known(&self, knock: &Knock, now: Moment, routes: &mut dyn Routes) -> Result<Option<Knocker>, Refusal> {
        match self.knockers.get(knock.source, now) {
            // The kernel's answer is the same for both, so there is no need to ask.
            Some(known) if known.arrival == knock.arrival => Ok(Some(known)),
            Some(_) if !routes.accept(knock.source, knock.arrival) => Err(Refusal::NotAccepted),
            Some(known) => Ok(routes.accept(knock.source, known.arrival).then_some(known)),
            None => Ok(None),
        }
    }

    fn remember(&mut self, knock: &Knock, node: TrieNode, now: Moment) {
        let until = now.after(self.rules.forget_after);
        let knocker = Knocker { node, last_port: knock.port, waiting: false, arrival: knock.arrival, until };
        self.knockers.put(knock.source, knocker, self.sequences.depth(node), now);
    }

    fn make_wait(&mut self, knock: &Knock, now: Moment) {
        let until = now.after(self.rules.quiet_after_wrong);
        let arrival = knock.arrival;
        let knocker = Knocker { node: TrieNode::START, last_port: 0, waiting: true, arrival, until };
        self.knockers.put(knock.source, knocker, 0, now);
    }
}
