//! The lines of the log.
//!
//! One line for each door that opens, is extended or closes, and for each source that knocks wrong. The throttles in
//! `event_log` bound how many a stranger can cause.

use std::{error::Error, fmt, path::Path, time::Duration};

use doors_core::{door::Sequence, engine::Event, packet::WayBack, time::Moment};
use doors_firewall::{Kind, News, plan::Plan};
use doors_text::error_chain::in_one_line;
use tracing::{Level, debug, error, field, info, level_filters::LevelFilter, trace, warn};

use super::words::{Words, seconds};

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
    let Words { level, kind, text } = Words::of(event, now);
    let (door, source) = (event.door().map(field::display), field::display(event.source()));
    let client = event.client().map(|label| &*label.name);
    let Numbers { port, after, right, link } = Numbers::of(event);
    // Only fields that the event has are written.
    macro_rules! line {
        ($($level:ident: $write:ident),*) => {
            match level {
                $(Level::$level => $write!(event = kind, door, source, client, port, after, right, link, "{text}"),)*
            }
        };
    }
    line!(ERROR: error, WARN: warn, INFO: info, DEBUG: debug, TRACE: trace);
}

/// The numbers of an event, as fields for programs.
#[derive(Default)]
struct Numbers {
    port: Option<u16>,
    after: Option<u8>,
    right: Option<u8>,
    link: Option<u32>,
}

impl Numbers {
    fn of(event: &Event) -> Self {
        match event {
            Event::Wrong { port, after, .. } => {
                Self { port: Some(*port), after: Some(*after), ..Self::default() }
            }
            Event::Further { right, .. } => Self { right: Some(*right), ..Self::default() },
            Event::NotAccepted { link, .. } => Self { link: Some(link.0), ..Self::default() },
            _ => Self::default(),
        }
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

/// A user asks for something over the control socket.
pub(crate) fn asked(user: u32, what: &str) {
    info!(user, "by command of the user {user}: {what}");
}

/// Only root can open the control socket.
pub(crate) fn groups_not_admitted(path: &Path, why: &dyn Error) {
    error!(
        "only root can use the control socket {}, and not control_group and control_read_group: {}",
        path.display(),
        in_one_line(why)
    );
}

/// The level of the log was set by command.
pub(crate) fn level_set(level: LevelFilter, user: u32) {
    warn!(user, "the log shows {level} from here on, by command of the user {user}");
}

/// The level of the log is that of the start again.
pub(crate) fn level_unset() {
    warn!("the log shows what it did at the start again");
}

/// There is no control socket.
pub(crate) fn no_control_socket(why: &dyn Error) {
    error!(
        "no control socket: `status`, `list`, `open`, `close` and `watch` cannot reach this daemon, which does all else: {}",
        in_one_line(why)
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
    let Some(Words { level, kind, text }) = Words::of_news(news) else { return };
    let missing = match news {
        News::Repaired { missing, .. } => Some(&**missing),
        _ => None,
    };
    match level {
        Level::ERROR => error!(event = kind, missing, "{text}"),
        Level::WARN => warn!(event = kind, missing, "{text}"),
        Level::INFO => info!(event = kind, missing, "{text}"),
        Level::DEBUG | Level::TRACE => debug!(event = kind, missing, "{text}"),
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
