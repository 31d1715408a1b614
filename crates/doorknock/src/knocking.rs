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

use doors_spa::{card::Card, letter::Unsealed, receipt::Receipt, request::Operation};
use getrandom::SysRng;
use rand_core::UnwrapErr;

use crate::{
    agent::AgentError,
    credible::{self, Incredible},
    exchange::{Errand, Exchange, Heard, Next},
    own_address,
    signer::Signer,
};

/// What is wanted, of whom, and who signs.
#[derive(Debug)]
pub struct Task {
    /// What the gateway gave.
    pub card: Card,
    /// What is to be done.
    pub operation: Operation,
    /// Whom to admit; `None` for this machine.
    pub address: Option<IpAddr>,
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
    /// The answer, or why there is none.
    pub result: Result<Answered, Unanswered>,
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
    /// Nobody answers. A gateway is silent to whoever it does not know.
    #[error(
        "no answer: the daemon does not run there, wrong card, key or port, or the datagrams do not arrive"
    )]
    Silence,
    /// The datagrams could not leave.
    #[error("cannot send to this address")]
    Send(#[from] io::Error),
    /// The agent does not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The card is no use.
    #[error(transparent)]
    Card(#[from] Unsealed),
    /// The gateway's answer is none.
    #[error(
        "the server's answer cannot be true; see whether it is the right server, with an up-to-date daemon"
    )]
    Incredible(#[from] Incredible),
}

/// Runs a task at these addresses. The outcomes come in the order in which they are known, one for each;
/// whoever has heard enough drops the receiver.
#[must_use]
pub fn knock_at(servers: &[SocketAddr], task: Task) -> mpsc::Receiver<Outcome> {
    let (tell, told) = mpsc::channel();
    if let [server] = servers {
        // Nobody to wait for beside it, and a thread takes its time to start.
        let _ = tell.send(knock_once(*server, &task));
        return told;
    }
    let task = Arc::new(task);
    for server in servers {
        let (server, tell, task) = (*server, tell.clone(), Arc::clone(&task));
        thread::spawn(move || {
            // Nobody listens any more if another address was enough.
            let _ = tell.send(knock_once(server, &task));
        });
    }
    told
}

/// Runs a task at one address.
#[must_use]
pub fn knock_once(server: SocketAddr, task: &Task) -> Outcome {
    match connect(server) {
        Ok((socket, outgoing)) => {
            let named = match task.operation {
                Operation::Ask { .. } => None,
                Operation::Open { .. } | Operation::Close { .. } => {
                    task.address.or_else(|| own_address::to_name(outgoing))
                }
            };
            Outcome { server, named, result: run(&socket, task, named) }
        }
        Err(error) => Outcome { server, named: None, result: Err(error.into()) },
    }
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

fn run(socket: &UdpSocket, task: &Task, named: Option<IpAddr>) -> Result<Answered, Unanswered> {
    let client = *task.signer.public();
    let mut exchange = Exchange::new(Errand { operation: task.operation, client, address: named });
    let start = Instant::now();
    let mut sent = Err(io::Error::from(ErrorKind::NetworkUnreachable));
    let mut challenged = None;
    loop {
        match exchange.next(start.elapsed()) {
            Next::Knock => {
                let letter = exchange.letter(&task.card, wall_clock(), &mut UnwrapErr(SysRng))?;
                let signature = task.signer.sign(letter.to_sign())?;
                let knock = exchange.seal(letter, &signature, start.elapsed())?;
                let leaves = send(socket, &knock);
                sent = sent.or(leaves);
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
                return Ok(Answered { receipt, challenged });
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
