//! Many packets with one call, and what the kernel says beside each: `recvmmsg`.
//!
//! Sources: recvmmsg(2), unix(7) (SCM_RIGHTS, SCM_CREDENTIALS), cmsg(3).

use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use crate::last_errno;

/// What came with one packet.
#[derive(Debug, Default)]
pub struct Packet {
    /// Its bytes, or as many as the slot took.
    pub size: usize,
    /// The slot was too small: the rest of the packet is gone.
    pub truncated: bool,
    /// Descriptors were lost: too many, or this process may open no more.
    pub descriptors_lost: bool,
    /// The descriptors that came, closed on exec.
    pub descriptors: Vec<OwnedFd>,
    /// Process, user and group of the sender, where the socket asks for them.
    pub credentials: Option<(i32, u32, u32)>,
}

/// Memory for the packets of one call: equal slots, and what came beside them.
#[derive(Debug)]
pub struct Slots {
    bytes: Vec<u8>,
    stride: usize,
    control: Vec<Control>,
    packets: Vec<Packet>,
}

/// Room for 253 descriptors and one set of credentials, aligned as the kernel wants it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_SIZE]);

/// `CMSG_SPACE(253 * 4) + CMSG_SPACE(12)`, and one more header to be sure.
const CONTROL_SIZE: usize = 1088;

const _: () = assert!(CONTROL_SIZE % 8 == 0 && CONTROL_SIZE >= 16 + 253 * 4 + 4 + 16 + 16 + 16);

impl Slots {
    /// `count` slots of `stride` bytes. The memory is zeroed by the kernel when it is first used.
    #[must_use]
    pub fn new(count: usize, stride: usize) -> Slots {
        Slots {
            bytes: vec![0; count * stride],
            stride,
            control: Vec::new(),
            packets: Vec::with_capacity(count),
        }
    }

    /// Asks for descriptors and credentials too: without it what was sent beside is closed.
    #[must_use]
    pub fn with_control(mut self) -> Slots {
        self.control = vec![Control([0; CONTROL_SIZE]); self.bytes.len() / self.stride];
        self
    }

    /// The packets that the last call took, with their bytes.
    pub fn packets(&mut self) -> impl Iterator<Item = (&[u8], &mut Packet)> {
        let slots = self.bytes.chunks_exact(self.stride);
        slots.zip(&mut self.packets).map(|(slot, packet)| (&slot[..packet.size], packet))
    }

    /// Takes as many packets as are there, at most `most`, and waits for the first where `wait` says
    /// so.
    ///
    /// # Errors
    /// `EAGAIN` where nothing is there and it may not wait; others as recvmmsg(2).
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        most: usize,
        wait: bool,
    ) -> Result<usize, Errno> {
        const MOST: usize = 16;
        let count = (self.bytes.len() / self.stride).min(MOST).min(most);
        self.packets.clear();
        // SAFETY: all-zero bytes are valid for these C structures of integers and pointers.
        let mut vectors: [libc::iovec; MOST] = unsafe { zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; MOST] = unsafe { zeroed() };
        for (index, slot) in self.bytes.chunks_exact_mut(self.stride).take(count).enumerate() {
            vectors[index].iov_base = slot.as_mut_ptr().cast();
            vectors[index].iov_len = slot.len();
            headers[index].msg_hdr.msg_iov = &raw mut vectors[index];
            headers[index].msg_hdr.msg_iovlen = 1;
            if let Some(control) = self.control.get_mut(index) {
                headers[index].msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                headers[index].msg_hdr.msg_controllen = CONTROL_SIZE;
            }
        }
        let flags =
            libc::MSG_CMSG_CLOEXEC | if wait { libc::MSG_WAITFORONE } else { libc::MSG_DONTWAIT };
        // SAFETY: `headers` points at `count` headers whose vectors and control buffers are exclusively
        // borrowed from `self` and outlive the call.
        let taken = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count as libc::c_uint,
                flags,
                ptr::null_mut(),
            )
        };
        if taken < 0 {
            return Err(last_errno());
        }
        for header in &headers[..taken as usize] {
            self.packets.push(read_packet(header));
        }
        Ok(self.packets.len())
    }
}

fn read_packet(header: &libc::mmsghdr) -> Packet {
    let mut packet = Packet {
        size: header.msg_len as usize,
        truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        descriptors_lost: header.msg_hdr.msg_flags & libc::MSG_CTRUNC != 0,
        ..Packet::default()
    };
    // SAFETY: the kernel has just filled this header and its control buffer, which is still borrowed.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(&raw const header.msg_hdr) };
    while !control.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers within the control buffer, or null.
        let (level, kind, length) =
            unsafe { ((*control).cmsg_level, (*control).cmsg_type, (*control).cmsg_len) };
        // SAFETY: `control` is a header within the buffer, its data follows it.
        let data = unsafe { libc::CMSG_DATA(control) };
        // SAFETY: CMSG_LEN only computes.
        let bytes = length - unsafe { libc::CMSG_LEN(0) } as usize;
        match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for index in 0..bytes / size_of::<i32>() {
                    // SAFETY: the kernel wrote `bytes` bytes of descriptors that are this process's
                    // alone from now on; they may be unaligned.
                    let descriptor = unsafe {
                        OwnedFd::from_raw_fd(data.cast::<i32>().add(index).read_unaligned())
                    };
                    packet.descriptors.push(descriptor);
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                // SAFETY: the kernel wrote a whole ucred there; it may be unaligned.
                let who = unsafe { data.cast::<libc::ucred>().read_unaligned() };
                packet.credentials = Some((who.pid, who.uid, who.gid));
            }
            _ => {}
        }
        // SAFETY: `control` is a header within the buffer that `header` describes.
        control = unsafe { libc::CMSG_NXTHDR(&raw const header.msg_hdr, control) };
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn takes_what_is_there_with_one_call() {
        let (one, two) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let mut slots = Slots::new(4, 16);
        assert_eq!(slots.receive(two.as_fd(), 9, false), Err(Errno::AGAIN));
        for body in ["a", "bb", "longer than a slot is"] {
            send(&one, body.as_bytes(), SendFlags::empty()).unwrap();
        }
        assert_eq!(slots.receive(two.as_fd(), 9, true), Ok(3));
        let got: Vec<_> =
            slots.packets().map(|(bytes, packet)| (bytes.to_vec(), packet.truncated)).collect();
        assert_eq!(got[0], (b"a".to_vec(), false));
        assert_eq!(got[1], (b"bb".to_vec(), false));
        assert_eq!(got[2], (b"longer than a sl".to_vec(), true));
    }
}
