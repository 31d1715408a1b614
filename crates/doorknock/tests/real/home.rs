//! A home directory with keys, and perhaps an agent.

use std::{
    fs,
    io::{Read as _, Seek as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longer than anything here takes, however busy the machine is.
pub(crate) const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// A home directory. The client that runs in it sees nothing of the user's own.
pub(crate) struct Home {
    directory: TempDir,
    agent: Option<Child>,
}

/// What the client said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    /// But for the lines about what it waits for, which come on a slow machine.
    pub(crate) err: String,
    pub(crate) waits: Vec<String>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(".ssh")).unwrap();
        Self { directory, agent: None }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a key with the real program.
    pub(crate) fn key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let path = self.path(name);
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", passphrase, "-C", "somebody@somewhere", "-f"])
            .arg(&path));
        path
    }

    fn socket(&self) -> PathBuf {
        self.path("agent")
    }

    /// Starts the real agent, which ends with this home.
    pub(crate) fn start_agent(&mut self) {
        let socket = self.socket();
        let mut agent = Command::new("ssh-agent");
        agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
        self.agent = Some(agent.spawn().unwrap());
        let start = Instant::now();
        while !socket.exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "the agent does not start");
            std::thread::yield_now();
        }
    }

    pub(crate) fn add_to_agent(&self, key: &Path) {
        run(Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", self.socket()));
    }

    pub(crate) fn empty_agent(&self) {
        run(Command::new("ssh-add").arg("-D").env("SSH_AUTH_SOCK", self.socket()));
    }

    /// The client, in this home.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorknock"));
        command.args(arguments).env_clear().env("HOME", self.directory.path()).env("TZ", "UTC");
        if self.agent.is_some() {
            command.env("SSH_AUTH_SOCK", self.socket());
        }
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn doorknock(&self, arguments: &[&str]) -> Said {
        Said::of(&mut self.command(arguments))
    }
}

impl Said {
    /// Runs it until it ends. Files take what it says, however much that is.
    pub(crate) fn of(command: &mut Command) -> Self {
        let [mut out, mut err] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > RUN_TIMEOUT {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{command:?} does not end");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let [out, err] = [&mut out, &mut err].map(|file| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text.trim_end().to_owned()
        });
        let (waits, err): (Vec<&str>, Vec<&str>) =
            err.lines().partition(|line| line.starts_with("doorknock: waiting for "));
        let waits = waits.into_iter().map(str::to_owned).collect();
        Self { code: status.code(), out, err: err.join("\n"), waits }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
