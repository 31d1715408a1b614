//! A process in a private network, and what it prints.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::namespace::Namespace;

/// A process whose lines can be waited for. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a process, and reads its standard output and standard error, line by line.
    ///
    /// # Errors
    /// What the system says if it cannot be started.
    pub fn start(namespace: &Namespace, mut command: Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_it_is(namespace, command)
    }

    /// Starts a process whose output goes where the command says.
    ///
    /// # Errors
    /// What the system says if it cannot be started.
    pub fn start_as_it_is(namespace: &Namespace, command: Command) -> io::Result<Self> {
        let mut child = namespace.spawn(command)?;
        let (teller, lines) = mpsc::channel();
        let streams = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let teller = teller.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if teller.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits for a line that contains `text`, also among those that came before and were not waited
    /// for. Gives the line; `None` if it does not come within `patience`.
    pub fn wait_for(&mut self, text: &str, patience: Duration) -> Option<String> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.iter().position(|line| line.contains(text)) {
                return Some(self.seen.remove(at));
            }
            let left = patience.checked_sub(start.elapsed())?;
            self.seen.push(self.lines.recv_timeout(left).ok()?);
        }
    }

    /// All lines that have come and were not waited for.
    pub fn lines(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Takes all lines that have come and were not waited for.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines();
        std::mem::take(&mut self.seen)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("a process without an id"))?;
        kill_process(id, signal).map_err(io::Error::from)
    }

    /// The process's number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it ends; `None` if it does not within `patience`.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(Some(status)),
                None if start.elapsed() >= patience => return Ok(None),
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Process {
    /// Waits until it ends. Gives how, and everything that it printed and nobody waited for.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&mut self, patience: Duration) -> io::Result<Option<(ExitStatus, String)>> {
        let Some(status) = self.wait(patience)? else { return Ok(None) };
        // The readers end when the streams do.
        self.seen.extend(self.lines.iter());
        Ok(Some((status, self.take_lines().join("\n"))))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
