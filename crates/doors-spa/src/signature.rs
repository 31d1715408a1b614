//! The bytes that a client signs.
//!
//! It is OpenSSH's format for signatures over anything but a login. So a key in an `ssh-agent` can be used,
//! and a signature made here is not valid for anything else, nor the other way round:
//!
//! ```text
//!   "SSHSIG"
//!   string  "spa@port-knocking-doors"     namespace
//!   string  ""                            reserved
//!   string  "sha512"
//!   string  SHA-512 of: info, enc, request
//! ```
//!
//! Source: `PROTOCOL.sshsig` of OpenSSH, section 3. A string is its length in four bytes, then its bytes (RFC
//! 4251, section 5).

use alloc::vec::Vec;

use sha2::{Digest as _, Sha512};

/// The namespace of the signatures, as for `ssh-keygen -Y sign -n`.
pub const NAMESPACE: &str = "spa@port-knocking-doors";

/// The bytes to sign, for a message of several parts.
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
