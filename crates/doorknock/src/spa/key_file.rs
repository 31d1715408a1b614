//! Key files, as `ssh-keygen` makes them.
//!
//! The crate `ssh-key` reads and decrypts them, and does nothing else here.

use std::{
    io,
    path::{Path, PathBuf},
};

use doors_spa::identity::ClientKey;
use doors_text::safe_text::{escaped, is_seen};
use ed25519_dalek::SigningKey;
use ssh_key::{PrivateKey, PublicKey, private::KeypairData, public::KeyData};
use zeroize::Zeroizing;

use crate::trusted_file::{self, TrustedFile, Untrusted};

/// A file that is longer is no key.
const LONGEST: u64 = 64 * 1024;

/// How often a passphrase may be wrong, as with `ssh`.
const PASSPHRASES: u32 = 3;

/// A key file that has been read, and perhaps has yet to be decrypted.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
    public: ClientKey,
    private: Option<PrivateKey>,
    open_to_others: Option<u32>,
}

/// Why a key file is no use.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// It cannot be read, or another user may have written it.
    #[error("cannot use the key")]
    Read(#[from] Untrusted),
    /// It is no key, or damaged.
    #[error("{path} is no OpenSSH key; make one with: doorknock keygen")]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// It is a key that cannot sign knocks.
    #[error(
        "{path} is a key of type {kind}, and knocks are signed with ssh-ed25519; make one with: doorknock keygen"
    )]
    OtherType {
        /// The file.
        path: PathBuf,
        /// Its type.
        kind: String,
    },
    /// Others may read it.
    #[error("{path} can be read by others (mode {mode:03o}); try: chmod 600 {path}")]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Only the public half is there, and no agent has the other.
    #[error("{path} is the public half of a key, and no ssh-agent holds the other; try: ssh-add")]
    OnlyPublic {
        /// The file.
        path: PathBuf,
    },
    /// There is no terminal to ask for the passphrase at.
    #[error(
        "cannot ask for the passphrase of {path} without a terminal; give the key to the ssh-agent: ssh-add {path}"
    )]
    NoTerminal {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It does not decrypt.
    #[error("the passphrase of {path} is wrong")]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
}

impl KeyFile {
    /// Reads a private or public key file. If there is only one with `.pub` behind its name, that one.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let mut path = path.to_owned();
        let read = match trusted_file::read(&path, LONGEST) {
            Err(error @ Untrusted::Unreadable { .. }) => {
                let public = public_path(&path);
                match trusted_file::read(&public, LONGEST) {
                    // Of both, the one that was asked for is told.
                    Err(Untrusted::Unreadable { .. }) => Err(error),
                    read => {
                        path = public;
                        read
                    }
                }
            }
            read => read,
        };
        let TrustedFile { bytes, open_to_others } = read?;
        Self::parse(path, &bytes, open_to_others)
    }

    fn parse(path: PathBuf, text: &[u8], open_to_others: Option<u32>) -> Result<Self, KeyFileError> {
        let no_key = |source| match source {
            // The parser knows the type's name and does not tell it.
            ssh_key::Error::AlgorithmUnknown => {
                KeyFileError::OtherType { kind: kind_told(&path, text), path: path.clone() }
            }
            source => KeyFileError::NoKey { path: path.clone(), source },
        };
        let first_line = std::str::from_utf8(text).unwrap_or_default().trim_start();
        let (public, private) = match first_line.starts_with("-----BEGIN") {
            true => {
                let private = PrivateKey::from_openssh(text).map_err(no_key)?;
                (private.public_key().key_data().clone(), Some(private))
            }
            false => (PublicKey::from_openssh(first_line).map_err(no_key)?.key_data().clone(), None),
        };
        let other = || KeyFileError::OtherType { path: path.clone(), kind: public.algorithm().to_string() };
        let KeyData::Ed25519(bytes) = &public else { return Err(other()) };
        let public = ClientKey::new(&bytes.0).map_err(|_| no_key(ssh_key::Error::PublicKey))?;
        Ok(Self { path, public, private, open_to_others })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &ClientKey {
        &self.public
    }

    /// The private half. If it is encrypted, `ask` is asked for the passphrase, with the prompt to show.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn unlock(
        self,
        mut ask: impl FnMut(&str) -> io::Result<Zeroizing<String>>,
    ) -> Result<SigningKey, KeyFileError> {
        let Self { path, public, private, open_to_others } = self;
        let Some(private) = private else { return Err(KeyFileError::OnlyPublic { path }) };
        // Another user may already have copied it.
        if let Some(mode) = open_to_others {
            return Err(KeyFileError::OpenToOthers { path, mode });
        }
        if !private.is_encrypted() {
            return signing_key(&private, &public).ok_or(KeyFileError::OnlyPublic { path });
        }
        let prompt = escaped(&format!("Passphrase of {}: ", path.display()));
        for _ in 0..PASSPHRASES {
            let passphrase =
                ask(&prompt).map_err(|source| KeyFileError::NoTerminal { path: path.clone(), source })?;
            let unlocked = private.decrypt(passphrase.as_bytes()).ok();
            if let Some(key) = unlocked.and_then(|private| signing_key(&private, &public)) {
                return Ok(key);
            }
        }
        Err(KeyFileError::Passphrase { path })
    }
}

/// The type of a key as its public line tells it, which lies beside the private half.
fn kind_told(path: &Path, text: &[u8]) -> String {
    let beside = trusted_file::read(&public_path(path), LONGEST);
    let beside = beside.map(|file| file.bytes).unwrap_or_default();
    let mut words = [text, &beside[..]]
        .into_iter()
        .map(|text| String::from_utf8_lossy(text).split_whitespace().next().unwrap_or_default().to_owned());
    let plain = |word: &String| !word.is_empty() && !word.starts_with("-----") && word.chars().all(is_seen);
    words.find(plain).unwrap_or_else(|| "unknown".to_owned())
}

/// The key, if it is the one whose public half was told.
fn signing_key(private: &PrivateKey, public: &ClientKey) -> Option<SigningKey> {
    let KeypairData::Ed25519(pair) = private.key_data() else { return None };
    let key = SigningKey::from_bytes(pair.private.as_ref());
    (key.verifying_key().as_bytes() == public.bytes()).then_some(key)
}

/// Where `ssh-keygen` puts the public half of a key.
pub(crate) fn public_path(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

/// Asks on the terminal, without showing what is typed.
///
/// # Errors
/// What the system says, if there is no terminal.
pub fn ask_on_terminal(prompt: &str) -> io::Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt).map(Zeroizing::new)
}
