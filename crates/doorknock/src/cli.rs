//! The command line.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    net::IpAddr,
    num::NonZeroU16,
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand, builder::TypedValueParser};
use doors_spa::door::check_name;
use doors_text::{
    error_chain::in_one_line,
    safe_text::{escaped, is_seen},
};

use crate::{
    durations,
    host::Host,
    output::{self, ExitStatus},
    resolve::Family,
    sequence,
    servers::{KeyPath, ServerName},
    spa::own_address::Whom,
};

mod asking;
mod failure;
mod key;
mod proxy;
mod request;
mod secret_input;
mod sequence_command;
mod servers;
mod session;
mod ssh_config;
mod tell;
mod waits;

use self::servers::Given;
use failure::Failure;
use ssh_config::Jump;

/// The exit code if an option is wrong.
const WRONG: u8 = 2;

const AFTER_HELP: &str = "\
Exit codes:
  0  done: open, closed, told, or the knocks were sent; at one address at least.
     With --wait or proxy: the port accepted
  1  it could not be done here, or the port did not accept in time
  2  an option is wrong
  3  no answer
  4  not allowed
  5  refused for another reason: too many, the address, the server's disk or
     firewall, or a clock that a challenge did not help; or the server's answer
     cannot be true

In ~/.ssh/config, as \"doorknock ssh-config\" prints it:
  Host myserver
      ProxyCommand doorknock proxy %h %p --server myserver --door ssh";

/// Knocks on the doors of a server
#[derive(Debug, Parser)]
#[command(name = "doorknock", version, after_help = AFTER_HELP, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Store a server, with the card that its administrator gave you
    Add {
        /// What to call it
        server: ServerName,
        /// Where it is: a name or an address
        host: Host,
        /// Its card: "-" reads it from standard input, where other users cannot see it;
        /// or the card itself, "doors1-…"
        card: String,
        /// The UDP port to knock on; 62201 if not said
        #[arg(long, value_parser = port())]
        port: Option<NonZeroU16>,
        /// The key to sign with, for this server
        #[arg(short = 'i', long = "identity", value_name = "FILE")]
        identity: Option<PathBuf>,
        /// Always let in the address that this server sees: for networks that translate
        /// addresses which look global
        #[arg(long, value_name = "seen", value_parser = seen)]
        address: Option<Whom>,
        /// Take the place of a server of this name; port, key and address that are not given
        /// stay as they are
        #[arg(long)]
        replace: bool,
        /// Say nothing but errors
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show the servers that are stored
    List {
        /// One JSON object in each line
        #[arg(long)]
        json: bool,
    },
    /// Forget a server
    Remove {
        /// What it is called
        server: ServerName,
    },
    /// Open a door for this machine, and say until when
    Open {
        #[command(flatten)]
        at: DoorArgs,
        /// For how long: 90s, 10m, 1h30m; what the door gives if not said
        #[arg(long = "for", value_name = "TIME", value_parser = durations::parse)]
        wanted: Option<u32>,
        /// Let in this address; "seen": the one that the server sees this machine at.
        /// If not said: the one that it sends from, where that is a global one
        #[arg(long, value_name = "IP")]
        address: Option<Whom>,
        #[command(flatten)]
        how: How,
    },
    /// Close a door again
    Close {
        #[command(flatten)]
        at: DoorArgs,
        /// The address that was admitted
        #[arg(long, value_name = "IP")]
        address: Option<Whom>,
        #[command(flatten)]
        how: How,
    },
    /// Ask a server which doors you may open
    Ask {
        /// What the server is called
        server: ServerName,
        #[command(flatten)]
        how: How,
    },
    /// Print the lines for ~/.ssh/config that knock before ssh connects
    ///
    /// With --jump and --address for a server that is reached over another machine: this machine
    /// knocks at the server for the other's address, and ssh jumps.
    SshConfig {
        #[command(flatten)]
        at: DoorArgs,
        /// The machine to jump over, as for ssh -J
        #[arg(long, value_name = "HOST", requires = "address")]
        jump: Option<Jump>,
        /// The address from which that machine connects to the server
        #[arg(long, value_name = "IP", requires = "jump", value_parser = named)]
        address: Option<IpAddr>,
        /// For how long to open the door; what it gives if not said
        #[arg(long = "for", value_name = "TIME", value_parser = durations::parse)]
        wanted: Option<u32>,
    },
    /// Make a key, and print the line for the server's configuration
    Keygen {
        /// Where to; ~/.ssh/id_ed25519_doors if not said, where it is found without -i
        file: Option<PathBuf>,
        /// Ask for no passphrase: every reader of the file has the key
        #[arg(long)]
        no_passphrase: bool,
    },
    /// Send a sequence of knocks
    Sequence {
        /// The server: a name or an address
        host: Host,
        /// The 5 to 20 UDP ports to knock on, in order: "-" reads them from standard input,
        /// where other users cannot see them; or the ports, 16001,16002,16003,16004,16005
        #[arg(required_unless_present = "sequence_file", conflicts_with = "sequence_file")]
        ports: Option<Ports>,
        /// Read the ports from this file, that only you can read
        #[arg(long, value_name = "FILE")]
        sequence_file: Option<PathBuf>,
        /// Wait until this TCP port accepts connections, and say how long it took
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        wait: Option<u16>,
        /// Say nothing
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        manner: Options,
    },
    /// Knock, connect, and join the connection with standard input and output
    #[command(group(clap::ArgGroup::new("knock").required(true).args(["sequence_file", "sequence", "server"])))]
    Proxy {
        /// The server: a name or an address
        host: Host,
        /// The TCP port to connect to
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// The file with the 5 to 20 UDP ports to knock on, in order, that only you can read
        #[arg(long, value_name = "FILE")]
        sequence_file: Option<PathBuf>,
        /// The ports themselves; other users can see them as long as the connection lives
        #[arg(long, value_name = "PORTS", value_parser = ports)]
        sequence: Option<PortList>,
        /// Knock at this stored server instead of sending a sequence
        #[arg(long)]
        server: Option<ServerName>,
        /// The door to open; may be left out where the server has one for you
        #[arg(long, requires = "server", value_parser = door)]
        door: Option<String>,
        /// For how long to open it
        #[arg(long = "for", value_name = "TIME", requires = "server", value_parser = durations::parse)]
        wanted: Option<u32>,
        /// Let in this address; "seen": the one that the server sees this machine at.
        /// If not said: the one that it sends from, where that is a global one
        #[arg(long, value_name = "IP", requires = "server")]
        address: Option<Whom>,
        /// The key to sign with
        #[arg(short = 'i', long = "identity", value_name = "FILE", requires = "server")]
        identity: Option<PathBuf>,
        /// Say nothing but errors
        #[arg(short, long)]
        quiet: bool,
        #[command(flatten)]
        manner: Options,
    },
}

/// A door, as the arguments name it.
#[derive(Args, Clone, Debug)]
struct DoorArgs {
    /// What the server is called
    server: ServerName,
    /// The door's name; may be left out where the server has one for you
    #[arg(value_parser = door)]
    door: Option<String>,
}

#[derive(Args, Clone, Debug, Default)]
struct How {
    /// Knock over IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    ipv4: bool,
    /// Knock over IPv6 only
    #[arg(short = '6', long)]
    ipv6: bool,
    /// The key to sign with: from the ssh-agent if it holds it, else this file
    #[arg(short = 'i', long = "identity", value_name = "FILE")]
    identity: Option<PathBuf>,
    /// One JSON object in a line for each address
    #[arg(long)]
    json: bool,
    /// Say nothing but errors
    #[arg(short, long, conflicts_with = "json")]
    quiet: bool,
}

/// Where the ports of a sequence are.
#[derive(Clone, Debug)]
enum Ports {
    StandardInput,
    Here(Vec<u16>),
}

impl std::str::FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::StandardInput),
            text => sequence::parse_ports(text).map(Self::Here),
        }
    }
}

/// The ports of a sequence.
#[derive(Clone, Debug)]
struct PortList(Vec<u16>);

/// Where standard input is the connection.
fn ports(text: &str) -> Result<PortList, String> {
    match text {
        "-" => Err("standard input is the connection here; name a file with --sequence-file".to_owned()),
        text => sequence::parse_ports(text).map(PortList),
    }
}

#[derive(Args, Clone, Copy, Debug)]
struct Options {
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
    /// Seconds to be quiet between two times: longer than the server ignores a source after a wrong knock
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pause: u64,
    /// Seconds to wait for the port after the last time
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Options {
    fn family(self) -> Family {
        family(self.ipv4, self.ipv6)
    }
}

fn family(ipv4: bool, ipv6: bool) -> Family {
    match (ipv4, ipv6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        (false, false) => Family::Both,
    }
}

fn port() -> impl TypedValueParser<Value = NonZeroU16> {
    clap::value_parser!(u16).range(1..).try_map(NonZeroU16::try_from)
}

/// The address of another machine, which only the user knows.
fn named(text: &str) -> Result<IpAddr, &'static str> {
    match text.parse() {
        Ok(Whom::Address(address)) => Ok(address),
        _ => Err("write an address, like 203.0.113.7 or 2001:db8::7"),
    }
}

/// A server that is stored may be reached from many networks.
fn seen(text: &str) -> Result<Whom, &'static str> {
    match text.parse() {
        Ok(Whom::Seen) => Ok(Whom::Seen),
        _ => Err("write seen; another address is for one knock: doorknock open --address"),
    }
}

/// The rule of the server, so that it becomes a word on a terminal and in ~/.ssh/config.
fn door(text: &str) -> Result<String, String> {
    match check_name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err("no server has a door of this name; doorknock ask shows them".to_owned()),
    }
}

/// Runs the program with these arguments, the program's name not among them, and says with what code
/// it ends.
pub fn run(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let name = OsString::from("doorknock");
    let arguments = std::iter::once(name).chain(arguments.into_iter().map(Into::into));
    let arguments: Vec<OsString> = arguments.collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return wrong(&error, &arguments),
    };
    let programs = cli.command.for_programs();
    match cli.command.run() {
        Ok(ending) => ExitCode::from(ending.code()),
        Err(failure) => {
            let message = in_one_line(&failure);
            match programs {
                Some((server, door)) => {
                    let server = server.as_ref().map(ServerName::as_str);
                    let line = output::json_failure("failed", server, door.as_deref(), &message);
                    // If that cannot be printed, people should know at least.
                    print(&line).unwrap_or_else(|_| complain(&message));
                }
                None => complain(&message),
            }
            ExitCode::from(ExitStatus::Failed.code())
        }
    }
}

/// Help that was asked for, or what is wrong with an option. That quotes the arguments, which need not come from
/// the user: ssh hands over a host as it stands in a link.
fn wrong(error: &clap::Error, arguments: &[OsString]) -> ExitCode {
    let is_plain = |argument: &OsString| argument.to_str().is_some_and(|text| text.chars().all(is_seen));
    if error.use_stderr() && wants_json(arguments) {
        let printed = print(&output::json_failure("usage", None, None, &in_one_sentence(error)));
        printed.unwrap_or_else(|failure| complain(&in_one_line(&failure)));
        return ExitCode::from(WRONG);
    }
    if !error.use_stderr() || arguments.iter().all(is_plain) {
        // Ends here, with code 0 or 2.
        error.exit();
    }
    let text = error.render().to_string();
    text.lines().for_each(|line| {
        let _ = writeln!(io::stderr(), "{}", escaped(line));
    });
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG))
}

/// Whether the command that is meant has `--json`, and it is among the arguments.
fn wants_json(arguments: &[OsString]) -> bool {
    let commands = Cli::command();
    let meant = arguments.iter().find_map(|argument| commands.find_subcommand(argument));
    let has_json = meant.is_some_and(|command| command.get_arguments().any(|it| it.get_id() == "json"));
    has_json && arguments.iter().any(|argument| argument == "--json")
}

/// What is wrong, without the lines about usage and help that are for people at a terminal.
fn in_one_sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text.split("\nUsage:").next().unwrap_or_default();
    let told = told.split("\nFor more information").next().unwrap_or_default();
    let mut sentence = String::new();
    for line in told.trim_start_matches("error: ").lines().map(str::trim).filter(|line| !line.is_empty()) {
        let between = match sentence.chars().last() {
            None => "",
            Some(':') => " ",
            Some(_) if line.starts_with("tip:") || line.starts_with('[') => "; ",
            Some(_) => ", ",
        };
        sentence.push_str(between);
        sentence.push_str(line);
    }
    sentence
}

fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "doorknock: {}", escaped(line));
}

fn remark(line: &str, quiet: bool) {
    if !quiet {
        complain(line);
    }
}

fn print(line: &str) -> Result<(), Failure> {
    writeln!(io::stdout(), "{}", escaped(line)).map_err(Failure::Print)
}

/// The definition of the command line, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

impl Command {
    /// The server and the door that it is about, if programs read what it says.
    fn for_programs(&self) -> Option<(Option<ServerName>, Option<String>)> {
        match self {
            Self::Open { at, how, .. } | Self::Close { at, how, .. } if how.json => {
                Some((Some(at.server.clone()), at.door.clone()))
            }
            Self::Ask { server, how } if how.json => Some((Some(server.clone()), None)),
            _ => None,
        }
    }

    fn run(self) -> Result<ExitStatus, Failure> {
        let done = match self {
            Self::Add { server, host, card, port, identity, address, replace, quiet } => {
                let card = secret_input::card(&card, &server, &host, quiet)?;
                let key = identity.as_deref().map(KeyPath::new).transpose().map_err(Failure::KeyPath)?;
                self::servers::add(&server, Given { host, port, card, key, whom: address }, replace, quiet)
            }
            Self::List { json } => return self::servers::list(json),
            Self::Remove { server } => self::servers::remove(&server),
            Self::SshConfig { at, jump, address, wanted } => match asking::door(&at, &How::default())? {
                Ok(door) => ssh_config::print(&at.server, &door, wanted, jump.as_ref().zip(address)),
                Err(ending) => return Ok(ending),
            },
            Self::Keygen { file, no_passphrase } => key::make(file, no_passphrase),
            Self::Open { at, wanted, address, how } => return request::open(&at, wanted, address, &how),
            Self::Close { at, address, how } => return request::close(&at, address, &how),
            Self::Ask { server, how } => return asking::ask(&server, &how),
            Self::Sequence { host, ports, sequence_file, wait, quiet, manner } => {
                let ports = secret_input::ports(ports, sequence_file.as_deref(), &host, quiet)?;
                sequence_command::run(&host, &ports, wait, quiet, manner)
            }
            Self::Proxy { host, port, sequence: Some(ports), quiet, manner, .. } => {
                secret_input::warn_of_ports("doorknock proxy … --sequence-file FILE", quiet);
                sequence_command::proxy(&host, port, &ports.0, quiet, manner)
            }
            Self::Proxy { host, port, sequence_file: Some(file), quiet, manner, .. } => {
                sequence_command::proxy(&host, port, &secret_input::ports_in(&file)?, quiet, manner)
            }
            Self::Proxy {
                host,
                port,
                server: Some(server),
                door,
                wanted,
                address,
                identity,
                quiet,
                manner,
                ..
            } => {
                let at = DoorArgs { server, door };
                let target = (&host, port);
                return proxy::run(target, &at, wanted, address, identity.as_deref(), quiet, manner);
            }
            // The definition of the group "knock" leaves no other.
            Self::Proxy { .. } => Ok(()),
        };
        done.map(|()| ExitStatus::Done)
    }
}
