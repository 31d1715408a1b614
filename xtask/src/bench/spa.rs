//! Clients with keys: how fast a door opens, and what each kind of datagram costs the daemon.

use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use doors_lab::Process;
use doors_spa::{
    KNOCK, PORT,
    card::Card,
    identity::{ClientKey, DoorId},
    request::{Operation, Request},
    seal::UnsignedKnock,
};
use ed25519_dalek::{Signer as _, SigningKey};
use port_knocking_doors::spa::replay_log::ReplayLog;
use rand_core::{Rng as _, UnwrapErr};

use super::{
    TIMEOUT, bare, memory,
    network::{Network, SERVER, connect, crowd},
    peers::Fwknopd,
    print_times, processor_time,
};
use crate::programs::Failure;

/// The window for clocks, in seconds. This long after its start, the daemon accepts requests by their time.
const WINDOW: u64 = 5;
/// A little longer than the window.
const SETTLED: Duration = Duration::from_secs(WINDOW.saturating_add(1));

/// How often each is measured.
const RUNS: u8 = 200;

/// `doorknock open` as a whole process until its receipt, next to fwknop.
pub(super) fn opening(program: &Path) -> Result<(), Failure> {
    println!("\nA client with a key, as a whole process, a new address each time, {RUNS} runs");
    let network = Network::new()?;
    let (mut agent, key) = agent(&network)?;
    let gateway = Gateway::new(&network, program, &fs::read_to_string(key.with_extension("pub"))?)?;
    let daemon = gateway.start(&network)?;
    let started = Instant::now();
    let home = network.directory.path();
    let doorknock = program.with_file_name("doorknock");
    let client = |arguments: &[&str]| {
        let mut command = bare(&doorknock);
        command.args(arguments).env("HOME", home).env("SSH_AUTH_SOCK", home.join("agent"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    run_once(&network, client(&["add", "here", &SERVER.to_string(), gateway.card.to_text().as_str()]))?;
    let key_file = key.display().to_string();
    for (what, more, after) in [
        ("doorknock open, key in a file, just after a start", Some(&key_file), Duration::ZERO),
        ("doorknock open, key in an ssh-agent", None, SETTLED),
        ("doorknock open, key in a file", Some(&key_file), SETTLED),
    ] {
        thread::sleep(after.saturating_sub(started.elapsed()));
        let mut times = Vec::new();
        for number in 1..=RUNS {
            let source = crowd(number).to_string();
            let mut arguments = vec!["open", "here", "ssh", "--address", &source];
            arguments.extend(more.iter().flat_map(|file| ["-i", file.as_str()]));
            let mut command = client(&arguments);
            if more.is_some() {
                command.env_remove("SSH_AUTH_SOCK");
            }
            times.push(run_once(&network, command)?);
        }
        print_times(what, &times);
        let open = (1..=RUNS).filter(|number| network.is_open(&crowd(*number))).count();
        println!("  doors open at the end: {open}");
        network.on_server("nft", &["flush", "set", "inet", "port_knocking_doors", "ssh4"])?;
        thread::sleep(Duration::from_millis(200));
    }
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(run_once(&network, client(&["--version"]))?);
    }
    print_times("of that, a process that does nothing", &times);
    drop(daemon);
    agent.wait(Duration::ZERO)?;

    let network = Network::new()?;
    let fwknopd = Fwknopd::start(&network)?;
    let mut times = Vec::new();
    for number in 1..=RUNS {
        let source = crowd(number);
        let mut command = fwknopd.client(source);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let begun = Instant::now();
        run_once(&network, command)?;
        while network.client.enter(|| connect(source, Duration::from_millis(3))).is_err() {
            if begun.elapsed() > TIMEOUT {
                return Err("fwknopd does not open".into());
            }
        }
        times.push(begun.elapsed());
    }
    print_times("fwknop and fwknopd, until the door is open", &times);
    Ok(())
}

/// What each kind of datagram costs the daemon.
pub(super) fn cost_per_datagram(program: &Path) -> Result<(), Failure> {
    println!("\nCPU of the daemon for each datagram to its port of clients with keys");
    let network = Network::new()?;
    let device = Device::new(1);
    let gateway = Gateway::new(&network, program, &device.line())?;
    let daemon = gateway.start_settled(&network)?;
    let stranger = Device::new(2);
    let untagged: Vec<[u8; KNOCK]> = (0..100).map(|_| random()).collect();
    let unknown: Vec<[u8; KNOCK]> = (0..500).map(|_| stranger.knock(&gateway.card, &stranger)).collect();
    let unsigned: Vec<[u8; KNOCK]> = (0..500).map(|_| stranger.knock(&gateway.card, &device)).collect();
    for (what, datagrams, count, pause) in [
        ("without the tag (made at random)", &untagged, 400_000, 3),
        ("with the card, and an unknown public key", &unknown, 400_000, 3),
        ("tagged for a client, and unsigned", &unsigned, 1_500, 500),
        ("the same, faster than a client may", &unsigned, 400_000, 3),
    ] {
        let before = processor_time(&daemon)?;
        network.client.enter(|| send_paced(datagrams, count, Duration::from_millis(pause)))?;
        // The daemon catches up, and the client's budget refills.
        thread::sleep(Duration::from_secs(1));
        print_cost(what, processor_time(&daemon)? - before, count);
    }
    let valid: Vec<[u8; KNOCK]> = (0..1000).map(|_| device.knock(&gateway.card, &device)).collect();
    let before = processor_time(&daemon)?;
    let answered = network.client.enter(|| send_and_hear(&valid))?;
    print_cost("valid, with disk, firewall and receipt", processor_time(&daemon)? - before, answered);
    println!("  receipts: {answered} of {}", valid.len());
    Ok(())
}

/// A client knocks ten times while an attacker with the card sends as fast as this machine can.
pub(super) fn crowd_of_card_holders(program: &Path) -> Result<(), Failure> {
    println!(
        "\nTen knocks of a client, one try each, while an attacker with the card floods, for six seconds each"
    );
    for (what, own_name) in
        [("in the name of an unknown client", true), ("in the name of another client", false)]
    {
        let network = Network::new()?;
        let (device, other, stranger) = (Device::new(1), Device::new(2), Device::new(3));
        let gateway = Gateway::with_clients(&network, program, &[&device.line(), &other.line()])?;
        let daemon = gateway.start_settled(&network)?;
        let claimed = if own_name { &stranger } else { &other };
        let datagrams: Vec<[u8; KNOCK]> = (0..500).map(|_| stranger.knock(&gateway.card, claimed)).collect();
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let begun = Instant::now();
        let answered = thread::scope(|scope| {
            scope.spawn(|| {
                network
                    .client
                    .enter(|| -> Result<(), Failure> {
                        let socket = socket()?;
                        for datagram in datagrams.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed))
                        {
                            if socket.send_to(datagram, (SERVER, PORT)).is_ok() {
                                sent.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        Ok(())
                    })
                    .ok()
            });
            let mut answered: usize = 0;
            for _ in 0..10 {
                thread::sleep(Duration::from_millis(550));
                let knock = device.knock(&gateway.card, &device);
                let heard = network.client.enter(|| send_and_hear(&[knock])).unwrap_or(0);
                answered = heard.saturating_add(answered);
            }
            stop.store(true, Ordering::Relaxed);
            answered
        });
        let rate = sent.load(Ordering::Relaxed).checked_div(begun.elapsed().as_secs()).unwrap_or(0);
        println!("  {what}: {answered} of 10 answered, at {rate}/s; {}", super::cost(&daemon)?);
    }
    Ok(())
}

/// Hostile datagrams: no door opens, no answer is sent, and memory does not grow.
pub(super) fn hostile(program: &Path) -> Result<(), Failure> {
    println!("\nTwelve thousand hostile datagrams");
    let network = Network::new()?;
    let (device, stranger) = (Device::new(1), Device::new(2));
    let gateway = Gateway::new(&network, program, &device.line())?;
    let other = Network::new()?;
    let other_card = Gateway::new(&other, program, &device.line())?.card;
    let daemon = gateway.start_settled(&network)?;
    let good = device.knock(&gateway.card, &device);
    network.client.enter(|| send_and_hear(&[good]))?;
    let close = device.close(&gateway.card);
    network.client.enter(|| send_and_hear(&[close]))?;
    let before = network.on_server("nft", &["list", "set", "inet", "port_knocking_doors", "ssh4"])?;
    let mut hostile: Vec<Vec<u8>> = Vec::new();
    hostile.extend((0..KNOCK * 8).map(|bit| {
        let mut changed = device.knock(&gateway.card, &device);
        if let Some(byte) = changed.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
        changed.to_vec()
    }));
    hostile.extend((0..KNOCK).map(|length| good.iter().copied().take(length).collect()));
    hostile.extend((1..=200).map(|more| [&good[..], &vec![0; more]].concat()));
    hostile.extend((0..1000).map(|_| good.to_vec()));
    hostile.extend((0..1000).map(|_| device.knock(&other_card, &device).to_vec()));
    hostile.extend((0..1000).map(|_| stranger.knock(&gateway.card, &stranger).to_vec()));
    hostile.extend((0..1000).map(|_| stranger.knock(&gateway.card, &device).to_vec()));
    while hostile.len() < 12_000 {
        hostile.push(random::<KNOCK>().to_vec());
    }
    let (resident, own) = memory(&daemon)?;
    let mut answers: usize = 0;
    for _ in 0..2 {
        answers = answers.saturating_add(network.client.enter(|| send_hostile(&hostile))?);
    }
    thread::sleep(Duration::from_millis(500));
    let after = network.on_server("nft", &["list", "set", "inet", "port_knocking_doors", "ssh4"])?;
    let (resident_after, own_after) = memory(&daemon)?;
    println!("  sent, twice: {}; answers: {answers}", hostile.len());
    println!(
        "  doors open before: {}, after: {}",
        before.matches("expires").count(),
        after.matches("expires").count()
    );
    println!(
        "  memory before: {resident:.0} kB resident, {own:.0} kB its own; after: {resident_after:.0} kB, {own_after:.0} kB"
    );
    Ok(())
}

/// A gateway's configuration and key, in a network's directory.
pub(super) struct Gateway {
    program: PathBuf,
    conf: PathBuf,
    pub(super) card: Card,
}

impl Gateway {
    fn new(network: &Network, program: &Path, key: &str) -> Result<Self, Failure> {
        Self::with_clients(network, program, &[key])
    }

    fn with_clients(network: &Network, program: &Path, keys: &[&str]) -> Result<Self, Failure> {
        let clients: String = (1..)
            .zip(keys)
            .map(|(number, key)| {
                format!(
                    "[[clients]]\nname = \"bench-{number}\"\nkey = \"{}\"\ndoors = [\"ssh\"]\n",
                    key.trim()
                )
            })
            .collect();
        Self::with_text(network, program, &clients)
    }

    /// With this text after the rest of the configuration.
    pub(super) fn with_text(network: &Network, program: &Path, clients: &str) -> Result<Self, Failure> {
        let directory = network.directory.path().display();
        let conf = network.write(&format!(
            "firewall = \"nftables\"\nspa_window = {WINDOW}\nrefuse = \"reject\"\n\
             gateway_key = \"{directory}/key\"\nstate_dir = \"{directory}/state\"\n[[doors]]\nname = \"ssh\"\nports = [\"22/tcp\"]\nopen_for = 300\n{clients}"
        ))?;
        let gateway = |command: &str| -> Result<String, Failure> {
            let output = bare(program).args(["gateway", command, "--conf"]).arg(&conf).output()?;
            match output.status.success() {
                true => Ok(String::from_utf8(output.stdout)?),
                false => Err(String::from_utf8(output.stderr)?.into()),
            }
        };
        gateway("init")?;
        // After a first start, requests cost a challenge for an hour. With an empty replay log, which is not
        // a first start, only for the window.
        ReplayLog::open(&network.directory.path().join("state"), &[])?;
        let card = gateway("card")?.trim().parse::<Card>()?;
        Ok(Self { program: program.to_owned(), conf, card })
    }

    /// Starts the daemon, and waits until it accepts requests by their time.
    fn start_settled(&self, network: &Network) -> Result<Process, Failure> {
        let daemon = self.start(network)?;
        thread::sleep(SETTLED);
        Ok(daemon)
    }

    /// Starts the daemon. At first each request costs a challenge.
    pub(super) fn start(&self, network: &Network) -> Result<Process, Failure> {
        let mut command = bare(&self.program);
        command.arg("--conf").arg(&self.conf).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus");
        command.env("RUNTIME_DIRECTORY", network.directory.path());
        let mut daemon = Process::start(&network.server, command)?;
        match daemon.wait_for("ready", TIMEOUT) {
            Some(_) => Ok(daemon),
            None => Err(format!("the daemon is not ready: {}", daemon.lines().join("; ")).into()),
        }
    }
}

/// Starts an ssh-agent with a key. Returns the key's file, too.
fn agent(network: &Network) -> Result<(Process, PathBuf), Failure> {
    let home = network.directory.path();
    let key = home.join("some_key");
    succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key))?;
    let mut command = Command::new("ssh-agent");
    command.arg("-D").arg("-a").arg(home.join("agent"));
    let mut agent = Process::start(&network.client, command)?;
    agent.wait_for("SSH_AUTH_SOCK", TIMEOUT).ok_or("ssh-agent does not start")?;
    succeed(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", home.join("agent")))?;
    Ok((agent, key))
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let output = command.output()?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr)?.into()) }
}

/// Runs a process in the client's network. Returns the time from its start to its end.
fn run_once(network: &Network, command: Command) -> Result<Duration, Failure> {
    let begun = Instant::now();
    let status = network.client.spawn(command)?.wait()?;
    let took = begun.elapsed();
    if status.success() { Ok(took) } else { Err(format!("a client ends: {status}").into()) }
}

/// A client with a key.
pub(super) struct Device(SigningKey);

impl Device {
    pub(super) fn new(number: u8) -> Self {
        Self(SigningKey::from_bytes(&[number; 32]))
    }

    /// One of many devices.
    pub(super) fn numbered(number: u32) -> Self {
        let mut secret = [0xa5; 32];
        if let Some(start) = secret.first_chunk_mut() {
            *start = number.to_be_bytes();
        }
        Self(SigningKey::from_bytes(&secret))
    }

    fn client(&self) -> Option<ClientKey> {
        ClientKey::new(self.0.verifying_key().as_bytes()).ok()
    }

    pub(super) fn line(&self) -> String {
        self.client().map(|key| key.to_openssh()).unwrap_or_default()
    }

    /// A knock that this device has signed in the name of another.
    fn knock(&self, card: &Card, claimed: &Self) -> [u8; KNOCK] {
        self.ask(card, claimed, Operation::Open { door: DoorId::of("ssh"), wanted: 0 })
    }

    fn close(&self, card: &Card) -> [u8; KNOCK] {
        self.ask(card, self, Operation::Close { door: DoorId::of("ssh") })
    }

    fn ask(&self, card: &Card, claimed: &Self, operation: Operation) -> [u8; KNOCK] {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.ask_at(u64::try_from(time.as_millis()).unwrap_or(0), card, claimed, operation)
    }

    /// A knock that is dated 1970: the daemon answers that it is stale, without disk or firewall.
    pub(super) fn stale(&self, card: &Card) -> [u8; KNOCK] {
        self.ask_at(0, card, self, Operation::Open { door: DoorId::of("ssh"), wanted: 0 })
    }

    fn ask_at(&self, time: u64, card: &Card, claimed: &Self, operation: Operation) -> [u8; KNOCK] {
        let request = Request {
            operation,
            time,
            nonce: random(),
            client: claimed.client().map(|key| key.id()).unwrap_or(doors_spa::identity::ClientId([0; 8])),
            address: None,
            challenge: [0; 8],
        };
        let unsigned = claimed
            .client()
            .and_then(|key| UnsignedKnock::new(card, &key, &request, &mut UnwrapErr(getrandom::SysRng)).ok());
        let sealed = unsigned.and_then(|unsigned| {
            let signature = self.0.sign(unsigned.to_sign()).to_bytes();
            unsigned.seal(&signature).ok()
        });
        sealed.map_or([0; KNOCK], |(knock, _)| knock)
    }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    UnwrapErr(getrandom::SysRng).fill_bytes(&mut bytes);
    bytes
}

pub(super) fn socket() -> Result<UdpSocket, Failure> {
    Ok(UdpSocket::bind(("192.0.2.7", 0))?)
}

/// Sends `count` datagrams, no faster than the daemon can take them, so that none is lost.
fn send_paced(datagrams: &[[u8; KNOCK]], count: usize, pause: Duration) -> Result<(), Failure> {
    let socket = socket()?;
    for (number, datagram) in datagrams.iter().cycle().take(count).enumerate() {
        // The first send may report an earlier ICMP port unreachable.
        let sent = || socket.send_to(datagram, (SERVER, PORT));
        sent().or_else(|_| sent())?;
        // No more than fit into a client's budget or into the packet ring.
        if number % 250 == 249 {
            thread::sleep(pause);
        }
    }
    Ok(())
}

/// Sends one after the other, each when the one before was answered. Returns how many were answered.
fn send_and_hear(datagrams: &[[u8; KNOCK]]) -> Result<usize, Failure> {
    let socket = socket()?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut heard: usize = 0;
    for datagram in datagrams {
        let sent = || socket.send_to(datagram, (SERVER, PORT));
        sent().or_else(|_| sent())?;
        let mut buffer = [0; 512];
        let begun = Instant::now();
        // Stays within the client's budget.
        thread::sleep(Duration::from_millis(2));
        while begun.elapsed() < Duration::from_secs(1) {
            if socket.recv(&mut buffer).is_ok() {
                heard = heard.saturating_add(1);
                break;
            }
        }
    }
    Ok(heard)
}

/// Sends datagrams that must not be answered. Returns how many answers came.
fn send_hostile(datagrams: &[Vec<u8>]) -> Result<usize, Failure> {
    let socket = socket()?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    let mut answers: usize = 0;
    let mut buffer = [0; 512];
    for (number, datagram) in datagrams.iter().enumerate() {
        let sent = || socket.send_to(datagram, (SERVER, PORT));
        sent().or_else(|_| sent())?;
        if number % 50 == 49 {
            thread::sleep(Duration::from_millis(6));
            while socket.recv(&mut buffer).is_ok() {
                answers = answers.saturating_add(1);
            }
        }
    }
    thread::sleep(Duration::from_millis(200));
    while socket.recv(&mut buffer).is_ok() {
        answers = answers.saturating_add(1);
    }
    Ok(answers)
}

fn print_cost(what: &str, seconds: f64, count: usize) {
    println!("  {what:<40} {:>7.2} µs each, of {count}", seconds * 1e6 / count as f64);
}
