//! Decides which events become a line of the log, and which are only counted in a summary.
//!
//! Events that a stranger can cause at will share a budget of lines. What a client with a key does to a door is
//! always logged: each client has bounds of its own.

use std::{io, time::Duration};

use doors_core::{budget::Budget, engine::Event, lease::GrantedTo, spa::server::DropReason, time::Moment};
use doors_spa::receipt::Answer;

use super::{
    Observer, log,
    log_writer::LogWriter,
    throttle::{DOORS, REFUSALS, Throttle},
};

/// How an event is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Always logged.
    Always,
    /// A change of a door that a sequence opened.
    Door,
    /// A grant found at the start. It must not use up the lines of the grants that follow.
    Found,
    /// A refusal.
    Refusal,
    /// A refusal that is only counted: the kernel was not asked whether the source address is plausible.
    Unchecked,
    /// For debugging. Suppressed lines are not counted.
    Detail,
}

fn kind(event: &Event) -> Kind {
    match event {
        Event::Adopted(lease) | Event::NotAdopted(lease) => match lease.granted_to {
            GrantedTo::Client(_) | GrantedTo::Administrator(_) => Kind::Always,
            GrantedTo::Sequence => Kind::Found,
        },
        Event::Opened(lease)
        | Event::Extended(lease)
        | Event::Closed(lease)
        | Event::Used(lease)
        | Event::Lost(lease)
        | Event::Withdrawn(lease)
        | Event::Revoked(lease)
        | Event::Shortened(lease)
        | Event::Reduced { gone: lease, .. }
        | Event::ClosedByHand { lease, .. }
        | Event::AlsoOpen { lease, .. }
        | Event::GivenUp(lease)
        | Event::NeverOpened(lease) => match lease.granted_to {
            GrantedTo::Client(_) | GrantedTo::Administrator(_) => Kind::Always,
            GrantedTo::Sequence => Kind::Door,
        },
        Event::Granted(_)
        | Event::StillOpen(_)
        | Event::Further { .. }
        | Event::Repeated { .. }
        | Event::Waiting { .. }
        | Event::NotAccepted { .. }
        // Each client gets one for its first knock after a start.
        | Event::Refused { why: Answer::Stale, .. }
        // A sender can cause these at no cost.
        | Event::Dropped { why: DropReason::Unknown | DropReason::Copied, .. } => Kind::Detail,
        Event::Wrong { checked: false, .. } => Kind::Unchecked,
        Event::Wrong { .. }
        | Event::NotInTime(_)
        | Event::NoRoom(_)
        | Event::Refused { .. }
        | Event::Ineligible { .. }
        | Event::Dropped { .. } => Kind::Refusal,
    }
}

/// The log.
#[derive(Debug)]
pub(super) struct EventLog {
    writer: LogWriter,
    throttles: Throttles,
}

/// The budgets of lines.
#[derive(Debug)]
struct Throttles {
    refusals: Throttle,
    details: Budget,
    doors: Throttle,
    found: Throttle,
}

impl Throttles {
    fn new() -> Self {
        let [refusals, doors, found] = [REFUSALS, DOORS, DOORS].map(Throttle::new);
        Self { refusals, details: Budget::default(), doors, found }
    }

    /// Whether an event gets a line of its own.
    fn admit(&mut self, event: &Event, now: Moment) -> bool {
        match kind(event) {
            Kind::Always => true,
            Kind::Door => self.doors.admit(now),
            Kind::Found => self.found.admit(now),
            Kind::Refusal => self.refusals.admit(now),
            Kind::Unchecked => {
                self.refusals.count(now);
                false
            }
            Kind::Detail => self.details.spend(REFUSALS, now),
        }
    }

    fn next_sum(&self) -> Option<Moment> {
        [&self.refusals, &self.doors, &self.found].into_iter().filter_map(Throttle::next_sum).min()
    }
}

impl EventLog {
    pub(super) fn start() -> io::Result<Self> {
        Ok(Self { writer: LogWriter::start()?, throttles: Throttles::new() })
    }

    pub(super) fn line(&mut self, line: impl FnOnce() + Send + 'static) {
        self.writer.write(line);
    }

    pub(super) fn end(self, timeout: Duration) {
        self.writer.end(timeout);
    }
}

impl Observer for EventLog {
    fn event(&mut self, event: &Event, now: Moment) {
        if self.throttles.admit(event, now) {
            let event = event.clone();
            self.writer.write(move || log::event(&event, now));
        }
    }

    fn handle_timeout(&mut self, now: Moment) {
        let Throttles { refusals, doors, found, .. } = &mut self.throttles;
        if let Some(count) = refusals.sum(now) {
            self.writer.write(move || log::more_refused(count));
        }
        for count in [doors.sum(now), found.sum(now)].into_iter().flatten() {
            self.writer.write(move || log::more_doors(count));
        }
    }

    fn next_deadline(&self) -> Option<Moment> {
        self.throttles.next_sum()
    }
}

#[cfg(test)]
mod tests;
