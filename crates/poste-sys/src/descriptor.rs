//! Descriptors that a process was started with, by their numbers.

use std::os::fd::{FromRawFd, OwnedFd};

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
