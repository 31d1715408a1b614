//! What the control interface asks the daemon's loop for. Each request has its own answer; one whose receiver is gone is
//! not waited for.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use doors_core::{
    door::GrantKey,
    engine::{NotOpened, Report},
    grants::LiveGrant,
    lease::Note,
    spa::client::Clients,
    time::Moment,
};
use tokio::sync::{mpsc, oneshot};

use super::interface::{ReloadReply, Status, Which};
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

/// One request.
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
        /// The door and the address.
        key: GrantKey,
        /// For how long.
        open_for: Option<Duration>,
        /// Why.
        note: Note,
        /// When it closes.
        answer: OpenAnswer,
    },
    /// Close doors. The answer comes when the firewall has done it: which.
    Close(Which, Answer<Vec<GrantKey>>),
    /// End the connections of these addresses to these doors. The answer says how many there were, or why not.
    Cut(Vec<GrantKey>, Answer<Result<usize, String>>),
    /// Read the configuration again. The answer comes when it is in force, or says why it is not.
    Reload(Answer<Result<ReloadReply, String>>),
    /// Tell what happens, from the answer on.
    Watch(Watched, mpsc::Sender<Seen>, Answer<()>),
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
    all: Vec<GrantKey>,
    /// Those that it has not reported.
    left: BTreeSet<GrantKey>,
    answer: Answer<Vec<GrantKey>>,
}

impl Unconfirmed {
    /// The door has been asked to be open until then.
    pub(crate) fn opens(&mut self, key: GrantKey, until: Moment, answer: OpenAnswer) {
        self.opens.push((key, until, answer));
    }

    /// These have been asked to be closed.
    pub(crate) fn closes(&mut self, all: Vec<GrantKey>, answer: Answer<Vec<GrantKey>>) {
        let left = all.iter().cloned().collect();
        self.closes.push(Closing { all, left, answer });
        self.answer_closes();
    }

    /// Answers the requests that a report of the firewall completes.
    pub(crate) fn note(&mut self, report: &Report) {
        match report {
            Report::Done(key) => {
                for (_, until, answer) in self.opens.extract_if(.., |(opened, ..)| opened == key) {
                    tell(answer, Ok(until));
                }
            }
            Report::Closed(key) => {
                for closing in &mut self.closes {
                    closing.left.remove(key);
                }
                self.answer_closes();
            }
            Report::Found(_) | Report::Used(_) | Report::Lost(_) | Report::Withdrawn(_) => {}
        }
        // Who has waited too long has been told so.
        self.opens.retain(|(.., answer)| !answer.is_closed());
        self.closes.retain(|closing| !closing.answer.is_closed());
    }

    fn answer_closes(&mut self) {
        for closing in self.closes.extract_if(.., |closing| closing.left.is_empty()) {
            tell(closing.answer, closing.all);
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
        unconfirmed.closes(vec![key(2), key(3)], closed);
        let (nothing, mut none) = oneshot::channel();
        unconfirmed.closes(Vec::new(), nothing);
        assert_eq!(none.try_recv(), Ok(Vec::new()));
        for report in [Report::Done(key(2)), Report::Closed(key(1)), Report::Closed(key(2))] {
            unconfirmed.note(&report);
            open.try_recv().unwrap_err();
            close.try_recv().unwrap_err();
        }
        unconfirmed.note(&Report::Closed(key(3)));
        unconfirmed.note(&Report::Done(key(1)));
        assert_eq!(close.try_recv(), Ok(vec![key(2), key(3)]));
        assert_eq!(open.try_recv(), Ok(Ok(Moment::new(Duration::from_secs(9)))));
        assert!(unconfirmed.opens.is_empty() && unconfirmed.closes.is_empty());
    }

    #[test]
    fn a_request_that_nobody_waits_for_any_more_takes_no_room() {
        let mut unconfirmed = Unconfirmed::default();
        for number in 0..100 {
            unconfirmed.opens(key(number), Moment::default(), oneshot::channel().0);
            unconfirmed.closes(vec![key(number)], oneshot::channel().0);
        }
        unconfirmed.note(&Report::Closed(key(200)));
        assert!(unconfirmed.opens.is_empty() && unconfirmed.closes.is_empty());
    }
}
