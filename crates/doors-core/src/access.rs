//! Judges knocks. The only place where a [`Grant`] is made.

use core::{net::IpAddr, time::Duration};

use alloc::vec::Vec;

use crate::{
    door::{Admission, Door},
    knock::Knock,
    knockers::{Knocker, Knockers},
    limits,
    packet::Link,
    sequences::{Conflict, Place, Sequences, Step},
    time::Moment,
};

/// Permission for one address to use one door for a while.
///
/// There is no constructor: the only way to hold a `Grant` is to get one from [`Access::judge`]. A
/// function that takes a `Grant` has nothing left to check.
#[derive(Debug, Eq, PartialEq)]
#[must_use = "a dropped grant opens nothing"]
pub struct Grant {
    admission: Admission,
    link: Link,
    open_for: Duration,
}

impl Grant {
    /// Takes the grant apart: for whom, where its knocks came in, and for how long.
    pub fn redeem(self) -> (Admission, Link, Duration) {
        (self.admission, self.link, self.open_for)
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
}

/// Who has knocked what, and what that gives.
#[derive(Clone, Debug)]
pub struct Access {
    rules: Rules,
    sequences: Sequences,
    knockers: Knockers,
}

impl Access {
    /// Judges by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        let sequences = Sequences::new(&rules.doors)?;
        Ok(Self { rules, sequences, knockers: Knockers::new(limits::KNOCKERS) })
    }

    /// Judges by other `rules` from here on.
    ///
    /// Knockers keep their progress if the sequences are the same; else they are forgotten, since
    /// their progress means nothing any more.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart; then nothing has changed.
    pub fn change_rules(&mut self, rules: Rules) -> Result<(), Conflict> {
        let sequences = Sequences::new(&rules.doors)?;
        if sequences != self.sequences {
            self.knockers = Knockers::new(limits::KNOCKERS);
            self.sequences = sequences;
        }
        self.rules = rules;
        Ok(())
    }

    /// Judges one knock.
    ///
    /// A source that waits is refused before anything else is looked at, and told nothing: a guess
    /// made during the wait must not be worth more than none. The next port counts before the
    /// repetition, so that a sequence may hold the same port twice in a row.
    ///
    /// # Errors
    /// [`Refusal`] says why the knock gives nothing.
    pub fn judge(&mut self, knock: &Knock, now: Moment) -> Result<Verdict, Refusal> {
        let known = self.knockers.get(knock.source, now);
        if known.is_some_and(|knocker| knocker.waiting) {
            self.make_wait(knock.source, now);
            return Err(Refusal::Waiting);
        }
        let (place, last_port) =
            known.map_or((Place::START, 0), |knocker| (knocker.place, knocker.last_port));
        match self.sequences.step(place, knock.port) {
            Some(&Step::On(next)) => {
                self.remember(knock, next, now);
                Ok(Verdict::Further { right: self.sequences.depth(next) })
            }
            Some(Step::Opens(name)) => {
                let admission = Admission { door: name.clone(), source: knock.source };
                let open_for = self.open_for(&admission);
                self.remember(knock, Place::START, now);
                Ok(Verdict::Granted(Grant { admission, link: knock.link, open_for }))
            }
            None if last_port == knock.port => Err(Refusal::Repeated),
            None => {
                self.make_wait(knock.source, now);
                Err(Refusal::Wrong { after: self.sequences.depth(place) })
            }
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The table of knockers.
    #[must_use]
    pub fn knockers(&self) -> &Knockers {
        &self.knockers
    }

    fn open_for(&self, admission: &Admission) -> Duration {
        let door = self.rules.doors.iter().find(|door| door.name == admission.door);
        door.map_or(Duration::ZERO, |door| door.open_for)
    }

    fn remember(&mut self, knock: &Knock, place: Place, now: Moment) {
        let until = now.after(self.rules.forget_after);
        let knocker = Knocker { place, last_port: knock.port, waiting: false, until };
        self.knockers.put(knock.source, knocker, self.sequences.depth(place), now);
    }

    fn make_wait(&mut self, source: IpAddr, now: Moment) {
        let until = now.after(self.rules.quiet_after_wrong);
        let knocker = Knocker { place: Place::START, last_port: 0, waiting: true, until };
        self.knockers.put(source, knocker, 0, now);
    }
}
