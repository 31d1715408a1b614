//! Runs threads for work that must not block the caller: reading files, waiting for a disk, writing a log, freeing
//! memory.
//!
//! ```text
//!   owner ──► hand ──► bounded queue ──► thread
//! ```
//!
//! | question                 | answer                                                                       |
//! |--------------------------|------------------------------------------------------------------------------|
//! | how many jobs may wait   | as many as the queue holds; `hand` returns the next one to the owner         |
//! | how it ends              | when its owner drops it or calls [`end`](Worker::end), after the queued jobs |
//! | what if the thread hangs | the owner goes on, and the thread ends with the process                      |
//! | what if it panics        | a release build aborts; else `hand` returns jobs, and answers end            |

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
    /// Starts a thread with this name behind a queue of `most` jobs. `work` takes them until the queue is closed.
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
            // Dropped in the reverse order, also in a panic: who is told of the end finds the queue closed.
            let _end: mpsc::Sender<()> = end;
            let queue = queue;
            work(&queue);
        })?;
        Ok(Self { jobs, ended })
    }

    /// Queues a job behind the earlier ones. Never blocks.
    ///
    /// # Errors
    /// The job, if the queue is full or the thread has ended.
    pub fn hand(&self, job: J) -> Result<(), J> {
        self.jobs.try_send(job).map_err(|unsent| match unsent {
            mpsc::TrySendError::Full(job) | mpsc::TrySendError::Disconnected(job) => job,
        })
    }

    /// Closes the queue, and waits at most `timeout` until the queued jobs are done. Returns whether they are.
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

/// Runs one task in a thread with this name and returns its result through a channel. If the receiver is gone, the
/// result is freed in the thread. If the thread panics, the channel closes without a result.
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
    fn jobs_run_in_order_and_all_before_the_end() {
        let done = Arc::new(Mutex::new(Vec::new()));
        let also = Arc::clone(&done);
        let work = move |jobs: &Receiver<u32>| jobs.iter().for_each(|job| also.lock().unwrap().push(job));
        let worker = Worker::start("test", 100, work).unwrap();
        (0..100).for_each(|job| worker.hand(job).unwrap());
        assert!(worker.end(LONG));
        assert_eq!(*done.lock().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_hanging_thread_fills_only_its_queue_and_never_blocks_its_owner() {
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
        assert!(!worker.end(Duration::ZERO), "it has not ended, and is not waited for");
        drop(go_on);
    }

    #[test]
    fn the_owner_notices_that_its_thread_has_panicked() {
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
