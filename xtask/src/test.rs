//! Everything that must be true.

use std::{process::Command, time::Instant};

use crate::programs::{Failure, cargo, install, succeed};

/// Programs that the tests use for real, and the Debian packages that have them.
const NEEDED: [(&str, &str); 15] = [
    ("nft", "nftables"),
    ("firewalld", "firewalld"),
    ("iptables", "iptables"),
    ("ufw", "ufw"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("dbus-daemon", "dbus"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("chroot", "coreutils"),
    ("ssh-agent", "openssh-client"),
    ("ssh-keygen", "openssh-client"),
    ("ssh", "openssh-client"),
    ("sshd", "openssh-server"),
];

/// Runs every check, in the order in which they fail fastest.
pub(crate) fn run() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err("the tests start a real firewalld, which runs for root only; run this as root".into());
    }
    install(&NEEDED)?;
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step("lints", cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documents", doc)?;
    println!("\n── generated files are current");
    crate::generate::run(true)?;
    crate::root::run()?;
    let mut test = cargo(&["test", "--workspace", "--locked"]);
    // A snapshot that differs is a failure, not a proposal.
    test.env("INSTA_UPDATE", "no").env("RUST_BACKTRACE", "0");
    // Where Debian keeps the programs of the firewall, and not every shell looks.
    let path = std::env::var("PATH").unwrap_or_default();
    test.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    step("tests", test)
}

fn step(name: &str, command: Command) -> Result<(), Failure> {
    println!("\n── {name}");
    let begun = Instant::now();
    succeed(command)?;
    println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}
