//! Programs of another Debian, run from a directory with its root file system.
//!
//! Each program gets a mount namespace of its own, in which that directory is read-only. So any number of
//! tests can share one root, and its mounts end with the program.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The variable that names the directory of the roots. Each root is made once and kept.
const ROOTS: &str = "PORT_KNOCKING_DOORS_ROOTS";
const USUAL_ROOTS: &str = "/var/cache/port-knocking-doors";
/// Debian 13 with firewalld and cloud-init. The number changes with the recipe in `xtask/src/root.rs`.
const TRIXIE: &str = "trixie-2";

/// The path under which a program sees its writable directory. The recipe makes it.
const INSIDE: &str = "/mnt";
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Mounts what a program needs, then becomes the program. Arguments: the root, the directory, the program and
/// its own arguments.
const ENTER: &str = r#"root=$1 directory=$2
shift 2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/run"
mount --rbind /proc "$root/proc"
mount --bind "$directory" "$root/mnt"
exec chroot "$root" "$@"
"#;

/// Mounts an overlay over a root that keeps all writes in memory. Arguments: the root, then those of the
/// lines that follow.
const COPY: &str = r#"lower=$1
shift
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
root=/mnt/root
mount -t overlay -o "lowerdir=$lower,upperdir=/mnt/upper,workdir=/mnt/work" overlay "$root"
mount --rbind /proc "$root/proc"
"#;

/// A Debian root file system in a directory.
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

    /// The path of Debian 13, made or not: in `/var/cache/port-knocking-doors`, or in the directory that the
    /// environment variable `PORT_KNOCKING_DOORS_ROOTS` names.
    #[must_use]
    pub fn trixie_path() -> PathBuf {
        let roots = std::env::var_os(ROOTS).filter(|roots| !roots.is_empty());
        PathBuf::from(roots.unwrap_or(USUAL_ROOTS.into())).join(TRIXIE)
    }

    /// A command for a program of this root, with an empty environment. It can write to `/proc`, to its own
    /// `/run`, and to `directory`, which it sees at [`Self::inside`].
    #[must_use]
    pub fn program(&self, directory: &Path, program: &str) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-ec", ENTER, "sh"]);
        command.args([&self.0, directory]).arg(program);
        command.env_clear().env("PATH", PATH);
        command
    }

    /// A command that runs `lines` in a shell on a copy of the root, which ends with the shell. `$root` is
    /// the copy's path, and `$1` the first of the arguments. The environment is empty.
    #[must_use]
    pub fn on_a_copy(&self, lines: &str, arguments: &[&Path]) -> Command {
        let mut command = Command::new("unshare");
        let script = [COPY, lines].concat();
        command.args(["--mount", "--propagation", "private", "sh", "-ec", &script, "sh"]);
        command.arg(&self.0).args(arguments);
        command.env_clear().env("PATH", PATH);
        command
    }

    /// The path under which a program of a root sees its writable directory.
    #[must_use]
    pub fn inside() -> &'static Path {
        Path::new(INSIDE)
    }
}
