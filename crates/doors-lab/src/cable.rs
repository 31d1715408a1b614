//! Links, addresses and routes over netlink.
//!
//! Source: rtnetlink(7), `linux/rtnetlink.h`, `linux/if_link.h`, `linux/veth.h`.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

use doors_os::netlink::{
    address::octets,
    message::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, Writer},
    socket::{Family, NetlinkError, Socket},
};
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::error::LabError;

/// Of `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;
/// An IPv6 address that can be used at once; as `struct ifaddrmsg` has it.
#[expect(clippy::cast_possible_truncation, reason = "the field has eight bits")]
const IFA_F_NODAD: u8 = libc::IFA_F_NODAD as u8;
/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// The kernel brings a link up in a thread of its own, some time after it is switched on.
const LINK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// Makes a veth pair, with `there` in the other network.
pub(super) fn lay(here: &str, other: BorrowedFd<'_>, there: &str) -> Result<(), LabError> {
    let what = format!("make a veth pair from {here} to {there}");
    request(what, libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, |writer| {
        writer.raw(&link_header(0, 0));
        writer.put_text(libc::IFLA_IFNAME, here);
        writer.nest(libc::IFLA_LINKINFO, |info| {
            info.put_text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |peer| {
                    peer.raw(&link_header(0, 0));
                    peer.put_text(libc::IFLA_IFNAME, there);
                    peer.put(libc::IFLA_NET_NS_FD, &other.as_raw_fd().to_ne_bytes());
                });
            });
        });
    })
}

/// Switches an interface on.
pub(super) fn up(link: &str) -> Result<(), LabError> {
    let what = format!("switch {link} on");
    let index = index(link, &what)?;
    let up = libc::IFF_UP.cast_unsigned();
    request(what, libc::RTM_NEWLINK, 0, |writer| writer.raw(&link_header(index, up)))
}

/// Waits until an interface is up: until then it drops every packet.
pub(super) fn wait_until_up(link: &str) -> Result<(), LabError> {
    let what = format!("wait until {link} is up");
    let index = index(link, &what)?;
    let mut writer = Writer::default();
    writer.message(libc::RTM_GETLINK, NLM_F_ACK, 1, |writer| writer.raw(&link_header(index, 0)));
    let begun = Instant::now();
    loop {
        let state = Socket::open(Family::Route).and_then(|mut socket| {
            socket.ask(writer.bytes(), |message| {
                message
                    .attributes(LINK_HEADER)
                    .find(libc::IFLA_OPERSTATE)
                    .filter(|_| message.kind == libc::RTM_NEWLINK)?
                    .first()
                    .map(|state| i32::from(*state))
            })
        });
        match state {
            Ok(Some(libc::IF_OPER_UP)) => return Ok(()),
            Ok(_) if begun.elapsed() < LINK_UP_TIMEOUT => thread::sleep(Duration::from_millis(1)),
            Ok(_) => return Err(LabError::Link { what, source: NetlinkError::Silent }),
            Err(source) => return Err(LabError::Link { what, source }),
        }
    }
}

/// Removes an interface.
pub(super) fn remove(link: &str) -> Result<(), LabError> {
    let what = format!("remove {link}");
    let index = index(link, &what)?;
    request(what, libc::RTM_DELLINK, 0, |writer| writer.raw(&link_header(index, 0)))
}

/// Gives an interface an address.
pub(super) fn add_address(link: &str, address: IpNet) -> Result<(), LabError> {
    let what = format!("give {link} the address {address}");
    let index = index(link, &what)?;
    request(what, libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, |writer| {
        writer.raw(&[family(address.addr()), address.prefix_len(), IFA_F_NODAD, 0]);
        writer.raw(&index.to_ne_bytes());
        writer.put(libc::IFA_LOCAL, &octets(address.addr()));
        writer.put(libc::IFA_ADDRESS, &octets(address.addr()));
    })
}

/// Adds a route.
pub(super) fn add_route(destination: IpNet, gateway: IpAddr) -> Result<(), LabError> {
    let what = format!("send packets for {destination} by way of {gateway}");
    request(what, libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, |writer| {
        let family = family(gateway);
        let [table, scope] = [libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE];
        writer.raw(&route_header(family, destination, table, scope, libc::RTN_UNICAST));
        writer.put(libc::RTA_DST, &octets(destination.network()));
        writer.put(libc::RTA_GATEWAY, &octets(gateway));
    })
}

/// Makes every address of a network local, in a routing table: a route of type `RTN_LOCAL` on the loopback
/// interface.
pub(super) fn add_local_route(network: IpNet, table: u8) -> Result<(), LabError> {
    let what = format!("own the addresses {network}");
    let index = index("lo", &what)?;
    request(what, libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, |writer| {
        let family = family(network.addr());
        writer.raw(&route_header(family, network, table, libc::RT_SCOPE_HOST, libc::RTN_LOCAL));
        writer.put(libc::RTA_DST, &octets(network.network()));
        writer.put(libc::RTA_OIF, &index.to_ne_bytes());
    })
}

fn request(what: String, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> Result<(), LabError> {
    let mut writer = Writer::default();
    writer.message(kind, flags | NLM_F_ACK, 1, body);
    let asked = Socket::open(Family::Route).and_then(|mut socket| socket.request(writer.bytes()));
    asked.map_err(|source| LabError::Link { what, source })
}

fn index(link: &str, what: &str) -> Result<u32, LabError> {
    let found = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .and_then(|socket| netdevice::name_to_index(socket, link));
    found.map_err(|errno| LabError::Link { what: what.to_owned(), source: NetlinkError::from(errno) })
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32) -> Vec<u8> {
    [&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &flags.to_ne_bytes()].concat()
}

/// `struct rtmsg`.
fn route_header(family: u8, destination: IpNet, table: u8, scope: u8, kind: u8) -> [u8; 12] {
    [family, destination.prefix_len(), 0, 0, table, libc::RTPROT_BOOT, scope, kind, 0, 0, 0, 0]
}

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).unwrap_or(0)
}
