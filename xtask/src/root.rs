//! A Debian 13 in a directory, for its firewalld, and for the units of a machine that boots with cloud-init.
//!
//! Made once, outside the tree, and kept: see [`Root::trixie_path`]. debootstrap fetches the packages and
//! checks their signatures; they are unpacked, and none of their scripts runs. firewalld needs none of them,
//! polkitd's fails in a chroot, and without them nothing is mounted inside that an interrupted run could
//! leave there.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use doors_lab::Root;

use crate::programs::{Failure, install, succeed};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What making it needs, and the Debian packages that have it.
const NEEDED: [(&str, &str); 5] = [
    ("debootstrap", "debootstrap"),
    ("gpgv", "gpgv"),
    (KEYRING, "debian-archive-keyring"),
    ("dpkg-deb", "dpkg"),
    ("chroot", "coreutils"),
];

/// What is in there beside the smallest Debian.
const PACKAGES: [&str; 7] =
    ["firewalld", "nftables", "systemd", "systemd-sysv", "dbus", "cloud-init", "ifupdown"];

/// Fetched or unpacked, and of no use in there.
const USELESS: [&str; 7] = [
    "debootstrap",
    "var/cache/apt",
    "var/lib/apt",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
];

/// Makes the root, unless it is there. A change of how it is made changes the number in its name, in the lab, too.
pub(crate) fn run() -> Result<(), Failure> {
    let root = Root::trixie_path();
    if root.is_dir() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        return Err(format!("{} can be made by root only; run this as root", root.display()).into());
    }
    install(&NEEDED)?;
    if let Some(roots) = root.parent() {
        fs::create_dir_all(roots).map_err(|error| format!("cannot make {}: {error}", roots.display()))?;
    }
    let lock = root.with_extension("lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let locked = locked.map_err(|error| format!("cannot lock {}: {error}", lock.display()))?;
    // Another run may have made it while this one waited.
    if !root.is_dir() {
        println!("\n── making {}: parts of Debian 13", root.display());
        make(&root, &locked).map_err(|failure| format!("there is no Debian 13 to test with: {failure}"))?;
    }
    drop(locked);
    Ok(())
}

/// Makes it under another name first: what has the right name is complete.
fn make(root: &Path, lock: &File) -> Result<(), Failure> {
    let unfinished = root.with_extension("unfinished");
    remove(&unfinished)?;
    fetch(&unfinished, lock)?;
    unpack(&unfinished)?;
    for useless in USELESS {
        remove(&unfinished.join(useless))?;
    }
    // A script of Debian's makes this one, where each program of the root gets its files.
    fs::create_dir(unfinished.join(Root::inside().strip_prefix("/")?))?;
    // Nothing can be written there later, so Python would compile everything each time.
    succeed(inside(&unfinished, &["python3", "-m", "compileall", "-q", "/usr/lib/python3"]))?;
    succeed(inside(&unfinished, &["python3", "-m", "compileall", "-q", "/usr/lib/python3.13"]))?;
    // This loads firewalld's modules, and prints the version.
    succeed(inside(&unfinished, &["firewall-offline-cmd", "--version"]))?;
    fs::rename(&unfinished, root).map_err(|error| format!("cannot name {}: {error}", root.display()).into())
}

fn fetch(unfinished: &Path, lock: &File) -> Result<(), Failure> {
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", &format!("--include={}", PACKAGES.join(",")), "--download-only"]);
    // Without its keyring debootstrap would only warn.
    command.args(["--force-check-gpg", &format!("--keyring={KEYRING}"), "trixie"]);
    command.arg(unfinished).arg(mirror()?);
    // A file without content, which stays locked for as long as debootstrap goes on, also without us.
    command.stdin(lock.try_clone()?);
    let fetched = command.output().map_err(|error| format!("cannot run debootstrap: {error}"))?;
    if fetched.status.success() {
        return Ok(());
    }
    // It says a line for each package.
    let said = [fetched.stdout, fetched.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    let lines: Vec<&str> = said.iter().flat_map(|said| said.lines()).collect();
    let last = lines.iter().skip(lines.len().saturating_sub(8)).copied().collect::<Vec<_>>().join("\n");
    Err(format!("debootstrap: {}\n{last}", fetched.status).into())
}

fn unpack(unfinished: &Path) -> Result<(), Failure> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(unfinished.join("var/cache/apt/archives"))? {
        packages.push(entry?.path());
    }
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    // This one has the links of the top level, `/bin` to `/usr/bin` and the like.
    packages.sort_by_key(|path| (!is_named(path, "base-files_"), path.clone()));
    for package in packages {
        let mut command = Command::new("dpkg-deb");
        command.arg("--extract").arg(package).arg(unfinished);
        succeed(command)?;
    }
    Ok(())
}

fn is_named(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// Where this machine's apt has Debian from.
fn mirror() -> Result<String, Failure> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    command.args(["Created-By: Packages", "Origin: Debian", "Label: Debian", "Component: main"]);
    let told = command.output().map_err(|error| format!("cannot run apt-get: {error}"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let mirror = told.lines().find(|line| line.starts_with("http") || line.starts_with("file:"));
    mirror.map(str::to_owned).ok_or_else(|| {
        "apt knows no mirror of Debian; `apt-get indextargets` shows those of `apt-get update`".into()
    })
}

fn inside(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new("chroot");
    command.arg(root).args(words).stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin");
    command
}

fn remove(directory: &PathBuf) -> Result<(), Failure> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", directory.display()).into())
        }
        _ => Ok(()),
    }
}
