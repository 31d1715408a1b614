//! `doorknock ask`, and which door is meant where none is named.

use std::{net::SocketAddr, ops::ControlFlow, sync::Arc, time::Instant};

use doors_spa::{receipt::Receipt, request::Operation};
use doors_text::error_chain::in_one_line;
use jiff::Timestamp;

use super::{DoorArgs, Failure, How, complain, family, print, remark, session::Session, tell::tell};
use crate::{
    durations,
    output::{self, ExitStatus, Question},
    servers::{ServerName, Servers},
    spa::driver::{Answered, Outcome, knock_once},
    spa::pages::Pages,
};

pub(super) fn ask(server: &ServerName, how: &How) -> Result<ExitStatus, Failure> {
    let asked = ask_with(server, how, |receipt, address| print_doors(receipt, server, address, how))?;
    Ok(asked.map_or_else(|ending| ending, |_| ExitStatus::Done))
}

/// The door that is meant: the one that is named, or the only one that the server has told, now or before. An
/// error inside says why it does not tell.
pub(super) fn door(at: &DoorArgs, how: &How) -> Result<Result<String, ExitStatus>, Failure> {
    if let Some(door) = &at.door {
        return Ok(Ok(door.clone()));
    }
    let mut doors = Servers::of_user()?.get(&at.server)?.doors;
    if doors.is_empty() {
        doors = match ask_with(&at.server, how, |_, _| Ok(()))? {
            Ok(doors) => doors,
            Err(ending) => return Ok(Err(ending)),
        };
    }
    let server = at.server.as_str().to_owned();
    match <[String; 1]>::try_from(doors) {
        Ok([door]) => Ok(Ok(door)),
        Err(none) if none.is_empty() => Err(Failure::NoDoor { server }),
        Err(several) => Err(Failure::WhichDoor { server, doors: several.join(", ") }),
    }
}

/// Asks for all doors, and hands on each page. An error inside says why they are not told.
fn ask_with(
    server: &ServerName,
    how: &How,
    mut page: impl FnMut(&Receipt, SocketAddr) -> Result<(), Failure>,
) -> Result<Result<Vec<String>, ExitStatus>, Failure> {
    let visit =
        Session::prepare(server, family(how.ipv4, how.ipv6), None, how.identity.as_deref(), how.into())?;
    let question = Question::ask(visit.name.as_str());
    let mut first = None;
    let mut refused = Vec::new();
    let ending = visit.knock(Operation::Ask { skip: 0 }, |outcome, signer| {
        if let (ExitStatus::Done, Ok(answered)) = (ExitStatus::of(outcome), &outcome.result) {
            first = Some((outcome.server, answered.receipt.clone(), Arc::clone(signer)));
            if !how.json {
                output::notes(outcome, question).iter().for_each(|note| remark(note, how.quiet));
            }
            // Every address of a server says the same.
            return ControlFlow::Break(());
        }
        let now = Timestamp::now();
        refused.push(if how.json {
            output::json(outcome, question, &visit.unanswered_keys(), now)
        } else {
            output::line(outcome, question, now)
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
        return Ok(Err(ending));
    };
    let start = Instant::now();
    let mut pages = Pages::default();
    let mut doors = Vec::new();
    loop {
        let next = match pages.take(&receipt, start.elapsed()) {
            Ok(next) => next,
            Err(error) => {
                let outcome = Outcome::new(address, Err(error.into()));
                tell(&outcome, question, how, &[])?;
                return Ok(Err(ExitStatus::of(&outcome)));
            }
        };
        page(&receipt, address)?;
        doors.extend(receipt.doors.iter().map(|door| door.name.clone()));
        let Some(skip) = next else { break };
        let outcome = knock_once(address, &visit.task(Operation::Ask { skip }, &signer));
        let this = ExitStatus::of(&outcome);
        match outcome.result {
            Ok(answered) if this == ExitStatus::Done => receipt = answered.receipt,
            Ok(_) | Err(_) => {
                tell(&outcome, question, how, &[])?;
                return Ok(Err(this));
            }
        }
    }
    // Where it cannot be remembered, it can be asked again.
    if let Err(error) = Servers::of_user()?.remember_doors(server, &doors) {
        remark(&format!("cannot remember the doors: {}", in_one_line(&error)), how.quiet);
    }
    Ok(Ok(doors))
}

fn print_doors(
    receipt: &Receipt,
    server: &ServerName,
    address: SocketAddr,
    how: &How,
) -> Result<(), Failure> {
    if how.json {
        let answered = Answered { receipt: receipt.clone(), challenged: None };
        let outcome = Outcome::new(address, Ok(answered));
        return print(&output::json(&outcome, Question::ask(server.as_str()), &[], Timestamp::now()));
    }
    if how.quiet {
        return Ok(());
    }
    if receipt.doors_in_all == 0 {
        return print(&format!("{}: you may open no door", server.as_str()));
    }
    receipt.doors.iter().try_for_each(|door| {
        print(&format!("{}  at most {}", door.name, durations::text(door.longest.into())))
    })
}
