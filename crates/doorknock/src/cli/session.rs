//! Knocks at a server that is stored, with one key after the other.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use doors_spa::{card::Card, request::Operation};

use super::{Failure, How, complain, remark, waits::MOMENT};
use crate::{
    output::{self, ExitStatus},
    resolve::{self, Family},
    servers::{KeyPath, ServerName, Servers},
    spa::driver::{News, Outcome, Task, Unanswered, knock_at},
    spa::own_address::Whom,
    spa::signer::Signer,
    spa::waiting::Waiting,
};

/// All that is needed to knock at a server.
pub(super) struct Session {
    pub(super) name: ServerName,
    addresses: Vec<SocketAddr>,
    card: Card,
    signers: Vec<Arc<Signer>>,
    whom: Whom,
    speech: Speech,
    /// The fingerprints of keys that no address has answered.
    unanswered_keys: RefCell<Vec<String>>,
}

/// What is said beside the answers, on standard error.
#[derive(Clone, Copy)]
pub(super) struct Speech {
    quiet: bool,
    json: bool,
}

impl From<&How> for Speech {
    fn from(how: &How) -> Self {
        Self { quiet: how.quiet, json: how.json }
    }
}

impl Speech {
    /// Whether remarks go to standard error. A program finds in its JSON what it has to know.
    fn has_remarks(self) -> bool {
        !self.quiet && !self.json
    }

    /// For people, or nothing but errors.
    pub(super) fn unless(quiet: bool) -> Self {
        Self { quiet, json: false }
    }
}

impl Session {
    pub(super) fn prepare(
        name: &ServerName,
        family: Family,
        whom: Option<Whom>,
        identity: Option<&Path>,
        speech: Speech,
    ) -> Result<Self, Failure> {
        let server = Servers::of_user()?.get(name)?;
        let signers = Signer::find(identity.or(server.key.as_ref().map(KeyPath::as_path)))?;
        let mut addresses = resolve::resolve(server.host.bare(), family)?;
        addresses.iter_mut().for_each(|address| address.set_port(server.port.get()));
        // Who names an address uses the door over its family, and the other would open it a second time.
        let whom = whom.unwrap_or(server.whom);
        if let Whom::Address(named) = whom
            && addresses.iter().any(|address| address.is_ipv4() == named.is_ipv4())
        {
            addresses.retain(|address| address.is_ipv4() == named.is_ipv4());
        }
        let signers = signers.into_iter().map(Arc::new).collect();
        Ok(Self {
            name: name.clone(),
            addresses,
            card: server.card,
            signers,
            whom,
            speech,
            unanswered_keys: RefCell::default(),
        })
    }

    pub(super) fn task(&self, operation: Operation, signer: &Arc<Signer>) -> Task {
        Task { card: self.card.clone(), operation, whom: self.whom, signer: Arc::clone(signer) }
    }

    /// The fingerprints of the keys that have been tried without an answer.
    pub(super) fn unanswered_keys(&self) -> Vec<String> {
        self.unanswered_keys.borrow().clone()
    }

    /// Knocks, and hands every outcome on until it is told to stop. Gives the best of the endings.
    pub(super) fn knock(
        &self,
        operation: Operation,
        mut hear: impl FnMut(&Outcome, &Arc<Signer>) -> ControlFlow<()>,
    ) -> ExitStatus {
        self.knock_with(operation, || {}, &mut hear)
    }

    /// Knocks with one key after the other until the server answers, and hands every outcome on until it is
    /// told to stop. After an answer of one address, the others have a short time for theirs. The bell is rung
    /// when there is news.
    ///
    /// A gateway is silent to a key that it does not know, so silence is no outcome while there is another
    /// key.
    pub(super) fn knock_with(
        &self,
        operation: Operation,
        bell: impl Fn() + Clone + Send + 'static,
        ear: &mut impl Ear,
    ) -> ExitStatus {
        let mut ending = None;
        let mut hear = |ear: &mut dyn Ear, outcome: &Outcome, signer| {
            let this = ExitStatus::of(outcome);
            ending = Some(ending.map_or(this, |before: ExitStatus| before.or(this)));
            ear.hear(outcome, signer)
        };
        let mut waits = self.speech.has_remarks();
        let mut signers = self.signers.iter().peekable();
        while let Some(signer) = signers.next() {
            let mut unanswered = Vec::new();
            let mut answered = false;
            let news = knock_at(&self.addresses, self.task(operation, signer), bell.clone());
            let start = Instant::now();
            let mut waiting = Waiting::new(self.addresses.len());
            while waiting.left().next().is_some() {
                let line_at = Some(MOMENT).filter(|_| waits && !answered);
                let until = [waiting.until(), line_at].into_iter().flatten().min();
                let left = until.map(|until| until.saturating_sub(start.elapsed()));
                match ear.listen(&news, left) {
                    Ok(News::Knock(place)) => {
                        self.addresses.get(place).into_iter().for_each(|at| ear.knocked(at.ip()));
                        waiting.knocked(place, start.elapsed());
                    }
                    Ok(News::Outcome(place, outcome)) => {
                        let is_answer = is_answer(&outcome);
                        waiting.over(place, is_answer, start.elapsed());
                        answered |= is_answer;
                        if !is_answer {
                            unanswered.push(outcome);
                        } else if hear(ear, &outcome, signer).is_break() {
                            return ending.unwrap_or(ExitStatus::Failed);
                        }
                    }
                    Err(Stop::Enough) => return ending.unwrap_or(ExitStatus::Failed),
                    Err(Stop::Time) if line_at.is_some_and(|at| start.elapsed() >= at) => {
                        complain(&self.waits_for(&waiting));
                        waits = false;
                    }
                    Err(Stop::Time) => break,
                }
            }
            let left = waiting.left().filter_map(|place| self.addresses.get(place));
            unanswered.extend(left.map(|server| Outcome::not_waited_for(*server)));
            let fingerprint = signer.public().fingerprint();
            match answered {
                true => self.unanswered_keys.borrow_mut().clear(),
                false => self.unanswered_keys.borrow_mut().push(fingerprint.clone()),
            }
            let is_last = signers.peek().is_none();
            if answered || is_last {
                if !answered {
                    let line = output::keys_note(std::slice::from_ref(&fingerprint));
                    remark(&line, !self.speech.has_remarks());
                }
                let _ = unanswered.iter().try_for_each(|outcome| hear(ear, outcome, signer));
                return ending.unwrap_or(ExitStatus::Failed);
            }
            let line = format!("no answer with the key {fingerprint}; trying the next of the ssh-agent");
            remark(&line, !self.speech.has_remarks());
        }
        ending.unwrap_or(ExitStatus::Failed)
    }

    fn waits_for(&self, waiting: &Waiting) -> String {
        match waiting.has_knocked() {
            true => {
                let left = waiting.left().filter_map(|place| self.addresses.get(place));
                let left: Vec<String> = left.map(ToString::to_string).collect();
                let name = self.name.as_str();
                format!("waiting for an answer of {name} at {}, for 5 s with each key", left.join(" and "))
            }
            false => "waiting for the ssh-agent to sign; it may ask you to confirm".to_owned(),
        }
    }
}

/// Takes the news of knocks.
pub(super) trait Ear {
    /// A knock leaves to this address.
    fn knocked(&mut self, _: IpAddr) {}

    /// The next news; within a limit, if there is one.
    fn listen(&mut self, news: &Receiver<News>, limit: Option<Duration>) -> Result<News, Stop> {
        let heard = match limit {
            Some(limit) => news.recv_timeout(limit),
            None => news.recv().map_err(RecvTimeoutError::from),
        };
        heard.map_err(|_| Stop::Time)
    }

    /// An address has come to its end.
    fn hear(&mut self, outcome: &Outcome, signer: &Arc<Signer>) -> ControlFlow<()>;
}

impl<F: FnMut(&Outcome, &Arc<Signer>) -> ControlFlow<()>> Ear for F {
    fn hear(&mut self, outcome: &Outcome, signer: &Arc<Signer>) -> ControlFlow<()> {
        self(outcome, signer)
    }
}

/// Why to listen no longer.
pub(super) enum Stop {
    /// Nothing comes any more that is waited for.
    Time,
    /// Nothing more is wanted.
    Enough,
}

/// Whether the gateway has answered. An answer that cannot be true is one: the key was known.
fn is_answer(outcome: &Outcome) -> bool {
    matches!(&outcome.result, Ok(_) | Err(Unanswered::Incredible(_)))
}
