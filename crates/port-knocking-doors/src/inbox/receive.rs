//! Receives a datagram with the time and the interface of its arrival, and sends one from a given address.
//!
//! Source: recvmsg(2), cmsg(3), ip(7), ipv6(7), `Documentation/networking/timestamping.rst`.
#![allow(unsafe_code, reason = "recvmsg(2) works on raw buffers; this file is the one place that calls it")]

use std::{
    io,
    mem::zeroed,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use doors_os::sockopt;
use socket2::{SockAddr, SockAddrStorage, Socket};

/// Longer than any knock, so that a datagram that is too long is recognized.
const PAYLOAD: usize = 200;

/// One datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    bytes: [u8; PAYLOAD],
    length: usize,
    pub(super) source: SocketAddr,
    /// Our address to which it was sent; `None` for broadcast and multicast.
    pub(super) destination: Option<IpAddr>,
    pub(super) link: u32,
    /// When the kernel received it, since 1970.
    pub(super) at: Duration,
}

impl Received {
    /// The payload; of a long datagram, its beginning.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Enables the time and the interface of every datagram.
pub(super) fn prepare(socket: &Socket, v6: bool) -> io::Result<()> {
    sockopt::set_flag(socket.as_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)?;
    match v6 {
        true => sockopt::set_flag(socket.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => sockopt::set_flag(socket.as_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO),
    }
}

/// Receives the next datagram; `None` if none waits.
pub(super) fn receive(socket: &Socket) -> io::Result<Option<Received>> {
    let mut bytes = [0_u8; PAYLOAD];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // Control messages are aligned to eight bytes.
    let mut control = [0_u64; 32];
    let mut address = SockAddrStorage::zeroed();
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = address.size_of();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: every pointer in the header points to a live buffer of the length beside it.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let Ok(length) = usize::try_from(received) else {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    };
    // SAFETY: the kernel has written an address of this length into the storage.
    let source = unsafe { SockAddr::new(address, header.msg_namelen) };
    let source = source.as_socket().ok_or_else(|| io::Error::other("a datagram without a source"))?;
    let Arrival { at, link, destination } = control_messages(&header);
    Ok(Some(Received { bytes, length: length.min(PAYLOAD), source, destination, link, at }))
}

/// The content of the control messages.
struct Arrival {
    at: Duration,
    link: u32,
    destination: Option<IpAddr>,
}

/// Reads the control messages of a header that the kernel has filled in.
fn control_messages(header: &libc::msghdr) -> Arrival {
    let (mut at, mut link, mut destination) = (Duration::ZERO, 0, None);
    // SAFETY: the header and its control buffer are as the kernel left them.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a whole control message in the buffer.
        let message = unsafe { next.read() };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel puts a `timespec` into a message of this type.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
                at = Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts an `in_pktinfo` into a message of this type.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                link = u32::try_from(info.ipi_ifindex).unwrap_or(0);
                // Of a broadcast or multicast, `ipi_spec_dst` is our address from which to answer.
                let is_ours = info.ipi_addr.s_addr == info.ipi_spec_dst.s_addr;
                let to = IpAddr::V4(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                destination = is_ours.then_some(to);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts an `in6_pktinfo` into a message of this type.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                link = info.ipi6_ifindex;
                let to = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                destination = (!to.is_multicast()).then_some(IpAddr::V6(to));
            }
            _ => {}
        }
        // SAFETY: `next` points to a control message of this header.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    Arrival { at, link, destination }
}

/// Sends a datagram from one of our addresses through a socket that is bound to another one or to all. The kernel
/// also looks up the route from that address.
pub(super) fn send_from(socket: &Socket, from: IpAddr, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let address = SockAddr::from(to);
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    let mut control = [0_u64; 8];
    // SAFETY: all zeroes are a valid `msghdr`.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_name = address.as_ptr().cast_mut().cast();
    header.msg_namelen = address.len();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    match from {
        IpAddr::V4(from) => {
            let spec = libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) };
            let any = libc::in_addr { s_addr: 0 };
            let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: spec, ipi_addr: any };
            put_control(&mut header, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        IpAddr::V6(from) => {
            let address = libc::in6_addr { s6_addr: from.octets() };
            let info = libc::in6_pktinfo { ipi6_addr: address, ipi6_ifindex: 0 };
            put_control(&mut header, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
    // SAFETY: every pointer in the header is to a live buffer of the length that stands beside it, and the
    // kernel only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes `value` the one control message of a header whose control buffer is zeroed and has room for it.
fn put_control<T>(header: &mut libc::msghdr, level: libc::c_int, kind: libc::c_int, value: T) {
    let size = u32::try_from(size_of::<T>()).unwrap_or(0);
    // SAFETY: only computes a length.
    let space = unsafe { libc::CMSG_SPACE(size) };
    // SAFETY: as above.
    let length = unsafe { libc::CMSG_LEN(size) };
    // SAFETY: the control buffer is live and longer than a message's header.
    let message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: not null, because the buffer has room; the buffer belongs to the caller alone.
    let Some(fields) = (unsafe { message.as_mut() }) else { return };
    fields.cmsg_level = level;
    fields.cmsg_type = kind;
    fields.cmsg_len = usize::try_from(length).unwrap_or(0);
    // SAFETY: the message was just seen to be there.
    let data = unsafe { libc::CMSG_DATA(message) };
    // SAFETY: the buffer has room for the value behind the header.
    unsafe { data.cast::<T>().write_unaligned(value) };
    header.msg_controllen = usize::try_from(space).unwrap_or(0);
}
