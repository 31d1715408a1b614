//! `doorknock open` and `close`.

use std::ops::ControlFlow;

use doors_spa::{identity::DoorId, request::Operation};
use jiff::Timestamp;

use super::{DoorArgs, Failure, How, asking, family, remark, session::Session, tell::tell};
use crate::{
    output::{self, ExitStatus, Question},
    spa::driver::Unanswered,
    spa::own_address::Whom,
};

pub(super) fn open(
    at: &DoorArgs,
    wanted: Option<u32>,
    whom: Option<Whom>,
    how: &How,
) -> Result<ExitStatus, Failure> {
    change(at, whom, how, |door| Operation::Open { door, wanted: wanted.unwrap_or(0) })
}

pub(super) fn close(at: &DoorArgs, whom: Option<Whom>, how: &How) -> Result<ExitStatus, Failure> {
    change(at, whom, how, |door| Operation::Close { door })
}

fn change(
    at: &DoorArgs,
    whom: Option<Whom>,
    how: &How,
    operation: impl FnOnce(DoorId) -> Operation,
) -> Result<ExitStatus, Failure> {
    let door = match asking::door(at, how)? {
        Ok(door) => door,
        Err(ending) => return Ok(ending),
    };
    let operation = operation(DoorId::of(&door));
    let visit =
        Session::prepare(&at.server, family(how.ipv4, how.ipv6), whom, how.identity.as_deref(), how.into())?;
    let (closing, wanted) = match operation {
        Operation::Open { wanted, .. } => (false, Some(wanted).filter(|wanted| *wanted != 0)),
        Operation::Close { .. } | Operation::Ask { .. } => (true, None),
    };
    let question = Question { server: visit.name.as_str(), door: Some(&door), closing, wanted };
    let mut is_done = false;
    let mut printed = Ok(());
    let ending = visit.knock(operation, |outcome, _| {
        let this = ExitStatus::of(outcome);
        // A name often has an address that this network cannot reach; another one is enough.
        let matters = !matches!(outcome.result, Err(Unanswered::Send(_))) || !is_done;
        if matches!(outcome.result, Err(Unanswered::NotWaitedFor)) && !how.json {
            remark(&output::line(outcome, question, Timestamp::now()), how.quiet);
        } else if matters || how.json {
            printed = tell(outcome, question, how, &visit.unanswered_keys());
        }
        is_done |= this == ExitStatus::Done;
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    printed?;
    Ok(ending)
}
