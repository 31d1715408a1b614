//! Whom we are compared with, as Debian packages them.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use port_knocking_doors::lab::{Firewalld, Process};

use super::{
    PATIENCE,
    network::{Network, SEQUENCE, crowd},
};
use crate::Failure;

/// knockd, which runs a command for each door.
pub(super) struct Knockd {
    process: Process,
}

impl Knockd {
    /// Starts it, with the same sequence, and a ruleset of the same meaning that its command opens.
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
        // It says that it listens only when its output is no pipe; it has a moment to begin.
        match process.wait(Duration::from_secs(1))? {
            None => Ok(Self { process }),
            Some(status) => Err(format!("knockd ends: {status}: {}", process.lines().join("; ")).into()),
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }
}

/// A firewalld whose zone does not let the port through.
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

    pub(super) fn address(&self) -> String {
        self.firewalld.address()
    }

    /// As somebody else would.
    pub(super) fn reload(&self, network: &Network) -> Result<(), Failure> {
        let said = self.firewalld.command(&network.server, &["--reload"])?;
        if said.contains("success") { Ok(()) } else { Err(said.into()) }
    }

    /// The time of the call that a grant needs, with nothing around it.
    pub(super) fn bare_calls(&self, count: u8) -> Result<Vec<Duration>, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let bus = zbus::connection::Builder::address(self.address().as_str()).method_timeout(PATIENCE).build().await?;
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
            // They are out of the way when their time is over.
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok(times)
        })
    }
}
