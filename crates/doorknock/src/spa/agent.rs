//! Asks the user's `ssh-agent` for its keys, and to sign.
//!
//! ```text
//!   length (4) · 11                                   which keys?
//!   length (4) · 12 · count (4) · (key · comment)…     these
//!   length (4) · 13 · key · bytes · flags (4)         sign
//!   length (4) · 14 · signature                       here it is
//!   length (4) · 5                                    no
//! ```
//!
//! Source: draft-ietf-sshm-ssh-agent, sections 3 to 5. A string is its length in four bytes, and itself. Two
//! requests are all that is needed, so they are written here: the crates for the agent bring an asynchronous
//! runtime, a second set of algorithms, and fifty others.
//!
//! Nothing the agent says can take more memory than `LONGEST`, or more time than [`ANSWER_TIMEOUT`] for each answer.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use doors_spa::identity::ClientKey;

/// What OpenSSH's own agent allows for a message.
const LONGEST: usize = 256 * 1024;

/// An agent may ask its user to confirm, or to touch a token.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The one type of key that knocks are signed with.
pub(crate) const KEY_TYPE: &[u8] = b"ssh-ed25519";

/// A connection to an agent.
#[derive(Debug)]
pub struct Agent<S>(S);

/// Why the agent is no help.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It cannot be reached, or the connection broke.
    #[error("cannot talk to the ssh-agent; is it running? SSH_AUTH_SOCK says where it listens")]
    Connection(#[from] io::Error),
    /// It said no.
    #[error("the ssh-agent refuses; if it is locked, try: ssh-add -X")]
    Refused,
    /// It said what an agent does not say.
    #[error("the ssh-agent's answer makes no sense; choose a key file with -i instead")]
    Nonsense,
}

impl<S: Read + Write> Agent<S> {
    /// Takes a connection.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }

    /// The agent's `ssh-ed25519` keys, in its order. Other types are left out.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn keys(&mut self) -> Result<Vec<ClientKey>, AgentError> {
        let answer = self.ask(REQUEST_IDENTITIES, &[])?;
        let mut rest = body(&answer, IDENTITIES_ANSWER)?;
        let (count, behind) = rest.split_first_chunk().ok_or(AgentError::Nonsense)?;
        rest = behind;
        let mut keys = Vec::new();
        for _ in 0..u32::from_be_bytes(*count) {
            let key = take_string(&mut rest)?;
            take_string(&mut rest)?;
            keys.extend(public_key(key));
        }
        Ok(keys)
    }

    /// Has these bytes signed.
    ///
    /// # Errors
    /// [`AgentError`].
    pub fn sign(&mut self, key: &ClientKey, bytes: &[u8]) -> Result<[u8; 64], AgentError> {
        let answer = self.ask(SIGN_REQUEST, &[string(&key.encoded()), string(bytes), vec![0; 4]].concat())?;
        let mut rest = body(&answer, SIGN_RESPONSE)?;
        let mut signature = take_string(&mut rest)?;
        if take_string(&mut signature)? != KEY_TYPE {
            return Err(AgentError::Nonsense);
        }
        take_string(&mut signature)?.try_into().map_err(|_| AgentError::Nonsense)
    }

    fn ask(&mut self, number: u8, body: &[u8]) -> Result<Vec<u8>, AgentError> {
        self.0.write_all(&string(&[&[number], body].concat()))?;
        self.0.flush()?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(AgentError::Nonsense);
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// The key, if it is of the one type.
fn public_key(mut encoded: &[u8]) -> Option<ClientKey> {
    if take_string(&mut encoded).ok()? != KEY_TYPE {
        return None;
    }
    ClientKey::new(take_string(&mut encoded).ok()?.try_into().ok()?).ok()
}

fn body(answer: &[u8], expected: u8) -> Result<&[u8], AgentError> {
    match answer.split_first() {
        Some((number, body)) if *number == expected => Ok(body),
        Some((&FAILURE, _)) => Err(AgentError::Refused),
        _ => Err(AgentError::Nonsense),
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}

fn take_string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], AgentError> {
    let (length, behind) = rest.split_first_chunk().ok_or(AgentError::Nonsense)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (taken, behind) = behind.split_at_checked(length).ok_or(AgentError::Nonsense)?;
    *rest = behind;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    /// Answers with these bytes, whatever it is asked.
    struct Says(Vec<u8>);

    impl Read for Says {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = (&self.0[..]).read(buffer)?;
            self.0.drain(..read);
            Ok(read)
        }
    }

    impl Write for Says {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn key() -> ClientKey {
        ClientKey::new(SigningKey::from_bytes(&[3; 32]).verifying_key().as_bytes()).unwrap()
    }

    fn keys_in(message: &[u8]) -> Result<Vec<ClientKey>, AgentError> {
        Agent::new(Says(string(message))).keys()
    }

    #[test]
    fn keys_of_other_types_are_left_out() {
        let other = string(&[string(b"ssh-rsa"), string(b"bits")].concat());
        let message =
            [&[12, 0, 0, 0, 2][..], &other, &string(b"work"), &string(&key().encoded()), &string(b"home")]
                .concat();
        assert_eq!(keys_in(&message).unwrap(), [key()]);
        // Cut off anywhere, it is no answer.
        for end in 0..message.len() {
            assert!(keys_in(&message[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn a_refusal_and_nonsense_are_told_apart() {
        assert!(matches!(keys_in(&[FAILURE]), Err(AgentError::Refused)));
        for nonsense in [&[][..], &[99], &[12, 255, 255, 255, 255], &[12, 0, 0, 0, 1, 255, 255, 255, 255]] {
            assert!(matches!(keys_in(nonsense), Err(AgentError::Nonsense)), "{nonsense:?}");
        }
        let endless = Agent::new(Says(vec![255; 64])).keys();
        assert!(matches!(endless, Err(AgentError::Nonsense)));
        let of_another_type = string(&[string(b"ssh-rsa"), string(&[0; 64])].concat());
        let signed = Agent::new(Says(string(&[&[14][..], &of_another_type].concat()))).sign(&key(), b"x");
        assert!(matches!(signed, Err(AgentError::Nonsense)));
    }
}
