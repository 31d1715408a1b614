//! The programs that we are compared with, as Debian packages them.

use std::{
    fs,
    net::IpAddr,
    process::Command,
    time::{Duration, Instant},
};

use doors_lab::{Firewalld, Process};

use super::{
    TIMEOUT,
    network::{Network, SEQUENCE, crowd},
};
use crate::programs::Failure;

/// knockd, which runs a command for each door.
pub(super) struct Knockd {
    process: Process,
}

impl Knockd {
    /// Starts it with the same sequence, and an equivalent ruleset that its command changes.
    pub(super) fn start(network: &mut Network) -> Result<Self, Failure> {
        let ruleset = "add table inet knock; \
             add set inet knock open { type ipv4_addr; flags timeout; timeout 300s; }; \
             add chain inet knock input { type filter hook input priority filter; }; \
             add rule inet knock input ct state established,related accept; \
             add rule inet knock input ip saddr @open accept; \
             add rule inet knock input tcp dport 22 reject with tcp reset";
        network.on_server("nft", &[ruleset])?;
        let ports = SEQUENCE.map(|port| format!("{port}:udp")).join(",");
        let config = format!(
            "[options]\n  interface = server\n[door]\n  sequence = {ports}\n  seq_timeout = 30\n  \
             start_command = /usr/sbin/nft add element inet knock open {{ %IP% }}\n"
        );
        let path = network.directory.path().join("knockd.conf");
        fs::write(&path, config)?;
        let mut command = Command::new("knockd");
        command.arg("-c").arg(path).arg("-v").arg("-p").arg(network.directory.path().join("knockd.pid"));
        let mut process = Process::start(&network.server, command)?;
        // It reports that it listens only if its output is not a pipe, so it gets a second to start.
        match process.wait(Duration::from_secs(1))? {
            None => Ok(Self { process }),
            Some(status) => Err(format!("knockd ends: {status}: {}", process.lines().join("; ")).into()),
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

/// A firewalld with a zone that does not let the port through.
pub(super) struct Firewall {
    firewalld: Firewalld,
}

impl Firewall {
    pub(super) fn start(network: &Network) -> Result<Self, Failure> {
        let firewalld = Firewalld::start(&network.server, network.directory.path())?;
        firewalld.command(&network.server, &["--permanent", "--remove-service=ssh"])?;
        firewalld.command(&network.server, &["--reload"])?;
        Ok(Self { firewalld })
    }

    /// Lets the port through, which is firewalld's default for ssh.
    pub(super) fn let_through(&self, network: &Network) -> Result<(), Failure> {
        let said = self.firewalld.command(&network.server, &["--add-service=ssh"])?;
        if said.contains("success") { Ok(()) } else { Err(said.into()) }
    }

    pub(super) fn address(&self) -> String {
        self.firewalld.address()
    }

    /// Reloads firewalld, as another program would.
    pub(super) fn reload(&self, network: &Network) -> Result<(), Failure> {
        let said = self.firewalld.command(&network.server, &["--reload"])?;
        if said.contains("success") { Ok(()) } else { Err(said.into()) }
    }

    /// The times of the D-Bus call that a grant needs, without anything around it.
    pub(super) fn bare_calls(&self, count: u8) -> Result<Vec<Duration>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let bus = zbus::connection::Builder::address(self.address().as_str()).method_timeout(TIMEOUT).build().await?;
            let mut times = Vec::new();
            for number in 1..=count {
                let rule = format!(
                    "rule priority=\"-5\" family=\"ipv4\" source address=\"{}\" port port=\"22\" protocol=\"tcp\" accept",
                    crowd(number)
                );
                let begun = Instant::now();
                bus.call_method(
                    Some("org.fedoraproject.FirewallD1"),
                    "/org/fedoraproject/FirewallD1",
                    Some("org.fedoraproject.FirewallD1.zone"),
                    "addRichRule",
                    &("public", rule.as_str(), 3_i32),
                )
                .await?;
                times.push(begun.elapsed());
            }
            // The rules are gone after their timeout.
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(times)
        })
    }
}

/// fwknopd, which runs iptables for each door.
pub(super) struct Fwknopd {
    _process: Process,
    keys: [String; 2],
}

impl Fwknopd {
    /// Starts it with its own keys, and an equivalent firewall.
    pub(super) fn start(network: &Network) -> Result<Self, Failure> {
        let reject =
            ["-A", "INPUT", "-p", "tcp", "--dport", "22", "-j", "REJECT", "--reject-with", "tcp-reset"];
        network.on_server("iptables", &reject)?;
        let made = network.on_server("fwknop", &["--key-gen"])?;
        let key = |name: &str| {
            let line = made.lines().find_map(|line| line.strip_prefix(name));
            line.map(|key| key.trim().to_owned()).ok_or("fwknop makes no keys")
        };
        let keys = [key("KEY_BASE64:")?, key("HMAC_KEY_BASE64:")?];
        let directory = network.directory.path();
        let access = format!(
            "SOURCE ANY\nKEY_BASE64 {}\nHMAC_KEY_BASE64 {}\nFW_ACCESS_TIMEOUT 300\n",
            keys[0], keys[1]
        );
        fs::write(directory.join("access.conf"), access)?;
        let config = format!(
            "PCAP_INTF server;\nENABLE_DIGEST_PERSISTENCE N;\nFWKNOP_RUN_DIR {0};\nFWKNOP_PID_FILE {0}/fwknopd.pid;\n",
            directory.display()
        );
        fs::write(directory.join("fwknopd.conf"), config)?;
        let mut command = Command::new("fwknopd");
        command.arg("--foreground").arg("-c").arg(directory.join("fwknopd.conf"));
        command.arg("-a").arg(directory.join("access.conf"));
        let mut process = Process::start(&network.server, command)?;
        match process.wait(Duration::from_secs(2))? {
            None => Ok(Self { _process: process, keys }),
            Some(status) => Err(format!("fwknopd ends: {status}: {}", process.lines().join("; ")).into()),
        }
    }

    /// The client's command that lets an address in.
    pub(super) fn client(&self, source: IpAddr) -> Command {
        let mut command = Command::new("fwknop");
        command.args(["-A", "tcp/22", "-D", &super::network::SERVER.to_string(), "-a", &source.to_string()]);
        command.args(["--use-hmac", "--no-save-args", "--no-rc-file"]);
        command.args(["--key-base64-rijndael", &self.keys[0], "--key-base64-hmac", &self.keys[1]]);
        command
    }
}
