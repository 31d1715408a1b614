//! The steps of the demo, in order.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use doors_firewall::nftables::render;
use doors_lab::{self as lab, Firewalld, LabError, Namespace, Process};
use doors_os::netlink::NetlinkError;
use doors_text::wrap::wrap;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use super::screen::Screen;

const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 8));
/// The port behind the door.
const PORT: u16 = 22;
const SEQUENCE: &str = "30721,4417,52208,19343,61002";
/// The width of a line without its prefix.
const WIDTH: usize = 62;
/// How long the door stays open in the demo.
const OPEN_FOR: u64 = 3;
/// How long to wait for a port to answer before it counts as closed. Both ends are on this machine.
const NO_ANSWER: Duration = Duration::from_millis(400);
/// The maximum time for a single step.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error(transparent)]
    Lab(#[from] LabError),
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
    #[error("cannot read the kernel's ruleset")]
    Kernel(#[from] NetlinkError),
    #[error("{0}")]
    NotAsItMustBe(String),
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> DemoError {
    move |source| DemoError::Io { what, source }
}

/// The private network, the daemon and the screen.
pub(super) struct Story {
    screen: Screen,
    steps: usize,
    server: Namespace,
    client: Namespace,
    firewalld: Option<Firewalld>,
    daemon: Process,
    place: PathBuf,
}

impl Story {
    /// Makes the network and starts the daemon.
    pub(super) fn begin(screen: Screen, with_firewalld: bool) -> Result<Self, DemoError> {
        let place = lab::private_directory()?;
        let server = Namespace::new()?;
        let client = Namespace::new()?;
        client.cable("client", &server, "server")?;
        for (namespace, link, address) in
            [(&server, "server", SERVER), (&client, "client", CLIENT), (&client, "client", STRANGER)]
        {
            let network = ipnet::IpNet::new_assert(address, 24);
            namespace.address(link, network)?;
        }
        listen(&server)?;
        screen.remark("client 192.0.2.7 ─┐");
        screen.remark("                  ├── a cable ── server 192.0.2.1, which listens on port 22");
        screen.remark("stranger 192.0.2.8┘             both in private network namespaces");
        let firewalld = with_firewalld.then(|| start_firewalld(&server, &place)).transpose()?;
        let daemon = start_daemon(&server, firewalld.as_ref(), &place)?;
        Ok(Self { screen, steps: 0, server, client, firewalld, daemon, place })
    }

    /// Runs all steps. Stops at the first unexpected result.
    pub(super) fn tell(mut self) -> Result<(), DemoError> {
        self.step("The daemon starts, and closes the door in the kernel");
        self.screen.command("server", "port-knocking-doors");
        self.hear("ready")?;
        self.show_kernel()?;
        self.must_be_closed(CLIENT, "the client")?;

        self.step("The client knocks");
        self.knock()?;
        self.hear("opened:")?;
        self.show_grants()?;

        self.step("Only the client sees an open door");
        self.must_be_closed(STRANGER, "the stranger")?;
        let mut session = self.connect(CLIENT).map_err(io_error("connect through the open door"))?;
        self.must_echo(&mut session, "the client connects and stays connected")?;

        self.step("The door closes by itself");
        self.hear("closed:")?;
        self.wait_until_closed()?;
        self.show_grants()?;
        self.must_be_closed(CLIENT, "the client, anew,")?;
        self.must_echo(&mut session, "the connection made before lives on")?;

        self.step("A client with a key asks for the door, and is told the truth");
        self.open_by_key()?;
        self.hear("opened:")?;
        self.show_grants()?;
        self.must_be_closed(STRANGER, "the stranger")?;
        self.hear("closed:")?;
        self.wait_until_closed()?;

        self.step("Even with the daemon killed, the kernel closes the door on time");
        self.knock()?;
        self.hear("opened:")?;
        let opened = Instant::now();
        self.screen.command("server", "kill -9 $(pidof port-knocking-doors)");
        self.daemon.signal(Signal::KILL).map_err(io_error("kill the daemon"))?;
        self.daemon.wait(STEP_TIMEOUT).map_err(io_error("wait for the daemon's end"))?;
        self.connect(CLIENT).map_err(io_error("connect while the door is still open"))?;
        self.screen.right("the door is still open");
        self.wait_until_closed()?;
        let after = opened.elapsed().saturating_sub(NO_ANSWER).as_secs_f64();
        self.screen.right(&format!("the door closed after {after:.1} s, with no daemon running"));
        self.show_grants()?;
        self.screen.remark("");
        self.screen.right("everything was as it must be; nothing of it is left on this machine");
        Ok(())
    }

    fn wait_until_closed(&self) -> Result<(), DemoError> {
        let begun = Instant::now();
        while self.connect(CLIENT).is_ok() {
            if begun.elapsed() > STEP_TIMEOUT {
                return Err(DemoError::NotAsItMustBe("the door stays open".to_owned()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn step(&mut self, text: &str) {
        self.steps = self.steps.saturating_add(1);
        self.screen.step(self.steps, text);
    }

    /// Waits for a line of the daemon's log, and shows it with the lines before it.
    fn hear(&mut self, text: &str) -> Result<(), DemoError> {
        let heard = self.daemon.wait_for(text, STEP_TIMEOUT);
        for line in self.daemon.take_lines() {
            self.screen.log(&line);
        }
        match heard {
            Some(line) => {
                self.screen.log(&line);
                Ok(())
            }
            None => Err(DemoError::NotAsItMustBe(format!("the daemon did not say: {text}"))),
        }
    }

    /// Shows the whole table in the kernel.
    fn show_kernel(&self) -> Result<(), DemoError> {
        if let Some(text) = self.server.enter(render::draw)? {
            self.screen.kernel(&text);
        }
        Ok(())
    }

    /// Shows the open grants in firewalld's own output.
    fn show_rich_rules(&self) -> Result<(), DemoError> {
        let Some(firewalld) = &self.firewalld else { return Ok(()) };
        self.screen.command("server", "firewall-cmd --list-rich-rules");
        let rules = firewalld.command(&self.server, &["--list-rich-rules"]);
        let rules = rules.map_err(io_error("ask firewalld for its rules"))?;
        self.screen.firewalld(if rules.is_empty() { "(none)" } else { &rules });
        Ok(())
    }

    /// Shows the parts of the table that change: the open grants, and the number of refused packets.
    fn show_grants(&self) -> Result<(), DemoError> {
        if let Some(text) = self.server.enter(render::draw)? {
            let changing = |line: &&str| line.contains("  set ") || line.contains("counter");
            self.screen.kernel(&text.lines().filter(changing).collect::<Vec<_>>().join("\n"));
        }
        self.show_rich_rules()
    }

    /// Runs the client, as a user would.
    fn knock(&mut self) -> Result<(), DemoError> {
        let arguments = format!("sequence {SERVER} - --wait {PORT} --delay 0");
        // Arguments are visible to every user of the machine in the list of processes, so the sequence is not one.
        self.screen.command("client", &format!("echo {SEQUENCE} | \\"));
        self.screen.remark(&format!("            doorknock {arguments}"));
        let all: Vec<&str> = ["demo-client"].into_iter().chain(arguments.split(' ')).collect();
        self.screen.right(&run_with(&self.client, &self.place, &all, SEQUENCE)?);
        Ok(())
    }

    /// Creates a key, a card and a client, and opens a door: what an administrator and a user do.
    fn open_by_key(&self) -> Result<(), DemoError> {
        let path = |name: &str| self.place.join(name).display().to_string();
        let (key, conf) = (path("laptop"), path("doors.toml"));
        let on_server = |arguments: &[&str]| {
            self.command("server", &format!("port-knocking-doors {}", shown(arguments)));
            run(&self.server, &self.place, &[arguments, &["--conf", &conf]].concat())
        };
        let on_client = |arguments: &[&str]| {
            self.command("client", &format!("doorknock {}", shown(arguments)));
            run(&self.client, &self.place, &[&["demo-client"], arguments].concat())
        };
        on_client(&["keygen", &key, "--no-passphrase"])?;
        on_server(&["gateway", "init"])?;
        let public = format!("{key}.pub");
        let added = on_server(&["client", "add", "laptop", "--door", "default", "--key-file", &public])?;
        self.right(&added);
        let card = on_server(&["gateway", "card"])?;
        let server = SERVER.to_string();
        let add = ["add", "home", &server, "-", "-i", &key];
        self.command("client", &format!("echo {} | doorknock {}", shown(&[card.trim()]), shown(&add)));
        run_with(&self.client, &self.place, &[&["demo-client"], &add[..]].concat(), &card)?;
        let opened = on_client(&["open", "home", "default"])?;
        self.right(&opened);
        Ok(())
    }

    /// Prints a command, wrapped for a terminal.
    fn command(&self, host: &str, text: &str) {
        let lines = wrap(text, WIDTH);
        let last = lines.len().saturating_sub(1);
        for (number, line) in lines.iter().enumerate() {
            let more = if number < last { " \\" } else { "" };
            match number {
                0 => self.screen.command(host, &format!("{line}{more}")),
                _ => self.screen.remark(&format!("            {line}{more}")),
            }
        }
    }

    /// Prints an expected result, wrapped for a terminal.
    fn right(&self, text: &str) {
        for line in text.lines() {
            for (number, part) in wrap(line, WIDTH).iter().enumerate() {
                match number {
                    0 => self.screen.right(part),
                    _ => self.screen.remark(&format!("  {part}")),
                }
            }
        }
    }

    fn must_be_closed(&self, source: IpAddr, who: &str) -> Result<(), DemoError> {
        match self.connect(source) {
            Ok(_) => Err(DemoError::NotAsItMustBe(format!("{who} ({source}) gets in"))),
            Err(error) => {
                let how = match error.kind() {
                    io::ErrorKind::TimedOut => "no answer",
                    _ => "refused",
                };
                self.screen.right(&format!("{who} ({source}) finds port {PORT} closed: {how}"));
                Ok(())
            }
        }
    }

    fn must_echo(&self, session: &mut TcpStream, what: &str) -> Result<(), DemoError> {
        let mut answer = [0; 5];
        let echoed = session.write_all(b"hello").and_then(|()| session.read_exact(&mut answer));
        echoed.map_err(io_error("use the connection"))?;
        self.screen.right(what);
        Ok(())
    }

    /// Connects from one of the client's addresses.
    fn connect(&self, source: IpAddr) -> io::Result<TcpStream> {
        self.client.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect_timeout(&SocketAddr::new(SERVER, PORT).into(), NO_ANSWER)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(STEP_TIMEOUT))?;
            Ok(stream)
        })
    }
}

/// Starts the listener behind the door, which echoes what it receives.
fn listen(server: &Namespace) -> Result<(), DemoError> {
    let listener =
        server.enter(|| TcpListener::bind((SERVER, PORT))).map_err(io_error("listen in the namespace"))?;
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut back = &stream;
                io::copy(&mut &stream, &mut back)
            });
        }
    });
    Ok(())
}

/// Starts a real firewalld whose zone does not allow the port.
fn start_firewalld(server: &Namespace, place: &Path) -> Result<Firewalld, DemoError> {
    let start = || {
        let firewalld = Firewalld::start(server, place)?;
        firewalld.command(server, &["--remove-service=ssh"])?;
        Ok(firewalld)
    };
    start().map_err(io_error("start a firewalld; is it installed? apt-get install firewalld dbus"))
}

fn start_daemon(
    server: &Namespace,
    firewalld: Option<&Firewalld>,
    place: &Path,
) -> Result<Process, DemoError> {
    let kind = if firewalld.is_some() { "firewalld" } else { "nftables" };
    let config = format!(
        "ports_to_controls = [{PORT}]\nopening_sequence = [{SEQUENCE}]\n\
         max_opened_door_duration = {OPEN_FOR}\nfirewall = \"{kind}\"\n\
         gateway_key = \"{0}/gateway.key\"\nstate_dir = \"{0}/state\"\n",
        place.display()
    );
    let path = place.join("doors.toml");
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(config.as_bytes())
    };
    write().map_err(io_error("write the demo's configuration"))?;
    let mut command = this_program();
    command.arg("--conf").arg(path).arg("--control-socket").arg(place.join("control.varlink"));
    for variable in ["KNOCKER_SEQ", "KNOCKER_PORTS", "RUST_LOG", "NOTIFY_SOCKET", "JOURNAL_STREAM"] {
        command.env_remove(variable);
    }
    // The daemon must not reach the host's own firewall over its bus either.
    let nowhere = || format!("unix:path={}", place.join("no-bus").display());
    command.env("DBUS_SYSTEM_BUS_ADDRESS", firewalld.map_or_else(nowhere, Firewalld::address));
    Process::start(server, command).map_err(io_error("start the daemon"))
}

/// Runs this program until it succeeds, and returns its output.
fn run(namespace: &Namespace, home: &Path, arguments: &[&str]) -> Result<String, DemoError> {
    run_with(namespace, home, arguments, "")
}

/// Runs this program with this input until it succeeds, and returns its output.
fn run_with(
    namespace: &Namespace,
    home: &Path,
    arguments: &[&str],
    input: &str,
) -> Result<String, DemoError> {
    let mut command = this_program();
    // The input fits into the pipe's buffer.
    let (reader, mut writer) = io::pipe().map_err(io_error("make a pipe"))?;
    writer.write_all(input.as_bytes()).map_err(io_error("write into a pipe"))?;
    drop(writer);
    command.stdin(reader);
    command.args(arguments).env("HOME", home).env_remove("SSH_AUTH_SOCK").env_remove("XDG_CONFIG_HOME");
    command.env_remove("DOORKNOCK_CONFIG");
    let mut process = Process::start(namespace, command).map_err(io_error("start a program"))?;
    match process.finish(STEP_TIMEOUT).map_err(io_error("wait for a program"))? {
        Some((status, said)) if status.success() => Ok(said),
        Some((_, said)) => Err(DemoError::NotAsItMustBe(format!("{} failed: {said}", arguments.join(" ")))),
        None => Err(DemoError::NotAsItMustBe(format!("{} does not end", arguments.join(" ")))),
    }
}

/// Shortens arguments for the screen: a path to its last component, a card to its prefix.
fn shown(arguments: &[&str]) -> String {
    let short = |argument: &&str| match argument.strip_prefix("doors1-") {
        Some(_) => "doors1-…".to_owned(),
        None => argument.rsplit('/').next().unwrap_or(argument).to_owned(),
    };
    arguments.iter().map(short).collect::<Vec<_>>().join(" ")
}

/// This program, wherever its file is.
fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("port-knocking-doors");
    command
}
