//! Locks on byte ranges that belong to an open file description, not to a process: they die with
//! the last copy of the descriptor, and two descriptions of one process exclude each other.
//!
//! Source: fcntl(2), "Open file description locks".

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::last_errno;

/// Takes the lock of the whole file for writing.
///
/// # Errors
/// `EAGAIN` where another has it.
pub fn try_lock(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    set(descriptor, libc::F_WRLCK)
}

/// Gives the lock back.
///
/// # Errors
/// What the system said.
pub fn unlock(descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    set(descriptor, libc::F_UNLCK)
}

fn set(descriptor: BorrowedFd<'_>, kind: i32) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the lock is a valid structure that the kernel only reads, and the descriptor is borrowed.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}
