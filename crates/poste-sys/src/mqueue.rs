//! POSIX message queues.
//!
//! On Linux a queue's descriptor is an ordinary one, so it is an `OwnedFd` here, closed on exec.
//! O_NONBLOCK belongs to the description, which others may share: it is never set. A call that
//! must not wait passes a deadline of 1970 instead, and says EAGAIN. No notification (mq_notify):
//! a queue can be polled. Sources: mq_overview(7), mq_open(3), mq_send(3), mq_receive(3),
//! mq_getattr(3), mq_unlink(3).

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_long, c_uint, mode_t};
use rustix::io::Errno;

use crate::last_errno;

/// What a descriptor of a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Putting messages in.
    Send,
    /// Taking messages out.
    Receive,
}

/// How large a queue is, and how full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The most messages that it holds.
    pub capacity: usize,
    /// The size of its largest message, in bytes.
    pub message_size: usize,
    /// The messages in it now.
    pub depth: usize,
}

/// A deadline that is over: the call returns at once where it would have to wait.
static PAST: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

/// Opens a queue that is there.
///
/// # Errors
/// `ENOENT`, `EACCES`, `EINVAL` (no slash at the front), `EMFILE`, and others as mq_open(3).
pub fn open(name: &CStr, access: Access) -> Result<OwnedFd, Errno> {
    // SAFETY: `name` ends in NUL by its type; without O_CREAT mq_open reads no further argument.
    let descriptor = unsafe { libc::mq_open(name.as_ptr(), flags(access)) };
    owned(descriptor)
}

/// Makes a queue, which must not be there yet. The process's umask narrows `mode`.
///
/// # Errors
/// `EEXIST`; `EINVAL` beyond `fs.mqueue.msg_max` or `fs.mqueue.msgsize_max`; `ENOSPC` beyond
/// `fs.mqueue.queues_max`; `EMFILE` beyond RLIMIT_MSGQUEUE or RLIMIT_NOFILE; others as mq_open(3).
pub fn create(
    name: &CStr,
    access: Access,
    mode: u32,
    capacity: usize,
    message_size: usize,
) -> Result<OwnedFd, Errno> {
    // SAFETY: all-zero bytes are valid for this C structure of integers.
    let mut attributes: libc::mq_attr = unsafe { MaybeUninit::zeroed().assume_init() };
    attributes.mq_maxmsg = c_long::try_from(capacity).unwrap_or(c_long::MAX);
    attributes.mq_msgsize = c_long::try_from(message_size).unwrap_or(c_long::MAX);
    let flags = flags(access) | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: `name` ends in NUL by its type; with O_CREAT mq_open reads a mode and a pointer to
    // attributes, which are passed with those types and outlive the call.
    let descriptor =
        unsafe { libc::mq_open(name.as_ptr(), flags, mode as mode_t, &raw const attributes) };
    owned(descriptor)
}

/// How large a queue is, and how full.
///
/// # Errors
/// `EBADF` where the descriptor is no queue's.
pub fn attributes(queue: BorrowedFd<'_>) -> Result<Attributes, Errno> {
    let mut attributes = MaybeUninit::<libc::mq_attr>::uninit();
    // SAFETY: the attributes are written to memory of the right type, exclusively borrowed.
    let result = unsafe { libc::mq_getattr(queue.as_raw_fd(), attributes.as_mut_ptr()) };
    if result != 0 {
        return Err(last_errno());
    }
    // SAFETY: mq_getattr succeeded and filled it.
    let attributes = unsafe { attributes.assume_init() };
    Ok(Attributes {
        capacity: attributes.mq_maxmsg as usize,
        message_size: attributes.mq_msgsize as usize,
        depth: attributes.mq_curmsgs as usize,
    })
}

/// Puts a message in, waiting for room where `wait` says so. The highest priority is 32767.
///
/// # Errors
/// `EAGAIN` where there is no room and it may not wait; `EMSGSIZE`; `EINTR`; others as mq_send(3).
pub fn send(queue: BorrowedFd<'_>, bytes: &[u8], priority: u16, wait: bool) -> Result<(), Errno> {
    let (queue, pointer, size) = (queue.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
    let priority = c_uint::from(priority);
    let result = if wait {
        // SAFETY: pointer and size describe `bytes`, which the kernel only reads.
        unsafe { libc::mq_send(queue, pointer, size, priority) }
    } else {
        // SAFETY: pointer and size describe `bytes`, which the kernel only reads; PAST lives for ever.
        unsafe { libc::mq_timedsend(queue, pointer, size, priority, &raw const PAST) }
    };
    if result == 0 { Ok(()) } else { Err(would_wait(last_errno())) }
}

/// Takes the oldest message of the highest priority out: its size and its priority. It waits for
/// one where `wait` says so. The buffer must have room for the queue's largest message.
///
/// # Errors
/// `EAGAIN` where none is there and it may not wait; `EMSGSIZE` where the buffer is too small for
/// any that could be; `EINTR`; others as mq_receive(3).
pub fn receive(
    queue: BorrowedFd<'_>,
    buffer: &mut [u8],
    wait: bool,
) -> Result<(usize, u16), Errno> {
    let (queue, pointer, size) = (queue.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len());
    let mut priority: c_uint = 0;
    let taken = if wait {
        // SAFETY: pointer and size describe `buffer`, which is exclusively borrowed for the call.
        unsafe { libc::mq_receive(queue, pointer, size, &raw mut priority) }
    } else {
        // SAFETY: pointer and size describe `buffer`, which is exclusively borrowed for the call.
        unsafe { libc::mq_timedreceive(queue, pointer, size, &raw mut priority, &raw const PAST) }
    };
    match usize::try_from(taken) {
        Ok(taken) => Ok((taken, u16::try_from(priority).unwrap_or(u16::MAX))),
        Err(_) => Err(would_wait(last_errno())),
    }
}

/// Takes the name away; who has the queue open keeps it.
///
/// # Errors
/// `ENOENT`, `EACCES`, and others as mq_unlink(3).
pub fn unlink(name: &CStr) -> Result<(), Errno> {
    // SAFETY: `name` ends in NUL by its type.
    if unsafe { libc::mq_unlink(name.as_ptr()) } == 0 { Ok(()) } else { Err(last_errno()) }
}

fn flags(access: Access) -> c_int {
    libc::O_CLOEXEC
        | match access {
            Access::Send => libc::O_WRONLY,
            Access::Receive => libc::O_RDONLY,
        }
}

fn owned(descriptor: libc::mqd_t) -> Result<OwnedFd, Errno> {
    if descriptor < 0 {
        return Err(last_errno());
    }
    // SAFETY: mq_open has just returned this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A deadline that was over before the call means that it would have had to wait.
fn would_wait(errno: Errno) -> Errno {
    if errno == Errno::TIMEDOUT { Errno::AGAIN } else { errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::fd::AsFd;

    #[test]
    fn a_queue_is_made_filled_and_emptied() {
        let name = CString::new(format!("/poste-sys-{}", std::process::id())).unwrap();
        let sender = create(&name, Access::Send, 0o600, 2, 16).unwrap();
        assert_eq!(create(&name, Access::Send, 0o600, 2, 16).unwrap_err(), Errno::EXIST);
        let receiver = open(&name, Access::Receive).unwrap();
        unlink(&name).unwrap();
        assert_eq!(open(&name, Access::Receive).unwrap_err(), Errno::NOENT);

        let mut buffer = [0; 16];
        assert_eq!(receive(receiver.as_fd(), &mut buffer, false), Err(Errno::AGAIN));
        send(sender.as_fd(), b"low", 0, true).unwrap();
        send(sender.as_fd(), b"", 32_767, false).unwrap();
        assert_eq!(send(sender.as_fd(), b"full", 0, false), Err(Errno::AGAIN));
        assert_eq!(send(sender.as_fd(), &[0; 17], 0, false), Err(Errno::MSGSIZE));
        assert_eq!(
            attributes(receiver.as_fd()),
            Ok(Attributes { capacity: 2, message_size: 16, depth: 2 })
        );
        assert_eq!(receive(receiver.as_fd(), &mut buffer[..15], true), Err(Errno::MSGSIZE));
        assert_eq!(receive(receiver.as_fd(), &mut buffer, true), Ok((0, 32_767)));
        assert_eq!(receive(receiver.as_fd(), &mut buffer, false), Ok((3, 0)));
        assert_eq!(&buffer[..3], b"low");
        let flags = rustix::io::fcntl_getfd(&receiver).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
}
