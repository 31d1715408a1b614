//! A server with a door, and clients that connect to it.
//!
//! ```text
//!   client 192.0.2.7, 2001:db8::7 ──── cable ──── server 192.0.2.1, 2001:db8::1
//!          and all of 198.51.100.0/24, 2001:db8:1::/64
//! ```

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use doors_lab::{Firewalld, Namespace, Process, Root};
use rustix::{
    process::Signal,
    thread::{CpuSet, sched_getcpu, sched_setaffinity},
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

pub(crate) const SEQUENCE: [u16; 5] = [40871, 12903, 55012, 7741, 31337];
pub(crate) const SERVER: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const CLIENT: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
/// Another client, one address of each family.
pub(crate) const STRANGER: [&str; 2] = ["198.51.100.66", "2001:db8:1::66"];
/// The port of the door in [`config`].
pub(crate) const PORT: u16 = 22;

/// The maximum time for any single step, however busy the machine is.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A port that does not answer for this long is closed; both ends are on this machine.
pub(crate) const SILENCE: Duration = Duration::from_millis(250);

/// A configuration with one door, and more lines.
pub(crate) fn config(more: &str) -> String {
    format!("ports_to_controls = [{PORT}]\nopening_sequence = {SEQUENCE:?}\n{more}\n")
}

/// The same with our own gate.
pub(crate) fn gate(more: &str) -> String {
    config(&format!("firewall = \"nftables\"\n{more}"))
}

/// The networks and the programs in them.
pub(crate) struct Testbed {
    pub(crate) server: Namespace,
    pub(crate) client: Namespace,
    pub(crate) firewalld: Option<Firewalld>,
    daemon: Option<Process>,
    pub(crate) directory: TempDir,
}

/// Which firewalld runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// The one installed on this machine.
    Machine,
    /// 2.3, of Debian 13.
    Trixie,
}

/// Makes a test for every firewalld from each function.
macro_rules! with_every_firewalld {
    ($($test:ident)*) => {$(
        mod $test {
            use crate::testbed::{Testbed, Origin};

            #[test]
            fn of_this_machine() {
                super::$test(Testbed::with_firewalld_of(Origin::Machine));
            }

            #[test]
            fn of_debian_13() {
                super::$test(Testbed::with_firewalld_of(Origin::Trixie));
            }
        }
    )*};
}
pub(crate) use with_every_firewalld;

/// How an attempt to connect ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    Accepted,
    /// As from a port where nothing listens.
    Refused,
    Silence,
}

impl Testbed {
    pub(crate) fn new() -> Self {
        let server = Namespace::new().expect("the tests run as root");
        let client = Namespace::new().unwrap();
        client.cable("client", &server, "server").unwrap();
        for (namespace, link, addresses) in [(&server, "server", SERVER), (&client, "client", CLIENT)] {
            for (address, length) in addresses.iter().zip(["24", "64"]) {
                namespace.address(link, format!("{address}/{length}").parse().unwrap()).unwrap();
            }
        }
        for (network, gateway) in ["198.51.100.0/24", "2001:db8:1::/64"].iter().zip(CLIENT) {
            client.own(network.parse().unwrap()).unwrap();
            server.route(network.parse().unwrap(), gateway.parse().unwrap()).unwrap();
        }
        let directory = TempDir::new().unwrap();
        let testbed = Self { server, client, firewalld: None, daemon: None, directory };
        testbed.serve(PORT);
        testbed
    }

    /// With a bus and a firewalld whose zone `public` does not allow ssh.
    pub(crate) fn with_firewalld() -> Self {
        Self::with_firewalld_of(Origin::Machine)
    }

    /// The same with this firewalld.
    pub(crate) fn with_firewalld_of(origin: Origin) -> Self {
        Self::new().and_firewalld(origin)
    }

    /// The same with this line in firewalld's own configuration.
    pub(crate) fn with_firewalld_that_says(line: &str) -> Self {
        let testbed = Self::new();
        let config = testbed.directory.path().join("etc");
        fs::create_dir(&config).unwrap();
        fs::write(config.join("firewalld.conf"), format!("DefaultZone=public\n{line}\n")).unwrap();
        testbed.and_firewalld(Origin::Machine)
    }

    fn and_firewalld(self, origin: Origin) -> Self {
        let mut testbed = self;
        let (server, directory) = (&testbed.server, testbed.directory.path());
        let firewalld = match origin {
            Origin::Machine => Firewalld::start(server, directory),
            Origin::Trixie => Root::trixie().and_then(|root| Firewalld::start_from(root, server, directory)),
        };
        testbed.firewalld = Some(firewalld.unwrap());
        testbed.firewall_cmd(&["--permanent", "--remove-service=ssh"]);
        testbed.firewall_cmd(&["--reload"]);
        testbed
    }

    pub(crate) fn firewall_cmd(&self, arguments: &[&str]) -> String {
        self.firewalld.as_ref().unwrap().command(&self.server, arguments).unwrap()
    }

    /// Stops firewalld and removes its rules from the kernel, as on a machine without it.
    pub(crate) fn end_firewalld(&mut self) {
        self.firewalld.as_mut().unwrap().stop_daemon();
        self.on_server("nft", &["flush", "ruleset"]);
    }

    /// Starts an echo server on a TCP port of the server.
    pub(crate) fn serve(&self, port: u16) {
        for address in SERVER {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            let listener = self.server.enter(|| TcpListener::bind(address)).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    thread::spawn(move || io::copy(&mut &stream, &mut &stream));
                }
            });
        }
    }

    /// A path for a file with this name, which is removed with the testbed.
    pub(crate) fn place_for(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a configuration file that only its owner may read.
    pub(crate) fn write(&self, text: &str) -> PathBuf {
        let path = self.place_for("doors.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The program with an empty environment, except for what the tests need.
    pub(crate) fn program(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_port-knocking-doors"));
        command
            .env_clear()
            .env("RUNTIME_DIRECTORY", self.directory.path())
            .env("HOME", self.directory.path())
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let bus = self.firewalld.as_ref().map(Firewalld::address);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.unwrap_or("unix:path=/nonexistent/bus".to_owned()));
        command
    }

    /// Runs the program with arguments in the server's network until it ends.
    pub(crate) fn run(&self, arguments: &[&str]) -> (ExitStatus, String) {
        let mut command = self.program();
        command.args(arguments);
        let mut process = Process::start(&self.server, command).unwrap();
        process.finish(PATIENCE).unwrap().expect("the program ends")
    }

    /// The output of `check` for a configuration, each sentence on one line.
    pub(crate) fn checked(&self, text: &str) -> Vec<String> {
        let path = self.write(text);
        let (status, said) = self.run(&["check", "--conf", path.to_str().unwrap()]);
        assert!(status.success(), "{said}");
        said.replace("\n    ", " ").lines().map(str::to_owned).collect()
    }

    /// Starts the daemon with a configuration, and waits until it is ready.
    pub(crate) fn start(&mut self, text: &str) {
        let path = self.write(text);
        let mut command = self.program();
        command.arg("--conf").arg(path);
        self.start_command(command);
    }

    /// Starts the daemon, and waits until it is ready.
    pub(crate) fn start_command(&mut self, command: Command) {
        self.spawn(command);
        let daemon = self.daemon();
        let ready = daemon.wait_for("ready", PATIENCE);
        assert!(ready.is_some(), "not ready: {:#?}", daemon.lines());
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&mut self, mut command: Command) {
        // Nothing of this machine is touched.
        command.env("RUNTIME_DIRECTORY", self.directory.path());
        self.daemon = Some(Process::start(&self.server, command).unwrap());
    }

    /// The running daemon.
    pub(crate) fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().unwrap()
    }

    /// Waits for a line of the log.
    pub(crate) fn hear(&mut self, text: &str) -> String {
        let daemon = self.daemon();
        let heard = daemon.wait_for(text, PATIENCE);
        heard.unwrap_or_else(|| panic!("not said: {text}; but: {:#?}", daemon.lines()))
    }

    /// Sends a signal to the daemon, and waits until it has ended.
    pub(crate) fn end(&mut self, signal: Signal) -> ExitStatus {
        // It may be ending already.
        let _ = self.daemon().signal(signal);
        let ended = self.daemon().wait(PATIENCE).unwrap().expect("the daemon ends");
        self.daemon = None;
        ended
    }

    /// Runs a closure in the client's network, on one processor.
    ///
    /// Each processor has its own queue for packets between namespaces. If the thread moved to another processor,
    /// later datagrams could overtake earlier ones.
    pub(crate) fn as_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.client.enter(|| {
            stay_on_this_processor();
            work()
        })
    }

    /// Sends datagrams to ports of the server in order, without a pause.
    pub(crate) fn send(&self, source: &str, ports: &[u16], payload: &[u8]) {
        self.send_at(source, server_for(source), ports, payload);
    }

    /// Sends datagrams to ports of an address in order, without a pause.
    pub(crate) fn send_at(&self, source: &str, target: IpAddr, ports: &[u16], payload: &[u8]) {
        let source: IpAddr = source.parse().unwrap();
        self.as_client(|| {
            let socket = UdpSocket::bind((source, 0)).unwrap();
            for port in ports {
                send_from(&socket, (target, *port), payload);
            }
        });
    }

    /// Knocks on these ports.
    pub(crate) fn knock(&self, source: &str, ports: &[u16]) {
        self.send(source, ports, b"knock\n");
    }

    /// Connects to a port of the server.
    pub(crate) fn connect_to(
        &self,
        source: &str,
        target: SocketAddr,
        timeout: Duration,
    ) -> io::Result<TcpStream> {
        let source: IpAddr = source.parse().unwrap();
        self.client.enter(|| {
            let socket = Socket::new(Domain::for_address(target), Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect_timeout(&target.into(), timeout)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// Connects to a port of the server over the family of the source.
    pub(crate) fn connect(&self, source: &str, port: u16) -> io::Result<TcpStream> {
        self.connect_to(source, SocketAddr::new(server_for(source), port), PATIENCE)
    }

    /// How a port of the server answers a single attempt to connect.
    pub(crate) fn ask(&self, source: &str, port: u16) -> Answer {
        let tried = self.connect_to(source, SocketAddr::new(server_for(source), port), SILENCE);
        match tried.map_err(|error| error.kind()) {
            Ok(_) => Answer::Accepted,
            // firewalld rejects with "administratively prohibited".
            Err(io::ErrorKind::ConnectionRefused | io::ErrorKind::HostUnreachable) => Answer::Refused,
            Err(io::ErrorKind::TimedOut) => Answer::Silence,
            Err(other) => panic!("{source} to {port}: {other}"),
        }
    }

    /// Whether the door is open for a source.
    pub(crate) fn is_open(&self, source: &str) -> bool {
        self.ask(source, PORT) == Answer::Accepted
    }

    /// Waits until the door is closed for a source. The kernel counts in ticks, and may close one tick after the
    /// daemon has logged it.
    pub(crate) fn until_closed(&self, source: &str) {
        let begun = Instant::now();
        while self.is_open(source) {
            assert!(begun.elapsed() < SILENCE, "{source} is still in");
        }
    }

    /// Makes the server a router for a machine behind it, 203.0.113.2.
    pub(crate) fn machine_behind(&self) -> Namespace {
        let inside = Namespace::new().unwrap();
        self.server.cable("bridge", &inside, "inside").unwrap();
        self.server.address("bridge", "203.0.113.1/24".parse().unwrap()).unwrap();
        inside.address("inside", "203.0.113.2/24".parse().unwrap()).unwrap();
        for network in ["192.0.2.0/24", "198.51.100.0/24"] {
            inside.route(network.parse().unwrap(), "203.0.113.1".parse().unwrap()).unwrap();
        }
        self.client.route("203.0.113.0/24".parse().unwrap(), SERVER[0].parse().unwrap()).unwrap();
        self.server.enter(|| fs::write("/proc/sys/net/ipv4/ip_forward", "1")).unwrap();
        inside
    }

    /// Waits until a condition holds; returns how long that took.
    pub(crate) fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
        begun.elapsed()
    }

    /// Runs a program in the server's network. Returns its output.
    pub(crate) fn on_server(&self, program: &str, arguments: &[&str]) -> String {
        run(&self.server, program, arguments)
    }

    /// Runs a program in the client's network. Returns its output.
    pub(crate) fn in_client(&self, program: &str, arguments: &[&str]) -> String {
        run(&self.client, program, arguments)
    }

    /// Our table as `nft` prints it, or the error if there is none.
    pub(crate) fn table(&self) -> String {
        let mut command = Command::new("nft");
        command.args(["list", "table", "inet", "port_knocking_doors"]);
        Process::start(&self.server, command).unwrap().finish(PATIENCE).unwrap().unwrap().1
    }

    /// The open grants and their remaining seconds, from `nft -j`.
    pub(crate) fn grants(&self, door: &str) -> BTreeMap<String, u64> {
        let mut grants = BTreeMap::new();
        for set in [format!("{door}4"), format!("{door}6")] {
            let text = self.on_server("nft", &["-j", "list", "set", "inet", "port_knocking_doors", &set]);
            // {"elem": {"val": "192.0.2.7", "timeout": 10, "expires": 9}}
            for element in text.split("{\"elem\":").skip(1) {
                let value = element.split("\"val\": \"").nth(1).unwrap().split('"').next().unwrap();
                let expires = element.split("\"expires\": ").nth(1).unwrap();
                let digits: String = expires.chars().take_while(char::is_ascii_digit).collect();
                grants.insert(value.to_owned(), digits.parse().unwrap());
            }
        }
        grants
    }
}

/// Pins this thread, and what it starts, to its current processor.
pub(crate) fn stay_on_this_processor() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).unwrap();
}

/// Runs a program in a network. Returns its output.
fn run(network: &Namespace, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    let (status, said) = Process::start(network, command).unwrap().finish(PATIENCE).unwrap().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {said}");
    said
}

/// Sends a datagram. If an earlier one was answered with "port unreachable", the next call reports that once, so it
/// is repeated.
pub(crate) fn send_from(socket: &UdpSocket, target: (IpAddr, u16), payload: &[u8]) {
    let sent = || socket.send_to(payload, target);
    sent().or_else(|_| sent()).unwrap();
}

/// The server's address in the family of a client's address.
pub(crate) fn server_for(source: &str) -> IpAddr {
    let source: IpAddr = source.parse().unwrap();
    SERVER[usize::from(source.is_ipv6())].parse().unwrap()
}

/// The address of one of many clients.
pub(crate) fn crowd(number: u8) -> String {
    Ipv4Addr::new(198, 51, 100, number).to_string()
}

/// Whether a connection is alive.
pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"hello"
}
