//! Socket options that no safe wrapper knows.
#![allow(
    unsafe_code,
    reason = "setsockopt(2) takes any option as bytes; this file is the one place that calls it"
)]

use std::{
    io,
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Switches an option on.
pub fn set_flag(fd: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    set_number(fd, level, option, 1)
}

/// Sets an option that is an `int`.
pub fn set_number(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    set(fd, level, option, &value)
}

/// Sets an option to a plain C structure or number. The kernel checks the length.
pub fn set<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: `value` is valid for `length` bytes, and the kernel only reads them.
    let answer =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `SO_PASSRIGHTS` of asm-generic/socket.h, since Linux 6.16.
const SO_PASSRIGHTS: libc::c_int = 83;

/// Lets no one pass descriptors over this Unix socket, nor over the connections that it accepts: who closes a passed
/// descriptor may have to wait for it, for as long as the sender likes.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.16.
pub fn refuse_descriptors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_number(fd, libc::SOL_SOCKET, SO_PASSRIGHTS, 0)
}

/// The most supplementary groups that a process can have (`NGROUPS_MAX` of linux/limits.h).
const MOST_GROUPS: usize = 65_536;

/// The supplementary groups of the process at the other end of a Unix socket, as they were when it connected.
/// Source: unix(7), `SO_PEERGROUPS`.
///
/// # Errors
/// If this is no connected Unix socket.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<libc::gid_t>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of::<libc::gid_t>().saturating_mul(groups.len()))
            .map_err(io::Error::other)?;
        // SAFETY: `groups` is valid for `length` bytes, which the kernel writes at most, and any bits are a group. The
        // kernel sets `length` to the bytes that there are, also if they do not fit.
        let answer = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let bytes = usize::try_from(length).map_err(io::Error::other)?;
        let count = bytes.checked_div(size_of::<libc::gid_t>()).unwrap_or_default();
        match answer {
            0 => {
                groups.truncate(count);
                return Ok(groups);
            }
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::ERANGE)
                && (groups.len()..=MOST_GROUPS).contains(&count) =>
            {
                groups.resize(count, 0);
            }
            _ => return Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd as _, unix::net::UnixStream};

    use super::*;

    #[test]
    fn the_groups_of_the_other_end_are_our_own_if_we_are_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own: Vec<libc::gid_t> =
            rustix::process::getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
        assert_eq!(peer_groups(one.as_fd()).unwrap(), own);
        let file = std::fs::File::open("/proc/self/status").unwrap();
        peer_groups(file.as_fd()).unwrap_err();
    }
}
