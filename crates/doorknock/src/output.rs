//! What the user is told: the truth, in one line for each address.

use std::{net::IpAddr, path::Path};

use doors_spa::receipt::{Answer, Receipt};
use doors_text::error_chain::in_one_line;
use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use serde::Serialize;

use crate::{
    durations,
    spa::driver::{Outcome, Unanswered, Unseen},
    trusted_file,
};

/// What was asked for, as the user wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The door's name; none for "ask".
    pub door: Option<&'a str>,
    /// Whether it was to be closed.
    pub closing: bool,
    /// For how many seconds it was to be open; none for what the door gives.
    pub wanted: Option<u32>,
}

impl<'a> Question<'a> {
    /// Of a server, what it tells.
    #[must_use]
    pub fn ask(server: &'a str) -> Self {
        Self { server, door: None, closing: false, wanted: None }
    }
}

/// With which code the program ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitStatus {
    /// It is done.
    Done = 0,
    /// It could not be done here.
    Failed = 1,
    /// No address answered.
    NoAnswer = 3,
    /// This client may not.
    NotAllowed = 4,
    /// The gateway refused for another reason.
    Refused = 5,
}

impl ExitStatus {
    /// Of one address.
    #[must_use]
    pub fn of(outcome: &Outcome) -> Self {
        match &outcome.result {
            Ok(answered) => match answered.receipt.answer {
                Answer::Granted | Answer::Closed | Answer::Told => Self::Done,
                Answer::NotAllowed => Self::NotAllowed,
                Answer::Stale
                | Answer::TooMany
                | Answer::Address
                | Answer::NotRecorded
                | Answer::Firewall => Self::Refused,
            },
            Err(Unanswered::Silence | Unanswered::NotWaitedFor) => Self::NoAnswer,
            Err(Unanswered::Incredible(_)) => Self::Refused,
            Err(Unanswered::Send(_) | Unanswered::Agent(_) | Unanswered::Card(_)) => Self::Failed,
        }
    }

    /// Of two addresses: one that opened is enough, and a reason says more than silence.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        const BEST_FIRST: [ExitStatus; 5] = [
            ExitStatus::Done,
            ExitStatus::NotAllowed,
            ExitStatus::Refused,
            ExitStatus::NoAnswer,
            ExitStatus::Failed,
        ];
        BEST_FIRST.into_iter().find(|ending| [self, other].contains(ending)).unwrap_or(self)
    }

    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::NoAnswer => 3,
            Self::NotAllowed => 4,
            Self::Refused => 5,
        }
    }
}

/// One line about one address.
#[must_use]
pub fn line(outcome: &Outcome, question: Question<'_>, now: Timestamp) -> String {
    let door = question.door.unwrap_or_default();
    match &outcome.result {
        Ok(answered) => {
            let receipt = &answered.receipt;
            let admitted = outcome.named.unwrap_or(receipt.seen.ip());
            match receipt.answer {
                Answer::Granted => {
                    let until = clock_face(now, until(now, receipt.seconds));
                    let lasts = durations::text(receipt.seconds.into());
                    format!("{door} open for {admitted} until {until} ({lasts})")
                }
                Answer::Closed => format!("{door} closed for {admitted}"),
                Answer::Told => format!("{} answers", question.server),
                Answer::Address if outcome.unseen.is_some() => format!(
                    "{}: the door wants the address to be named; if {} is yours: --address {1}",
                    nothing_done(question),
                    receipt.seen.ip()
                ),
                refused => refusal(refused, receipt, question, now),
            }
        }
        Err(error) => format!("{}: {}", outcome.server, in_one_line(error)),
    }
}

/// What is to be known beside the answer.
#[must_use]
pub fn notes(outcome: &Outcome, question: Question<'_>) -> Vec<String> {
    let notes = [clock_note(outcome), address_note(outcome), time_note(outcome, question)];
    notes.into_iter().flatten().collect()
}

/// A note about the keys that no server has answered.
#[must_use]
pub fn keys_note(unanswered: &[String]) -> String {
    let (key, and) = if unanswered.len() == 1 { ("key", "") } else { ("keys", " and ") };
    format!("knocked with the {key} {}; -i chooses another", unanswered.join(and))
}

/// A note about a clock that was wrong and did not matter. After its start a server asks each client for a
/// challenge, however right its clock is, and that is no news.
fn clock_note(outcome: &Outcome) -> Option<String> {
    let difference = outcome.result.as_ref().ok()?.challenged?;
    let is_wrong = difference.unsigned_abs() >= 1000;
    is_wrong.then(|| format!("{}; a challenge of the server's has settled it", clock(difference)))
}

/// A note about a time that is not what was asked for.
fn time_note(outcome: &Outcome, question: Question<'_>) -> Option<String> {
    let wanted = question.wanted?;
    let receipt = &outcome.result.as_ref().ok()?.receipt;
    let granted = Some(receipt.seconds).filter(|_| receipt.answer == Answer::Granted)?;
    let (asked, given) = (durations::text(wanted.into()), durations::text(granted.into()));
    // A second may pass until the receipt is made.
    if granted.saturating_add(2) < wanted {
        return Some(format!("you asked for {asked}, and the server gives no more than {given}"));
    }
    let longer = granted > wanted.saturating_add(2);
    longer.then(|| format!("this is more than the {asked} you asked for: it was open for longer before"))
}

/// A note about an address that was named without being asked for, and that the server does not see.
fn address_note(outcome: &Outcome) -> Option<String> {
    let seen = outcome.result.as_ref().ok()?.receipt.seen.ip();
    let Unseen { named, is_open } = outcome.unseen?;
    let open = if is_open { ", for which the door is open, too" } else { "" };
    Some(format!(
        "this machine sends from {named}{open}; but the server sees it at {seen}, so it has knocked again for that; \
         --address seen, or doorknock add --address seen for good, does so from the start"
    ))
}

fn nothing_done(question: Question<'_>) -> String {
    match (question.door, question.closing) {
        (Some(door), false) => format!("{door} not open"),
        (Some(door), true) => format!("{door} not closed"),
        (None, _) => format!("{} does not tell", question.server),
    }
}

fn refusal(answer: Answer, receipt: &Receipt, question: Question<'_>, now: Timestamp) -> String {
    let what = nothing_done(question);
    match answer {
        Answer::NotAllowed if question.closing => format!(
            "{what}: it is not for you to close; another client may have opened it, too, and it closes by itself"
        ),
        Answer::NotAllowed => format!("not allowed to open: {}", question.door.unwrap_or_default()),
        Answer::Stale => {
            let theirs = i64::try_from(receipt.time).unwrap_or(i64::MAX);
            let difference = theirs.saturating_sub(now.as_millisecond());
            format!(
                "{what}: {}, and the server does not take the answer to its challenge; set the clocks, or try again",
                clock(difference)
            )
        }
        Answer::TooMany => format!("{what}: too much is open or on its way at the server; try again later"),
        Answer::Address => format!(
            "{what}: the door wants the address to be named, or this is not one that you may let in: see --address"
        ),
        Answer::NotRecorded => {
            format!("{what}: the server cannot write its state; its administrator has to look at the disk")
        }
        Answer::Firewall => format!("{what}: the server's firewall has not done it; its log says why"),
        Answer::Granted | Answer::Closed | Answer::Told => String::new(),
    }
}

/// Whether two clocks can be so far apart, in milliseconds. A clock that was never set is at 1970, or a few
/// decades from now.
fn can_differ(difference: i64) -> bool {
    difference.unsigned_abs() < 100 * 366 * 86_400_000
}

fn clock(difference: i64) -> String {
    if !can_differ(difference) {
        return "the server names a time more than a hundred years away, which cannot be".to_owned();
    }
    let (amount, way) = (difference.unsigned_abs(), if difference > 0 { "behind" } else { "ahead" });
    match amount.checked_div(1000).unwrap_or_default() {
        // The server has a reason of its own: it was started anew, or does not remember.
        0 => "the server wanted to be sure that your knock is new".to_owned(),
        seconds => format!("your clock is {} {way}", durations::text(seconds)),
    }
}

fn until(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add(i64::from(seconds).seconds()).unwrap_or(Timestamp::MAX)
}

/// A time of day; with its date if that is another day.
fn clock_face(now: Timestamp, then: Timestamp) -> String {
    let zone = zone();
    let (now, then) = (now.to_zoned(zone.clone()), then.to_zoned(zone));
    let format = if now.date() == then.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    then.strftime(format).to_string()
}

/// No file of a time zone is longer.
const LONGEST_ZONE: u64 = 1024 * 1024;

/// The user's time zone.
///
/// Where a Unix system has it in one file, that is read: to learn the zone's *name*, which is not needed, all
/// the system's zones would be listed, and that takes longer than the knock. So is a file that `TZ` names,
/// because the library would wait for a FIFO; if it cannot be read, the time is told in UTC.
fn zone() -> TimeZone {
    let chosen = std::env::var_os("TZ");
    let text = chosen.as_deref().map(|zone| zone.to_string_lossy());
    let named = text.as_deref().map(|zone| zone.strip_prefix(':').unwrap_or(zone));
    let read = |path: &str| {
        let file = trusted_file::read(Path::new(path), LONGEST_ZONE).ok()?;
        TimeZone::tzif("local", &file.bytes).ok()
    };
    match named {
        None => read("/etc/localtime").unwrap_or_else(TimeZone::system),
        Some(path) if Path::new(path).is_absolute() => read(path).unwrap_or(TimeZone::UTC),
        Some(_) => TimeZone::system(),
    }
}

/// One address, for programs. All keys are always there.
#[derive(Debug, Serialize)]
struct Told<'a> {
    server: Option<&'a str>,
    address: Option<String>,
    door: Option<&'a str>,
    outcome: &'static str,
    admitted: Option<IpAddr>,
    seconds: Option<u32>,
    until: Option<String>,
    doors: Option<Vec<ToldDoor<'a>>>,
    clock_difference_ms: Option<i64>,
    wanted: Option<u32>,
    notes: Vec<String>,
    message: String,
}

#[derive(Debug, Serialize)]
struct ToldDoor<'a> {
    name: &'a str,
    longest: u32,
}

/// One object in one line about one address, and about the keys that were tried without an answer of any.
#[must_use]
pub fn json(outcome: &Outcome, question: Question<'_>, unanswered_keys: &[String], now: Timestamp) -> String {
    let receipt = outcome.result.as_ref().ok().map(|answered| &answered.receipt);
    let of = |answer: Answer| receipt.filter(|receipt| receipt.answer == answer);
    let granted = of(Answer::Granted);
    let admitted = granted.or(of(Answer::Closed)).map(|receipt| outcome.named.unwrap_or(receipt.seen.ip()));
    let doors = of(Answer::Told).map(|receipt| {
        receipt.doors.iter().map(|door| ToldDoor { name: &door.name, longest: door.longest }).collect()
    });
    let mut notes = notes(outcome, question);
    if matches!(outcome.result, Err(Unanswered::Silence)) && !unanswered_keys.is_empty() {
        notes.push(keys_note(unanswered_keys));
    }
    let told = Told {
        server: Some(question.server),
        address: Some(outcome.server.to_string()),
        door: question.door,
        outcome: word(outcome),
        admitted,
        seconds: granted.map(|receipt| receipt.seconds),
        until: granted.map(|receipt| until(now, receipt.seconds).to_string()),
        doors,
        clock_difference_ms: outcome
            .result
            .as_ref()
            .ok()
            .and_then(|answered| answered.challenged)
            .filter(|difference| can_differ(*difference)),
        wanted: question.wanted,
        notes,
        message: line(outcome, question, now),
    };
    crate::json::json(&told)
}

/// One object in one line about what could not even be tried, or was given up.
#[must_use]
pub fn json_failure(
    outcome: &'static str,
    server: Option<&str>,
    door: Option<&str>,
    message: &str,
) -> String {
    crate::json::json(&Told {
        server,
        address: None,
        door,
        outcome,
        admitted: None,
        seconds: None,
        until: None,
        doors: None,
        clock_difference_ms: None,
        wanted: None,
        notes: Vec::new(),
        message: message.to_owned(),
    })
}

fn word(outcome: &Outcome) -> &'static str {
    match &outcome.result {
        Ok(answered) => match answered.receipt.answer {
            Answer::Granted => "open",
            Answer::Closed => "closed",
            Answer::Told => "told",
            Answer::NotAllowed => "not-allowed",
            Answer::Stale => "stale",
            Answer::TooMany => "too-many",
            Answer::Address => "address",
            Answer::NotRecorded => "not-recorded",
            Answer::Firewall => "firewall",
        },
        Err(Unanswered::Silence | Unanswered::NotWaitedFor) => "no-answer",
        Err(Unanswered::Incredible(_)) => "incredible",
        Err(Unanswered::Send(_)) => "unreachable",
        Err(Unanswered::Agent(_) | Unanswered::Card(_)) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spa::driver::Answered;

    fn outcome(answer: Answer, challenged: Option<i64>) -> Outcome {
        let receipt = Receipt {
            answer,
            seconds: 30,
            time: 240_000,
            seen: "203.0.113.7:4711".parse().unwrap(),
            challenge: [0; 8],
            doors_in_all: 0,
            doors: Vec::new(),
        };
        Outcome {
            server: "192.0.2.1:62201".parse().unwrap(),
            named: None,
            unseen: None,
            result: Ok(Answered { receipt, challenged }),
        }
    }

    const QUESTION: Question<'_> =
        Question { server: "home", door: Some("ssh"), closing: false, wanted: None };

    #[test]
    fn each_answer_is_told_in_one_line_with_what_to_do() {
        for (answer, expected) in [
            (Answer::Granted, "ssh open for 203.0.113.7 until "),
            (Answer::Closed, "ssh closed for 203.0.113.7"),
            (Answer::NotAllowed, "not allowed to open: ssh"),
            (Answer::Stale, "ssh not open: your clock is 4 min behind, "),
            (Answer::TooMany, "ssh not open: too much is open"),
            (Answer::Address, "ssh not open: the door wants the address to be named, or"),
            (Answer::NotRecorded, "ssh not open: the server cannot write its state"),
            (Answer::Firewall, "ssh not open: the server's firewall has not done it"),
        ] {
            let line = line(&outcome(answer, None), QUESTION, Timestamp::UNIX_EPOCH);
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
        }
        let note = clock_note(&outcome(Answer::Granted, Some(-61_000)));
        assert_eq!(
            note.as_deref(),
            Some("your clock is 1 min 1 s ahead; a challenge of the server's has settled it")
        );
    }

    #[test]
    fn a_time_centuries_away_is_not_told_as_one() {
        for time in [u64::MAX, 1 << 62, 10_000_000_000_000] {
            let mut stale = outcome(Answer::Stale, None);
            stale.result.as_mut().unwrap().receipt.time = time;
            let line = line(&stale, QUESTION, Timestamp::UNIX_EPOCH);
            assert!(line.contains("a time more than a hundred years away, which cannot be"), "{line}");
        }
        for difference in [i64::MIN, i64::MAX, -10_000_000_000_000] {
            let outcome = outcome(Answer::Granted, Some(difference));
            assert!(clock_note(&outcome).unwrap().contains("which cannot be"));
            let text = json(&outcome, QUESTION, &[], Timestamp::UNIX_EPOCH);
            assert!(text.contains("\"clock_difference_ms\":null"), "{text}");
        }
    }

    #[test]
    fn a_time_that_is_not_what_was_asked_for_is_called_so() {
        let note = |wanted| {
            let question = Question { wanted, ..QUESTION };
            assert_eq!(time_note(&outcome(Answer::Closed, None), question), None);
            time_note(&outcome(Answer::Granted, None), question)
        };
        assert_eq!([None, Some(28), Some(30), Some(32)].map(note), [const { None }; 4]);
        let shorter = "you asked for 10 min, and the server gives no more than 30 s";
        assert_eq!(note(Some(600)).as_deref(), Some(shorter));
        let question = Question { wanted: Some(600), ..QUESTION };
        let text = json(&outcome(Answer::Granted, None), question, &[], Timestamp::UNIX_EPOCH);
        assert!(text.contains("\"seconds\":30,"), "{text}");
        assert!(text.contains(&format!("\"wanted\":600,\"notes\":[\"{shorter}\"]")), "{text}");
        let longer = note(Some(10)).unwrap();
        assert!(longer.starts_with("this is more than the 10 s you asked for"), "{longer}");
    }

    #[test]
    fn the_admitted_address_is_the_named_one() {
        let named = Some("198.51.100.9".parse().unwrap());
        let outcome = Outcome { named, ..outcome(Answer::Closed, None) };
        assert_eq!(line(&outcome, QUESTION, Timestamp::UNIX_EPOCH), "ssh closed for 198.51.100.9");
    }

    #[test]
    fn an_address_that_is_translated_is_told_with_the_way_out() {
        let unseen = |answer| {
            let unseen = Some(Unseen { named: "25.1.2.3".parse().unwrap(), is_open: true });
            Outcome { unseen, ..outcome(answer, None) }
        };
        assert_eq!(
            address_note(&unseen(Answer::Granted)).as_deref(),
            Some(
                "this machine sends from 25.1.2.3, for which the door is open, too; but the server sees it at \
                 203.0.113.7, so it has knocked again for that; --address seen, or doorknock add --address seen for \
                 good, does so from the start"
            )
        );
        assert_eq!(address_note(&outcome(Answer::Granted, None)), None);
        assert_eq!(
            line(&unseen(Answer::Address), QUESTION, Timestamp::UNIX_EPOCH),
            "ssh not open: the door wants the address to be named; if 203.0.113.7 is yours: --address 203.0.113.7"
        );
    }

    #[test]
    fn programs_get_all_keys() {
        let text = json(&outcome(Answer::Granted, None), QUESTION, &[], Timestamp::UNIX_EPOCH);
        let begin = "{\"server\":\"home\",\"address\":\"192.0.2.1:62201\",\"door\":\"ssh\",\"outcome\":\"open\",\
                     \"admitted\":\"203.0.113.7\",\"seconds\":30,\
                     \"until\":\"1970-01-01T00:00:30Z\",\"doors\":null,\"clock_difference_ms\":null,\
                     \"wanted\":null,\"notes\":[],\"message\":\"ssh open for ";
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn one_address_that_opened_is_enough() {
        assert_eq!(ExitStatus::NoAnswer.or(ExitStatus::Done), ExitStatus::Done);
        assert_eq!(ExitStatus::NoAnswer.or(ExitStatus::NotAllowed), ExitStatus::NotAllowed);
        assert_eq!(ExitStatus::Failed.or(ExitStatus::NoAnswer), ExitStatus::NoAnswer);
    }
}
