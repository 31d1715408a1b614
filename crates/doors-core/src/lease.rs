//! A grant on its way from the core to the kernel and back.

use crate::{door::GrantKey, packet::Link, spa::client::ClientLabel, time::Moment};

/// Who may use which door until when: what the firewall is asked for, holds, and reports.
///
/// Anything may make one; what lets somebody in is a [`Grant`](crate::access::Grant), of which the core makes it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Lease {
    /// Which door for whom.
    pub key: GrantKey,
    /// The interface on which the knocks came.
    pub link: Link,
    /// When the firewall closes the door.
    pub until: Moment,
    /// Whose key it was; `None` for a sequence, or if it is not known.
    pub by: Option<ClientLabel>,
    /// Whether the first new connection uses it up.
    pub once: bool,
}
