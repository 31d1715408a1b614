//! The bounds of everything that a stranger can grow, each with its reason.

use core::time::Duration;

use crate::budget::Rate;

/// Sources whose progress is remembered at once.
///
/// About eight megabytes when full. During a flood of forged first knocks at 200,000 a second, a client has a
/// third of a second for its second knock. After that the flood cannot evict it, because the table evicts the
/// sources with the least progress first.
pub const KNOCKERS: usize = 65_536;

/// Live grants, over all doors.
///
/// The kernel holds ten times as many without effort. The bound is for an attacker who has overheard a
/// sequence and replays it from forged addresses.
pub const GRANTS: usize = 65_536;

/// The number of these that sequences may take. The rest is left to clients with keys, whose grants cannot be
/// forged: a replayed sequence takes none of theirs.
pub const GRANTS_BY_SEQUENCE: usize = 49_152;

/// Grants that an administrator may have opened by hand at once, beside [`GRANTS`]: what knocks have filled keeps no
/// administrator out.
pub const GRANTS_BY_HAND: usize = 1024;

/// Grants that an administrator's command ends at once. Knocks are heard before the next part: each part of the most
/// grants takes ten milliseconds.
pub const CLOSED_AT_ONCE: usize = 2048;

/// Doors in one configuration. Clients rely on this bound, too.
pub const DOORS: usize = doors_spa::door::MAX_DOORS as usize;

/// Ports of all doors together; a range counts as one. Each is an element of a map, which costs the kernel
/// time with the square of their number, and a rule. This many are guarded within about a second. That is
/// also how long every port stays open after another program has flushed the ruleset.
pub const PORTS: usize = 4096;

/// Clients in one configuration: the devices of a large company. Each takes about a kilobyte for its
/// configuration, and two more if it knocks all the time, so that all of them together take less than half a
/// gigabyte.
pub const CLIENTS: usize = 100_000;

/// A lease is extended only if it then ends at least this much later.
///
/// So a sequence that is repeated as fast as the network carries it causes one firewall change a second.
pub const EXTEND_AFTER: Duration = Duration::from_secs(1);

/// Wrong knocks for which the kernel is asked whether it would accept a packet from the source: as many as
/// the log reports one by one. So a flood of wrong knocks causes few queries.
pub const ROUTE_QUERIES: Rate = Rate { at_once: 20, every: Duration::from_secs(3) };

/// The widest window that can be configured. If the replay log is lost, the window that was in force is
/// unknown as well. No request accepted before was dated later than the end of this one, so after a first
/// start every request costs a challenge for this long.
pub const WIDEST_WINDOW: Duration = Duration::from_secs(3600);

/// Requests accepted by their time that are remembered of each client. If a client sends more within its
/// window, its oldest are evicted, and its low-water mark rises to the latest of those.
pub const KNOCKS_REMEMBERED: usize = 32;

/// Answered challenges that are remembered of each client. If a client answers more in a minute and a half,
/// its oldest are evicted, and all challenges that it received so far become invalid. That costs each of its
/// requests on the way one more challenge, so it has to be rare: sixteen requests at once, sixteen times in a
/// row, fit. The replay log keeps the latest [`KNOCKS_REMEMBERED`] of them.
pub const CHALLENGES_REMEMBERED: usize = 256;

/// Requests of one client that may wait for the disk or the firewall. A further one is refused as too many,
/// but only after its record is on disk.
pub const WAITING_PER_CLIENT: usize = 16;

/// If this many requests of one client wait, further datagrams in its name are dropped before any public-key
/// work. This bounds the memory that requests take while the disk does not answer.
pub const WAITING_AT_MOST: usize = 4 * WAITING_PER_CLIENT;

/// Leases of one client: it can name addresses, and must not fill the table for all.
pub const GRANTS_PER_CLIENT: usize = 256;

/// Clients, besides the first, that may each have a lease for the same door and address: as many as may knock
/// at once behind one address translator. A further one is refused as too many.
pub const SHARING_ONE_ADDRESS: usize = 64;

/// How long a request waits for the firewall to open or close the door, before its client is told that the
/// firewall did not.
pub const FIREWALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Datagrams in the name of one client that are decrypted. An attacker who knows the card and a client's
/// public key can make them, and each costs a tenth of a millisecond: at most a twentieth of a processor for
/// each client.
pub const DECRYPTIONS: Rate = Rate { at_once: 256, every: Duration::from_millis(2) };

/// Datagrams of each client, all with a verified signature, whose first bytes are remembered. Copies of them
/// are dropped without public-key work. Each client has its own list, so that none evicts another's.
pub const COPIES_PER_CLIENT: usize = 64;
