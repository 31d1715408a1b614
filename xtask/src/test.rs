//! Everything that must be true.

use std::{process::Command, time::Instant};

use crate::{
    examples::PYTHON,
    programs::{Failure, cargo, install, succeed},
};

/// What the tests are behind that need root, or the real kernel and other programs.
const REAL: &str = "port-knocking-doors/real,doors-os/real";

/// A file of Python's `cryptography`, for the example.
const CRYPTOGRAPHY: &str = "/usr/lib/python3/dist-packages/cryptography/__init__.py";

/// Programs that the tests use for real, and the Debian packages that have them.
const NEEDED: [(&str, &str); 17] = [
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
    (PYTHON, "python3"),
    (CRYPTOGRAPHY, "python3-cryptography"),
];

/// What takes seconds and no root: format, commit messages, licences, generated files, the example in Python.
pub(crate) fn check() -> Result<(), Failure> {
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    println!("\n── commit messages");
    crate::commits::run()?;
    println!("\n── licences");
    crate::licences::run()?;
    println!("\n── generated files are current");
    crate::generate::run(true)?;
    println!("\n── the example in Python makes the numbers of docs/spa.md");
    crate::examples::run()
}

/// Runs every check, in the order in which they fail fastest.
pub(crate) fn run() -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err("the tests start a real firewalld, which runs for root only; run this as root, or \
                    `cargo xtask check` and `cargo test --workspace` as another user"
            .into());
    }
    install(&NEEDED)?;
    check()?;
    let lints = ["--workspace", "--all-targets", "--features", REAL, "--locked", "--", "-D", "warnings"];
    step("lints", cargo(&[&["clippy"], &lints[..]].concat()))?;
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    step("documents", doc)?;
    crate::root::run()?;
    let mut test = cargo(&["test", "--workspace", "--features", REAL, "--locked"]);
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
