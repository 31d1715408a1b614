//! The command line.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{
    arrival,
    errors::in_one_line,
    join, sequence,
    target::{self, Family},
};

/// The door did not open, or the knocks could not be sent.
const FAILED: u8 = 1;

const AFTER_HELP: &str = "\
Exit codes:
  0  the knocks were sent; with --wait or proxy: the port accepted
  1  they could not be sent, or the port did not accept in time
  2  an option is wrong

In ~/.ssh/config:
  Host myserver
      ProxyCommand doorknock proxy %h %p --sequence 16001,16002,16003,16004,16005";

/// Knocks on the doors of a server
#[derive(Debug, Parser)]
#[command(name = "doorknock", version, after_help = AFTER_HELP, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a sequence of knocks
    Sequence {
        /// The server: a name or an address
        host: String,
        /// The UDP ports to knock on, in order: 16001,16002,16003,16004,16005
        ports: Ports,
        /// Wait until this TCP port accepts connections, and say how long it took
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        wait: Option<u16>,
        /// Say nothing
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        manner: Manner,
    },
    /// Knock, connect, and join the connection with standard input and output
    Proxy {
        /// The server: a name or an address
        host: String,
        /// The TCP port to connect to
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// The UDP ports to knock on, in order
        #[arg(long, value_name = "PORTS")]
        sequence: Ports,
        #[command(flatten)]
        manner: Manner,
    },
}

#[derive(Clone, Debug)]
struct Ports(Vec<u16>);

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        sequence::parse_ports(text).map(Self)
    }
}

#[derive(Args, Clone, Copy, Debug)]
struct Manner {
    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long)]
    ipv6: bool,
    /// Milliseconds between two knocks; more where the network changes their order
    #[arg(long, value_name = "MS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=60_000))]
    delay: u64,
    /// Send the sequence up to so many times, until the port accepts if there is one to wait for
    #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Seconds to be quiet between two times: longer than the server ignores whoever knocked wrong
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pause: u64,
    /// Seconds to wait for the port after the last time
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Manner {
    fn family(self) -> Family {
        match (self.ipv4, self.ipv6) {
            (true, _) => Family::V4,
            (_, true) => Family::V6,
            (false, false) => Family::Both,
        }
    }
}

/// Runs the program with these arguments, the program's name not among them, and says with what code
/// it ends.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let name = OsString::from("doorknock");
    let arguments = std::iter::once(name).chain(arguments.into_iter().map(Into::into));
    // A wrong option ends the program here, with a message and code 2.
    let ended = match Cli::parse_from(arguments).command {
        Command::Sequence { host, ports, wait, quiet, manner } => {
            run_sequence(&host, &ports.0, wait, quiet, manner)
        }
        Command::Proxy { host, port, sequence, manner } => run_proxy(&host, port, &sequence.0, manner),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(io::stderr(), "doorknock: {}", in_one_line(&failure));
            ExitCode::from(FAILED)
        }
    }
}

/// The definition of the command line, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Target(#[from] target::TargetError),
    #[error("cannot send knocks to {address}")]
    Send { address: std::net::IpAddr, source: io::Error },
    #[error(
        "{host} port {port} does not accept connections; a wrong sequence, a lost datagram, or nothing \
         listens there: try --repeat 3, or --delay 100"
    )]
    Closed { host: String, port: u16 },
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    #[error("cannot print")]
    Print(#[source] io::Error),
}

fn run_sequence(
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

fn run_proxy(host: &str, port: u16, ports: &[u16], manner: Manner) -> Result<(), Failure> {
    let addresses = target::resolve(host, manner.family())?;
    let (stream, _) = knock_until_open(host, &addresses, ports, port, manner)?;
    join::join(&stream, io::stdin(), io::stdout()).map_err(Failure::Broken)
}

/// Knocks and waits, up to as many times as wanted. Gives the connection, and how long after the last
/// knock it was made.
fn knock_until_open(
    host: &str,
    addresses: &[SocketAddr],
    ports: &[u16],
    port: u16,
    manner: Manner,
) -> Result<(TcpStream, Duration), Failure> {
    let targets: Vec<SocketAddr> = addresses
        .iter()
        .map(|address| {
            let mut target = *address;
            target.set_port(port);
            target
        })
        .collect();
    for left in (0..manner.repeat).rev() {
        knock(addresses, ports, manner)?;
        let knocked = Instant::now();
        let patience = Duration::from_secs(if left > 0 { manner.pause } else { manner.timeout });
        if let Some(stream) = arrival::wait(&targets, patience) {
            return Ok((stream, knocked.elapsed()));
        }
    }
    Err(Failure::Closed { host: host.to_owned(), port })
}

/// Knocks at every address. Some may have no route, as IPv6 often has none; one is enough.
fn knock(addresses: &[SocketAddr], ports: &[u16], manner: Manner) -> Result<(), Failure> {
    let delay = Duration::from_millis(manner.delay);
    let mut reached = false;
    let mut failure = None;
    for address in addresses {
        match sequence::send(*address, ports, delay) {
            Ok(()) => reached = true,
            Err(source) => failure = Some(Failure::Send { address: address.ip(), source }),
        }
    }
    match failure {
        Some(failure) if !reached => Err(failure),
        _ => Ok(()),
    }
}
