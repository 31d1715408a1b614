//! ssh, configured by `doorknock ssh-config`, through a bastion's sshd to another sshd behind the gate.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use doors_lab::{Namespace, Process};

use crate::{
    client_e2e::{User, run},
    testbed::{PATIENCE, SERVER},
};

/// The bastion's address as the client sees it, and as the server does.
const BASTION: [&str; 2] = ["10.0.0.2", "203.0.113.2"];

/// A port other than the one where a testbed listens.
const DOORS: &str = "[[doors]]\nname = \"ssh\"\nports = [\"2222/tcp\"]\nopen_for = 30\n\
                     [[doors]]\nname = \"admin\"\nports = [\"8443/tcp\"]\n";

/// A user, and a bastion between the client and the server. The client can also reach the server itself, so that it
/// can knock.
struct TwoHops {
    user: User,
    bastion: Namespace,
    daemons: Vec<Process>,
}

impl TwoHops {
    fn new() -> Self {
        let user = User::with(DOORS);
        let bastion = Namespace::new().unwrap();
        bastion.cable("inside", &user.testbed.server, "bastion").unwrap();
        bastion.cable("outside", &user.testbed.client, "bastion").unwrap();
        for (namespace, link, address) in [
            (&bastion, "inside", "203.0.113.2/24"),
            (&user.testbed.server, "bastion", "203.0.113.1/24"),
            (&bastion, "outside", "10.0.0.2/24"),
            (&user.testbed.client, "bastion", "10.0.0.1/24"),
        ] {
            namespace.address(link, address.parse().unwrap()).unwrap();
        }
        let server = format!("{}/32", SERVER[0]);
        bastion.route(server.parse().unwrap(), "203.0.113.1".parse().unwrap()).unwrap();
        // The program under its own name, for ssh.
        let bin = user.home.join("bin");
        fs::create_dir(&bin).unwrap();
        let script =
            format!("#!/bin/sh\nexec {} demo-client \"$@\"\n", env!("CARGO_BIN_EXE_port-knocking-doors"));
        fs::write(bin.join("doorknock"), script).unwrap();
        fs::set_permissions(bin.join("doorknock"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut hops = Self { user, bastion, daemons: Vec::new() };
        let inner = hops.sshd(&hops.user.testbed.server, SERVER[0], 2222);
        let outer = hops.sshd(&hops.bastion, BASTION[0], 22);
        hops.daemons.extend([inner, outer]);
        hops
    }

    /// Starts an sshd that accepts the user.
    fn sshd(&self, namespace: &Namespace, address: &str, port: u16) -> Process {
        let place = self.user.home.join(format!("sshd-{address}"));
        fs::create_dir(&place).unwrap();
        let key = place.join("host_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key));
        let config = place.join("sshd_config");
        let settings = format!(
            "ListenAddress {address}:{port}\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             PermitRootLogin yes\nUsePAM no\nLogLevel VERBOSE\n",
            key.display(),
            self.user.home.join(".ssh/some_key.pub").display(),
        );
        fs::write(&config, settings).unwrap();
        // sshd needs a directory that exists only on a running system.
        let mut command = Command::new("unshare");
        let prepare =
            "mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec /usr/sbin/sshd -D -e -f \"$0\"";
        command.args(["--mount", "sh", "-c", prepare]).arg(config);
        let mut sshd = Process::start(namespace, command).unwrap();
        let listens = sshd.wait_for("Server listening", PATIENCE);
        assert!(listens.is_some(), "{:?}", sshd.lines());
        sshd
    }

    /// Writes an ssh configuration with the lines that the client prints.
    fn config(&self, arguments: &[&str]) -> PathBuf {
        let (code, lines) = self.user.doorknock(&[&["ssh-config"], arguments].concat());
        assert_eq!(code, Some(0), "{lines}");
        let path = self.user.home.join("ssh_config");
        let ours = format!(
            "Host bastion\n    HostName {}\nHost home4\n    Port 2222\nHost *\n    StrictHostKeyChecking no\n    UserKnownHostsFile /dev/null\n    \
             BatchMode yes\n    User root\n    LogLevel ERROR\n    ConnectTimeout 15\n",
            BASTION[0]
        );
        fs::write(&path, format!("{lines}\n{ours}")).unwrap();
        path
    }

    fn ssh(&self, config: &Path) -> (Option<i32>, String) {
        let mut command = Command::new("ssh");
        let path = format!("{}:/usr/bin:/bin", self.user.home.join("bin").display());
        command.arg("-F").arg(config).args(["home4", "echo from $SSH_CONNECTION"]).env_clear();
        command.env("HOME", &self.user.home).env("PATH", path);
        command.env("SSH_AUTH_SOCK", self.user.home.join("agent"));
        let mut process = Process::start(&self.user.testbed.client, command).unwrap();
        let (status, said) = process.finish(PATIENCE).unwrap().expect("ssh ends");
        (status.code(), said)
    }
}

#[test]
fn ssh_jumps_over_a_bastion_through_a_door_that_opens_for_the_bastion_alone() {
    let hops = TwoHops::new();
    let config =
        hops.config(&["home4", "ssh", "--jump", "bastion", "--address", BASTION[1], "--for", "2min"]);
    let (code, said) = hops.ssh(&config);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("from {} ", BASTION[1])), "{said}");
    let grants = hops.user.testbed.grants("ssh");
    assert_eq!(grants.keys().collect::<Vec<_>>(), [BASTION[1]]);
    assert!(grants[BASTION[1]] > 60, "{grants:?}");
}

#[test]
fn a_refused_knock_ends_ssh_at_once_and_says_why() {
    let hops = TwoHops::new();
    let config = hops.config(&["home4", "admin", "--jump", "bastion", "--address", BASTION[1]]);
    let (code, said) = hops.ssh(&config);
    assert_eq!(code, Some(255), "{said}");
    assert!(said.contains("doorknock: not allowed to open: admin"), "{said}");
    // ssh would say so if it had tried to jump.
    assert!(!said.to_lowercase().contains("timed out"), "{said}");
}

#[test]
fn ssh_goes_through_a_door_that_its_proxy_command_has_opened() {
    let hops = TwoHops::new();
    let (code, said) = hops.ssh(&hops.config(&["home4", "ssh"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("from 192.0.2.7 "), "{said}");
}
