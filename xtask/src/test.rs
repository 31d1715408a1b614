//! Everything that must be true.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::Failure;

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

/// Installs what is missing, programs or files by their whole path, if that is possible; else says what to
/// install.
pub(crate) fn install(needed: &[(&str, &str)]) -> Result<(), Failure> {
    let missing: Vec<&str> =
        needed.iter().filter(|(program, _)| !is_installed(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() || !is_installed("apt-get") {
        return Err(
            format!("these are needed; install them as root: apt-get install {}", missing.join(" ")).into()
        );
    }
    println!("── installing {}", missing.join(" "));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        succeed(command)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"][..], &missing].concat())?;
    match needed.iter().find(|(program, _)| !is_installed(program)) {
        Some((program, package)) => Err(format!("{package} is installed, and there is no {program}").into()),
        None => Ok(()),
    }
}

/// cargo, the one that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(arguments);
    command
}

/// Runs a program that must succeed.
pub(crate) fn succeed(mut command: Command) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| format!("cannot run {program}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{program} {}: {status}", arguments(&command)).into()),
    }
}

fn arguments(command: &Command) -> String {
    command.get_args().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn step(name: &str, command: Command) -> Result<(), Failure> {
    println!("\n── {name}");
    let begun = Instant::now();
    succeed(command)?;
    println!("── {name}: {:.0} s", begun.elapsed().as_secs_f64());
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    // A whole path stays what it is.
    places.into_iter().any(|place| Path::new(place).join(program).is_file())
}
