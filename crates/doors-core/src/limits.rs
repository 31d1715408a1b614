//! The bound of everything that a stranger can grow, each with its reason.

use core::time::Duration;

use crate::budget::Rate;

/// Knockers that are remembered at once.
///
/// Some eight megabytes when full. A flood of forged first knocks at 200,000 a second leaves a client a
/// third of a second for its second knock; from then on the flood cannot reach it, because those who
/// have come the least far are forgotten first.
pub const KNOCKERS: usize = 65_536;

/// Grants that run at once, over all doors.
///
/// The kernel holds ten times as many without effort. The bound is for somebody who overhears a
/// sequence and replays it from forged addresses.
pub const GRANTS: usize = 65_536;

/// Of these, as many as sequences may take. The rest is left to clients with keys, whose grants cannot be
/// forged: a replayed sequence takes none of theirs.
pub const GRANTS_BY_SEQUENCE: usize = 49_152;

/// Doors in one configuration. Clients count on it, too.
pub const DOORS: usize = doors_spa::door::MOST as usize;

/// Ports of all doors together; a range counts as one. Each is an entry of a map, whose cost in the kernel grows with
/// the square of their number, and a rule: so many are guarded in about a second, also when another program has
/// flushed the ruleset and every port is open until then.
pub const PORTS: usize = 4096;

/// Clients in one configuration: the devices of a large company. What is configured of each takes about a
/// kilobyte, and what is remembered of one that knocks all the time two more, so that all of them together take
/// less than half a gigabyte.
pub const CLIENTS: usize = 100_000;

/// A door that was opened or extended this short a time ago is not extended again.
///
/// Whoever repeats a sequence as fast as the network carries it costs the firewall one change a second.
pub const EXTEND_AFTER: Duration = Duration::from_secs(1);

/// Wrong knocks of whose source the kernel is asked whether it would take a packet from there: as many as the log tells
/// one by one. A flood of first knocks so costs no questions.
pub const QUESTIONS: Rate = Rate { at_once: 20, every: Duration::from_secs(3) };

/// The widest window that can be configured. After a loss nobody knows which was: what was accepted then was not
/// dated later than this, so a first start costs each knock a challenge for so long.
pub const WIDEST_WINDOW: Duration = Duration::from_secs(3600);

/// Requests that are remembered of each client that were accepted by their time. A client that knocks more often
/// in a minute than this has its oldest forgotten; then nothing that old is accepted any more by its time.
pub const KNOCKS_REMEMBERED: usize = 32;

/// Answers to challenges that are remembered of each client. A client that answers more in a minute and a half
/// has its oldest forgotten; then no challenge that it has got so far is good any more. That costs each of its
/// knocks on the way one more challenge, so it has to be rare: sixteen knocks at once, sixteen times in a row,
/// are remembered whole. The replay log keeps the latest [`KNOCKS_REMEMBERED`] of them.
pub const CHALLENGES_REMEMBERED: usize = 256;

/// Requests of one client that wait for the disk or the firewall. One more is told that it is too many, but not
/// before the disk knows of it.
pub const WAITING_PER_CLIENT: usize = 16;

/// When so many of one client wait, whatever comes in its name is dropped before keys are used on it. This bounds
/// what a disk that does not answer leaves in memory.
pub const WAITING_AT_MOST: usize = 4 * WAITING_PER_CLIENT;

/// Grants that run for one client: it can name addresses, and must not fill the table of all.
pub const GRANTS_PER_CLIENT: usize = 256;

/// Others that may each have a grant of their own for the same door and address: so many as may knock at once behind one
/// address translator. The next is told that too much is open.
pub const SHARING_ONE_ADDRESS: usize = 64;

/// A client waits this long for its receipt if the firewall does not say that the door is open.
pub const PATIENCE_WITH_FIREWALL: Duration = Duration::from_secs(3);

/// Datagrams in the name of one client that are opened with keys. Whoever knows the card and a client's public key can
/// make them, and each costs a tenth of a millisecond: so this costs at most a twentieth of a processor for each client.
pub const OPENINGS: Rate = Rate { at_once: 256, every: Duration::from_millis(2) };

/// Datagrams of each client, all signed by it, that are known again by their first bytes: those
/// are answered with silence, for a hash and no keys. Each client has its own, so that none pushes out another's.
pub const COPIES_PER_CLIENT: usize = 64;
