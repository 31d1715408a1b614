//! The whole system as one value.

use alloc::collections::VecDeque;
use core::{net::IpAddr, time::Duration};

use crate::{
    access::{Access, Grant, Refusal, Rules, Verdict},
    door::Admission,
    doors::{Doors, Opening},
    knock::Knock,
    packet::{Link, Packet},
    sequences::Conflict,
    throttle::Throttle,
    time::Moment,
};

/// What the firewall has to make true.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// Let this source in until then; the firewall closes the door by itself.
    Open {
        /// Which door for whom.
        admission: Admission,
        /// The interface on which the knocks came.
        link: Link,
        /// When it closes.
        until: Moment,
    },
    /// Close the door now.
    Close {
        /// Which door for whom.
        admission: Admission,
    },
}

/// What the firewall has to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Report {
    /// The latest [`Change::Open`] for this is true.
    Done {
        /// Which door for whom.
        admission: Admission,
    },
    /// The firewall already lets this source in.
    Found {
        /// Which door for whom.
        admission: Admission,
        /// When the firewall closes it.
        until: Moment,
    },
}

/// What happened, for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A sequence is complete, and the firewall has been asked.
    Granted(Admission),
    /// The firewall has opened the door.
    Opened {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
    },
    /// The firewall keeps an open door open for longer.
    Extended {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
    },
    /// The door was open before this program started, and is taken over.
    Adopted {
        /// Which door for whom.
        admission: Admission,
        /// When it closes.
        until: Moment,
    },
    /// The door has closed.
    Closed(Admission),
    /// The time of a grant is over, and the firewall never made it true.
    NeverOpened(Admission),
    /// A source is one knock further.
    Further {
        /// The source, which may be forged.
        source: IpAddr,
        /// How many knocks were right.
        right: u8,
    },
    /// A source knocked while it had to be quiet; its time begins anew.
    Waiting {
        /// The source, which may be forged.
        source: IpAddr,
    },
    /// A source knocked wrong and has to be quiet.
    Wrong {
        /// The source, which may be forged.
        source: IpAddr,
        /// The port on which it knocked.
        port: u16,
        /// How many knocks had been right.
        after: u8,
        /// How long it has to be quiet.
        quiet: Duration,
    },
    /// So many other sources knocked wrong since the last such line.
    MoreWrong(u64),
    /// A sequence was complete, but too many grants run.
    NoRoom(Admission),
}

/// Hears knocks, judges them, and says which doors to open and close.
///
/// Feed it with the `handle_*` methods. After each call, drain `poll_change` and `poll_event`, then
/// sleep until `next_deadline` or the next packet. Moments must never go backwards.
///
/// ```text
///   packet ──► handle_packet ──►┐            ┌──► poll_change ──► firewall
///   report ──► handle_report ──►│ Doorkeeper │                       │
///    clock ──► handle_timeout ─►┘            └──► poll_event ──► log │
///      ▲                                                             │
///      └───────────────────── report ◄───────────────────────────────┘
/// ```
#[derive(Clone, Debug)]
pub struct Doorkeeper {
    access: Access,
    doors: Doors,
    throttle: Throttle,
    /// For what only somebody who looks for a fault wants to know.
    traces: Throttle,
    changes: VecDeque<Change>,
    events: VecDeque<Event>,
}

impl Doorkeeper {
    /// Judges by `rules`.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart.
    pub fn new(rules: Rules) -> Result<Self, Conflict> {
        Ok(Self {
            access: Access::new(rules)?,
            doors: Doors::default(),
            throttle: Throttle::default(),
            traces: Throttle::default(),
            changes: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// Takes one packet from the network.
    pub fn handle_packet(&mut self, packet: &Packet<'_>, now: Moment) {
        let Some(knock) = Knock::parse(packet) else { return };
        // A door whose time is over must be told as closed before it opens again.
        self.handle_timeout(now);
        match self.access.judge(&knock, now) {
            Ok(Verdict::Granted(grant)) => self.admit(grant, now),
            Ok(Verdict::Further { right }) => {
                self.trace(Event::Further { source: knock.source, right }, now);
            }
            Err(Refusal::Waiting) => self.trace(Event::Waiting { source: knock.source }, now),
            Err(Refusal::Repeated) => {}
            Err(Refusal::Wrong { after }) => {
                if self.throttle.admit(now) {
                    let quiet = self.access.rules().quiet_after_wrong;
                    let event = Event::Wrong { source: knock.source, port: knock.port, after, quiet };
                    self.events.push_back(event);
                }
            }
        }
    }

    /// Takes what the firewall says.
    pub fn handle_report(&mut self, report: Report, now: Moment) {
        match report {
            Report::Done { admission } => {
                let Some(news) = self.doors.confirm(&admission) else { return };
                let until = self.until(&admission).unwrap_or(now);
                self.events.push_back(match news {
                    true => Event::Opened { admission, until },
                    false => Event::Extended { admission, until },
                });
            }
            Report::Found { admission, until } => {
                if self.door_exists(&admission) {
                    self.doors.adopt(admission.clone(), until);
                    self.events.push_back(Event::Adopted { admission, until });
                } else {
                    self.changes.push_back(Change::Close { admission });
                }
            }
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some((admission, running)) = self.doors.expire(now) {
            self.events.push_back(match running.confirmed {
                true => Event::Closed(admission),
                false => Event::NeverOpened(admission),
            });
        }
        if let Some(untold) = self.throttle.sum(now) {
            self.events.push_back(Event::MoreWrong(untold));
        }
    }

    /// Judges by other `rules` from here on. Doors that are gone close, the others stay.
    ///
    /// # Errors
    /// [`Conflict`] if two sequences cannot be told apart; then nothing has changed.
    pub fn change_rules(&mut self, rules: Rules) -> Result<(), Conflict> {
        self.access.change_rules(rules)?;
        let doors = &self.access.rules().doors;
        while let Some((admission, running)) =
            self.doors.evict(|name| doors.iter().any(|door| door.name == *name))
        {
            if running.confirmed {
                self.events.push_back(Event::Closed(admission.clone()));
            }
            self.changes.push_back(Change::Close { admission });
        }
        Ok(())
    }

    /// Says once more what has to be true: another firewall makes it so from here on.
    pub fn restate(&mut self) {
        self.doors.doubt();
        for (admission, running) in self.doors.iter() {
            self.changes.push_back(Change::Open {
                admission: admission.clone(),
                link: running.link,
                until: running.until,
            });
        }
    }

    /// The next thing that the firewall has to make true.
    pub fn poll_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; `None` if never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        [self.doors.next_end(), self.throttle.next_sum()].into_iter().flatten().min()
    }

    /// Who is in.
    #[must_use]
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// The rules, and who has knocked.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    fn admit(&mut self, grant: Grant, now: Moment) {
        match self.doors.open(grant, now) {
            Opening::Changed(admission, running) => {
                self.events.push_back(Event::Granted(admission.clone()));
                self.changes.push_back(Change::Open { admission, link: running.link, until: running.until });
            }
            Opening::JustNow(_) => {}
            Opening::Full(admission) => {
                if self.throttle.admit(now) {
                    self.events.push_back(Event::NoRoom(admission));
                }
            }
        }
    }

    /// Tells a detail, if not too many were told of late. What is left out is not counted.
    fn trace(&mut self, event: Event, now: Moment) {
        if self.traces.admit(now) {
            self.events.push_back(event);
        }
    }

    fn until(&self, admission: &Admission) -> Option<Moment> {
        self.doors.get(admission).map(|running| running.until)
    }

    fn door_exists(&self, admission: &Admission) -> bool {
        self.access.rules().doors.iter().any(|door| door.name == admission.door)
    }
}
