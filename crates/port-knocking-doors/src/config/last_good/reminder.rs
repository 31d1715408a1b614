//! Says again and again that what runs is not what stands in the file. One line is lost among others, and the state
//! may last until the next reboot.

use std::time::Duration;

use doors_core::time::Moment;

/// Often enough for who looks at the log, and nothing for who keeps it.
const EVERY: Duration = Duration::from_secs(60);

/// When it is said next. It was said at the start.
#[derive(Debug)]
pub(crate) struct Reminder {
    why: Option<String>,
    next: Moment,
}

impl Reminder {
    /// Why the file is not in force; `None` if it is.
    pub(crate) fn new(why: Option<String>, now: Moment) -> Self {
        Self { why, next: now.after(EVERY) }
    }

    /// When [`take`](Self::take) gives something; `None` if never.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        self.why.as_ref().map(|_| self.next)
    }

    /// What is to be said, if it is time.
    pub(crate) fn take(&mut self, now: Moment) -> Option<String> {
        let why = self.why.as_ref().filter(|_| self.next <= now)?;
        // From now on, not from when it was due: after a suspension nothing is made up for.
        self.next = now.after(EVERY);
        Some(why.clone())
    }

    /// The file is in force. Says whether it was not until now.
    pub(crate) fn end(&mut self) -> bool {
        self.why.take().is_some()
    }
}
