//! A grant in the form in which core and firewall exchange it.

use alloc::{string::String, sync::Arc};
use core::{cmp::Ordering, fmt};

use crate::{door::GrantKey, packet::Link, spa::client::ClientLabel, time::Moment};

/// Which door is open for which address until when: what the firewall is asked for, holds and reports.
///
/// Any code can build a lease. The permission is the [`Grant`](crate::access::Grant), from which the core
/// makes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// The door and the source address.
    pub key: GrantKey,
    /// The interface on which the request or the last knock came in.
    pub link: Link,
    /// When the firewall closes the door.
    pub until: Moment,
    /// By what right the door is open.
    pub granted_to: GrantedTo,
    /// Whether the first new connection uses the lease up.
    pub once: bool,
}

/// By what right a door is open. Two are equal if they are the same sequence, key or administrator.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum GrantedTo {
    /// A completed sequence. Also if unknown: the lease is from before the start, and does not say.
    Sequence,
    /// The request of a client with a key.
    Client(ClientLabel),
    /// The command of an administrator.
    Administrator(Note),
}

/// What an administrator says about a door that is opened by hand; may be empty. All notes are equal: another note
/// makes no other administrator.
#[derive(Clone, Debug)]
pub struct Note(Arc<str>);

/// What marks the lease of an administrator, in the firewall.
const BY_HAND: &str = "by hand";

impl GrantedTo {
    /// The client that asked, if one did.
    #[must_use]
    pub fn client(&self) -> Option<&ClientLabel> {
        match self {
            Self::Client(label) => Some(label),
            Self::Sequence | Self::Administrator(_) => None,
        }
    }

    /// The comment on the rule or set element in the firewall; `None` for a sequence.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        match self {
            Self::Sequence => None,
            Self::Client(label) => Some(label.remark()),
            Self::Administrator(Note(note)) if note.is_empty() => Some(String::from(BY_HAND)),
            Self::Administrator(Note(note)) => Some([BY_HAND, ": ", note].concat()),
        }
    }

    /// Reads such a comment. One that is not ours counts as unknown.
    #[must_use]
    pub fn from_remark(remark: &str) -> Self {
        let by_hand = remark.strip_prefix(BY_HAND);
        let note =
            by_hand.and_then(|rest| if rest.is_empty() { Some(rest) } else { rest.strip_prefix(": ") });
        match (note, ClientLabel::from_remark(remark)) {
            (_, Some(label)) => Self::Client(label),
            (Some(note), None) => Note::new(note).map_or(Self::Sequence, Self::Administrator),
            (None, None) => Self::Sequence,
        }
    }
}

impl From<ClientLabel> for GrantedTo {
    fn from(label: ClientLabel) -> Self {
        Self::Client(label)
    }
}

impl Note {
    /// The longest note, in bytes: with it, the comment is as long as a program that lists the firewall shows.
    pub const MAX: usize = 64;

    /// A note of letters, digits, spaces and ASCII punctuation; `None` if it is longer than [`MAX`](Self::MAX), or has
    /// other characters: quotes and backslashes would end the comment in a listing of the firewall, which may be loaded
    /// again.
    #[must_use]
    pub fn new(note: &str) -> Option<Self> {
        let is_allowed = |c: char| {
            c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation() && !['"', '\\'].contains(&c)
        };
        let fits = note.len() <= Self::MAX && note.chars().all(is_allowed);
        fits.then(|| Self(Arc::from(note)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Note {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Note {}

impl PartialOrd for Note {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Note {
    fn cmp(&self, _other: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_what_right_a_door_is_open_stands_in_the_firewall() {
        let label = ClientLabel { name: Arc::from("phone"), fingerprint: Arc::from("SHA256:abc") };
        for (granted_to, remark) in [
            (GrantedTo::Sequence, None),
            (GrantedTo::Client(label), Some("phone SHA256:abc")),
            (GrantedTo::Administrator(Note::new("").unwrap()), Some("by hand")),
            (
                GrantedTo::Administrator(Note::new("on the telephone").unwrap()),
                Some("by hand: on the telephone"),
            ),
        ] {
            assert_eq!(granted_to.remark().as_deref(), remark);
            let read = GrantedTo::from_remark(remark.unwrap_or_default());
            assert_eq!((read.remark(), &read), (granted_to.remark(), &granted_to));
        }
        for not_ours in ["", "by", "by handwriting", "by hand:", "by hand: \n", "phone", "another's"] {
            assert_eq!(GrantedTo::from_remark(not_ours), GrantedTo::Sequence, "{not_ours:?}");
        }
    }

    #[test]
    fn a_note_is_short_and_of_one_line() {
        assert!(Note::new(&"x".repeat(Note::MAX)).is_some());
        assert!(Note::new(&"x".repeat(Note::MAX + 1)).is_none());
        assert!(Note::new("für Anna (Büro), 50 %").is_some());
        for wrong in
            ["two\nlines", "x\" } table ip x { }", "back\\slash", "\u{202e}x", "\u{2028}", "\u{200b}"]
        {
            assert!(Note::new(wrong).is_none(), "{wrong:?}");
        }
    }
}
