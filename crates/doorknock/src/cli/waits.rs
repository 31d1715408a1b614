//! Says what the program waits for, where that takes longer than a moment.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use super::complain;

/// Nothing is said before: most answers are there in less, and a line that flashes by is no use.
pub(super) const MOMENT: Duration = Duration::from_millis(500);

/// A wait. If it is not over after a moment, a line says what it is for.
pub(super) struct Waits(#[expect(dead_code, reason = "the thread hears of its end")] mpsc::Sender<()>);

impl Waits {
    pub(super) fn for_what(line: String, quiet: bool) -> Self {
        let (over, told) = mpsc::channel();
        if !quiet {
            thread::spawn(move || {
                if told.recv_timeout(MOMENT) == Err(RecvTimeoutError::Timeout) {
                    complain(&line);
                }
            });
        }
        Self(over)
    }
}
