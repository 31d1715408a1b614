//! The command line.

mod check;
mod client;
#[cfg(feature = "demo")]
mod demo;
mod gateway;
mod live;

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand};
use doors_firewall::nftables::{Gate, TABLE};
use doors_os::clock::Clock;
use doors_text::{error_chain::in_one_line, safe_text::escaped};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::runtime::Runtime;

use crate::{
    commands::{
        check::Verdict,
        client::ClientError,
        live::{Found, LiveError},
    },
    config::last_good::{self, Keeper, NoConfig, Store},
    config::{self, Config, ConfigError, Inputs, keys},
    control::client::{self as control_client, CallError},
    daemon,
    observe::subscriber,
};

/// All went well.
const FINE: u8 = 0;
/// It could not be done.
const FAILED: u8 = 1;
/// Something given to us is wrong; nothing was touched.
const WRONG: u8 = 2;

/// No daemon runs that could be asked.
const NO_DAEMON: u8 = 3;

/// How long the end waits for a disk.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

const AFTER_HELP: &str = "\
Exit codes:
  0  all went well, or the daemon was asked to stop
  1  it could not be done; the message says why
  2  an option, a variable or the configuration is wrong; nothing was touched
  3  no daemon runs that could be asked

Environment:
  KNOCKER_SEQ    the magic sequence, where --magic-seq is absent; other users cannot
                 read it in the list of processes, as they can that option
  KNOCKER_PORTS  the ports to control, where --ports is absent
  RUST_LOG       what is logged, where -v is absent: error, warn, info, debug, trace or
                 off; with target=level, the rest stays as it is
  NO_COLOR       no colours on a terminal, if it is set and not empty

The configuration file is explained by --show-configuration-file-help.";

/// Opens doors in the firewall to those who knock, and closes them again
///
/// With no command it runs the daemon, in the foreground.
#[derive(Debug, Parser)]
#[command(name = "port-knocking-doors", version, after_help = AFTER_HELP, max_term_width = 80)]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    /// Write a default configuration file in the home directory
    #[arg(long)]
    set_configuration_file_in_home: bool,

    /// Show a help for the configuration file
    #[arg(long)]
    show_configuration_file_help: bool,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args, Clone, Debug, Default, Eq, PartialEq)]
struct Settings {
    /// Set configuration file path
    #[arg(short, long)]
    conf: Option<PathBuf>,

    /// The magic sequence, between 5 and 20 UDP ports: "10001,10002,10003,10004,10005"
    #[arg(short, long)]
    magic_seq: Option<String>,

    /// The ports to control: "22" or "22,80,8080"
    #[arg(short, long)]
    ports: Option<String>,

    /// If the configuration file cannot be used at the start, run with what was last in force from it
    #[arg(long)]
    last_good: bool,

    /// Where the control socket is made, for the commands that ask the running daemon
    #[arg(long, value_name = "FILE")]
    control_socket: Option<PathBuf>,

    /// Log more; twice for even more
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
}

/// Which configuration a command works on.
#[derive(Args, Clone, Debug, Default)]
struct Conf {
    /// Set configuration file path
    #[arg(short = 'c', long = "conf", global = true, value_name = "CONF")]
    after: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the configuration in force and what it would do on this machine; touch nothing
    Check(Settings),
    /// Make and show this machine's own key, which clients with a key need
    Gateway {
        #[command(flatten)]
        conf: Conf,
        #[command(subcommand)]
        command: gateway::Gateway,
    },
    /// Add, show and remove clients with a key
    Client {
        #[command(flatten)]
        conf: Conf,
        #[command(subcommand)]
        command: client::Client,
    },
    #[command(flatten)]
    Live(live::Live),
    /// Take our nftables table away, when the daemon does not run
    RemoveGate,
    /// Show it all in a private network: knocks, a door, the kernel's rules
    #[cfg(feature = "demo")]
    Demo(demo::Options),
    /// The part of the demo that runs as the client
    #[command(hide = true, disable_help_flag = true)]
    #[cfg(feature = "demo")]
    DemoClient {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<std::ffi::OsString>,
    },
}

/// Runs the program, and says with what code it ends.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    if cli.show_configuration_file_help {
        return print(&keys::help());
    }
    let settings = cli.settings;
    if cli.set_configuration_file_in_home {
        // A user who asks for more than the file must not believe that the rest was done, too.
        return match cli.command.is_none() && settings == Settings::default() {
            true => write_default_file(),
            false => complain(WRONG, "--set-configuration-file-in-home stands alone; leave the rest out"),
        };
    }
    match cli.command {
        None => run_daemon(&settings),
        Some(Command::Check(after)) => run_check(&settings.then(after)),
        Some(Command::Gateway { conf, command }) => run_gateway(&settings.with_conf(conf), &command),
        Some(Command::Client { conf, command }) => run_client(&settings.with_conf(conf), &command),
        // Where the socket is may stand before the command, too.
        Some(Command::Live(command)) if settings.without_socket() == Settings::default() => {
            run_live(command, settings.control_socket)
        }
        Some(_) if settings != Settings::default() => {
            complain(WRONG, "the options of the daemon mean nothing to this command; leave them out")
        }
        Some(Command::Live(command)) => run_live(command, None),
        Some(Command::RemoveGate) => remove_gate(),
        #[cfg(feature = "demo")]
        Some(Command::Demo(options)) => demo::run(&options),
        #[cfg(feature = "demo")]
        Some(Command::DemoClient { arguments }) => doorknock::cli::run(arguments),
    }
}

/// The definition of the command line, for manual pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

impl Settings {
    /// These, and where it says something, what comes after.
    fn then(self, after: Self) -> Self {
        Self {
            conf: after.conf.or(self.conf),
            magic_seq: after.magic_seq.or(self.magic_seq),
            ports: after.ports.or(self.ports),
            last_good: after.last_good || self.last_good,
            control_socket: after.control_socket.or(self.control_socket),
            verbose: after.verbose.max(self.verbose),
        }
    }

    /// These, and the file that a command names.
    fn with_conf(self, conf: Conf) -> Self {
        Self { conf: conf.after.or(self.conf), ..self }
    }

    fn without_socket(&self) -> Self {
        Self { control_socket: None, ..self.clone() }
    }

    fn surroundings(&self) -> Inputs {
        Inputs {
            conf: self.conf.clone(),
            magic_seq: self.magic_seq.clone(),
            ports: self.ports.clone(),
            knocker_seq: std::env::var_os("KNOCKER_SEQ"),
            knocker_ports: std::env::var_os("KNOCKER_PORTS"),
            home: std::env::home_dir(),
        }
    }

    /// For a start: with the option, what was last in force takes the place of a file that cannot be used.
    fn load_for_start(&self) -> Result<Config, NoConfig> {
        match self.last_good {
            true => last_good::load(&self.surroundings(), &Store::of_environment()),
            false => self.load().map_err(|error| NoConfig { error, instead: None }),
        }
    }

    /// For a reload: only what stands in the file.
    fn reload(&self) -> Result<Config, ConfigError> {
        match self.last_good {
            true => last_good::reload(&self.surroundings(), &Store::of_environment()),
            false => self.load(),
        }
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.surroundings())
    }
}

fn run_daemon(settings: &Settings) -> ExitCode {
    match subscriber::wanted(settings.verbose) {
        Ok(wanted) => subscriber::start(wanted),
        Err(error) => return fail(WRONG, &error),
    }
    let config = match settings.load_for_start() {
        Ok(config) => config,
        Err(error) => return no_config(&error),
    };
    // A dump of this process would hold the gateway's key.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let last_good = match settings.last_good {
        true => Keeper::start(Store::of_environment()),
        false => Ok(Keeper::idle()),
    };
    let last_good = match last_good {
        Ok(last_good) => last_good,
        Err(error) => return fail(FAILED, &daemon::RunError::Start(error)),
    };
    let socket = control_client::socket_of_service(settings.control_socket.as_deref());
    let settings = settings.clone();
    let load = move || settings.reload();
    let run = |runtime: Runtime| runtime.block_on(daemon::run(config, load, &last_good, socket));
    let ended = runtime().and_then(run);
    last_good.end(STOP_TIMEOUT);
    finish(ended)
}

fn no_config(NoConfig { error, instead }: &NoConfig) -> ExitCode {
    let code = wrong_config(error);
    match instead {
        Some(instead) => fail(WRONG, instead),
        None => code,
    }
}

fn run_check(settings: &Settings) -> ExitCode {
    // The daemon would not start with it, so neither is the answer "all is well" with it.
    if let Err(error) = subscriber::wanted(settings.verbose) {
        return fail(WRONG, &error);
    }
    let config = match settings.load_for_start() {
        Ok(config) => config,
        Err(error) => {
            let code = no_config(&error);
            let kept = last_good::kept_instead(&settings.surroundings(), &Store::of_environment());
            if let Some((_, copy)) = kept.filter(|_| !settings.last_good) {
                let text = format!(
                    "what was last in force is kept ({}): a daemon that starts with --last-good, as our unit does, runs with \
                     that, until the file is mended and read again",
                    copy.display()
                );
                complain(WRONG, &text);
            }
            return code;
        }
    };
    // Without the option default values stand for a file that is gone; our unit has the option.
    let gone = match config.path {
        None => last_good::kept_instead(&settings.surroundings(), &Store::of_environment()),
        Some(_) => None,
    };
    let now = Clock::start().wall();
    let checked = runtime().map(|runtime| runtime.block_on(check::describe(&config, gone.as_ref(), now)));
    match checked {
        Ok(checked) => {
            let printed = print(&checked.text);
            match checked.verdict {
                Verdict::Works => printed,
                Verdict::Fails => ExitCode::from(FAILED),
                Verdict::Wrong => ExitCode::from(WRONG),
            }
        }
        Err(error) => fail(FAILED, &error),
    }
}

fn run_gateway(settings: &Settings, command: &gateway::Gateway) -> ExitCode {
    let config = match settings.load() {
        Ok(config) => config,
        Err(error) => {
            wrong_config(&error);
            return complain(WRONG, client::NOTHING_CHANGED);
        }
    };
    match gateway::run(command, &config) {
        Ok(text) => print(&text),
        Err(error) => fail(if error.is_wrong_input() { WRONG } else { FAILED }, &error),
    }
}

fn run_client(settings: &Settings, command: &client::Client) -> ExitCode {
    match client::run(command, &settings.surroundings()) {
        Ok(text) => print(&text),
        Err(ClientError::Config(error)) => {
            wrong_config(&error);
            complain(WRONG, &client::not_done(command))
        }
        Err(error) => fail(if error.is_wrong_input() { WRONG } else { FAILED }, &error),
    }
}

fn run_live(command: live::Live, socket: Option<PathBuf>) -> ExitCode {
    match live::run(command, socket) {
        Ok(Found::Fine) => ExitCode::from(FINE),
        Ok(Found::NotAsConfigured) => ExitCode::from(FAILED),
        Err(error @ LiveError::Call(CallError::NoDaemon(_))) => fail(NO_DAEMON, &error),
        Err(error @ LiveError::Call(CallError::Parameter(_))) => fail(WRONG, &error),
        Err(error) => fail(FAILED, &error),
    }
}

fn remove_gate() -> ExitCode {
    match Gate::remove_by_hand() {
        Ok(true) => {
            print(&format!("the nftables table inet {TABLE} is gone; it guarded its ports until now\n"))
        }
        Ok(false) => print(&format!("there is no nftables table inet {TABLE}\n")),
        Err(error) => fail(FAILED, &error),
    }
}

fn write_default_file() -> ExitCode {
    let Some(path) = config::path_in_home(std::env::home_dir().as_deref()) else {
        return complain(FAILED, "there is no home directory; set HOME");
    };
    // Its owner alone may read the file: the sequence is a secret.
    let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    match created.and_then(|mut file| file.write_all(keys::default_file().as_bytes())) {
        Ok(()) => print(&format!("written: {}\n", path.display())),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text =
                format!("{0} exists and is left as it is; to start anew, move it away first", path.display());
            complain(FAILED, &text)
        }
        Err(error) => complain(FAILED, &format!("cannot write {}: {error}", path.display())),
    }
}

fn runtime() -> Result<Runtime, daemon::RunError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(daemon::RunError::Start)
}

fn finish(ended: Result<(), daemon::RunError>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::from(FINE),
        Err(error) => fail(if error.is_wrong_input() { WRONG } else { FAILED }, &error),
    }
}

fn print(text: &str) -> ExitCode {
    match anstream::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::from(FINE),
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(FINE),
        Err(error) => complain(FAILED, &format!("cannot print: {error}")),
    }
}

/// Each fault of a configuration has a line of its own.
fn wrong_config(error: &ConfigError) -> ExitCode {
    match error {
        ConfigError::Several(faults) => {
            for line in faults.lines() {
                complain(WRONG, &escaped(&line));
            }
            ExitCode::from(WRONG)
        }
        only => fail(WRONG, only),
    }
}

fn fail(code: u8, error: &dyn std::error::Error) -> ExitCode {
    complain(code, &in_one_line(error))
}

fn complain(code: u8, text: &str) -> ExitCode {
    // Nothing is left to tell it to if standard error is gone, too.
    let _ = writeln!(anstream::stderr(), "port-knocking-doors: {text}");
    ExitCode::from(code)
}
