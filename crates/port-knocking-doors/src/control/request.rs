//! What the control interface asks the daemon's loop for. Each request has its own answer; one whose receiver is gone is
//! not waited for.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use doors_core::{
    door::GrantKey, engine::Report, grants::LiveGrant, lease::Note, spa::client::Clients, time::Moment,
};
use tokio::sync::{mpsc, oneshot};
use tracing::level_filters::LevelFilter;

use super::interface::{Failure, ReloadReply, Status, Which};
use crate::observe::watch::{Seen, Watched};

/// How many open doors one answer has at most, so that it takes the loop well under a millisecond.
pub(crate) const GRANTS_AT_ONCE: usize = 100;

/// Where an answer goes.
pub(crate) type Answer<T> = oneshot::Sender<T>;

/// When a door that was opened by hand closes, or why it was not opened.
pub(crate) type OpenAnswer = Answer<Result<Moment, Failure>>;

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
    /// Log at another level, for so long.
    SetLevel {
        /// Who asks.
        user: u32,
        /// The level.
        level: LevelFilter,
        /// After which time the level of the start is back; never for `None`.
        back_after: Option<Duration>,
        /// It is done.
        answer: Answer<()>,
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

/// Doors that are being closed, part by part, until the firewall has confirmed all of them.
#[derive(Debug)]
pub(crate) struct Close {
    /// Which.
    pub(crate) which: Which,
    /// Those that have been closed.
    pub(crate) ended: Vec<GrantKey>,
    /// Those that the firewall has not reported; and whether a report that the door is open for others is enough.
    pub(crate) left: BTreeMap<GrantKey, bool>,
    /// Every part has been closed.
    pub(crate) is_whole: bool,
    /// Where it goes how many connections were ended, if they are to be.
    pub(crate) cut: Option<Answer<Result<usize, String>>>,
    /// Where it goes how many doors were closed.
    pub(crate) answer: Answer<Result<usize, Failure>>,
}

impl Close {
    /// Nothing is closed yet.
    pub(crate) fn new(
        which: Which,
        cut: Option<Answer<Result<usize, String>>>,
        answer: Answer<Result<usize, Failure>>,
    ) -> Self {
        Self { which, ended: Vec::new(), left: BTreeMap::new(), is_whole: false, cut, answer }
    }
}

/// Requests that wait until the firewall has done something.
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    opens: Vec<(GrantKey, Moment, OpenAnswer)>,
    closes: Vec<Close>,
}

impl Unconfirmed {
    /// The door has been asked to be open until then.
    pub(crate) fn opens(&mut self, key: GrantKey, until: Moment, answer: OpenAnswer) {
        self.prune();
        self.opens.push((key, until, answer));
    }

    /// Doors have been asked to be closed.
    pub(crate) fn closes(&mut self, close: Close) {
        self.prune();
        self.closes.push(close);
        self.answer_closes();
    }

    /// One of which a part is still to be closed. It has to be given back.
    pub(crate) fn take_unfinished(&mut self) -> Option<Close> {
        let at = self.closes.iter().position(|close| !close.is_whole)?;
        Some(self.closes.remove(at))
    }

    /// Whether there is one of which a part is still to be closed.
    pub(crate) fn has_unfinished(&self) -> bool {
        self.closes.iter().any(|close| !close.is_whole)
    }

    /// The doors that the firewall has been asked to close, and has not.
    pub(crate) fn closing(&self) -> impl Iterator<Item = &GrantKey> {
        self.closes.iter().flat_map(|close| close.left.keys())
    }

    /// Who has waited too long has been told so. What has begun is done to its end.
    fn prune(&mut self) {
        self.opens.retain(|(.., answer)| !answer.is_closed());
        self.closes.retain(|close| !close.is_whole || !close.answer.is_closed());
    }

    /// Answers the requests that a report of the firewall completes.
    pub(crate) fn note(&mut self, report: &Report) {
        let (key, is_closed) = match report {
            Report::Done(key) => (key, false),
            Report::Closed(key) => (key, true),
            Report::Found(_) | Report::Used(_) | Report::Lost(_) | Report::Withdrawn(_) => return,
        };
        if !is_closed {
            for (_, until, answer) in self.opens.extract_if(.., |(opened, ..)| opened == key) {
                tell(answer, Ok(until));
            }
        }
        for close in &mut self.closes {
            if is_closed || close.left.get(key) == Some(&true) {
                close.left.remove(key);
            }
        }
        self.answer_closes();
    }

    fn answer_closes(&mut self) {
        let is_done = |close: &mut Close| close.is_whole && close.left.is_empty();
        for close in self.closes.extract_if(.., is_done) {
            tell(close.answer, Ok(close.ended.len()));
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

    /// Doors that have been closed, and those that the firewall was asked to close and to replace.
    fn close(ended: u8, asked: &[u8], replaced: &[u8]) -> (Close, oneshot::Receiver<Result<usize, Failure>>) {
        let (answer, answered) = oneshot::channel();
        let mut close = Close::new(Which::default(), None, answer);
        close.ended = (0..ended).map(key).collect();
        close.left.extend(asked.iter().map(|number| (key(*number), false)));
        close.left.extend(replaced.iter().map(|number| (key(*number), true)));
        close.is_whole = true;
        (close, answered)
    }

    #[test]
    fn a_request_is_answered_when_the_firewall_has_done_all_of_it() {
        let mut unconfirmed = Unconfirmed::default();
        let (opened, mut open) = oneshot::channel();
        unconfirmed.opens(key(1), Moment::new(Duration::from_secs(9)), opened);
        let (some, mut closed) = close(5, &[2, 3], &[4, 5]);
        unconfirmed.closes(some);
        let (nothing, mut none) = close(0, &[], &[]);
        unconfirmed.closes(nothing);
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
            closed.try_recv().unwrap_err();
        }
        unconfirmed.note(&Report::Closed(key(3)));
        unconfirmed.note(&Report::Done(key(1)));
        assert_eq!(closed.try_recv(), Ok(Ok(5)));
        assert_eq!(open.try_recv(), Ok(Ok(Moment::new(Duration::from_secs(9)))));
        assert!(unconfirmed.opens.is_empty() && unconfirmed.closes.is_empty());
    }

    #[test]
    fn a_report_between_two_parts_is_not_lost() {
        let mut unconfirmed = Unconfirmed::default();
        let (mut some, mut closed) = close(2, &[1, 2], &[]);
        some.is_whole = false;
        unconfirmed.closes(some);
        [1, 2].iter().for_each(|number| unconfirmed.note(&Report::Closed(key(*number))));
        closed.try_recv().unwrap_err();
        let rest = unconfirmed.take_unfinished().unwrap();
        assert!(rest.left.is_empty() && !unconfirmed.has_unfinished());
        unconfirmed.closes(Close { is_whole: true, ..rest });
        assert_eq!(closed.try_recv(), Ok(Ok(2)));
    }

    #[test]
    fn a_request_whose_client_has_gone_takes_no_room() {
        let mut unconfirmed = Unconfirmed::default();
        for number in 0..100 {
            unconfirmed.opens(key(number), Moment::default(), oneshot::channel().0);
            unconfirmed.closes(close(1, &[number], &[]).0);
        }
        assert!(
            unconfirmed.opens.len() < 2 && unconfirmed.closes.len() < 2,
            "also if the firewall never reports"
        );
    }
}
