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

/// Whether another open file description has a lock on the file; takes none.
///
/// # Errors
/// What the system said.
pub fn is_locked(descriptor: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: the lock is a valid structure that outlives the call, and the descriptor is borrowed.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if result == 0 { Ok(i32::from(lock.l_type) != libc::F_UNLCK) } else { Err(last_errno()) }
}

/// Takes the lock of one byte for writing; the byte need not be there.
///
/// # Errors
/// `EAGAIN` where another has it.
pub fn try_lock_byte(descriptor: BorrowedFd<'_>, at: u32) -> Result<(), Errno> {
    control(descriptor, libc::F_OFD_SETLK, &mut byte(libc::F_WRLCK, at))
}

/// Gives the lock of one byte back.
///
/// # Errors
/// What the system said.
pub fn unlock_byte(descriptor: BorrowedFd<'_>, at: u32) -> Result<(), Errno> {
    control(descriptor, libc::F_OFD_SETLK, &mut byte(libc::F_UNLCK, at))
}

/// Whether another open file description has the lock of one byte; takes none.
///
/// # Errors
/// What the system said.
pub fn is_byte_locked(descriptor: BorrowedFd<'_>, at: u32) -> Result<bool, Errno> {
    let mut lock = byte(libc::F_WRLCK, at);
    control(descriptor, libc::F_OFD_GETLK, &mut lock)?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn byte(kind: i32, at: u32) -> libc::flock {
    libc::flock { l_start: libc::off_t::from(at), l_len: 1, ..whole_file(kind) }
}

fn control(descriptor: BorrowedFd<'_>, what: i32, lock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: the lock is a valid structure that outlives the call, and the descriptor is borrowed.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), what, &raw mut *lock) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn whole_file(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

fn set(descriptor: BorrowedFd<'_>, kind: i32) -> Result<(), Errno> {
    let lock = whole_file(kind);
    // SAFETY: the lock is a valid structure that the kernel only reads, and the descriptor is borrowed.
    let result = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn two_descriptions_of_one_process_exclude_each_other() {
        let path = std::env::temp_dir().join(format!("poste-lock-{}", std::process::id()));
        let one = std::fs::File::create(&path).unwrap();
        let two = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(is_locked(two.as_fd()), Ok(false));
        assert_eq!(try_lock(one.as_fd()), Ok(()));
        assert_eq!(is_locked(two.as_fd()), Ok(true));
        assert_eq!(try_lock(two.as_fd()), Err(Errno::AGAIN));
        drop(one);
        assert_eq!(try_lock(two.as_fd()), Ok(()));
        std::fs::remove_file(&path).unwrap();
    }
}
