//! The bytes that a client signs.
//!
//! OpenSSH's format for signatures over anything but a login, so that a key in an `ssh-agent` can be used,
//! and so that no signature made here is worth anything elsewhere, or the other way round:
//!
//! ```text
//!   "SSHSIG"
//!   string  "spa@port-knocking-doors"     namespace
//!   string  ""                            reserved
//!   string  "sha512"
//!   string  SHA-512 of: info, enc, request
//! ```
//!
//! Source: `PROTOCOL.sshsig` of OpenSSH, section 3. A string is its length in four bytes, and itself
//! (RFC 4251, section 5).

use alloc::vec::Vec;

use sha2::{Digest as _, Sha512};

/// What the signatures are for. It belongs into `-n` of `ssh-keygen -Y`.
pub const NAMESPACE: &str = "spa@port-knocking-doors";

/// The bytes that are signed, for a message of several parts.
pub(crate) fn signed_bytes(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    let hash = hash.finalize();
    let mut bytes = Vec::from(*b"SSHSIG");
    for string in [NAMESPACE.as_bytes(), b"", b"sha512", &hash] {
        let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(string);
    }
    bytes
}
