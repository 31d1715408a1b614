//! `doorknock proxy` with a server.

use std::{
    io,
    net::IpAddr,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};

use doors_spa::{identity::DoorId, request::Operation};
use jiff::Timestamp;

use super::{
    DoorArgs, Failure, How, Options, asking, complain, remark,
    session::{Ear, Session, Speech, Stop},
    waits::Waits,
};
use crate::{
    connect::relay,
    connect::through_door::{Entered, Entering},
    host::Host,
    output::{self, ExitStatus, Question},
    resolve,
    spa::driver::{News, Outcome},
    spa::own_address::Whom,
    spa::signer::Signer,
    standard_output::StandardOutput,
};

pub(super) fn run(
    (host, port): (&Host, u16),
    at: &DoorArgs,
    wanted: Option<u32>,
    whom: Option<Whom>,
    identity: Option<&Path>,
    quiet: bool,
    manner: Options,
) -> Result<ExitStatus, Failure> {
    let identity_of = identity.map(Path::to_owned);
    let how = How { ipv4: manner.ipv4, ipv6: manner.ipv6, identity: identity_of, json: false, quiet };
    let door = match asking::door(at, &how)? {
        Ok(door) => door,
        Err(ending) => return Ok(ending),
    };
    let visit = Session::prepare(&at.server, manner.family(), whom, identity, Speech::unless(quiet))?;
    let question = Question { server: visit.name.as_str(), door: Some(&door), closing: false, wanted };
    let operation = Operation::Open { door: DoorId::of(&door), wanted: wanted.unwrap_or(0) };
    let mut addresses = resolve::resolve(host.bare(), manner.family())?;
    addresses.iter_mut().for_each(|address| address.set_port(port));
    let entering = Entering::new(addresses).map_err(Failure::Wait)?;
    let waker = Arc::new(entering.waker().map_err(Failure::Wait)?);
    let bell = move || {
        // The news is there; if the wait cannot be woken, the next try finds it.
        let _ = waker.wake();
    };
    let mut way = Way { entering, question, quiet, opened: false, came: None, told: Vec::new() };
    let ending = visit.knock_with(operation, bell, &mut way);
    if way.opened && way.came.is_none() {
        let _line =
            Waits::for_what(format!("the door is open; waiting for {host} port {port} to accept"), quiet);
        way.wait_behind_open_door(Duration::from_secs(manner.timeout));
    }
    match way.came {
        Some(Ok(Entered::Through(stream))) => {
            relay::join(&stream, io::stdin(), StandardOutput::default())?;
            Ok(ExitStatus::Done)
        }
        Some(Ok(Entered::Refused(source))) => {
            Err(Failure::OpenAndSilent { host: host.to_string(), port, source })
        }
        Some(Err(error)) => Err(Failure::Wait(error)),
        Some(Ok(Entered::NotYet)) | None if way.opened => {
            let source = io::ErrorKind::TimedOut.into();
            Err(Failure::OpenAndSilent { host: host.to_string(), port, source })
        }
        Some(Ok(Entered::NotYet)) | None => {
            way.told.iter().for_each(|line| complain(line));
            Ok(ending)
        }
    }
}

/// The way through a door that is being opened.
struct Way<'a> {
    entering: Entering,
    question: Question<'a>,
    quiet: bool,
    opened: bool,
    /// What came of the tries.
    came: Option<io::Result<Entered>>,
    /// Why the door was not opened.
    told: Vec<String>,
}

impl Way<'_> {
    fn wait_behind_open_door(&mut self, patience: Duration) {
        let begun = Instant::now();
        self.came = Some(loop {
            let left = patience.saturating_sub(begun.elapsed());
            match self.entering.wait(Some(left)) {
                // Another address has news, which is of no interest any more.
                Ok(Entered::NotYet) if !left.is_zero() => {}
                came => break came,
            }
        });
    }
}

impl Ear for Way<'_> {
    fn knocked(&mut self, at: IpAddr) {
        self.entering.knocked(at);
    }

    fn listen(&mut self, news: &Receiver<News>, limit: Option<Duration>) -> Result<News, Stop> {
        let begun = Instant::now();
        loop {
            match news.try_recv() {
                Ok(news) => return Ok(news),
                Err(TryRecvError::Disconnected) => return Err(Stop::Time),
                Err(TryRecvError::Empty) => {}
            }
            let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Stop::Time);
            }
            match self.entering.wait(left) {
                Ok(Entered::NotYet) => {}
                came => {
                    self.came = Some(came);
                    return Err(Stop::Enough);
                }
            }
        }
    }

    fn hear(&mut self, outcome: &Outcome, _: &Arc<Signer>) -> ControlFlow<()> {
        output::notes(outcome, self.question).iter().for_each(|note| remark(note, self.quiet));
        if ExitStatus::of(outcome) != ExitStatus::Done {
            self.told.push(output::line(outcome, self.question, Timestamp::now()));
            return ControlFlow::Continue(());
        }
        self.opened = true;
        self.entering.opened(outcome.server.ip());
        ControlFlow::Break(())
    }
}
