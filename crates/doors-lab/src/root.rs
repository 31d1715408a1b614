//! Programs of another Debian, run from a directory that holds it.
//!
//! Each program gets a mount namespace of its own, in which that directory cannot be written. So any number
//! of tests share one root, and its mounts end with the program.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The directory in which the roots are. Each is made once and kept.
const ROOTS: &str = "PORT_KNOCKING_DOORS_ROOTS";
const USUAL_ROOTS: &str = "/var/cache/port-knocking-doors";
/// Debian 13 with firewalld and cloud-init. The number changes with the recipe, which is in `xtask/src/root.rs`.
const TRIXIE: &str = "trixie-2";

/// Where a program sees the directory that it may write to; the recipe makes it.
const INSIDE: &str = "/mnt";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts what a program needs, and becomes it. Arguments: the root, the directory, the program and its own.
const ENTER: &str = r#"root=$1 directory=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/run"
mount --rbind /proc "$root/proc"
mount --bind "$directory" "$root/mnt"
exec chroot "$root" "$@"
"#;

/// Lays what is written over a root, in memory. Arguments: the root, and those of what follows.
const COPY: &str = r#"lower=$1
shift
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
root=/mnt/root
mount -t overlay -o "lowerdir=$lower,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$root"
mount --rbind /proc "$root/proc"
"#;

/// A Debian in a directory.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    /// Debian 13, with firewalld 2.3, systemd 257 and cloud-init. `cargo xtask test` makes it.
    ///
    /// # Errors
    /// If it has not been made.
    pub fn trixie() -> io::Result<Self> {
        let path = Self::trixie_path();
        match path.is_dir() {
            true => Ok(Self(path)),
            false => Err(io::Error::other(format!(
                "{} is missing; `cargo xtask root` makes it, as root",
                path.display()
            ))),
        }
    }

    /// Where Debian 13 is, or will be: in `/var/cache/port-knocking-doors`, or in the directory that the
    /// environment variable `PORT_KNOCKING_DOORS_ROOTS` names.
    #[must_use]
    pub fn trixie_path() -> PathBuf {
        let roots = std::env::var_os(ROOTS).filter(|roots| !roots.is_empty());
        PathBuf::from(roots.unwrap_or(USUAL_ROOTS.into())).join(TRIXIE)
    }

    /// A program of this root, in an empty environment. It can write to `/proc`, to a `/run` of its own, and to
    /// `directory`, of which it gets the path that [`Self::inside`] gives.
    #[must_use]
    pub fn program(&self, directory: &Path, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", ENTER, "sh"]);
        command.args([&self.0, directory]).arg(program);
        command.env_clear().env("PATH", PATH);
        command
    }

    /// Runs lines of a shell that may change everything in there: on a copy that goes with the shell. `$root` is
    /// where it is, and `$1` the first of the arguments. In an empty environment.
    #[must_use]
    pub fn on_a_copy(&self, lines: &str, arguments: &[&Path]) -> Command {
        let mut command = Command::new("unshare");
        let script = [COPY, lines].concat();
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"]);
        command.arg(&self.0).args(arguments);
        command.env_clear().env("PATH", PATH);
        command
    }

    /// The path by which a program of a root knows its directory.
    #[must_use]
    pub fn inside() -> &'static Path {
        Path::new(INSIDE)
    }
}
