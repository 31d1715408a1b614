//! Makes a key, for those without one.

use std::{
    io,
    path::{Path, PathBuf},
};

use getrandom::SysRng;
use rand_core::UnwrapErr;
use ssh_key::{
    LineEnding, PrivateKey,
    private::{Ed25519Keypair, Ed25519PrivateKey, KeypairData},
    public::Ed25519PublicKey,
};

use crate::{private_file, spa::key_file};

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// A key is never overwritten: it may open something.
    #[error("{path} is there already; choose another file, or move it away")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be encoded.
    #[error("cannot encode the key")]
    Encode(#[from] ssh_key::Error),
    /// There is no terminal to ask at.
    #[error("cannot ask for a passphrase without a terminal; try: doorknock keygen --no-passphrase")]
    NoTerminal(#[source] io::Error),
    /// The two are not the same.
    #[error("the passphrases are not the same; nothing was written")]
    Differ,
    /// It protects nothing.
    #[error("an empty passphrase protects nothing; if that is wanted: doorknock keygen --no-passphrase")]
    Empty,
}

/// Makes an `ssh-ed25519` key in OpenSSH's format, and the file with its public half beside it. Gives the
/// public line.
///
/// # Errors
/// [`KeygenError`]; nothing is overwritten.
pub fn make(path: &Path, passphrase: Option<&str>) -> Result<String, KeygenError> {
    let public_path = key_file::public_path(path);
    for path in [path, &public_path] {
        if path.exists() {
            return Err(KeygenError::Exists { path: path.to_owned() });
        }
    }
    let mut random = UnwrapErr(SysRng);
    let private = Ed25519PrivateKey::random(&mut random);
    let signing = ed25519_dalek::SigningKey::from_bytes(private.as_ref());
    let public = Ed25519PublicKey(signing.verifying_key().to_bytes());
    let mut key = PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair { public, private }), "doorknock")?;
    let line = key.public_key().to_openssh()?;
    if let Some(passphrase) = passphrase {
        key = key.encrypt(&mut random, passphrase)?;
    }
    let text = key.to_openssh(LineEnding::LF)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), private_file::create_directory)
        .and_then(|()| private_file::create(path, text.as_bytes()))
        .map_err(|source| KeygenError::Write { path: path.to_owned(), source })?;
    private_file::create(&public_path, format!("{line}\n").as_bytes())
        .map_err(|source| KeygenError::Write { path: public_path, source })?;
    Ok(line)
}
