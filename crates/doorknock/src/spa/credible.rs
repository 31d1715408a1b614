//! Which answers can be true.
//!
//! A receipt is sealed by the gateway, and that may be another's, taken over, or broken. What no gateway can
//! mean is an error, and is never told as if it had happened.

use std::net::IpAddr;

use doors_spa::{
    door,
    receipt::{Answer, BadReceipt, Receipt},
    request::Operation,
};

use crate::durations;

/// Why an answer cannot be true.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Incredible {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] BadReceipt),
    /// It answers something else.
    #[error("it says \"{answer}\" when asked to {asked}")]
    OtherKind {
        /// What it says.
        answer: &'static str,
        /// What was wanted.
        asked: &'static str,
    },
    /// Nothing can be sent from there.
    #[error("it sees this machine at {0}, which is the address of no machine")]
    Seen(IpAddr),
    /// No configuration gives a door for so long.
    #[error("it speaks of a door for {}, and no door is open for more than a year", durations::text((*.0).into()))]
    Time(u32),
    /// No configuration holds so many doors.
    #[error("it counts {0} doors, and no server has more than {most}", most = door::MAX_DOORS)]
    Doors(u32),
    /// It tells a door twice.
    #[error("it tells a door twice; if the doors have just been changed, ask again")]
    Again,
    /// It has more doors and tells none.
    #[error("it holds doors back; if the doors have just been changed, ask again")]
    NoProgress,
    /// All doors there can be would have been told.
    #[error("it does not come to an end")]
    Endless,
}

/// Whether this can be the answer to a request.
///
/// # Errors
/// [`Incredible`] if it cannot.
pub fn check(receipt: &Receipt, operation: Operation) -> Result<(), Incredible> {
    let (asked, done) = match operation {
        Operation::Open { .. } => ("open", Answer::Granted),
        Operation::Close { .. } => ("close", Answer::Closed),
        Operation::Ask { .. } => ("tell", Answer::Told),
    };
    let answer = match receipt.answer {
        Answer::Granted => Some("open"),
        Answer::Closed => Some("closed"),
        Answer::Told => Some("told"),
        Answer::NotAllowed
        | Answer::Stale
        | Answer::TooMany
        | Answer::Address
        | Answer::NotRecorded
        | Answer::Firewall => None,
    };
    if let Some(answer) = answer
        && receipt.answer != done
    {
        return Err(Incredible::OtherKind { answer, asked });
    }
    let seen = receipt.seen.ip().to_canonical();
    if seen.is_unspecified() || seen.is_multicast() || matches!(seen, IpAddr::V4(v4) if v4.is_broadcast()) {
        return Err(Incredible::Seen(seen));
    }
    let times = receipt.doors.iter().map(|door| door.longest).chain([receipt.seconds]);
    match times.max().filter(|longest| u64::from(*longest) > door::MAX_OPEN_FOR.as_secs()) {
        Some(longest) => Err(Incredible::Time(longest)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use doors_spa::{identity::DoorId, receipt::ToldDoor};

    use super::*;

    const DOOR: DoorId = DoorId([7; 8]);
    const OPEN: Operation = Operation::Open { door: DOOR, wanted: 0 };
    const CLOSE: Operation = Operation::Close { door: DOOR };
    const ASK: Operation = Operation::Ask { skip: 0 };

    fn receipt(answer: Answer) -> Receipt {
        Receipt {
            answer,
            seconds: 30,
            time: 0,
            seen: "203.0.113.7:4711".parse().unwrap(),
            challenge: [0; 8],
            doors_in_all: 0,
            doors: Vec::new(),
        }
    }

    #[test]
    fn an_answer_of_another_kind_than_the_question_is_none() {
        let done = [(OPEN, Answer::Granted), (CLOSE, Answer::Closed), (ASK, Answer::Told)];
        for (operation, right) in done {
            for (_, answer) in done {
                assert_eq!(check(&receipt(answer), operation).is_ok(), answer == right, "{answer:?}");
            }
            for refusal in [Answer::NotAllowed, Answer::Stale, Answer::TooMany, Answer::Firewall] {
                assert_eq!(check(&receipt(refusal), operation), Ok(()));
            }
        }
    }

    #[test]
    fn an_address_from_which_nothing_can_be_sent_is_not_believed() {
        for seen in
            ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[::]:1", "[ff02::1]:1", "[::ffff:0.0.0.0]:1"]
        {
            let receipt = Receipt { seen: seen.parse().unwrap(), ..receipt(Answer::Granted) };
            assert!(matches!(check(&receipt, OPEN), Err(Incredible::Seen(_))), "{seen}");
        }
        for seen in ["10.0.0.1:1", "127.0.0.1:1", "[fe80::1]:1", "[2001:db8::1]:1"] {
            let receipt = Receipt { seen: seen.parse().unwrap(), ..receipt(Answer::Granted) };
            assert_eq!(check(&receipt, OPEN), Ok(()), "{seen}");
        }
    }

    #[test]
    fn a_time_that_no_door_has_is_not_believed() {
        for (seconds, right) in [(31_536_000, true), (31_536_001, false), (u32::MAX, false)] {
            let granted = Receipt { seconds, ..receipt(Answer::Granted) };
            assert_eq!(check(&granted, OPEN).is_ok(), right, "{seconds}");
            let doors = vec![ToldDoor { name: "ssh".to_owned(), longest: seconds }];
            assert_eq!(check(&Receipt { doors, ..receipt(Answer::Told) }, ASK).is_ok(), right, "{seconds}");
        }
    }
}
