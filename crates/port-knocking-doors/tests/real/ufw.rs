//! A real ufw with its own files, as Debian installs them.

use std::{fs, path::PathBuf, process::Command};

use doors_lab::Process;

use crate::testbed::{PATIENCE, Testbed};

/// Debian's templates for ufw's files.
const ORIGINALS: &str = "/usr/share/ufw";

pub(crate) struct Ufw {
    root: PathBuf,
}

impl Ufw {
    /// Copies the files of a fresh installation into the testbed's directory, and enables ufw with them.
    pub(crate) fn enable(testbed: &Testbed) -> Self {
        let root = testbed.place_for("ufw");
        for directory in ["etc/ufw/applications.d", "etc/default", "lib/ufw", "usr/share/ufw/iptables"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        let copy = |from: &str, to: &str| {
            fs::copy(from, root.join(to)).unwrap_or_else(|error| panic!("{from}: {error}"));
        };
        for name in ["before", "before6", "after", "after6", "user", "user6"] {
            let original = format!("{ORIGINALS}/iptables/{name}.rules");
            copy(&original, &format!("etc/ufw/{name}.rules"));
            copy(&original, &format!("usr/share/ufw/iptables/{name}.rules"));
        }
        copy(&format!("{ORIGINALS}/ufw.conf"), "etc/ufw/ufw.conf");
        for path in
            ["/etc/ufw/sysctl.conf", "/etc/default/ufw", "/lib/ufw/ufw-init", "/lib/ufw/ufw-init-functions"]
        {
            copy(path, path.trim_start_matches('/'));
        }
        let ufw = Self { root };
        ufw.run(testbed, &["--force", "enable"]);
        ufw
    }

    /// Runs ufw.
    pub(crate) fn run(&self, testbed: &Testbed, arguments: &[&str]) -> String {
        let mut command = Command::new("ufw");
        let root = self.root.display();
        command.arg(format!("--rootdir={root}")).arg(format!("--datadir={root}")).args(arguments);
        let mut process = Process::start(&testbed.server, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().unwrap();
        assert!(status.success(), "ufw {arguments:?}: {said}");
        said
    }

    /// Appends a rule to the file of rules that come before the user's, and reloads.
    pub(crate) fn add_before(&self, testbed: &Testbed, rule: &str, rule6: &str) {
        for (name, rule) in [("before", rule), ("before6", rule6)] {
            let path = self.root.join(format!("etc/ufw/{name}.rules"));
            let text = fs::read_to_string(&path).unwrap();
            let (rules, end) = text.rsplit_once("COMMIT").unwrap();
            fs::write(&path, format!("{rules}{rule}\nCOMMIT{end}")).unwrap();
        }
        self.run(testbed, &["reload"]);
    }
}
