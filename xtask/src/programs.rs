//! Runs other programs, and installs those that are missing.

use std::{
    error::Error,
    path::Path,
    process::{Command, Stdio},
};

/// Why a command failed: for a person.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

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

/// Whether there is such a program, or such a file.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    // A whole path stays what it is.
    places.into_iter().any(|place| Path::new(place).join(program).is_file())
}
