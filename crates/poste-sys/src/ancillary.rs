//! What travels beside the bytes over a Unix socket: descriptors, and who sent them.
//!
//! Sources: unix(7) (SCM_RIGHTS, SCM_CREDENTIALS, SO_PASSCRED), recvmsg(2), cmsg(3).

use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SocketAddrAny};

use crate::last_errno;

/// What one call received.
#[derive(Debug, Default)]
pub struct Received {
    /// The size of what came; with `TRUNC`, of a packet all of it, also where the room was smaller.
    pub size: usize,
    /// The descriptors that came, closed on exec.
    pub descriptors: Vec<OwnedFd>,
    /// More descriptors came than this process may open; those are gone.
    pub descriptors_lost: bool,
    /// Process, user and group of the sender, where the socket asks for them.
    pub credentials: Option<(i32, u32, u32)>,
    /// Where a datagram came from, if its sender has a name.
    pub source: Option<SocketAddrAny>,
}

/// Room for what comes beside.
#[derive(Debug)]
pub struct Beside(Box<Room>);

/// Room for 253 descriptors and one set of credentials, aligned as the kernel wants it.
#[derive(Debug)]
#[repr(C, align(8))]
struct Room([u8; ROOM]);

/// `CMSG_SPACE(253 * 4) + CMSG_SPACE(12)`, and some more.
const ROOM: usize = 1088;

const _: () = assert!(ROOM % 8 == 0 && ROOM >= 16 + 253 * 4 + 4 + 16 + 16);

impl Default for Beside {
    fn default() -> Self {
        Beside(Box::new(Room([0; ROOM])))
    }
}

/// Receives from a socket, with what comes beside.
///
/// # Errors
/// As recvmsg(2); `EAGAIN` where nothing is there and `flags` say not to wait.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    beside: &mut Beside,
    flags: RecvFlags,
) -> Result<Received, Errno> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are valid for this C structure of integers and pointers.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    // SAFETY: all-zero bytes are valid for this C structure of integers.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_control = beside.0.0.as_mut_ptr().cast();
    header.msg_controllen = ROOM;
    let flags = flags.bits() as i32 | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at `name`, `buffer` and `beside`, all borrowed exclusively for the
    // call.
    let size = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let Ok(size) = usize::try_from(size) else { return Err(last_errno()) };
    let mut received = Received {
        size,
        descriptors_lost: header.msg_flags & libc::MSG_CTRUNC != 0,
        ..Received::default()
    };
    if header.msg_namelen as usize > size_of::<libc::sa_family_t>() {
        // SAFETY: the kernel wrote `msg_namelen` bytes of an address there, and the rest is zero.
        received.source =
            Some(unsafe { SocketAddrAny::read((&raw const name).cast(), header.msg_namelen) });
    }
    if header.msg_controllen > 0 {
        read(&header, &mut received);
    }
    Ok(received)
}

/// What comes to a socket with SO_PASSPIDFD (Linux 6.5), whoever has set that: libc doesn't name it.
/// It is a descriptor, or the negative number of the error for which there is none.
const SCM_PIDFD: i32 = 4;

/// Reads what the kernel wrote beside.
fn read(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: the kernel has just filled this header and its control buffer, which is still borrowed.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers within the control buffer, or null.
        let (level, kind, length) =
            unsafe { ((*control).cmsg_level, (*control).cmsg_type, (*control).cmsg_len) };
        // SAFETY: `control` is a header within the buffer, its data follows it.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: CMSG_LEN only computes.
        let bytes = length - unsafe { libc::CMSG_LEN(0) } as usize;
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS | SCM_PIDFD) => {
                for index in 0..bytes / size_of::<i32>() {
                    // SAFETY: the kernel wrote `bytes` bytes of numbers; they may be unaligned.
                    let number = unsafe { data.cast::<i32>().add(index).read_unaligned() };
                    if number < 0 {
                        continue;
                    }
                    // SAFETY: it is a descriptor that the kernel has just made, this process's alone.
                    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
                    // A pidfd, which nobody here asked for, is closed.
                    if kind == libc::SCM_RIGHTS {
                        received.descriptors.push(descriptor);
                    }
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= size_of::<libc::ucred>() => {
                // SAFETY: the kernel wrote a whole ucred there; it may be unaligned.
                let who = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                received.credentials = Some((who.pid, who.uid, who.gid));
            }
            _ => {}
        }
        // SAFETY: `control` is a header within the buffer that `header` describes.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
}

/// SO_PASSRIGHTS of Linux 6.16, which libc doesn't name yet.
const SO_PASSRIGHTS: i32 = 83;

/// From now on nobody can send descriptors to this socket: the sender gets EPERM.
///
/// # Errors
/// `ENOPROTOOPT` where the kernel is older; then unasked descriptors are closed on receipt.
pub fn refuse_descriptors(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let no: i32 = 0;
    // SAFETY: the option is an int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn credentials_come_with_a_packet_and_a_long_one_says_its_size() {
        let (one, two) = UnixDatagram::pair().unwrap();
        rustix::net::sockopt::set_socket_passcred(&two, true).unwrap();
        let (mut buffer, mut beside) = ([0; 4], Beside::default());
        let nothing = receive(two.as_fd(), &mut buffer, &mut beside, RecvFlags::DONTWAIT);
        assert_eq!(nothing.unwrap_err(), Errno::AGAIN);
        one.send(b"longer").unwrap();
        let received = receive(two.as_fd(), &mut buffer, &mut beside, RecvFlags::TRUNC).unwrap();
        assert_eq!((received.size, &buffer), (6, b"long"));
        let (pid, _, _) = received.credentials.unwrap();
        assert_eq!(pid, std::process::id() as i32);
        assert!(received.descriptors.is_empty() && !received.descriptors_lost);
    }

    /// Whoever gave us the socket may have asked for a pidfd with each message.
    #[test]
    fn a_pidfd_that_nobody_here_asked_for_is_closed() {
        let (one, two) = UnixDatagram::pair().unwrap();
        let yes: i32 = 1;
        // SAFETY: the option is an int, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                two.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PASSPIDFD,
                (&raw const yes).cast(),
                size_of::<i32>() as libc::socklen_t,
            )
        };
        if result != 0 {
            crate::testing::skip(
                "a_pidfd_that_nobody_here_asked_for_is_closed",
                "before Linux 6.5",
            );
            return;
        }
        let pidfds = || {
            let links = std::fs::read_dir("/proc/self/fd").unwrap();
            let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
            targets.filter(|target| target.to_string_lossy().contains("pidfd")).count()
        };
        let before = pidfds();
        let (mut buffer, mut beside) = ([0; 4], Beside::default());
        for _ in 0..20 {
            one.send(b"x").unwrap();
            let received = receive(two.as_fd(), &mut buffer, &mut beside, RecvFlags::TRUNC);
            assert!(received.unwrap().descriptors.is_empty());
        }
        // Other tests of this program may hold one or two.
        assert!(pidfds() < before + 10, "{} of 20 are open", pidfds() - before);
    }
}
