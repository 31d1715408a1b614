//! What the control interface asks the daemon's loop for. Each request has its own answer; one whose receiver is gone is
//! not waited for.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use doors_core::{
    door::GrantKey,
    engine::{NotOpened, Report},
    grants::LiveGrant,
    lease::Note,
    spa::client::Clients,
    time::Moment,
};
use tokio::sync::{mpsc, oneshot};

use super::interface::{Failure, ReloadReply, Status, Which};
use crate::observe::watch::{Seen, Watched};

/// How many open doors one answer has at most, so that it takes the loop well under a millisecond.
pub(crate) const GRANTS_AT_ONCE: usize = 100;

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<T>;

/// When a door that was opened by hand closes, or why it was not opened.
pub(crate) type OpenAnswer = Answer<Result<Moment, NotOpened>>;

/// Answers a request. A receiver that is gone has waited too long, and has been told so.
pub(crate) fn tell<T>(answer: Answer<T>, what: T) {
    let _ = answer.send(what);
}

/// One request. `user` is who asks, for the log.
#[derive(Debug)]
pub(crate) enum Request {
    /// What runs, and how it is.
    Status(Answer<Box<Status>>),
    /// The open doors behind this one, at most [`GRANTS_AT_ONCE`].
    Grants(Option<GrantKey>, Answer<Vec<LiveGrant>>),
    /// The clients with a key.
    Clients(Answer<Arc<Clients>>),
    /// Open a door. The answer comes when the firewall has done it.
    Open {
        /// Who asks.
        user: u32,
        /// The door and the address.
        key: GrantKey,
        /// For how long.
        open_for: Option<Duration>,
        /// Why.
        note: Note,
        /// When it closes.
        answer: OpenAnswer,
    },
    /// Close doors.
    Close {
        /// Who asks.
        user: u32,
        /// Which.
        which: Which,
        /// End the connections of these addresses to these doors, too: the answer says how many there were, or why not.
        cut: Option<Answer<Result<usize, String>>>,
        /// How many, when the firewall has done it.
        answer: Answer<Result<usize, Failure>>,
    },
    /// Read the configuration again. The answer comes when it is in force, or says why it is not.
    Reload(u32, Answer<Result<ReloadReply, String>>),
    /// Tell what happens, from the answer on. The answer says whether there is room for one more who watches.
    Watch {
        /// Whether root asks.
        is_root: bool,
        /// What to tell.
        watched: Watched,
        /// Where to.
        queue: mpsc::Sender<Seen>,
        /// Whether there is room.
        answer: Answer<bool>,
    },
}

/// Doors that are being closed, part by part.
#[derive(Debug)]
pub(crate) struct Close {
    /// Which.
    pub(crate) which: Which,
    /// Whether the part to come is the first.
    pub(crate) is_first: bool,
    /// Those that have been closed.
    pub(crate) ended: Vec<GrantKey>,
    /// Those that the firewall was asked to close, and has not reported.
    pub(crate) asked: BTreeSet<GrantKey>,
    /// Those whose lease it was asked to replace, and has not reported.
    pub(crate) replaced: BTreeSet<GrantKey>,
    /// Where it goes how many connections were ended, if they are to be.
    pub(crate) cut: Option<Answer<Result<usize, String>>>,
    /// Where it goes how many doors were closed.
    pub(crate) answer: Answer<Result<usize, Failure>>,
}

impl Close {
    /// Notes what the firewall reports of the parts before, while others are still to come.
    pub(crate) fn note(&mut self, report: &Report) {
        if let Report::Closed(key) = report {
            self.asked.remove(key);
        }
        if let Report::Closed(key) | Report::Done(key) = report {
            self.replaced.remove(key);
        }
    }
}

/// Requests that wait until the firewall has done something.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    opens: Vec<(GrantKey, Moment, OpenAnswer)>,
    closes: Vec<Closing>,
}

/// Doors that the firewall has been asked to close.
#[derive(Debug)]
struct Closing {
    count: usize,
    /// Those that it has not reported; and whether a report that the door is open for others is enough.
    left: BTreeMap<GrantKey, bool>,
    answer: Answer<Result<usize, Failure>>,
}

impl Unconfirmed {
    /// The door has been asked to be open until then.
    pub(crate) fn opens(&mut self, key: GrantKey, until: Moment, answer: OpenAnswer) {
        self.prune();
        self.opens.push((key, until, answer));
    }

    /// `count` doors have been closed. The answer waits for the firewall, which has been asked to close and to replace these.
    pub(crate) fn closes(
        &mut self,
        count: usize,
        asked: BTreeSet<GrantKey>,
        replaced: BTreeSet<GrantKey>,
        answer: Answer<Result<usize, Failure>>,
    ) {
        self.prune();
        let replaced = replaced.into_iter().map(|key| (key, true));
        let left = replaced.chain(asked.into_iter().map(|key| (key, false))).collect();
        self.closes.push(Closing { count, left, answer });
        self.answer_closes();
    }

    /// The doors that the firewall has been asked to close, and has not.
    pub(crate) fn closing(&self) -> impl Iterator<Item = &GrantKey> {
        self.closes.iter().flat_map(|closing| closing.left.keys())
    }

    /// Who has waited too long has been told so.
    fn prune(&mut self) {
        self.opens.retain(|(.., answer)| !answer.is_closed());
        self.closes.retain(|closing| !closing.answer.is_closed());
    }

    /// Answers the requests that a report of the firewall completes.
    pub(crate) fn note(&mut self, report: &Report) {
        match report {
            Report::Done(key) => {
                for (_, until, answer) in self.opens.extract_if(.., |(opened, ..)| opened == key) {
                    tell(answer, Ok(until));
                }
                for closing in &mut self.closes {
                    if closing.left.get(key) == Some(&true) {
                        closing.left.remove(key);
                    }
                }
                self.answer_closes();
            }
            Report::Closed(key) => {
                for closing in &mut self.closes {
                    closing.left.remove(key);
                }
                self.answer_closes();
            }
            Report::Found(_) | Report::Used(_) | Report::Lost(_) | Report::Withdrawn(_) => {}
        }
    }

    fn answer_closes(&mut self) {
        for closing in self.closes.extract_if(.., |closing| closing.left.is_empty()) {
            tell(closing.answer, Ok(closing.count));
        }
    }
}

#[cfg(test)]
mod tests {
    use doors_core::door::DoorName;

    use super::*;

    fn key(number: u8) -> GrantKey {
        GrantKey { door: DoorName::new("ssh").unwrap(), source: [192, 0, 2, number].into() }
    }

    #[test]
    fn a_request_is_answered_when_the_firewall_has_done_all_of_it() {
        let mut unconfirmed = Unconfirmed::default();
        let (opened, mut open) = oneshot::channel();
        unconfirmed.opens(key(1), Moment::new(Duration::from_secs(9)), opened);
        let (closed, mut close) = oneshot::channel();
        unconfirmed.closes(5, [key(2), key(3)].into(), [key(4), key(5)].into(), closed);
        let (nothing, mut none) = oneshot::channel();
        unconfirmed.closes(0, BTreeSet::new(), BTreeSet::new(), nothing);
        assert_eq!(none.try_recv(), Ok(Ok(0)));
        assert_eq!(unconfirmed.closing().count(), 4);
        for report in [
            Report::Done(key(2)),
            Report::Closed(key(1)),
            Report::Closed(key(2)),
            Report::Done(key(4)),
            Report::Closed(key(5)),
        ] {
            unconfirmed.note(&report);
            open.try_recv().unwrap_err();
            close.try_recv().unwrap_err();
        }
        unconfirmed.note(&Report::Closed(key(3)));
        unconfirmed.note(&Report::Done(key(1)));
        assert_eq!(close.try_recv(), Ok(Ok(5)));
        assert_eq!(open.try_recv(), Ok(Ok(Moment::new(Duration::from_secs(9)))));
        assert!(unconfirmed.opens.is_empty() && unconfirmed.closes.is_empty());
    }

    #[test]
    fn a_request_that_nobody_waits_for_any_more_takes_no_room() {
        let mut unconfirmed = Unconfirmed::default();
        for number in 0..100 {
            unconfirmed.opens(key(number), Moment::default(), oneshot::channel().0);
            unconfirmed.closes(1, [key(number)].into(), BTreeSet::new(), oneshot::channel().0);
        }
        assert!(
            unconfirmed.opens.len() < 2 && unconfirmed.closes.len() < 2,
            "also if the firewall never reports"
        );
    }
}
