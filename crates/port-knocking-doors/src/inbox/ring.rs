//! A packet socket with a ring buffer that is shared with the kernel.
//!
//! ```text
//!   frame 0         frame 1         frame 2         …        each 512 bytes
//!   ┌─────────────┬─────────────┬─────────────┬──
//!   │ ours        │ ours        │ the kernel's│      status names the owner
//!   └─────────────┴─────────────┴─────────────┴──
//!         ▲ next                       0  struct tpacket2_hdr
//!                                     32  struct sockaddr_ll
//!                               tp_net …  the IP packet
//! ```
//!
//! Reading a packet takes no system call, so a flood of forged knocks costs little. Version 2 of the ring delivers
//! each packet at once; version 3 would hold packets back for a millisecond.
//!
//! Source: packet(7), `Documentation/networking/packet_mmap.rst`, `linux/if_packet.h`.
#![allow(
    unsafe_code,
    reason = "the ring is memory that the kernel writes; this file is the one place that reads it"
)]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "only constants are cast"
)]

use std::{
    io,
    mem::{offset_of, size_of},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use doors_os::{async_fd::OwnsDescriptor, sockopt};
use socket2::{Domain, Socket, Type};

use super::{datagram::Checksum, filter};

/// Room for a header, its padding and [`filter::SNAP`] bytes of packet.
const FRAME: u32 = 512;
/// Knocks that may wait: 20 ms of them at 100,000 a second. One megabyte for each family.
const FRAMES: u32 = 2048;
/// The index of the last frame, which is also the mask for wrapping around.
const LAST: usize = FRAMES as usize - 1;
/// The unit in which the kernel allocates.
const BLOCK: u32 = 64 * 1024;
/// The offset of the address in a frame: `TPACKET_ALIGN(sizeof(struct tpacket2_hdr))`.
const ADDRESS: usize = size_of::<libc::tpacket2_hdr>().next_multiple_of(16);
/// `TP_STATUS_CSUM_VALID`.
const CHECKSUM_VALID: u32 = 1 << 7;

/// The protocol of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum EtherType {
    /// IPv4.
    Ipv4 = libc::ETH_P_IP as isize,
    /// IPv6.
    Ipv6 = libc::ETH_P_IPV6 as isize,
}

/// One packet, copied out of the ring.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: [u8; filter::SNAP as usize],
    length: usize,
    pub(super) checksum: Checksum,
    pub(super) link: u32,
}

impl Frame {
    /// The packet, starting with its IP header.
    pub(super) fn packet(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// A packet socket and its ring.
#[derive(Debug)]
pub(crate) struct Ring {
    socket: Socket,
    memory: NonNull<u8>,
    next: usize,
}

// SAFETY: the memory belongs to this value alone, and no method depends on the thread that created it.
unsafe impl Send for Ring {}

impl Ring {
    const SIZE: usize = FRAME as usize * FRAMES as usize;

    /// Opens a ring on all interfaces of this thread's network namespace. The filter is attached before the socket is
    /// bound, so no packet gets past it.
    pub(super) fn open(ether_type: EtherType, spa_port: Option<u16>) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        socket.attach_filter(&filter::knocks(spa_port))?;
        let fd = socket.as_fd();
        sockopt::set_flag(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING)?;
        sockopt::set_number(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_VERSION,
            libc::tpacket_versions::TPACKET_V2 as _,
        )?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK,
            tp_block_nr: FRAME * FRAMES / BLOCK,
            tp_frame_size: FRAME,
            tp_frame_nr: FRAMES,
        };
        sockopt::set(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let memory = map(fd.as_raw_fd(), Self::SIZE)?;
        let ring = Self { socket, memory, next: 0 };
        ring.bind(ether_type)?;
        Ok(ring)
    }

    /// Changes the UDP port of clients with a key. No packet is lost during the change.
    pub(super) fn follow(&self, spa_port: Option<u16>) -> io::Result<()> {
        self.socket.attach_filter(&filter::knocks(spa_port))
    }

    /// Takes the next packet out of the ring; `None` if the ring is empty.
    pub(super) fn take(&mut self) -> Option<Frame> {
        let at = self.next.checked_mul(FRAME as usize)?;
        // SAFETY: `next` is below `FRAMES`, so the frame lies within the mapped memory.
        let frame = unsafe { self.memory.add(at) };
        // SAFETY: the status is the first, aligned word of the frame, and both sides access it atomically.
        let status = unsafe { AtomicU32::from_ptr(frame.as_ptr().cast()) };
        let flags = status.load(Ordering::Acquire);
        if flags & libc::TP_STATUS_USER == 0 {
            return None;
        }
        // SAFETY: the frame is ours until the status is given back, and starts with this header.
        let header = unsafe { frame.cast::<libc::tpacket2_hdr>().read() };
        // SAFETY: the address begins within the frame, at a place that the kernel's interface fixes.
        let address = unsafe { frame.add(ADDRESS) };
        // SAFETY: the frame is ours, and the kernel has written a whole address there.
        let address = unsafe { address.cast::<libc::sockaddr_ll>().read_unaligned() };
        let mut packet = Frame {
            bytes: [0; filter::SNAP as usize],
            length: 0,
            checksum: match flags & (libc::TP_STATUS_CSUMNOTREADY | CHECKSUM_VALID) {
                0 => Checksum::Unverified,
                _ => Checksum::Vouched,
            },
            link: u32::try_from(address.sll_ifindex).unwrap_or(0),
        };
        let start = usize::from(header.tp_net);
        let wanted = usize::try_from(header.tp_snaplen).unwrap_or(0).min(packet.bytes.len());
        if start.saturating_add(wanted) <= FRAME as usize {
            // SAFETY: start and length were just seen to lie within the frame.
            let source = unsafe { frame.add(start) };
            // SAFETY: the frame is ours, `wanted` bytes of it are there, and `bytes` has room for them.
            unsafe { source.copy_to_nonoverlapping(NonNull::from(&mut packet.bytes).cast(), wanted) };
            packet.length = wanted;
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.next = self.next.wrapping_add(1) & LAST;
        Some(packet)
    }

    fn bind(&self, ether_type: EtherType) -> io::Result<()> {
        let protocol = u16::try_from(ether_type as isize).map_err(io::Error::other)?;
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as _,
            sll_protocol: protocol.to_be(),
            // All interfaces, including future ones.
            sll_ifindex: 0,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is a whole `sockaddr_ll`, and the kernel only reads it.
        let answer = unsafe {
            libc::bind(
                self.socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this is the whole mapping that `open` made, and nothing refers to it any more.
        let answer = unsafe { libc::munmap(self.memory.as_ptr().cast(), Self::SIZE) };
        debug_assert_eq!(answer, 0, "a mapping that we made can be unmapped");
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

// SAFETY: it owns its socket for its whole life and returns no other descriptor.
unsafe impl OwnsDescriptor for Ring {}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Maps the ring of a packet socket.
fn map(fd: RawFd, size: usize) -> io::Result<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_SHARED, fd, 0) };
    match memory {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        memory => NonNull::new(memory.cast()).ok_or_else(|| io::Error::other("a mapping at address zero")),
    }
}

const _: () = assert!(offset_of!(libc::tpacket2_hdr, tp_status) == 0, "the status is the first word");
const _: () = assert!(FRAMES.is_power_of_two(), "the last frame is followed by the first");
const _: () = assert!(ADDRESS == 32, "the place that the kernel's interface fixes");
