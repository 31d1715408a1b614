//! Asks the kernel whether it would accept a packet with this source.
//!
//! A packet socket sees packets before the kernel drops those with an implausible source. Which ones it drops depends
//! on `rp_filter` of the interface and of `all`, on routes, and on routing rules. So the kernel is asked to route
//! such a packet, and gives the same answer as for a real one. That costs some microseconds; the core asks only where
//! the answer matters.
//!
//! IPv6 has no such check, and packets that come in over loopback are not routed.
//!
//! Source: rtnetlink(7), `inet_rtm_getroute` in `net/ipv4/route.c`, `net/ipv4/fib_frontend.c`.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    time::{Duration, Instant},
};

use doors_core::packet::{Arrival, Link, Routes};
use doors_os::netlink::{
    address::octets,
    message::{NLM_F_ACK, Writer},
    socket::{Family, NetlinkError, Socket},
};
use rustix::net::netdevice;

use super::{
    LOOPBACK,
    notes::{Note, Notes},
};

/// How long the sysctl's value is cached, so that a flood of forged knocks does not cause a read for each.
const MARK_CACHE_TTL: Duration = Duration::from_secs(1);

/// The routes of this thread's network namespace.
#[derive(Debug)]
pub(super) struct KernelRoutes {
    socket: Socket,
    /// For each interface, when the sysctl was read, and whether the check depends on the packet's mark.
    by_mark: BTreeMap<u32, (Instant, bool)>,
    notes: Notes,
}

impl KernelRoutes {
    /// Opens the netlink socket.
    pub(super) fn open() -> Result<Self, NetlinkError> {
        let (by_mark, notes) = (BTreeMap::new(), Notes::default());
        Ok(Self { socket: Socket::open(Family::Route)?, by_mark, notes })
    }

    /// Notes for the administrator.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        self.notes.take()
    }

    /// Whether the kernel uses the packet's mark for the check of its source (`src_valid_mark`). The mark is not
    /// known here.
    fn depends_on_mark(&mut self, link: Link) -> bool {
        let now = Instant::now();
        self.by_mark.retain(|_, (read, _)| now.saturating_duration_since(*read) < MARK_CACHE_TTL);
        let name = || netdevice::index_to_name(&self.socket, link.0).ok();
        let read = || {
            let of =
                |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/src_valid_mark"));
            let is_on = |name: &str| of(name).is_ok_and(|text| text.trim() != "0");
            is_on("all") || name().is_some_and(|name| is_on(&name))
        };
        self.by_mark.entry(link.0).or_insert_with(|| (now, read())).1
    }
}

impl Routes for KernelRoutes {
    fn accept(&mut self, source: IpAddr, arrival: Arrival) -> bool {
        let (IpAddr::V4(_), IpAddr::V4(_)) = (source, arrival.destination) else { return true };
        if arrival.link.0 == LOOPBACK {
            return true;
        }
        match self.socket.request(&request(source, arrival)) {
            Ok(()) => true,
            Err(error) if is_refusal(&error) => self.depends_on_mark(arrival.link),
            Err(error) => {
                // A failed query must not keep a client out.
                self.notes.add(Note::WayBack(source, error));
                true
            }
        }
    }
}

/// `EINVAL` or `EXDEV`, depending on the kernel's version, mean that the source is implausible; `ENODEV`, that the
/// interface is gone.
fn is_refusal(error: &NetlinkError) -> bool {
    matches!(error.number(), Some(libc::EINVAL | libc::EXDEV | libc::ENODEV))
}

/// The request how the kernel would route a packet that comes in like this.
fn request(source: IpAddr, arrival: Arrival) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.message(libc::RTM_GETROUTE, NLM_F_ACK, 0, |writer| {
        // `struct rtmsg`: the family, and full prefix lengths for both addresses.
        writer.raw(&[u8::try_from(libc::AF_INET).unwrap_or(0), 32, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        writer.put(libc::RTA_DST, &octets(arrival.destination));
        writer.put(libc::RTA_SRC, &octets(source));
        writer.put(libc::RTA_IIF, &arrival.link.0.to_ne_bytes());
    });
    writer.bytes().to_vec()
}
