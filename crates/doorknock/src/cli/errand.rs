//! `doorknock open`, `close`, `ask`, and `proxy` with a server

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use doors_spa::{
    card::Card,
    identity::DoorId,
    receipt::{Answer, Receipt},
    request::Operation,
};
use jiff::Timestamp;

use super::{Failure, How, Manner, Place, complain, family, print};
use crate::{
    host::Host,
    join,
    knocking::{News, Outcome, Task, Unanswered, knock_at, knock_once},
    pages::Pages,
    servers::{KeyPath, ServerName, Servers},
    signer::Signer,
    span,
    standard_output::StandardOutput,
    target::{self, Family},
    telling::{self, Ending, Question},
    waiting::Waiting,
};

/// All that is needed to knock at a server.
struct Visit {
    name: ServerName,
    addresses: Vec<SocketAddr>,
    card: Card,
    signers: Vec<Arc<Signer>>,
    quiet: bool,
}

pub(super) fn open(
    at: &Place,
    wanted: Option<u32>,
    address: Option<IpAddr>,
    how: &How,
) -> Result<Ending, Failure> {
    let operation = Operation::Open { door: DoorId::of(&at.door), wanted: wanted.unwrap_or(0) };
    change(at, operation, address, how)
}

pub(super) fn close(at: &Place, address: Option<IpAddr>, how: &How) -> Result<Ending, Failure> {
    change(at, Operation::Close { door: DoorId::of(&at.door) }, address, how)
}

fn change(at: &Place, operation: Operation, address: Option<IpAddr>, how: &How) -> Result<Ending, Failure> {
    let family = family(how.ipv4, how.ipv6);
    let visit = Visit::prepare(&at.server, family, address, how.identity.as_deref(), how.quiet)?;
    let closing = matches!(operation, Operation::Close { .. });
    let question = Question { server: visit.name.as_str(), door: Some(&at.door), closing };
    let mut ending = None;
    let mut printed = Ok(());
    visit.knock(operation, address, |outcome, _| {
        let this = Ending::of(outcome);
        // A name often has an address that this network cannot reach; another one is enough.
        let matters = !matches!(outcome.result, Err(Unanswered::Send(_))) || ending != Some(Ending::Done);
        if matches!(outcome.result, Err(Unanswered::NotWaitedFor)) && !how.json {
            remark(&telling::line(outcome, question, Timestamp::now()), how.quiet);
        } else if matters || how.json {
            printed = tell(outcome, question, how);
            if this == Ending::Done && !how.json {
                telling::time_note(outcome, operation).into_iter().for_each(|note| remark(&note, how.quiet));
            }
            if this == Ending::Done && address.is_none() && !how.json {
                telling::address_note(outcome).into_iter().for_each(|note| remark(&note, how.quiet));
            }
        }
        ending = Some(ending.map_or(this, |before: Ending| before.or(this)));
        match printed {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    printed?;
    Ok(ending.unwrap_or(Ending::Failed))
}

pub(super) fn ask(server: &ServerName, how: &How) -> Result<Ending, Failure> {
    let family = family(how.ipv4, how.ipv6);
    let visit = Visit::prepare(server, family, None, how.identity.as_deref(), how.quiet)?;
    let question = Question { server: visit.name.as_str(), door: None, closing: false };
    let mut first = None;
    let mut ending = None;
    let mut refused = Vec::new();
    visit.knock(Operation::Ask { skip: 0 }, None, |outcome, signer| {
        let this = Ending::of(outcome);
        ending = Some(ending.map_or(this, |before: Ending| before.or(this)));
        if let (Ending::Done, Ok(answered)) = (this, &outcome.result) {
            first = Some((outcome.server, answered.receipt.clone(), Arc::clone(signer)));
            telling::clock_note(outcome).into_iter().for_each(|note| remark(&note, how.quiet));
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
        return Ok(ending.unwrap_or(Ending::Failed));
    };
    let start = Instant::now();
    let mut pages = Pages::default();
    loop {
        let next = match pages.take(&receipt, start.elapsed()) {
            Ok(next) => next,
            Err(error) => {
                let outcome = Outcome { server: address, named: None, result: Err(error.into()) };
                tell(&outcome, question, how)?;
                return Ok(Ending::of(&outcome));
            }
        };
        print_doors(&receipt, server, address, how)?;
        let Some(skip) = next else { return Ok(Ending::Done) };
        let outcome = knock_once(address, &visit.task(Operation::Ask { skip }, None, &signer));
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
        let outcome = Outcome { server: address, named: None, result: Ok(answered) };
        let question = Question { server: server.as_str(), door: None, closing: false };
        return print(&telling::json(&outcome, question, Timestamp::now()));
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

pub(super) fn proxy(
    (host, port): (&Host, u16),
    at: &Place,
    wanted: Option<u32>,
    address: Option<IpAddr>,
    identity: Option<&Path>,
    quiet: bool,
    manner: Manner,
) -> Result<Ending, Failure> {
    let visit = Visit::prepare(&at.server, manner.family(), address, identity, quiet)?;
    let question = Question { server: visit.name.as_str(), door: Some(&at.door), closing: false };
    let operation = Operation::Open { door: DoorId::of(&at.door), wanted: wanted.unwrap_or(0) };
    let mut opened = None;
    let mut ending = None;
    let mut refused = Vec::new();
    visit.knock(operation, address, |outcome, _| {
        let this = Ending::of(outcome);
        ending = Some(ending.map_or(this, |before: Ending| before.or(this)));
        if this == Ending::Done {
            telling::clock_note(outcome).into_iter().for_each(|note| remark(&note, quiet));
            if address.is_none() {
                telling::address_note(outcome).into_iter().for_each(|note| remark(&note, quiet));
            }
            opened = Some(outcome.server.ip());
            return ControlFlow::Break(());
        }
        refused.push(telling::line(outcome, question, Timestamp::now()));
        ControlFlow::Continue(())
    });
    let Some(opened) = opened else {
        refused.iter().for_each(|line| complain(line));
        return Ok(ending.unwrap_or(Ending::Failed));
    };
    let stream = connect(host, port, opened, manner)?;
    join::join(&stream, io::stdin(), StandardOutput::default())?;
    Ok(Ending::Done)
}

/// Connects to the address at which the door was opened, if that is one of the host's; else to those of its
/// family, since that is what the server saw.
///
/// The door is open already, so every address is tried once and with patience: a door may be open for a
/// single connection.
fn connect(host: &Host, port: u16, opened: IpAddr, manner: Manner) -> Result<TcpStream, Failure> {
    let mut addresses = target::resolve(host.bare(), manner.family())?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    // A false key sorts first.
    addresses.sort_by_key(|address| (address.ip() != opened, address.is_ipv4() != opened.is_ipv4()));
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect_timeout(&address, Duration::from_secs(manner.timeout)) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(Failure::OpenAndSilent { host: host.to_string(), port, source: failure })
}

impl Visit {
    fn prepare(
        name: &ServerName,
        family: Family,
        address: Option<IpAddr>,
        identity: Option<&Path>,
        quiet: bool,
    ) -> Result<Self, Failure> {
        let server = Servers::of_user()?.get(name)?;
        let signers = Signer::find(identity.or(server.key.as_ref().map(KeyPath::as_path)))?;
        let mut addresses = target::resolve(server.host.bare(), family)?;
        addresses.iter_mut().for_each(|address| address.set_port(server.port.get()));
        // Who names an address uses the door over its family, and the other would open it a second time.
        if let Some(named) = address
            && addresses.iter().any(|address| address.is_ipv4() == named.is_ipv4())
        {
            addresses.retain(|address| address.is_ipv4() == named.is_ipv4());
        }
        let signers = signers.into_iter().map(Arc::new).collect();
        Ok(Self { name: name.clone(), addresses, card: server.card, signers, quiet })
    }

    fn task(&self, operation: Operation, address: Option<IpAddr>, signer: &Arc<Signer>) -> Task {
        Task { card: self.card.clone(), operation, address, signer: Arc::clone(signer) }
    }

    /// Knocks with one key after the other until the server answers, and hands every outcome on until it is
    /// told to stop. After an answer of one address, the others have a short time for theirs.
    ///
    /// A gateway is silent to a key that it does not know, so silence is no outcome while there is another
    /// key.
    fn knock(
        &self,
        operation: Operation,
        address: Option<IpAddr>,
        mut hear: impl FnMut(&Outcome, &Arc<Signer>) -> ControlFlow<()>,
    ) {
        let mut signers = self.signers.iter().peekable();
        while let Some(signer) = signers.next() {
            let mut unanswered = Vec::new();
            let mut answered = false;
            let news = knock_at(&self.addresses, self.task(operation, address, signer));
            let start = Instant::now();
            let mut waiting = Waiting::new(self.addresses.len());
            loop {
                let left = waiting.until().map(|until| until.saturating_sub(start.elapsed()));
                match receive(&news, left) {
                    Ok(News::Knock(place)) => waiting.knocked(place, start.elapsed()),
                    Ok(News::Outcome(place, outcome)) => {
                        let is_answer = is_answer(&outcome);
                        waiting.over(place, is_answer, start.elapsed());
                        answered |= is_answer;
                        if !is_answer {
                            unanswered.push(outcome);
                        } else if hear(&outcome, signer).is_break() {
                            return;
                        }
                    }
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                }
            }
            let left = waiting.left().filter_map(|place| self.addresses.get(place));
            unanswered.extend(left.map(|server| Outcome::not_waited_for(*server)));
            if answered || signers.peek().is_none() {
                if !answered {
                    let fingerprint = signer.public().fingerprint();
                    remark(&format!("knocked with the key {fingerprint}; -i chooses another"), self.quiet);
                }
                let _ = unanswered.iter().try_for_each(|outcome| hear(outcome, signer));
                return;
            }
            let fingerprint = signer.public().fingerprint();
            remark(
                &format!("no answer with the key {fingerprint}; trying the next of the ssh-agent"),
                self.quiet,
            );
        }
    }
}

/// The next news; within a limit, if there is one.
fn receive(news: &Receiver<News>, limit: Option<Duration>) -> Result<News, RecvTimeoutError> {
    match limit {
        Some(limit) => news.recv_timeout(limit),
        None => news.recv().map_err(RecvTimeoutError::from),
    }
}

/// Whether the gateway has answered. An answer that cannot be true is one: the key was known.
fn is_answer(outcome: &Outcome) -> bool {
    matches!(&outcome.result, Ok(_) | Err(Unanswered::Incredible(_)))
}

fn tell(outcome: &Outcome, question: Question<'_>, how: &How) -> Result<(), Failure> {
    let now = Timestamp::now();
    if how.json {
        return print(&telling::json(outcome, question, now));
    }
    telling::clock_note(outcome).into_iter().for_each(|note| remark(&note, how.quiet));
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

fn remark(line: &str, quiet: bool) {
    if !quiet {
        complain(line);
    }
}
