//! A process in a private network, and its output.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use super::namespace::Namespace;

/// A process with lines of output that can be waited for. It is killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Process {
    /// Starts a process, and reads its standard output and standard error line by line.
    ///
    /// # Errors
    /// The system's error if it cannot be started.
    pub fn start(namespace: &Namespace, mut command: Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_it_is(namespace, command)
    }

    /// Starts a process with its output as the command sets it up. Lines can be waited for only of what is
    /// piped.
    ///
    /// # Errors
    /// The system's error if it cannot be started.
    pub fn start_as_it_is(namespace: &Namespace, command: Command) -> io::Result<Self> {
        let mut child = namespace.spawn(command)?;
        let (sender, lines) = mpsc::channel();
        let streams = [
            child.stdout.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
            child.stderr.take().map(|stream| Box::new(stream) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines, seen: Vec::new() })
    }

    /// Waits up to `timeout` for a line that contains `text`, also among earlier lines that were not waited
    /// for. Returns the line; `None` if it does not come.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Option<String> {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.iter().position(|line| line.contains(text)) {
                return Some(self.seen.remove(at));
            }
            let left = timeout.checked_sub(start.elapsed())?;
            self.seen.push(self.lines.recv_timeout(left).ok()?);
        }
    }

    /// All lines so far that were not waited for.
    pub fn lines(&mut self) -> &[String] {
        self.seen.extend(self.lines.try_iter());
        &self.seen
    }

    /// Takes all lines so far that were not waited for.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines();
        std::mem::take(&mut self.seen)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The kernel's error, for example if the process has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("a process without an id"))?;
        kill_process(id, signal).map_err(io::Error::from)
    }

    /// The process's ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits up to `timeout` until it ends; `None` if it does not.
    ///
    /// # Errors
    /// The system's error.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(Some(status)),
                None if start.elapsed() >= timeout => return Ok(None),
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Process {
    /// Waits up to `timeout` until it ends. Returns its status and all output that was not waited for; `None`
    /// if it does not end.
    ///
    /// # Errors
    /// The system's error.
    pub fn finish(&mut self, timeout: Duration) -> io::Result<Option<(ExitStatus, String)>> {
        let Some(status) = self.wait(timeout)? else { return Ok(None) };
        // The channel closes when the readers reach the end of the output.
        self.seen.extend(self.lines.iter());
        Ok(Some((status, self.take_lines().join("\n"))))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
