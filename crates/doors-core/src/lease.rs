//! A grant in the form in which core and firewall exchange it.

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
    /// The client that asked; `None` for a sequence, or if unknown.
    pub granted_to: Option<ClientLabel>,
    /// Whether the first new connection uses the lease up.
    pub once: bool,
}
