//! Runs an errand at every address of a server at the same time: the one place with sockets and clocks.
//!
//! Only connected sockets: what comes from elsewhere is dropped by the kernel. What the network says about a
//! knock ("port unreachable") is ignored, because in capture mode nothing is bound to the port and that is
//! what a server that answers says as well.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use doors_spa::{
    card::Card,
    receipt::{Answer, Receipt},
    request::Operation,
    seal::SealError,
};
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::{
    spa::agent::AgentError,
    spa::credible::{self, Incredible},
    spa::exchange::{Errand, Exchange, Heard, Next},
    spa::own_address::Whom,
    spa::signer::Signer,
    spa::waiting,
};

/// What is wanted, of whom, and who signs.
#[derive(Debug)]
pub struct Task {
    /// What the gateway gave.
    pub card: Card,
    /// What is to be done.
    pub operation: Operation,
    /// Whom to let in.
    pub whom: Whom,
    /// Who signs.
    pub signer: Arc<Signer>,
}

/// What became of a task at one address.
#[derive(Debug)]
pub struct Outcome {
    /// The server's address.
    pub server: SocketAddr,
    /// The address that was named in the knock.
    pub named: Option<IpAddr>,
    /// The address that was named before that, and that the server did not see, so that the client knocked again.
    pub unseen: Option<Unseen>,
    /// The answer, or why there is none.
    pub result: Result<Answered, Unanswered>,
}

/// An address of this machine's that was named, and that the server did not see.
#[derive(Clone, Copy, Debug)]
pub struct Unseen {
    /// The address.
    pub named: IpAddr,
    /// Whether a door is open for it.
    pub is_open: bool,
}

impl Outcome {
    /// Without having named an address.
    #[must_use]
    pub fn new(server: SocketAddr, result: Result<Answered, Unanswered>) -> Self {
        Self { server, named: None, unseen: None, result }
    }

    /// Of an address whose answer is not waited for, since another's is there.
    #[must_use]
    pub fn not_waited_for(server: SocketAddr) -> Self {
        Self::new(server, Err(Unanswered::NotWaitedFor))
    }

    /// The address that was named without being asked for, if the server does not see it, and has let no other
    /// in: somewhere on the way it is translated.
    fn unseen(&self, task: &Task) -> Option<Unseen> {
        let named = self.named.filter(|_| task.whom == Whom::Sender)?;
        let receipt = &self.result.as_ref().ok()?.receipt;
        let is_about_address = match receipt.answer {
            Answer::Granted | Answer::Closed | Answer::Address => true,
            // Another client has it open for that address.
            Answer::NotAllowed => matches!(task.operation, Operation::Close { .. }),
            Answer::Told | Answer::Stale | Answer::TooMany | Answer::NotRecorded | Answer::Firewall => false,
        };
        let is_seen = receipt.seen.ip().to_canonical() == named;
        let is_open = receipt.answer == Answer::Granted;
        (is_about_address && !is_seen).then_some(Unseen { named, is_open })
    }
}

/// The gateway has answered.
#[derive(Debug)]
pub struct Answered {
    /// What.
    pub receipt: Receipt,
    /// The gateway's clock less ours in milliseconds, if it sent a challenge because of that.
    pub challenged: Option<i64>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// No answer. A gateway is silent to a key that it does not know.
    #[error(
        "no answer: the daemon does not run there, wrong card, key or port, or the datagrams do not arrive"
    )]
    Silence,
    /// Another address has answered.
    #[error("no answer {} ms after that of another address; not waited for", waiting::GRACE.as_millis())]
    NotWaitedFor,
    /// The datagrams could not leave.
    #[error("cannot send to this address")]
    Send(#[from] io::Error),
    /// The agent does not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The card is no use.
    #[error(transparent)]
    Card(#[from] SealError),
    /// The gateway's answer is none.
    #[error(
        "the server's answer cannot be true; see whether it is the right server, with an up-to-date daemon"
    )]
    Incredible(#[from] Incredible),
}

/// What is known of a task, of an address by its place in the list.
#[derive(Debug)]
pub enum News {
    /// A knock leaves.
    Knock(usize),
    /// It has come to its end.
    Outcome(usize, Outcome),
}

/// Runs a task at these addresses, all at the same time. The news comes in the order in which it is known, an
/// outcome for each, and rings the bell after each; if the receiver is dropped, no other knock leaves.
#[must_use]
pub fn knock_at(
    servers: &[SocketAddr],
    task: Task,
    bell: impl Fn() + Clone + Send + 'static,
) -> mpsc::Receiver<News> {
    let (tell, told) = mpsc::channel();
    let task = Arc::new(task);
    for (place, server) in servers.iter().enumerate() {
        let (server, tell, task, bell) = (*server, tell.clone(), Arc::clone(&task), bell.clone());
        thread::spawn(move || {
            let tell = |news| tell.send(news).map(|()| bell()).is_ok();
            let outcome = outcome_at(server, &task, || tell(News::Knock(place)));
            if let Some(outcome) = outcome {
                // The receiver is gone if another address was enough.
                tell(News::Outcome(place, outcome));
            }
        });
    }
    told
}

/// Runs a task at one address.
#[must_use]
pub fn knock_once(server: SocketAddr, task: &Task) -> Outcome {
    let outcome = outcome_at(server, task, || true);
    outcome.unwrap_or_else(|| Outcome::new(server, Err(Unanswered::Silence)))
}

/// The outcome, unless `leaves`, which is asked before each knock, says that no other is wanted.
fn outcome_at(server: SocketAddr, task: &Task, leaves: impl Fn() -> bool) -> Option<Outcome> {
    let (socket, outgoing) = match connect(server) {
        Ok(connected) => connected,
        Err(error) => return Some(Outcome::new(server, Err(error.into()))),
    };
    let named = match task.operation {
        Operation::Ask { .. } => None,
        Operation::Open { .. } | Operation::Close { .. } => task.whom.to_name(outgoing),
    };
    let result = run(&socket, task, named, &leaves).transpose()?;
    let outcome = Outcome { server, named, unseen: None, result };
    let Some(unseen) = outcome.unseen(task) else { return Some(outcome) };
    // Without a name. What the server saw is not named: if an attacker on the way sent the knock from elsewhere,
    // that would let in his address also where a door requires one.
    let mut again = run(&socket, task, None, &leaves).transpose()?;
    if let (Ok(again), Ok(first)) = (&mut again, outcome.result) {
        again.challenged = again.challenged.or(first.challenged);
    }
    Some(Outcome { unseen: Some(unseen), ..Outcome::new(server, again) })
}

fn connect(server: SocketAddr) -> io::Result<(UdpSocket, IpAddr)> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    let outgoing = socket.local_addr()?.ip();
    Ok((socket, outgoing))
}

/// The answer; none if no other knock is wanted.
fn run(
    socket: &UdpSocket,
    task: &Task,
    named: Option<IpAddr>,
    leaves: impl Fn() -> bool,
) -> Result<Option<Answered>, Unanswered> {
    let client = *task.signer.public();
    let mut exchange = Exchange::new(Errand { operation: task.operation, client, address: named });
    let start = Instant::now();
    let mut sent = Err(io::Error::from(ErrorKind::NetworkUnreachable));
    let mut challenged = None;
    loop {
        match exchange.next(start.elapsed()) {
            Next::Knock => {
                let unsigned = exchange.unsigned(&task.card, wall_clock(), &mut UnwrapErr(SysRng))?;
                let signature = task.signer.sign(unsigned.to_sign())?;
                let knock = exchange.seal(unsigned, &signature, start.elapsed())?;
                if !leaves() {
                    return Ok(None);
                }
                let left = send(socket, &knock);
                sent = sent.or(left);
            }
            Next::Wait(wait) => {
                // One byte more than a receipt has, so that a longer datagram is not taken for one.
                let mut buffer = [0; doors_spa::KNOCK + 1];
                let heard = listen(socket, &mut buffer, wait);
                if let Heard::Challenge(theirs) = exchange.heard(heard, start.elapsed()) {
                    challenged = Some(signed_difference(theirs, wall_clock()));
                }
            }
            Next::Settled(receipt) => {
                credible::check(&receipt, task.operation)?;
                return Ok(Some(Answered { receipt, challenged }));
            }
            Next::Unreadable(bad) => return Err(Incredible::from(bad).into()),
            Next::Over => {
                sent?;
                return Err(Unanswered::Silence);
            }
        }
    }
}

/// Sends. What the network said about the datagram before is told here, and keeps this one from leaving; so
/// it is tried again.
fn send(socket: &UdpSocket, knock: &[u8]) -> io::Result<()> {
    let tried = socket.send(knock).or_else(|_| socket.send(knock));
    tried.or_else(|_| socket.send(knock)).map(|_| ())
}

/// What comes within this time; nothing if nothing does, or only complaints of the network.
fn listen<'a>(socket: &UdpSocket, buffer: &'a mut [u8], wait: Duration) -> &'a [u8] {
    // Zero would mean "without end".
    let wait = wait.max(Duration::from_millis(1));
    let heard = socket.set_read_timeout(Some(wait)).and_then(|()| socket.recv(buffer));
    match heard {
        Ok(length) => buffer.get(..length).unwrap_or_default(),
        Err(error) => {
            // A complaint is told once. Whatever is told again and again must not keep a processor busy.
            let usual = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
            if !usual.contains(&error.kind()) && error.kind() != ErrorKind::ConnectionRefused {
                thread::sleep(Duration::from_millis(1).min(wait));
            }
            &[]
        }
    }
}

/// Milliseconds since 1970; a clock that stands before that is at the start.
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn signed_difference(theirs: u64, ours: u64) -> i64 {
    let amount = i64::try_from(theirs.abs_diff(ours)).unwrap_or(i64::MAX);
    if theirs < ours { amount.saturating_neg() } else { amount }
}
