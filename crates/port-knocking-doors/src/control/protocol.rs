//! The framing and the envelope of Varlink: JSON objects, each followed by a NUL byte. Source: varlink.org.
//!
//! Every bound is here: what a peer sends takes no more memory than one message, however it is made.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest message in bytes, in both directions.
pub(crate) const LONGEST: usize = 64 << 10;

/// The interface that every Varlink service has.
pub(crate) const SERVICE: &str = "org.varlink.service";

/// What a client sends.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Call {
    /// The interface and the method.
    pub(crate) method: String,
    /// The parameters; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parameters: Option<Map<String, Value>>,
    /// The client takes more than one reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) more: bool,
    /// The client takes no reply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) oneway: bool,
    /// The client wants another protocol on this connection. There is none.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) upgrade: bool,
}

/// What it gets.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(crate) struct Reply {
    /// The name of an error, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// The result, or what belongs to the error.
    #[serde(default)]
    pub(crate) parameters: Map<String, Value>,
    /// More replies follow.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) continues: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// An error reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Refused {
    /// Its full name.
    pub(crate) error: String,
    /// What belongs to it.
    pub(crate) parameters: Map<String, Value>,
}

impl Refused {
    /// An error of [`SERVICE`] with one text.
    pub(crate) fn of_service(name: &str, field: &str, text: &str) -> Self {
        let parameters = Map::from_iter([(field.to_owned(), Value::from(text))]);
        Self { error: format!("{SERVICE}.{name}"), parameters }
    }

    /// A parameter that is missing, unknown, or not what it has to be.
    pub(crate) fn parameter(name: &str) -> Self {
        Self::of_service("InvalidParameter", "parameter", name)
    }

    /// The peer may not call this.
    pub(crate) fn denied() -> Self {
        Self { error: format!("{SERVICE}.PermissionDenied"), parameters: Map::new() }
    }

    /// The method makes sense only with `more`.
    pub(crate) fn expected_more() -> Self {
        Self { error: format!("{SERVICE}.ExpectedMore"), parameters: Map::new() }
    }
}

impl From<Refused> for Reply {
    fn from(refused: Refused) -> Self {
        Self { error: Some(refused.error), parameters: refused.parameters, continues: false }
    }
}

/// Writes a message with its NUL byte. `None` if it is longer than [`LONGEST`].
pub(crate) fn framed(message: &impl Serialize) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec(message).ok()?;
    bytes.push(0);
    (bytes.len() <= LONGEST).then_some(bytes)
}

/// Cuts bytes into messages.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// How many of them are known to hold no NUL byte.
    searched: usize,
}

/// A peer has sent a message that is too long.
#[derive(Debug)]
pub(crate) struct TooLong;

impl Frames {
    /// Takes more bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes have not been cut yet.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next message, without its NUL byte; `None` if it is not complete.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|byte| *byte == 0) else {
            self.searched = self.bytes.len();
            return if self.bytes.len() >= LONGEST { Err(TooLong) } else { Ok(None) };
        };
        let end = self.searched.saturating_add(found);
        if end >= LONGEST {
            return Err(TooLong);
        }
        let rest = self.bytes.split_off(end.saturating_add(1));
        let mut message = std::mem::replace(&mut self.bytes, rest);
        message.truncate(end);
        self.searched = 0;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_at_their_end_however_they_arrive() {
        let stream = b"{\"a\":1}\0{}\0\0{\"b\"";
        for step in 1..stream.len() {
            let (mut frames, mut messages) = (Frames::default(), Vec::new());
            for part in stream.chunks(step) {
                frames.push(part);
                while let Some(message) = frames.next().unwrap() {
                    messages.push(String::from_utf8(message).unwrap());
                }
            }
            assert_eq!(messages, ["{\"a\":1}", "{}", ""], "{step}");
            assert_eq!(frames.bytes, b"{\"b\"");
        }
    }

    #[test]
    fn a_message_without_an_end_takes_no_more_memory_than_one_message() {
        let mut frames = Frames::default();
        let part = [b'x'; 4096];
        let mut taken = 0;
        while frames.next().is_ok() {
            frames.push(&part);
            taken += part.len();
            assert!(taken <= LONGEST, "{taken}");
        }
        assert_eq!(taken, LONGEST);
        let mut frames = Frames::default();
        frames.push(&[b'x'; LONGEST]);
        frames.push(b"\0");
        frames.next().unwrap_err();
    }

    #[test]
    fn what_is_not_a_call_is_an_error_and_nothing_else() {
        for wrong in
            ["", "[]", "1", "{}", "{\"method\":1}", "{\"method\":\"a\",\"parameters\":[]}", "\u{fffd}"]
        {
            serde_json::from_slice::<Call>(wrong.as_bytes()).unwrap_err();
        }
        let nested = "[".repeat(30_000);
        serde_json::from_slice::<Call>(
            format!("{{\"method\":\"a\",\"parameters\":{{\"x\":{nested}").as_bytes(),
        )
        .unwrap_err();
        // Fields of a later version are passed over, as varlink.org asks.
        let call: Call =
            serde_json::from_str("{\"method\":\"a.B\",\"later\":1,\"parameters\":null}").unwrap();
        assert!(call.method == "a.B" && call.parameters.is_none() && !call.more);
    }
}
