//! A server in a private network, and a crowd of client addresses in another.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use doors_lab::{Namespace, Process};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{TIMEOUT, bare, sequence};
use crate::programs::Failure;

pub(super) const SEQUENCE: [u16; 5] = [40871, 12903, 55012, 7741, 31337];
pub(super) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const PORT: u16 = 22;

/// A client without an answer tries again after this long.
const RETRY_AFTER: Duration = Duration::from_millis(3);

/// Two private networks, and the directory for the files of the programs in them.
pub(super) struct Network {
    pub(super) server: Namespace,
    pub(super) client: Namespace,
    pub(super) directory: TempDir,
}

/// One address of the crowd.
pub(super) fn crowd(number: u8) -> IpAddr {
    Ipv4Addr::new(198, 51, 100, number).into()
}

impl Network {
    pub(super) fn new() -> Result<Self, Failure> {
        let (server, client) = (Namespace::new()?, Namespace::new()?);
        client.cable("client", &server, "server")?;
        server.address("server", "192.0.2.1/24".parse()?)?;
        client.address("client", "192.0.2.7/24".parse()?)?;
        for network in ["198.51.100.0/24", "198.18.0.0/15"] {
            client.own(network.parse()?)?;
            server.route(network.parse()?, "192.0.2.7".parse()?)?;
        }
        // firewalld refuses with ICMP errors, which the kernel rate-limits; the client waits for each.
        for limit in ["icmp_ratelimit", "icmp_ratemask"] {
            server.enter(|| fs::write(format!("/proc/sys/net/ipv4/{limit}"), "0"))?;
        }
        let listener = server.enter(|| TcpListener::bind((SERVER, PORT)))?;
        thread::spawn(move || listener.incoming().for_each(drop));
        Ok(Self { server, client, directory: TempDir::new()? })
    }

    /// Starts our daemon with these lines in its configuration.
    pub(super) fn start_ours(&mut self, program: &Path, more: &str) -> Result<Process, Failure> {
        self.start_ours_on(program, more, None)
    }

    pub(super) fn start_ours_on(
        &mut self,
        program: &Path,
        more: &str,
        bus: Option<String>,
    ) -> Result<Process, Failure> {
        let open_for = if more.contains("max_opened") { "" } else { "max_opened_door_duration = 300\n" };
        let text =
            format!("ports_to_controls = [{PORT}]\nopening_sequence = [{}]\n{open_for}{more}\n", sequence());
        let path = self.write(&text)?;
        let mut command = bare(program);
        command.arg("--conf").arg(path).env("RUNTIME_DIRECTORY", self.directory.path());
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.unwrap_or("unix:path=/nonexistent/bus".to_owned()));
        let mut daemon = Process::start(&self.server, command)?;
        match daemon.wait_for("ready", TIMEOUT) {
            Some(_) => Ok(daemon),
            None => Err(format!("the daemon is not ready: {}", daemon.lines().join("; ")).into()),
        }
    }

    /// Writes the configuration file.
    pub(super) fn write(&self, text: &str) -> Result<PathBuf, Failure> {
        let path = self.directory.path().join("doors.toml");
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Knocks from each address of the crowd and connects as soon as the door lets it. Returns the times from
    /// the last datagram to the accepted connection.
    pub(super) fn open_for(&self, numbers: RangeInclusive<u8>) -> Result<Vec<Duration>, Failure> {
        self.client.enter(|| {
            let mut times = Vec::new();
            for number in numbers {
                let source = crowd(number);
                let socket = UdpSocket::bind((source, 0))?;
                knock(&socket, &SEQUENCE)?;
                let knocked = Instant::now();
                while connect(source, RETRY_AFTER).is_err() {
                    if knocked.elapsed() > Duration::from_secs(5) {
                        return Err(format!("the door does not open for {source}").into());
                    }
                }
                times.push(knocked.elapsed());
            }
            Ok(times)
        })
    }

    pub(super) fn is_open(&self, source: &IpAddr) -> bool {
        self.client.enter(|| connect(*source, Duration::from_millis(100)).is_ok())
    }

    /// Ten clients knock, one after the other, while forged knocks come as fast as this machine sends them.
    /// Returns the forged knocks a second, and how many clients got in.
    pub(super) fn flood(&self, time: Duration) -> Result<(u64, usize), Failure> {
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let begun = Instant::now();
        let open = thread::scope(|scope| {
            scope.spawn(|| self.client.enter(|| send_forged_knocks(&stop, &sent)));
            let mut open: usize = 0;
            let pause = time.checked_div(11).unwrap_or_default();
            for number in 1..=10 {
                thread::sleep(pause);
                let got_in = self.client.enter(|| {
                    let socket = UdpSocket::bind((crowd(number), 0))?;
                    knock(&socket, &SEQUENCE)?;
                    let knocked = Instant::now();
                    while knocked.elapsed() < Duration::from_millis(400) {
                        if connect(crowd(number), Duration::from_millis(50)).is_ok() {
                            return io::Result::Ok(true);
                        }
                    }
                    Ok(false)
                });
                open = open.saturating_add(usize::from(got_in.unwrap_or(false)));
            }
            stop.store(true, Ordering::Relaxed);
            open
        });
        let rate = sent.load(Ordering::Relaxed).checked_div(begun.elapsed().as_secs()).unwrap_or(0);
        Ok((rate, open))
    }

    /// Runs a program in the server's network, and returns its output.
    pub(super) fn on_server(&self, program: &str, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(program);
        command.args(arguments);
        let ended = Process::start(&self.server, command)?.finish(TIMEOUT)?;
        match ended {
            Some((status, said)) if status.success() => Ok(said),
            Some((_, said)) => Err(format!("{program}: {said}").into()),
            None => Err(format!("{program} does not end").into()),
        }
    }
}

fn knock(socket: &UdpSocket, ports: &[u16]) -> io::Result<()> {
    for port in ports {
        socket.send_to(b"knock\n", (SERVER, *port))?;
    }
    Ok(())
}

pub(super) fn connect(source: IpAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect_timeout(&SocketAddr::new(SERVER, PORT).into(), timeout)?;
    Ok(socket.into())
}

/// Sends forged knocks until stopped: from each address right ones, then wrong ones.
fn send_forged_knocks(stop: &AtomicBool, sent: &AtomicU64) {
    // The address range for benchmarks (RFC 2544).
    let range = 0xc612_0001_u32..=0xc613_fffe;
    let mut base = *range.start();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..500 {
            base = if base == *range.end() { *range.start() } else { base.wrapping_add(1) };
            let Ok(socket) = UdpSocket::bind((Ipv4Addr::from_bits(base), 0)) else { continue };
            for port in [SEQUENCE[0], SEQUENCE[0], 9, 11, 13, 15, 17, 19] {
                if socket.send_to(b"knock\n", (SERVER, port)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
