//! Who signs.
//!
//! | asked for          | the key                                                                     |
//! |--------------------|-----------------------------------------------------------------------------|
//! | `-i FILE`          | of the `ssh-agent` if it holds that one, else the file itself               |
//! | nothing            | `~/.ssh/id_ed25519_doors` in the same way, if `doorknock keygen` has made it |
//! | and there is none  | the `ssh-ed25519` keys of the `ssh-agent`, one after the other              |
//! | and there is none  | `~/.ssh/id_ed25519`                                                         |

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use doors_spa::identity::ClientKey;
use ed25519_dalek::{Signer as _, SigningKey};

use crate::{
    spa::agent::{self, Agent, AgentError},
    spa::agent_socket,
    spa::key_file::{self, KeyFile, KeyFileError},
};

/// Which of an agent's keys is allowed is unknown, and each that is not costs a full wait.
const KEYS_TO_TRY: usize = 3;

/// The name of the key that `doorknock keygen` makes if no other is given.
const OWN_KEY: &str = "id_ed25519_doors";
/// The name of the key that `ssh-keygen` makes.
const USUAL_KEY: &str = "id_ed25519";

/// A key that can sign.
#[derive(Debug)]
pub struct Signer {
    public: ClientKey,
    source: KeySource,
}

/// Where the private key is.
#[derive(Debug)]
enum KeySource {
    /// In this process, and wiped when it is dropped.
    Memory(Box<SigningKey>),
    Agent(Arc<Mutex<dyn Signs>>),
}

/// An agent over whatever connection this system has.
trait Signs: std::fmt::Debug + Send {
    fn sign(&mut self, key: &ClientKey, bytes: &[u8]) -> Result<[u8; 64], AgentError>;
}

impl<S: std::io::Read + std::io::Write + std::fmt::Debug + Send> Signs for Agent<S> {
    fn sign(&mut self, key: &ClientKey, bytes: &[u8]) -> Result<[u8; 64], AgentError> {
        Agent::sign(self, key, bytes)
    }
}

/// Why there is no signature.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The file is no use.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// The agent does not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// There is no key anywhere.
    #[error("there is no ssh-ed25519 key in the ssh-agent, and no {path}; make one with: doorknock keygen")]
    None {
        /// Where the last one was looked for.
        path: PathBuf,
    },
    /// It is not known where this user's files are.
    #[error("cannot find your home directory; choose a key with -i")]
    NoHome,
}

impl Signer {
    /// Finds the keys to sign with: one, or several of an agent to be tried in this order.
    ///
    /// # Errors
    /// [`SignerError`] if there are none.
    pub fn find(chosen: Option<&Path>) -> Result<Vec<Self>, SignerError> {
        if let Some(path) = chosen {
            return Ok(vec![Self::of_file(path)?]);
        }
        let directory = etcetera::home_dir().map_err(|_| SignerError::NoHome)?.join(".ssh");
        let own = directory.join(OWN_KEY);
        if own.exists() {
            return Ok(vec![Self::of_file(&own)?]);
        }
        // An agent that has died does not keep the user from using a file.
        let mut signers = Self::of_agent(|_| true).unwrap_or_default();
        signers.truncate(KEYS_TO_TRY);
        if signers.is_empty() {
            let path = directory.join(USUAL_KEY);
            if !path.exists() {
                return Err(SignerError::None { path });
            }
            signers.push(Self::in_file(KeyFile::read(&path)?)?);
        }
        Ok(signers)
    }

    /// Where `doorknock keygen` puts a key if it is not told where.
    ///
    /// # Errors
    /// [`SignerError::NoHome`].
    pub fn own_path() -> Result<PathBuf, SignerError> {
        Ok(etcetera::home_dir().map_err(|_| SignerError::NoHome)?.join(".ssh").join(OWN_KEY))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &ClientKey {
        &self.public
    }

    /// Signs with plain Ed25519 (RFC 8032).
    ///
    /// # Errors
    /// [`AgentError`] if the agent does not.
    pub fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], AgentError> {
        match &self.source {
            KeySource::Memory(key) => Ok(key.sign(bytes).to_bytes()),
            KeySource::Agent(agent) => {
                agent.lock().unwrap_or_else(PoisonError::into_inner).sign(&self.public, bytes)
            }
        }
    }

    fn of_file(path: &Path) -> Result<Self, SignerError> {
        let file = KeyFile::read(path)?;
        let held = Self::of_agent(|key| key == file.public()).unwrap_or_default();
        match held.into_iter().next() {
            Some(signer) => Ok(signer),
            None => Self::in_file(file),
        }
    }

    fn in_file(file: KeyFile) -> Result<Self, SignerError> {
        let public = *file.public();
        Ok(Self { public, source: KeySource::Memory(Box::new(file.unlock(key_file::ask_on_terminal)?)) })
    }

    /// The keys of the agent that are wanted; none if there is no agent.
    fn of_agent(wanted: impl Fn(&ClientKey) -> bool) -> Result<Vec<Self>, AgentError> {
        let Some(stream) = agent_socket::connect(agent::ANSWER_TIMEOUT)? else { return Ok(Vec::new()) };
        let mut agent = Agent::new(stream);
        let mut keys = agent.keys()?;
        keys.retain(wanted);
        let agent: Arc<Mutex<dyn Signs>> = Arc::new(Mutex::new(agent));
        let signer = |public| Self { public, source: KeySource::Agent(Arc::clone(&agent)) };
        Ok(keys.into_iter().map(signer).collect())
    }
}
