//! What happened, in words: the same for the log and for those who watch.

use std::{fmt, time::Duration};

use doors_core::{
    door::{DoorName, GrantKey},
    engine::Event,
    lease::{GrantedTo, Lease},
    spa::server::DropReason,
    time::Moment,
};
use doors_firewall::News;
use doors_spa::receipt::Answer;
use tracing::Level;

/// An event in words.
#[derive(Debug)]
pub(crate) struct Words {
    /// How grave it is.
    pub(crate) level: Level,
    /// What kind of event it is, for programs: it does not change when the text does.
    pub(crate) kind: &'static str,
    /// One line, for people.
    pub(crate) text: String,
}

impl Words {
    /// The words for an event; times are counted from `now`.
    pub(crate) fn of(event: &Event, now: Moment) -> Self {
        let (level, kind, text) = said(event, now);
        Self { level, kind, text }
    }

    /// The words for news of the firewall; `None` for a report, whose event tells it, and for the state of the gate, whose
    /// causes are told.
    pub(crate) fn of_news(news: &News) -> Option<Self> {
        let (level, kind, text) = match news {
            News::Report(_) | News::Gate { .. } => return None,
            News::Repaired { missing, took, .. } => {
                let millis = took.as_secs_f64() * 1000.0;
                let text = format!(
                    "another program or an administrator has changed the firewall: {missing}; put back in {millis:.1} ms"
                );
                (Level::WARN, "repaired", text)
            }
            News::Failed { what, why } => (Level::ERROR, "firewall-failed", format!("cannot {what}: {why}")),
            News::Warning(text) => (Level::WARN, "firewall-warning", text.clone()),
            News::Info(text) => (Level::INFO, "firewall-info", text.clone()),
            News::Detail(text) => (Level::DEBUG, "firewall-detail", text.clone()),
        };
        Some(Self { level, kind, text })
    }
}

/// How grave an event is, its kind, and its text.
fn said(event: &Event, now: Moment) -> (Level, &'static str, String) {
    // What only events about a door have is empty for the others, which do not say it.
    let lease = event.lease();
    let (door, source) = (event.door().map_or("", DoorName::as_str), event.source());
    let granted_to = lease.map_or(&GrantedTo::Sequence, |lease| &lease.granted_to);
    let (left, by) = (left(lease, now), By(granted_to));
    match event {
        Event::Granted(_) => (
            Level::DEBUG,
            "granted",
            format!("{source} may use the door {door}, and the firewall is asked{by}"),
        ),
        Event::Opened(_) => {
            (Level::INFO, "opened", format!("opened: door {door} for {source}, for {left}{by}"))
        }
        Event::Extended(_) => {
            (Level::INFO, "extended", format!("extended: door {door} for {source}, for {left} from now{by}"))
        }
        Event::AlsoOpen { before, .. } => (
            Level::INFO,
            "also-open",
            format!(
                "also open: door {door} for {source}, for {left}{by}; it is open for this address already{}",
                By(before)
            ),
        ),
        Event::StillOpen(_) => (
            Level::DEBUG,
            "still-open",
            format!("still open: door {door} for {source}{by}; it was asked for again"),
        ),
        Event::GivenUp(_) => (
            Level::INFO,
            "given-up",
            format!(
                "given up: door {door} for {source}{by}; it stays open for others behind the same address"
            ),
        ),
        Event::Adopted(_) => {
            (Level::INFO, "found-open", format!("found open: door {door} for {source}, for {left} more{by}"))
        }
        Event::NotAdopted(_) => (
            Level::WARN,
            "found-and-closed",
            format!("found open, and closed: door {door} for {source}{by}; {}", not_permitted(granted_to)),
        ),
        Event::Closed(_) => (Level::INFO, "closed", format!("closed: door {door} for {source}{by}")),
        Event::Used(_) => {
            (Level::INFO, "used", format!("used: door {door} for {source}{by}; it let in one connection"))
        }
        Event::Lost(_) => (
            Level::WARN,
            "lost",
            format!(
                "gone with the gate: door {door} for {source}{by}; it was for one connection, so it is not put back; \
                 knock again"
            ),
        ),
        Event::Withdrawn(_) => (
            Level::WARN,
            "withdrawn",
            format!(
                "closed by hand: door {door} for {source}{by}; an administrator or another program has taken it out of \
                 the firewall"
            ),
        ),
        Event::ClosedByHand { rest, .. } => {
            let rest = rest.as_ref().map_or(String::new(), |rest| {
                let left = seconds(rest.until.remaining(now));
                format!("; it stays open for {left}{}", By(&rest.granted_to))
            });
            let text = format!("closed: door {door} for {source}{by}; an administrator has ended it{rest}");
            (Level::INFO, "closed-by-hand", text)
        }
        Event::Revoked(_) => (
            Level::INFO,
            "revoked",
            format!("closed: door {door} for {source}{by}; {}", not_permitted(granted_to)),
        ),
        Event::Reduced { now: rest, .. } => {
            let (left, others) = (seconds(rest.until.remaining(now)), By(&rest.granted_to));
            let text = format!(
                "taken back: door {door} for {source}{by}; {}; it stays open for {left}{others}",
                not_permitted(granted_to)
            );
            (Level::INFO, "reduced", text)
        }
        Event::Shortened(_) => (
            Level::INFO,
            "shortened",
            format!(
                "shortened: door {door} for {source}, for {left} from now{by}; the configuration permits no more"
            ),
        ),
        Event::NeverOpened(_) => (
            Level::ERROR,
            "never-opened",
            format!("never opened: door {door} for {source}{by}; the firewall did not do it in time"),
        ),
        Event::NoRoom(_) => (
            Level::ERROR,
            "no-room",
            format!("not opened: door {door} for {source}{by}; too many doors are open at once"),
        ),
        Event::NotInTime(GrantKey { door, source }) => (
            Level::ERROR,
            "not-in-time",
            format!(
                "too late: the firewall has not done in time what a client asked for, door {door} for {source}; the \
                 client has been told so, and what is late may still be done"
            ),
        ),
        // Each client gets a challenge in the first minute, and answers at once.
        Event::Refused { who, source, why: Answer::Stale, address: None } => (
            Level::DEBUG,
            "challenged",
            format!(
                "got a challenge: {who} at {source}; its clock or ours is off, or this daemon was started of late"
            ),
        ),
        Event::Refused { who, source, why, address: None } => {
            (Level::WARN, "refused", format!("refused: {who} at {source}: {}", refusal(*why)))
        }
        Event::Refused { who, source, address: Some(why), .. } => {
            (Level::WARN, "refused", format!("refused: {who} at {source}: {why}"))
        }
        Event::Dropped { source, why: why @ (DropReason::Unknown | DropReason::Copied), .. } => {
            (Level::DEBUG, "not-answered", format!("not answered: {source}: {}", drop_reason(*why)))
        }
        Event::Dropped { source, why, who } => {
            let by = who.as_ref().map_or(String::new(), |who| format!(", by {who}"));
            (Level::WARN, "not-answered", format!("not answered: {source}: {}{by}", drop_reason(*why)))
        }
        Event::Further { source, right } => {
            (Level::DEBUG, "right-knock", format!("{source} has knocked right {right} times"))
        }
        Event::Repeated { source } => (
            Level::DEBUG,
            "repeated-knock",
            format!("ignored: {source} has sent the same knock again, as networks do"),
        ),
        Event::Waiting { source } => {
            (Level::DEBUG, "waiting", format!("ignored: {source} is in its quiet period, which starts again"))
        }
        Event::NotAccepted { source, link } => (
            Level::DEBUG,
            "not-accepted",
            format!(
                "ignored: a knock in the name of {source} on interface {}; the kernel throws away what comes from there \
                 like that, because the way back leads out of another interface (rp_filter)",
                link.0
            ),
        ),
        Event::Wrong { source, port, after, quiet, .. } => (
            Level::INFO,
            "wrong-knock",
            format!(
                "wrong knock: {source} on port {port}, after {after} right ones; ignored until it has been quiet \
                 for {}",
                seconds(*quiet)
            ),
        ),
        Event::Ineligible { source, why } => {
            (Level::WARN, "ineligible", format!("not opened: the sequence of {source} is right, and {why}"))
        }
    }
}

/// How long a lease lasts.
fn left(lease: Option<&Lease>, now: Moment) -> String {
    lease.map_or_else(String::new, |lease| seconds(lease.until.remaining(now)))
}

/// Why an open door would not be opened again.
fn not_permitted(granted_to: &GrantedTo) -> &'static str {
    match granted_to {
        GrantedTo::Client(_) => "the configuration does not let this client open it any more",
        GrantedTo::Sequence | GrantedTo::Administrator(_) => "the configuration has no such door any more",
    }
}

/// By what right a door is open, appended to a sentence.
struct By<'a>(&'a GrantedTo);

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            GrantedTo::Client(who) => write!(f, ", by {who}"),
            GrantedTo::Administrator(note) if note.as_str().is_empty() => f.write_str(", by hand"),
            GrantedTo::Administrator(note) => write!(f, ", by hand ({note})"),
            GrantedTo::Sequence => Ok(()),
        }
    }
}
fn refusal(why: Answer) -> &'static str {
    match why {
        Answer::Granted | Answer::Closed | Answer::Told | Answer::Stale => "nothing",
        Answer::NotAllowed => "there is no such door, it is not for this client, or it was opened by another",
        Answer::TooMany => "it has too much open, or on its way",
        Answer::Address => "the address to let in is missing, or not one that this client may let in",
        Answer::NotRecorded => "the state cannot be written, so nothing opens; see the error before",
        Answer::Firewall => "the firewall has not opened the door in time",
    }
}

fn drop_reason(why: DropReason) -> &'static str {
    match why {
        DropReason::Unknown => {
            "a datagram of the right length, with another card or in the name of no client here"
        }
        DropReason::Forged => "a knock in the name of a client that has not signed it",
        DropReason::Flood => {
            "more knocks in the name of a client than it can send; the rest are not looked at"
        }
        DropReason::Copied | DropReason::Replayed => "a knock that was seen before",
        DropReason::Expired => "the client's time is over",
        DropReason::Disabled => "the client is disabled (`client enable` lets it in again)",
        DropReason::Network => "the client may not come from there",
    }
}

/// Formats a duration in seconds.
pub(crate) fn seconds(time: Duration) -> String {
    let rounded = time.saturating_add(Duration::from_millis(500)).as_secs();
    format!("{rounded} s")
}
