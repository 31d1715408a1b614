//! `doorknock open`, `close`, `ask`

use std::{net::SocketAddr, ops::ControlFlow, sync::Arc, time::Instant};

use doors_spa::{
    identity::DoorId,
    receipt::{Answer, Receipt},
    request::Operation,
};
use jiff::Timestamp;

use super::{Failure, How, Place, complain, family, print, remark, visit::Visit};
use crate::{
    knocking::{Outcome, Unanswered, knock_once},
    own_address::Whom,
    pages::Pages,
    servers::ServerName,
    span,
    telling::{self, Ending, Question},
};

pub(super) fn open(
    at: &Place,
    wanted: Option<u32>,
    whom: Option<Whom>,
    how: &How,
) -> Result<Ending, Failure> {
    let operation = Operation::Open { door: DoorId::of(&at.door), wanted: wanted.unwrap_or(0) };
    change(at, operation, whom, how)
}

pub(super) fn close(at: &Place, whom: Option<Whom>, how: &How) -> Result<Ending, Failure> {
    change(at, Operation::Close { door: DoorId::of(&at.door) }, whom, how)
}

fn change(at: &Place, operation: Operation, whom: Option<Whom>, how: &How) -> Result<Ending, Failure> {
    let visit =
        Visit::prepare(&at.server, family(how.ipv4, how.ipv6), whom, how.identity.as_deref(), how.into())?;
    let (closing, wanted) = match operation {
        Operation::Open { wanted, .. } => (false, Some(wanted).filter(|wanted| *wanted != 0)),
        Operation::Close { .. } | Operation::Ask { .. } => (true, None),
    };
    let question = Question { server: visit.name.as_str(), door: Some(&at.door), closing, wanted };
    let mut is_done = false;
    let mut printed = Ok(());
    let ending = visit.knock(operation, |outcome, _| {
        let this = Ending::of(outcome);
        // A name often has an address that this network cannot reach; another one is enough.
        let matters = !matches!(outcome.result, Err(Unanswered::Send(_))) || !is_done;
        if matches!(outcome.result, Err(Unanswered::NotWaitedFor)) && !how.json {
            remark(&telling::line(outcome, question, Timestamp::now()), how.quiet);
        } else if matters || how.json {
            printed = tell(outcome, question, how);
        }
        is_done |= this == Ending::Done;
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    printed?;
    Ok(ending)
}

pub(super) fn ask(server: &ServerName, how: &How) -> Result<Ending, Failure> {
    let visit =
        Visit::prepare(server, family(how.ipv4, how.ipv6), None, how.identity.as_deref(), how.into())?;
    let question = Question::ask(visit.name.as_str());
    let mut first = None;
    let mut refused = Vec::new();
    let ending = visit.knock(Operation::Ask { skip: 0 }, |outcome, signer| {
        if let (Ending::Done, Ok(answered)) = (Ending::of(outcome), &outcome.result) {
            first = Some((outcome.server, answered.receipt.clone(), Arc::clone(signer)));
            if !how.json {
                telling::notes(outcome, question).iter().for_each(|note| remark(note, how.quiet));
            }
            // Every address of a server says the same.
            return ControlFlow::Break(());
        }
        let now = Timestamp::now();
        refused.push(if how.json {
            telling::json(outcome, question, now)
        } else {
            telling::line(outcome, question, now)
        });
        ControlFlow::Continue(())
    });
    let Some((address, mut receipt, signer)) = first else {
        for line in refused {
            match how.json {
                true => print(&line)?,
                false => complain(&line),
            }
        }
        return Ok(ending);
    };
    let start = Instant::now();
    let mut pages = Pages::default();
    loop {
        let next = match pages.take(&receipt, start.elapsed()) {
            Ok(next) => next,
            Err(error) => {
                let outcome = Outcome::new(address, Err(error.into()));
                tell(&outcome, question, how)?;
                return Ok(Ending::of(&outcome));
            }
        };
        print_doors(&receipt, server, address, how)?;
        let Some(skip) = next else { return Ok(Ending::Done) };
        let outcome = knock_once(address, &visit.task(Operation::Ask { skip }, &signer));
        let this = Ending::of(&outcome);
        match outcome.result {
            Ok(answered) if this == Ending::Done => receipt = answered.receipt,
            Ok(_) | Err(_) => {
                tell(&outcome, question, how)?;
                return Ok(this);
            }
        }
    }
}

fn print_doors(
    receipt: &Receipt,
    server: &ServerName,
    address: SocketAddr,
    how: &How,
) -> Result<(), Failure> {
    if how.json {
        let answered = crate::knocking::Answered { receipt: receipt.clone(), challenged: None };
        let outcome = Outcome::new(address, Ok(answered));
        return print(&telling::json(&outcome, Question::ask(server.as_str()), Timestamp::now()));
    }
    if how.quiet {
        return Ok(());
    }
    if receipt.doors_in_all == 0 {
        return print(&format!("{}: you may open no door", server.as_str()));
    }
    receipt
        .doors
        .iter()
        .try_for_each(|door| print(&format!("{}  at most {}", door.name, span::text(door.longest.into()))))
}

fn tell(outcome: &Outcome, question: Question<'_>, how: &How) -> Result<(), Failure> {
    let now = Timestamp::now();
    if how.json {
        return print(&telling::json(outcome, question, now));
    }
    telling::notes(outcome, question).iter().for_each(|note| remark(note, how.quiet));
    let line = telling::line(outcome, question, now);
    let good = outcome.result.as_ref().is_ok_and(|answered| {
        matches!(answered.receipt.answer, Answer::Granted | Answer::Closed | Answer::Told)
    });
    match (good, how.quiet) {
        (true, true) => Ok(()),
        (true, false) => print(&line),
        (false, _) => {
            complain(&line);
            Ok(())
        }
    }
}
