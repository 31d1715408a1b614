//! A real firewalld on its own bus, in a private network.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{namespace::Namespace, process::Process, root::Root};

/// How long a start may take: firewalld is a Python program.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// firewalld and its bus. Both end when this is dropped.
#[derive(Debug)]
pub struct Firewalld {
    daemon: Option<Process>,
    bus: Process,
    directory: PathBuf,
    /// The system that firewalld comes from, if not this machine's.
    root: Option<Root>,
}

impl Firewalld {
    /// Starts a bus without firewalld. Its files go into `directory`, which the caller removes.
    ///
    /// # Errors
    /// If `dbus-daemon` is not installed or does not start.
    pub fn bus_only(namespace: &Namespace, directory: &Path) -> io::Result<Self> {
        let socket = directory.join("bus");
        let config = directory.join("bus.conf");
        fs::write(&config, bus_config(&socket))?;
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg("--print-address").arg("--config-file").arg(&config);
        let mut bus = Process::start(namespace, command).map_err(|error| named("dbus-daemon", error))?;
        if bus.wait_for("unix:", START_TIMEOUT).is_none() {
            return Err(io::Error::other(format!("dbus-daemon does not start: {}", bus.lines().join("; "))));
        }
        Ok(Self { daemon: None, bus, directory: directory.to_owned(), root: None })
    }

    /// Starts a bus, and firewalld on it.
    ///
    /// # Errors
    /// If one of them is not installed or does not start.
    pub fn start(namespace: &Namespace, directory: &Path) -> io::Result<Self> {
        let mut firewalld = Self::bus_only(namespace, directory)?;
        firewalld.start_daemon(namespace)?;
        Ok(firewalld)
    }

    /// The same with the firewalld of another Debian. The bus is this machine's.
    ///
    /// # Errors
    /// If one of them is not installed or does not start.
    pub fn start_from(root: Root, namespace: &Namespace, directory: &Path) -> io::Result<Self> {
        let mut firewalld = Self { root: Some(root), ..Self::bus_only(namespace, directory)? };
        firewalld.start_daemon(namespace)?;
        Ok(firewalld)
    }

    /// Starts firewalld on the bus, and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub fn start_daemon(&mut self, namespace: &Namespace) -> io::Result<()> {
        let config = self.directory.join("etc");
        fs::create_dir_all(config.join("zones"))?;
        let settings = config.join("firewalld.conf");
        if !settings.exists() {
            fs::write(settings, "DefaultZone=public\nFirewallBackend=nftables\n")?;
        }
        let mut command = self.program("firewalld");
        command.args(["--nofork", "--nopid", "--system-config"]).arg(self.seen().join("etc"));
        command.arg("--log-file").arg(self.seen().join("firewalld.log"));
        let mut daemon = Process::start(namespace, command).map_err(|error| named("firewalld", error))?;
        let begun = Instant::now();
        while begun.elapsed() < START_TIMEOUT && daemon.wait(Duration::ZERO)?.is_none() {
            if self.command(namespace, &["--state"])?.trim() == "running" {
                self.daemon = Some(daemon);
                return Ok(());
            }
        }
        Err(io::Error::other(format!("firewalld does not answer: {}", daemon.lines().join("; "))))
    }

    /// Ends firewalld. The bus stays.
    pub fn stop_daemon(&mut self) {
        self.daemon = None;
    }

    /// firewalld's process.
    #[must_use]
    pub fn daemon(&self) -> Option<&Process> {
        self.daemon.as_ref()
    }

    /// The bus's process.
    #[must_use]
    pub fn bus(&self) -> &Process {
        &self.bus
    }

    /// The value for `DBUS_SYSTEM_BUS_ADDRESS`.
    #[must_use]
    pub fn address(&self) -> String {
        bus_address(&self.directory)
    }

    /// Runs `firewall-cmd`, as an administrator would. Returns everything that it prints.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn command(&self, namespace: &Namespace, arguments: &[&str]) -> io::Result<String> {
        let mut command = self.program("firewall-cmd");
        command.args(arguments);
        let mut process = Process::start(namespace, command).map_err(|error| named("firewall-cmd", error))?;
        let ended = process.finish(START_TIMEOUT)?;
        ended.map(|(_, output)| output).ok_or_else(|| io::Error::other("firewall-cmd does not end"))
    }

    /// A command for one of firewalld's programs, connected to this bus.
    fn program(&self, name: &str) -> Command {
        let mut command = match &self.root {
            None => Command::new(name),
            Some(root) => root.program(&self.directory, name),
        };
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus_address(self.seen()));
        command
    }

    /// The path under which firewalld sees the directory.
    fn seen(&self) -> &Path {
        match &self.root {
            None => &self.directory,
            Some(_) => Root::inside(),
        }
    }
}

fn bus_address(directory: &Path) -> String {
    format!("unix:path={}", directory.join("bus").display())
}

/// Adds the program's name and its package to an error.
fn named(program: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{program} (apt-get install firewalld dbus): {error}"))
}

fn bus_config(socket: &Path) -> String {
    format!(
        "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
         \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n<busconfig>\n  \
         <type>system</type>\n  <listen>unix:path={}</listen>\n  <auth>EXTERNAL</auth>\n  \
         <policy context=\"default\">\n    <allow user=\"*\"/>\n    <allow own=\"*\"/>\n    \
         <allow send_type=\"method_call\"/>\n    <allow send_type=\"signal\"/>\n    \
         <allow send_requested_reply=\"true\" send_type=\"method_return\"/>\n    \
         <allow send_requested_reply=\"true\" send_type=\"error\"/>\n    \
         <allow receive_type=\"method_call\"/>\n    <allow receive_type=\"signal\"/>\n    \
         <allow receive_type=\"method_return\"/>\n    <allow receive_type=\"error\"/>\n  </policy>\n\
         </busconfig>\n",
        socket.display()
    )
}
