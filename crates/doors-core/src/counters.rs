//! How often something happened since the start. Plain numbers, for whoever wants to know how it goes.

/// What was counted. Each number only grows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Knocks that were one further in a sequence.
    pub knocks_right: u64,
    /// Knocks that were wrong.
    pub knocks_wrong: u64,
    /// Knocks in a quiet period, repeated ones, and those that the kernel throws away.
    pub knocks_ignored: u64,
    /// Grants by a sequence.
    pub granted_by_sequence: u64,
    /// Grants by a key.
    pub granted_by_key: u64,
    /// Requests of clients that were refused, and answered.
    pub refused: u64,
    /// Datagrams to the port of single packet authorization that were dropped, and not answered.
    pub dropped: u64,
    /// Doors that the firewall never opened, and clients that waited for it in vain.
    pub not_opened: u64,
}
