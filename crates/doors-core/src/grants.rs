//! Who is in, and until when.

use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use crate::{
    access::{Grant, Redeemed},
    door::GrantKey,
    limits,
    packet::Link,
    spa::client::ClientLabel,
    time::Moment,
};

/// A grant that runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Running {
    /// When the door closes for this source.
    pub until: Moment,
    /// The interface on which the knocks came.
    pub link: Link,
    /// Whether the firewall has said that it is so.
    pub confirmed: bool,
    /// Whose key it was last; `None` for a sequence, and for one from before this program started of which
    /// nobody knows.
    pub by: Option<ClientLabel>,
    /// Whether others have asked for it, too: then it is nobody's to close.
    pub shared: bool,
    /// Whether it was there before this program started.
    pub adopted: bool,
    /// Grants for one connection of other clients, behind the same address: the firewall holds one at a time, so
    /// each begins when the one before it is used up or over.
    pub behind: VecDeque<Behind>,
}

/// A grant for one connection that begins when another's is over.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Behind {
    /// Whose key it was.
    pub by: ClientLabel,
    /// The interface on which the knock came.
    pub link: Link,
    /// When it ends.
    pub until: Moment,
}

/// What a grant changes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// The firewall has to know.
    Changed(GrantKey, Running),
    /// The door is open, and stays so no longer for this. If another has opened it, who has asked for it now.
    Unchanged(GrantKey, Option<ClientLabel>),
    /// It is for one connection, and another client's comes first. Whose this is, and until when it lasts.
    Behind(GrantKey, ClientLabel, Moment),
    /// [`limits::GRANTS`] run, or [`limits::GRANTS_BY_SEQUENCE`], or [`limits::GRANTS_PER_CLIENT`] for this
    /// client.
    Full(GrantKey),
}

impl Running {
    fn new(by: Option<ClientLabel>, link: Link, until: Moment) -> Self {
        Self { until, link, confirmed: false, by, shared: false, adopted: false, behind: VecDeque::new() }
    }

    /// Whose share it is in, and those that are behind it.
    fn shares(&self) -> impl Iterator<Item = Option<ClientLabel>> {
        let behind = self.behind.iter().map(|behind| Some(behind.by.clone()));
        [self.by.clone()].into_iter().chain(behind)
    }
}

/// All grants that run.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    running: BTreeMap<GrantKey, Running>,
    by_end: BTreeSet<(Moment, GrantKey)>,
    /// How many run by each client or are behind another's, and how many run by none.
    shares: BTreeMap<Option<ClientLabel>, usize>,
}

impl Grants {
    /// Opens a door, or keeps it open for longer; never for shorter.
    pub fn open(&mut self, grant: Grant, now: Moment) -> Opening {
        let Redeemed { admission, link, open_for, by, once } = grant.redeem();
        let mut running = Running::new(by, link, now.after(open_for));
        if once
            && let Some(by) = &running.by
            && self.running.get(&admission).is_some_and(|old| old.by != running.by)
        {
            let behind = Behind { by: by.clone(), link, until: running.until };
            return match self.put_behind(&admission, behind) {
                true => Opening::Behind(admission, by.clone(), running.until),
                false => Opening::Full(admission),
            };
        }
        if let Some(old) = self.running.get_mut(&admission) {
            old.shared |= old.by != running.by;
            running.shared = old.shared;
            running.behind = old.behind.clone();
        }
        match self.running.get(&admission) {
            // Whoever has a key may need a new grant at once: the one before may be used up.
            Some(old) if once && running.by.is_some() => {
                running.confirmed = old.confirmed;
                // Never the same as the one before, so that news of that one are not taken for this one's.
                if running.until == old.until {
                    running.until = old.until.after(Duration::from_millis(1));
                }
            }
            Some(old) if running.until < old.until.after(limits::EXTEND_AFTER) => {
                let also = if old.by == running.by { None } else { running.by };
                return Opening::Unchanged(admission, also);
            }
            // Whoever takes over another's grant takes it into its own share.
            Some(old) if old.by != running.by && self.is_full_for(running.by.as_ref()) => {
                return Opening::Full(admission);
            }
            Some(old) => running.confirmed = old.confirmed,
            None if self.is_full_for(running.by.as_ref()) => return Opening::Full(admission),
            None => {}
        }
        self.insert(admission.clone(), running.clone());
        Opening::Changed(admission, running)
    }

    /// Takes over a grant that the firewall already holds, from before this program started. Says whether
    /// there was room; if not, the firewall ends it all the same, and nobody hears of it.
    pub fn adopt(&mut self, admission: GrantKey, until: Moment, by: Option<ClientLabel>) -> bool {
        // Whose grants these are was settled before, so that only the room for all of them counts.
        let has_room = self.running.len() < limits::GRANTS || self.running.contains_key(&admission);
        if has_room {
            let known = self.running.get(&admission);
            let link = known.map_or(Link::default(), |running| running.link);
            // Whose it is to close was settled when it was opened.
            let (shared, adopted) = known.map_or((false, true), |running| (running.shared, running.adopted));
            let behind = known.map(|running| running.behind.clone()).unwrap_or_default();
            self.insert(admission, Running { until, link, confirmed: true, by, shared, adopted, behind });
        }
        has_room
    }

    /// Notes that the firewall has made the grant true. Says whether that is news: `false` if the door
    /// was open before, `None` if no such grant runs.
    pub fn confirm(&mut self, admission: &GrantKey) -> Option<bool> {
        let running = self.running.get_mut(admission)?;
        Some(!core::mem::replace(&mut running.confirmed, true))
    }

    /// Takes out one grant whose time is over at `now`.
    pub fn expire(&mut self, now: Moment) -> Option<(GrantKey, Running)> {
        let (until, _) = self.by_end.first()?;
        if *until > now {
            return None;
        }
        let (_, admission) = self.by_end.pop_first()?;
        let running = self.remove(&admission)?;
        Some((admission, running))
    }

    /// Takes out the grants that are not to be kept.
    pub fn evict(&mut self, keep: impl Fn(&GrantKey, &Running) -> bool) -> Vec<(GrantKey, Running)> {
        let evicted: Vec<GrantKey> = self
            .iter()
            .filter(|(admission, running)| !keep(admission, running))
            .map(|(admission, _)| admission.clone())
            .collect();
        evicted
            .into_iter()
            .filter_map(|admission| self.close(&admission).map(|running| (admission, running)))
            .collect()
    }

    /// Takes out the grant for this door and source.
    pub fn close(&mut self, admission: &GrantKey) -> Option<Running> {
        let running = self.remove(admission)?;
        self.by_end.remove(&(running.until, admission.clone()));
        Some(running)
    }

    /// Takes out the grant of a client that is behind another's. Says whether there was one.
    pub fn leave(&mut self, admission: &GrantKey, who: &ClientLabel) -> bool {
        let Some(running) = self.running.get_mut(admission) else { return false };
        let before = running.behind.len();
        running.behind.retain(|behind| behind.by != *who);
        let left = running.behind.len() < before;
        if left {
            self.give_back(&Some(who.clone()));
        }
        left
    }

    /// Puts a grant behind the one that runs. Says whether there is room.
    fn put_behind(&mut self, admission: &GrantKey, new: Behind) -> bool {
        let by = Some(new.by.clone());
        let is_full = self.is_full_for(by.as_ref());
        let Some(running) = self.running.get_mut(admission) else { return false };
        if let Some(old) = running.behind.iter_mut().find(|old| old.by == new.by) {
            *old = new;
            return true;
        }
        let has_room = !is_full && running.behind.len() < limits::BEHIND_ONE_ADDRESS;
        if has_room {
            running.behind.push_back(new);
            self.take_share(by);
        }
        has_room
    }

    /// Begins the next grant for one connection that was behind this one, which is over. Those of clients that are
    /// not `known` any more are left out.
    pub fn next_behind(
        &mut self,
        admission: &GrantKey,
        over: Running,
        now: Moment,
        known: impl Fn(&ClientLabel) -> bool,
    ) -> Option<Running> {
        let mut behind = over.behind;
        behind.retain(|next| next.until > now && known(&next.by));
        let Behind { by, link, until } = behind.pop_front()?;
        let running = Running { behind, ..Running::new(Some(by), link, until) };
        self.insert(admission.clone(), running.clone());
        Some(running)
    }

    /// When the next grant ends.
    #[must_use]
    pub fn next_end(&self) -> Option<Moment> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// The grant that runs for this door and source, if one does.
    #[must_use]
    pub fn get(&self, admission: &GrantKey) -> Option<&Running> {
        self.running.get(admission)
    }

    /// The grants that run.
    pub fn iter(&self) -> impl Iterator<Item = (&GrantKey, &Running)> {
        self.running.iter()
    }

    fn is_full_for(&self, by: Option<&ClientLabel>) -> bool {
        let share = match by {
            Some(_) => limits::GRANTS_PER_CLIENT,
            None => limits::GRANTS_BY_SEQUENCE,
        };
        let taken = self.shares.get(&by.cloned()).copied().unwrap_or_default();
        self.running.len() >= limits::GRANTS || taken >= share
    }

    fn insert(&mut self, admission: GrantKey, running: Running) {
        let until = running.until;
        running.shares().for_each(|by| self.take_share(by));
        if let Some(old) = self.running.insert(admission.clone(), running) {
            self.by_end.remove(&(old.until, admission.clone()));
            old.shares().for_each(|by| self.give_back(&by));
        }
        self.by_end.insert((until, admission));
    }

    fn remove(&mut self, admission: &GrantKey) -> Option<Running> {
        let running = self.running.remove(admission)?;
        running.shares().for_each(|by| self.give_back(&by));
        Some(running)
    }

    fn take_share(&mut self, by: Option<ClientLabel>) {
        let taken = self.shares.entry(by).or_default();
        *taken = taken.saturating_add(1);
    }

    fn give_back(&mut self, by: &Option<ClientLabel>) {
        if let Some(taken) = self.shares.get_mut(by) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                self.shares.remove(by);
            }
        }
    }
}
