//! Descriptors that a process was started with, by their numbers, and what a socket has to send yet.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::last_errno;

/// A copy of the descriptor with this number, closed on exec. The number itself stays open.
///
/// # Errors
/// `EBADF` where no such descriptor is open.
pub fn copy(number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: F_DUPFD_CLOEXEC takes any number and changes nothing about the original.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(last_errno());
    }
    // SAFETY: the call has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// How many bytes a stream socket has accepted that the other side's kernel hasn't yet (over Unix
/// sockets: that the other side hasn't read).
///
/// # Errors
/// What the system said.
pub fn unsent(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ, which is SIOCOUTQ, writes one int, which outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if done < 0 { Err(last_errno()) } else { Ok(usize::try_from(count).unwrap_or(0)) }
}
