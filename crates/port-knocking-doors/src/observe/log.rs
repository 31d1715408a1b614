//! The lines of the log.
//!
//! One line for each door that opens, is extended or closes, and for each source that knocks wrong. The throttles in
//! `event_log` bound how many a stranger can cause.

use std::{error::Error, fmt, path::Path, time::Duration};

use doors_core::{
    door::{GrantKey, Sequence},
    engine::Event,
    lease::Lease,
    packet::WayBack,
    spa::client::ClientLabel,
    spa::server::DropReason,
    time::Moment,
};
use doors_firewall::{Kind, News, plan::Plan};
use doors_spa::receipt::Answer;
use doors_text::error_chain::in_one_line;
use tracing::{debug, error, info, warn};

/// The daemon runs with the last good configuration instead of the file.
pub(crate) fn runs_with_last_good(path: &Path, why: &str) {
    error!(
        "RUNNING WITH WHAT WAS LAST IN FORCE from {}, because what stands there cannot be used: {why}. This ends when the file can be \
         used and the daemon reads it again (systemctl reload port-knocking-doors) or is restarted",
        path.display()
    );
}

/// The configuration in force could not be copied.
pub(crate) fn not_kept(why: &dyn Error) {
    warn!(
        "what is in force cannot be kept; with a wrong configuration file, the next start would use what was kept before, \
         which may let in clients that you have removed, or leave the ports open if there is nothing: {}",
        in_one_line(why)
    );
}

/// How ready the doors are after the start. Whether a port is closed to others is not known here: another firewall or
/// a rule of the administrator may open it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Readiness {
    /// All clients are heard.
    Ready,
    /// No door is configured.
    NoDoor,
    /// Clients with keys are not heard, and at least one door opens to a sequence.
    WithoutKeys,
    /// Clients with keys are not heard, and no door opens to a sequence.
    OpensNothing,
}

/// The daemon is ready.
pub(crate) fn ready(readiness: Readiness) {
    match readiness {
        Readiness::Ready => info!("ready: doors open to those who knock"),
        Readiness::NoDoor => info!("ready: there is no door to open yet"),
        Readiness::WithoutKeys => {
            info!("ready: doors open to those who knock a sequence; clients with keys are not heard yet");
        }
        Readiness::OpensNothing => {
            info!("ready: the doors are guarded; none opens until clients with keys are heard");
        }
    }
}

/// One event of the engine.
pub(crate) fn event(event: &Event, now: Moment) {
    if let Some(lease) = event.lease() {
        return of_a_door(event, lease, now);
    }
    match event {
        Event::NotInTime(GrantKey { door, source }) => error!(
            %door, %source,
            "too late: the firewall has not done in time what a client asked for, door {door} for {source}; the client has been \
             told so, and what is late may still be done"
        ),
        // Each client gets a challenge in the first minute, and answers at once.
        Event::Refused { who, source, why: Answer::Stale, address: None } => debug!(
            %source, client = &*who.name,
            "got a challenge: {who} at {source}; its clock or ours is off, or this daemon was started of late"
        ),
        Event::Refused { who, source, why, address: None } => {
            warn!(%source, client = &*who.name, "refused: {who} at {source}: {}", refusal(*why));
        }
        Event::Refused { who, source, address: Some(why), .. } => {
            warn!(%source, client = &*who.name, "refused: {who} at {source}: {why}");
        }
        Event::Dropped { source, why: why @ (DropReason::Unknown | DropReason::Copied), .. } => {
            debug!(%source, "not answered: {source}: {}", drop_reason(*why));
        }
        Event::Dropped { source, why, who } => {
            let by = By(who);
            warn!(%source, client = by.name(), "not answered: {source}: {}{by}", drop_reason(*why));
        }
        other => of_a_knock(other),
    }
}

/// An event about a door and an address.
fn of_a_door(event: &Event, lease: &Lease, now: Moment) {
    let Lease { key: GrantKey { door, source }, granted_to: by, .. } = lease;
    let (left, by) = (seconds(lease.until.remaining(now)), By(by));
    let client = by.name();
    match event {
        Event::Granted(_) => {
            debug!(%door, %source, client, "{source} may use the door {door}, and the firewall is asked{by}");
        }
        Event::Opened(_) => info!(%door, %source, client, "opened: door {door} for {source}, for {left}{by}"),
        Event::Extended(_) => {
            info!(%door, %source, client, "extended: door {door} for {source}, for {left} from now{by}");
        }
        Event::AlsoOpen { before, .. } => {
            let before = By(before);
            info!(
                %door, %source, client,
                "also open: door {door} for {source}, for {left}{by}; it is open for this address already{before}"
            );
        }
        Event::StillOpen(_) => {
            debug!(%door, %source, client, "still open: door {door} for {source}{by}; it was asked for again");
        }
        Event::GivenUp(_) => info!(
            %door, %source, client,
            "given up: door {door} for {source}{by}; it stays open for others behind the same address"
        ),
        Event::Adopted(_) => {
            info!(%door, %source, client, "found open: door {door} for {source}, for {left} more{by}");
        }
        Event::NotAdopted(_) => warn!(
            %door, %source, client,
            "found open, and closed: door {door} for {source}{by}; {}",
            not_permitted(lease)
        ),
        Event::Closed(_) => info!(%door, %source, client, "closed: door {door} for {source}{by}"),
        Event::Used(_) => {
            info!(%door, %source, client, "used: door {door} for {source}{by}; it let in one connection");
        }
        Event::Lost(_) => warn!(
            %door, %source, client,
            "gone with the gate: door {door} for {source}{by}; it was for one connection, so it is not put back; knock again"
        ),
        Event::Withdrawn(_) => warn!(
            %door, %source, client,
            "closed by hand: door {door} for {source}{by}; an administrator or another program has taken it out of the firewall"
        ),
        Event::Revoked(_) => {
            info!(%door, %source, client, "closed: door {door} for {source}{by}; {}", not_permitted(lease));
        }
        Event::Reduced { now: rest, .. } => {
            let (left, others) = (seconds(rest.until.remaining(now)), By(&rest.granted_to));
            info!(
                %door, %source, client,
                "taken back: door {door} for {source}{by}; {}; it stays open for {left}{others}",
                not_permitted(lease)
            );
        }
        Event::Shortened(_) => info!(
            %door, %source, client,
            "shortened: door {door} for {source}, for {left} from now{by}; the configuration permits no more"
        ),
        Event::NeverOpened(_) => error!(
            %door, %source, client,
            "never opened: door {door} for {source}{by}; the firewall did not do it in time"
        ),
        Event::NoRoom(_) => error!(
            %door, %source, client,
            "not opened: door {door} for {source}{by}; too many doors are open at once"
        ),
        // These are not about a door.
        Event::NotInTime(_)
        | Event::Further { .. }
        | Event::Repeated { .. }
        | Event::Waiting { .. }
        | Event::NotAccepted { .. }
        | Event::Wrong { .. }
        | Event::Refused { .. }
        | Event::Ineligible { .. }
        | Event::Dropped { .. } => {}
    }
}

/// Why an open door would not be opened again.
fn not_permitted(lease: &Lease) -> &'static str {
    match lease.granted_to {
        Some(_) => "the configuration does not let this client open it any more",
        None => "the configuration has no such door any more",
    }
}

/// An event about a knock of a sequence.
fn of_a_knock(event: &Event) {
    match event {
        Event::Further { source, right } => {
            debug!(%source, right, "{source} has knocked right {right} times");
        }
        Event::Repeated { source } => {
            debug!(%source, "ignored: {source} has sent the same knock again, as networks do");
        }
        Event::Waiting { source } => {
            debug!(%source, "ignored: {source} is in its quiet period, which starts again");
        }
        Event::NotAccepted { source, link } => debug!(
            %source, link = link.0,
            "ignored: a knock in the name of {source} on interface {}; the kernel throws away what comes from there \
             like that, because the way back leads out of another interface (rp_filter)",
            link.0
        ),
        Event::Wrong { source, port, after, quiet, .. } => info!(
            %source, port, after,
            "wrong knock: {source} on port {port}, after {after} right ones; ignored until it has been quiet \
             for {}",
            seconds(*quiet)
        ),
        Event::Ineligible { source, why } => {
            warn!(%source, "not opened: the sequence of {source} is right, and {why}");
        }
        _ => {}
    }
}

/// The summary of suppressed lines about refusals.
pub(crate) fn more_refused(count: u64) {
    info!(count, "refused: {count} more knocks in the last minute");
}

/// The summary of suppressed lines about doors that sequences open.
pub(crate) fn more_doors(count: u64) {
    warn!(
        count,
        "{count} more doors were opened, extended, closed or found open in the last minute: more than is told one \
         by one; an attacker may have overheard a sequence and be replaying it"
    );
}

/// The client whose key was used, appended to a sentence.
struct By<'a>(&'a Option<ClientLabel>);

impl<'a> By<'a> {
    fn name(&self) -> Option<&'a str> {
        self.0.as_ref().map(|who| &*who.name)
    }
}

impl fmt::Display for By<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(who) => write!(f, ", by {who}"),
            None => Ok(()),
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
        DropReason::Network => "the client may not come from there",
    }
}

/// Clients with keys are not heard for now.
pub(crate) fn clients_not_heard(why: &str) {
    error!(
        "clients with keys are not heard until this is mended, which is looked at every ten seconds: {why}"
    );
}

/// The disk with what clients with keys need has not answered for a while.
pub(crate) fn clients_not_heard_yet(path: &Path, waited: Duration) {
    warn!(
        "clients with keys are not heard yet: {} is being read, and its disk has not answered for {}; all else works meanwhile",
        path.display(),
        seconds(waited)
    );
}

/// Clients with keys are heard again.
pub(crate) fn clients_heard() {
    info!("clients with keys are heard again");
}

/// The replay log was missing.
pub(crate) fn memory_lost(directory: &Path) {
    info!(
        "nothing is remembered of earlier knocks in {}; none of them is accepted any more, and in the first hour each \
         new one costs its client a challenge",
        directory.display()
    );
}

/// The replay log was damaged.
pub(crate) fn replay_log_damaged(directory: &Path, loss: &dyn fmt::Display) {
    warn!(
        "{} was damaged: {loss}; what is whole counts, no knock from before this start is accepted, and in the first hour each new \
         one costs its client a challenge",
        directory.join("knocks").display()
    );
}

/// The replay log could not be compacted.
pub(crate) fn not_shortened(why: &dyn Error) {
    error!("cannot shorten the replay log: {}", in_one_line(why));
}

/// The supervisor could not be notified.
pub(crate) fn supervisor_not_told(why: &dyn Error) {
    warn!("cannot tell the supervisor how we are: {}", in_one_line(why));
}

/// The copy for a start with an invalid file is out of date, and could not be removed.
pub(crate) fn not_forgotten(copy: &Path, why: &dyn Error) {
    warn!("{} is not up to date from now on, and cannot be removed: {}", copy.display(), in_one_line(why));
}

/// A record could not be written to the replay log.
pub(crate) fn not_recorded(why: &str) {
    error!("a client with a key was turned away, because its knock cannot be remembered: {why}");
}

/// The configuration file could not be locked.
pub(crate) fn not_marked(path: &Path, why: &dyn Error) {
    warn!(
        "cannot lock {}: after `client add` and the like, this daemon has to be told to reload: {}",
        path.display(),
        in_one_line(why)
    );
}

/// A receipt could not be sent.
pub(crate) fn not_sent(way: &WayBack, why: &dyn Error) {
    debug!("no receipt to {}: {}", way.to, in_one_line(why));
}

/// Another user holds the instance lock.
pub(crate) fn not_locked(user: Option<u32>) {
    let user = user.map_or("another user".to_owned(), |user| format!("the user {user}"));
    warn!(
        "{user} holds the name by which one port-knocking-doors finds another: nothing keeps a second one from working \
         against this one"
    );
}

/// A note of the inbox.
pub(crate) fn of_the_inbox(note: &dyn Error, is_detail: bool) {
    match is_detail {
        true => debug!("{}", in_one_line(note)),
        false => warn!("{}", in_one_line(note)),
    }
}

/// The daemon has stopped in order.
pub(crate) fn stopped(kind: Kind, plan: &Plan) {
    match (kind, plan.remove_on_exit) {
        (Kind::RichRules, _) => info!("stopped; open doors close on time"),
        (Kind::Nftables | Kind::Firewalld, true) => info!("stopped; the gate is gone"),
        (Kind::Nftables | Kind::Firewalld, false) => info!(
            "stopped; the gate stays, and open doors close on time; to take it away: port-knocking-doors \
             remove-gate"
        ),
    }
}

/// News of the firewall.
pub(crate) fn news(news: &News) {
    match news {
        News::Report(_) => {}
        News::Repaired { missing, took } => {
            let millis = took.as_secs_f64() * 1000.0;
            warn!(
                missing,
                "another program or an administrator has changed the firewall: {missing}; put back in {millis:.1} ms"
            );
        }
        News::Failed { what, why } => error!("cannot {what}: {why}"),
        News::Warning(warning) => warn!("{warning}"),
        News::Info(text) => info!("{text}"),
        News::Detail(text) => debug!("{text}"),
    }
}

/// Lines were lost because the log was blocked.
pub(crate) fn lines_lost(count: u64) {
    warn!(count, "{count} lines of the log are lost: it took none for a while");
}

/// A new configuration is unusable.
pub(crate) fn not_reloaded(why: &dyn Error) {
    error!("the old configuration stays in force: {}", in_one_line(why));
}

/// A setting has changed that takes effect only after a restart.
pub(crate) fn needs_restart(key: &str) {
    warn!("`{key}` has changed, which takes effect only after a restart");
}

/// Formats a sequence.
pub(crate) fn knocks(sequence: &Sequence) -> String {
    sequence.ports().iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Formats a duration in seconds.
pub(crate) fn seconds(time: Duration) -> String {
    let rounded = time.saturating_add(Duration::from_millis(500)).as_secs();
    format!("{rounded} s")
}
