//! How often each thing happened since the start.

/// Counters since the start. Each number only grows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Knocks that were the next of a sequence.
    pub knocks_right: u64,
    /// Knocks that were wrong.
    pub knocks_wrong: u64,
    /// Knocks in a quiet period, repeated ones, and those from a source that the kernel drops or that cannot
    /// have a grant.
    pub knocks_ignored: u64,
    /// Grants for a completed sequence.
    pub granted_by_sequence: u64,
    /// Grants for a client's key.
    pub granted_by_key: u64,
    /// Requests of clients that were refused with a receipt, without those that got a challenge.
    pub refused: u64,
    /// Datagrams to the port of single packet authorization that were dropped without an answer.
    pub dropped: u64,
    /// Grants that ended before the firewall had opened the door, and requests whose client waited for the
    /// firewall in vain.
    pub not_opened: u64,
}
