//! `doorknock sequence`, and `doorknock proxy` with a sequence.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use doors_text::error_chain::in_one_line;

use super::{Failure, Options, complain, print, waits::Waits};
use crate::{
    connect::relay,
    connect::wait_for_port,
    host::Host,
    resolve,
    sequence::{self, Unsent},
    standard_output::StandardOutput,
};

pub(super) fn run(
    host: &Host,
    ports: &[u16],
    wait: Option<u16>,
    quiet: bool,
    manner: Options,
) -> Result<(), Failure> {
    let addresses = resolve::resolve(host.bare(), manner.family())?;
    let line = match wait {
        None => only_knock(&addresses, ports, quiet, manner)?,
        Some(port) => {
            let _line = waits_for(host, port, quiet);
            let (stream, took) = knock_until_open(host, &addresses, ports, port, manner)?;
            let peer = stream.peer_addr().map_or(host.to_string(), |peer| peer.ip().to_string());
            let took = took.as_secs_f64() * 1000.0;
            format!("{peer} port {port} accepts connections, {took:.1} ms after the last knock")
        }
    };
    match quiet {
        true => Ok(()),
        false => print(&line),
    }
}

pub(super) fn proxy(
    host: &Host,
    port: u16,
    ports: &[u16],
    quiet: bool,
    manner: Options,
) -> Result<(), Failure> {
    let addresses = resolve::resolve(host.bare(), manner.family())?;
    let line = waits_for(host, port, quiet);
    let (stream, _) = knock_until_open(host, &addresses, ports, port, manner)?;
    drop(line);
    Ok(relay::join(&stream, io::stdin(), StandardOutput::default())?)
}

fn waits_for(host: &Host, port: u16, quiet: bool) -> Waits {
    Waits::for_what(format!("waiting for {host} port {port} to accept"), quiet)
}

/// Knocks as many times as wanted. Gives a line that says how many knocks went where.
///
/// Tells what could not leave, because no other part notices; but a name often has an address that this
/// network cannot reach, and with `--quiet` the user need not hear of that each time.
fn only_knock(
    addresses: &[SocketAddr],
    ports: &[u16],
    quiet: bool,
    manner: Options,
) -> Result<String, Failure> {
    let mut sent = vec![0; addresses.len()];
    for time in 0..manner.repeat {
        if time > 0 {
            thread::sleep(Duration::from_secs(manner.pause));
        }
        let knocked = knock(addresses, ports, manner)?;
        for (address, count) in addresses.iter().zip(&mut sent) {
            if knocked.reached.iter().any(|(reached, _)| reached == address) {
                *count = ports.len().saturating_add(*count);
            }
        }
        if !quiet {
            tell(&knocked.unsent);
        }
    }
    let reached = addresses.iter().zip(sent).filter(|(_, count)| *count > 0);
    Ok(sum(reached.map(|(address, count)| (address.ip().to_string(), count))))
}

fn sum(reached: impl Iterator<Item = (String, usize)>) -> String {
    let told = reached.enumerate().map(|(number, (address, count))| match number {
        0 => format!("{count} knocks to {address}"),
        _ => format!("{count} to {address}"),
    });
    format!("sent {}", told.collect::<Vec<_>>().join(" and "))
}

/// Knocks and waits, up to as many times as wanted. Gives the connection, and how long after the last
/// knock to that address it was made.
fn knock_until_open(
    host: &Host,
    addresses: &[SocketAddr],
    ports: &[u16],
    port: u16,
    manner: Options,
) -> Result<(TcpStream, Duration), Failure> {
    let mut unsent = Vec::new();
    for left in (0..manner.repeat).rev() {
        let knocked = knock(addresses, ports, manner)?;
        unsent = knocked.unsent;
        let (targets, lasts): (Vec<SocketAddr>, Vec<Instant>) = knocked
            .reached
            .into_iter()
            .map(|(mut target, last)| {
                target.set_port(port);
                (target, last)
            })
            .unzip();
        let patience = Duration::from_secs(if left > 0 { manner.pause } else { manner.timeout });
        if let Some(arrival) = wait_for_port::wait(&targets, patience).map_err(Failure::Wait)? {
            let took = lasts.get(arrival.place).map(Instant::elapsed).unwrap_or_default();
            return Ok((arrival.stream, took));
        }
    }
    // It does not matter if another address accepts.
    tell(&unsent);
    Err(Failure::Closed { host: host.to_string(), port })
}

/// What became of one sequence.
struct Knocked {
    /// The addresses to which all knocks went, and when the last did.
    reached: Vec<(SocketAddr, Instant)>,
    /// Why the others were not reached.
    unsent: Vec<Unsent>,
}

/// Knocks at every address. Some may have no route, as IPv6 often has none; one is enough.
fn knock(addresses: &[SocketAddr], ports: &[u16], manner: Options) -> Result<Knocked, Failure> {
    let sent = sequence::send(addresses, ports, Duration::from_millis(manner.delay));
    let mut knocked = Knocked { reached: Vec::new(), unsent: Vec::new() };
    for (address, sent) in addresses.iter().zip(sent) {
        match sent {
            Ok(last) => knocked.reached.push((*address, last)),
            Err(unsent) => knocked.unsent.push(unsent),
        }
    }
    if knocked.reached.is_empty()
        && let Some(last) = knocked.unsent.pop()
    {
        tell(&knocked.unsent);
        return Err(last.into());
    }
    Ok(knocked)
}

fn tell(unsent: &[Unsent]) {
    unsent.iter().for_each(|unsent| complain(&in_one_line(unsent)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_says_how_many_knocks_went_where() {
        let at = |address: &str, count| (address.to_owned(), count);
        assert_eq!(sum([at("192.0.2.1", 5)].into_iter()), "sent 5 knocks to 192.0.2.1");
        let both = [at("2001:db8::1", 5), at("192.0.2.1", 10)];
        assert_eq!(sum(both.into_iter()), "sent 5 knocks to 2001:db8::1 and 10 to 192.0.2.1");
    }
}
