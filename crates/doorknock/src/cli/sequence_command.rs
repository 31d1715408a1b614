//! `doorknock sequence`, and `doorknock proxy` with a sequence.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{Failure, Manner};
use crate::{arrival, join, sequence, target};

pub(super) fn run(
    host: &str,
    ports: &[u16],
    wait: Option<u16>,
    quiet: bool,
    manner: Manner,
) -> Result<(), Failure> {
    let addresses = target::resolve(host, manner.family())?;
    let say = |text: String| match quiet {
        true => Ok(()),
        false => writeln!(io::stdout(), "{text}").map_err(Failure::Print),
    };
    let told: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let Some(port) = wait else {
        for time in 0..manner.repeat {
            if time > 0 {
                thread::sleep(Duration::from_secs(manner.pause));
            }
            knock(&addresses, ports, manner)?;
        }
        return say(format!("sent {} knocks to {}", ports.len(), told.join(" and ")));
    };
    let (stream, took) = knock_until_open(host, &addresses, ports, port, manner)?;
    let peer = stream.peer_addr().map_or(host.to_owned(), |peer| peer.ip().to_string());
    say(format!(
        "{peer} port {port} accepts connections, {:.1} ms after the last knock",
        took.as_secs_f64() * 1000.0
    ))
}

pub(super) fn proxy(host: &str, port: u16, ports: &[u16], manner: Manner) -> Result<(), Failure> {
    let addresses = target::resolve(host, manner.family())?;
    let (stream, _) = knock_until_open(host, &addresses, ports, port, manner)?;
    join::join(&stream, io::stdin(), io::stdout()).map_err(Failure::Broken)
}

/// Knocks and waits, up to as many times as wanted. Gives the connection, and how long after the last
/// knock to that address it was made.
fn knock_until_open(
    host: &str,
    addresses: &[SocketAddr],
    ports: &[u16],
    port: u16,
    manner: Manner,
) -> Result<(TcpStream, Duration), Failure> {
    for left in (0..manner.repeat).rev() {
        let (targets, knocked): (Vec<SocketAddr>, Vec<Instant>) = knock(addresses, ports, manner)?
            .into_iter()
            .map(|(mut target, knocked)| {
                target.set_port(port);
                (target, knocked)
            })
            .unzip();
        let patience = Duration::from_secs(if left > 0 { manner.pause } else { manner.timeout });
        if let Some(arrival) = arrival::wait(&targets, patience).map_err(Failure::Wait)? {
            let took = knocked.get(arrival.place).map(Instant::elapsed).unwrap_or_default();
            return Ok((arrival.stream, took));
        }
    }
    Err(Failure::Closed { host: host.to_owned(), port })
}

/// Knocks at every address. Some may have no route, as IPv6 often has none; one is enough. Gives those that
/// were reached, and when their last knock left.
fn knock(
    addresses: &[SocketAddr],
    ports: &[u16],
    manner: Manner,
) -> Result<Vec<(SocketAddr, Instant)>, Failure> {
    let sent = sequence::send(addresses, ports, Duration::from_millis(manner.delay));
    let mut reached = Vec::new();
    let mut failure = None;
    for (address, sent) in addresses.iter().zip(sent) {
        match sent {
            Ok(last) => reached.push((*address, last)),
            Err(unsent) => failure = Some(unsent),
        }
    }
    match failure {
        Some(failure) if reached.is_empty() => Err(failure.into()),
        _ => Ok(reached),
    }
}
