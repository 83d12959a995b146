//! Who is at the other end of a Unix socket, as the kernel noted it when the two were connected.
//!
//! A process is named for ever by its number in the file system of pidfds (Linux 6.9), which is never
//! used again; its pid is. Sources: unix(7) (SO_PEERCRED, SO_PEERPIDFD), pidfd_open(2).

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::last_errno;

/// SO_PEERPIDFD of Linux 6.5, which libc doesn't name everywhere.
const SO_PEERPIDFD: i32 = 77;

/// The file system of pidfds, as statfs(2) names it.
const PIDFS_MAGIC: rustix::fs::FsWord = 0x5049_4446;

/// Process, user and group of whoever connected. The process is 0 where this namespace doesn't see
/// it, and the user `u32::MAX` where the socket has none (TCP). (rustix's own function can't say
/// either: its pid is never 0.)
///
/// # Errors
/// As getsockopt(2).
pub fn credentials(socket: BorrowedFd<'_>) -> Result<(i32, u32, u32), Errno> {
    let mut who = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `who` and `size` outlive the call, and `size` is that of `who`, all integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut who).cast(),
            &raw mut size,
        )
    };
    if result == 0 { Ok((who.pid, who.uid, who.gid)) } else { Err(last_errno()) }
}

/// The number of the process that connected, which no other process ever has.
///
/// # Errors
/// `EOPNOTSUPP` or `ENOPROTOOPT` where the kernel is older; `ESRCH` where it is gone and nobody
/// kept its number.
pub fn process(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut number: i32 = -1;
    let mut size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `number` and `size` outlive the call, and `size` is that of `number`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut number).cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    number_of(&unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether the process with this pid is the one with this number, and has not ended.
///
/// # Errors
/// What the system said, but for `ESRCH`.
pub fn is_running(pid: u32, process: u64) -> Result<bool, Errno> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    if number_of(&pidfd)? != process {
        return Ok(false);
    }
    // A pidfd is readable when its process has ended, also while nobody has waited for it yet.
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let entry = &mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    Ok(poll(entry, Some(&at_once))? == 0)
}

fn number_of(pidfd: &OwnedFd) -> Result<u64, Errno> {
    // Older kernels give every pidfd the same number.
    if rustix::fs::fstatfs(pidfd)?.f_type != PIDFS_MAGIC {
        return Err(Errno::OPNOTSUPP);
    }
    Ok(rustix::fs::fstat(pidfd)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_pair_was_made_by_this_process_and_it_runs() {
        let (one, _two) = UnixStream::pair().unwrap();
        let (pid, uid, _) = credentials(one.as_fd()).unwrap();
        assert_eq!((pid as u32, uid), (std::process::id(), rustix::process::geteuid().as_raw()));
        let Ok(number) = process(one.as_fd()) else {
            let test = "a_pair_was_made_by_this_process_and_it_runs";
            return crate::testing::skip(test, "the kernel is older than 6.9, or has no pidfs");
        };
        assert_eq!(is_running(std::process::id(), number), Ok(true));
        // The same pid, another process: as after the pid was used again.
        assert_eq!(is_running(std::process::id(), number + 1), Ok(false));
    }

    #[test]
    fn nobody_is_known_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(credentials(stream.as_fd()).unwrap(), (0, u32::MAX, u32::MAX));
    }
}
