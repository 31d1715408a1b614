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
    message::{ACK, CREATE, EXCLUSIVE, Writer},
    socket::{Family, NetlinkError, Socket},
};
use ipnet::IpNet;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::error::LabError;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;

/// `IFLA_IFNAME`, `IFLA_LINKINFO`, `IFLA_NET_NS_FD`.
const LINK_NAME: u16 = 3;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE: u16 = 28;
/// `IFLA_INFO_KIND`, `IFLA_INFO_DATA`, `VETH_INFO_PEER`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;
/// `IFLA_OPERSTATE`, `IF_OPER_UP`.
const LINK_STATE: u16 = 16;
const OPERATIONAL: u8 = 6;
/// The length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
/// The kernel brings a link up in a thread of its own, some time after it is switched on.
const LINK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// `IFA_ADDRESS`, `IFA_LOCAL`; `IFA_F_NODAD`: an IPv6 address that can be used at once.
const ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const NO_DUPLICATE_DETECTION: u8 = 2;
/// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`; `RT_TABLE_MAIN`, `RT_TABLE_LOCAL`, `RTPROT_BOOT`, `RTN_UNICAST`,
/// `RTN_LOCAL`.
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const MAIN_TABLE: u8 = 254;
pub(super) const LOCAL_TABLE: u8 = 255;
const BOOT: u8 = 3;
const UNICAST: u8 = 1;
const LOCAL: u8 = 2;
/// `RT_SCOPE_HOST`.
const HOST_SCOPE: u8 = 254;

/// Makes a veth pair, with `there` in the other network.
pub(super) fn lay(here: &str, other: BorrowedFd<'_>, there: &str) -> Result<(), LabError> {
    request(format!("make a veth pair from {here} to {there}"), NEW_LINK, CREATE | EXCLUSIVE, |writer| {
        writer.raw(&link_header(0, 0));
        writer.put_text(LINK_NAME, here);
        writer.nest(LINK_INFO, |info| {
            info.put_text(INFO_KIND, "veth");
            info.nest(INFO_DATA, |data| {
                data.nest(VETH_PEER, |peer| {
                    peer.raw(&link_header(0, 0));
                    peer.put_text(LINK_NAME, there);
                    peer.put(LINK_NAMESPACE, &other.as_raw_fd().to_ne_bytes());
                });
            });
        });
    })
}

/// Switches an interface on.
pub(super) fn up(link: &str) -> Result<(), LabError> {
    let what = format!("switch {link} on");
    let index = index(link, &what)?;
    request(what, NEW_LINK, 0, |writer| writer.raw(&link_header(index, UP)))
}

/// Waits until an interface is up: until then it drops every packet.
pub(super) fn wait_until_up(link: &str) -> Result<(), LabError> {
    let what = format!("wait until {link} is up");
    let index = index(link, &what)?;
    let mut writer = Writer::default();
    writer.message(GET_LINK, ACK, 1, |writer| writer.raw(&link_header(index, 0)));
    let begun = Instant::now();
    loop {
        let state = Socket::open(Family::Route).and_then(|mut socket| {
            socket.ask(writer.bytes(), |message| {
                message
                    .attributes(LINK_HEADER)
                    .find(LINK_STATE)
                    .filter(|_| message.kind == NEW_LINK)?
                    .first()
                    .copied()
            })
        });
        match state {
            Ok(Some(OPERATIONAL)) => return Ok(()),
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
    request(what, DELETE_LINK, 0, |writer| writer.raw(&link_header(index, 0)))
}

/// Gives an interface an address.
pub(super) fn add_address(link: &str, address: IpNet) -> Result<(), LabError> {
    let what = format!("give {link} the address {address}");
    let index = index(link, &what)?;
    request(what, NEW_ADDRESS, CREATE | EXCLUSIVE, |writer| {
        writer.raw(&[family(address.addr()), address.prefix_len(), NO_DUPLICATE_DETECTION, 0]);
        writer.raw(&index.to_ne_bytes());
        writer.put(ADDRESS_LOCAL, &octets(address.addr()));
        writer.put(ADDRESS, &octets(address.addr()));
    })
}

/// Adds a route.
pub(super) fn add_route(destination: IpNet, gateway: IpAddr) -> Result<(), LabError> {
    let what = format!("send packets for {destination} by way of {gateway}");
    request(what, NEW_ROUTE, CREATE | EXCLUSIVE, |writer| {
        let family = family(gateway);
        writer.raw(&[family, destination.prefix_len(), 0, 0, MAIN_TABLE, BOOT, 0, UNICAST, 0, 0, 0, 0]);
        writer.put(ROUTE_DESTINATION, &octets(destination.network()));
        writer.put(ROUTE_GATEWAY, &octets(gateway));
    })
}

/// Makes every address of a network local, in a routing table: a route of type `RTN_LOCAL` on the loopback
/// interface.
pub(super) fn add_local_route(network: IpNet, table: u8) -> Result<(), LabError> {
    let what = format!("own the addresses {network}");
    let index = index("lo", &what)?;
    request(what, NEW_ROUTE, CREATE | EXCLUSIVE, |writer| {
        let family = family(network.addr());
        writer.raw(&[family, network.prefix_len(), 0, 0, table, BOOT, HOST_SCOPE, LOCAL, 0, 0, 0, 0]);
        writer.put(ROUTE_DESTINATION, &octets(network.network()));
        writer.put(ROUTE_LINK, &index.to_ne_bytes());
    })
}

fn request(what: String, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> Result<(), LabError> {
    let mut writer = Writer::default();
    writer.message(kind, flags | ACK, 1, body);
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

fn family(address: IpAddr) -> u8 {
    let family = match address {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    u8::try_from(family).unwrap_or(0)
}
