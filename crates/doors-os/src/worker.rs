//! Threads that do what must not hold up their owner: read files, wait for a disk, write a log, free memory.
//!
//! ```text
//!   owner ──► hand ──► so many jobs and no more ──► thread
//! ```
//!
//! | question                | answer                                                                              |
//! |-------------------------|-------------------------------------------------------------------------------------|
//! | how much may wait       | the bound; one job more is given back, and its owner decides                        |
//! | how it ends             | when its owner lets go of it, or [ends](Worker::end) it: after the jobs that wait   |
//! | what if the thread hangs | its owner goes on, and it ends with the process                                    |
//! | what if it panics       | the program ends, as a release is built; else `hand` gives jobs back, and answers end |

use std::{
    fmt, io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

/// The owner's side of a thread and its queue.
pub struct Worker<J> {
    jobs: SyncSender<J>,
    ended: Receiver<()>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread of this name, behind a queue for `most` jobs. `work` takes them until the queue is closed.
    ///
    /// # Errors
    /// If the kernel makes no thread.
    pub fn start(
        name: &str,
        most: usize,
        work: impl FnOnce(&Receiver<J>) + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, queue) = mpsc::sync_channel(most);
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let _end: mpsc::Sender<()> = end;
            work(&queue);
        })?;
        Ok(Self { jobs, ended })
    }

    /// Hands over a job, to be done after those before it. Never waits.
    ///
    /// # Errors
    /// The job, if too many wait or the thread has ended.
    pub fn hand(&self, job: J) -> Result<(), J> {
        self.jobs.try_send(job).map_err(|unsent| match unsent {
            mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job) => job,
        })
    }

    /// Takes no more jobs, and waits until those before are done, at most `timeout`. Says whether they are.
    pub fn end(self, timeout: Duration) -> bool {
        drop(self.jobs);
        self.ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected)
    }
}

impl<J> fmt::Debug for Worker<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

/// Does one thing in a thread of this name, and gives what came of it. If nobody waits for that any more, it is freed in
/// the thread. If the thread panics, the sender is gone without a word.
///
/// # Errors
/// If the kernel makes no thread.
pub fn once<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, outcome) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || drop(done.send(work())))?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn jobs_are_done_in_their_order_and_all_before_the_end() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let also = Arc::clone(&done);
        let work = move |jobs: &Receiver<u32>| jobs.iter().for_each(|job| also.lock().unwrap().push(job));
        let worker = Worker::start("test", 100, work).unwrap();
        (0..100).for_each(|job| worker.hand(job).unwrap());
        assert!(worker.end(LONG));
        assert_eq!(*done.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_thread_that_hangs_gets_no_more_than_its_bound_and_holds_up_nobody() {
        let (go_on, wait) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let work = move |jobs: &Receiver<u32>| {
            let _ = jobs.recv().map(|job| begun.send(job));
            let _ = wait.recv();
        };
        let worker = Worker::start("test", 2, work).unwrap();
        worker.hand(1).unwrap();
        begins.recv().unwrap();
        assert_eq!([2, 3, 4].map(|job| worker.hand(job)), [Ok(()), Ok(()), Err(4)]);
        assert!(!worker.end(Duration::ZERO), "it is not at its end, and is not waited for");
        drop(go_on);
    }

    #[test]
    fn of_a_thread_that_panics_its_owner_learns() {
        let worker = Worker::start("test", 1, |jobs: &Receiver<u32>| {
            let _ = jobs.recv();
            std::panic::resume_unwind(Box::new("no message"));
        });
        let worker = worker.unwrap();
        worker.hand(1).unwrap();
        worker.ended.recv().unwrap_err();
        assert_eq!(worker.hand(2), Err(2));
        let never = once("test", || -> u32 { std::panic::resume_unwind(Box::new("no message")) }).unwrap();
        never.blocking_recv().unwrap_err();
        assert_eq!(once("test", || 7).unwrap().blocking_recv(), Ok(7));
    }
}
