//! One descriptor and the calls that it takes: blocking, or at once.
//!
//! The flags of the open file description are never touched: it may be shared with the process that
//! gave it to us. Sources: pipe(7), send(2), preadv2(2), proc(5) (/proc/self/fd).

use std::cell::OnceCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use poste_sys::ancillary::{self, Beside, Received};
use poste_sys::pipe;
use rustix::event::PollFlags;
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, IoSlice};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrAny};

use super::Frame;
use crate::limits::{DESCRIPTORS_MAX, GATHER_MAX};
use crate::wait::{Call, Wait};

/// Makes a call with what goes beside a frame: its descriptors, or nothing.
fn with_descriptors(
    frame: &Frame<'_>,
    send: impl FnOnce(&mut SendAncillaryBuffer<'_, '_, '_>) -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    if frame.descriptors.is_empty() {
        return send(&mut SendAncillaryBuffer::default());
    }
    let mut memory = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut memory);
    if !beside.push(SendAncillaryMessage::ScmRights(frame.descriptors)) {
        return Err(Errno::INVAL);
    }
    send(&mut beside)
}

/// Which calls a descriptor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A byte stream that is a socket.
    Stream,
    /// A pipe, a FIFO, or whatever else is read and written plainly.
    Pipe,
    /// Whole packets over a connection.
    Packet,
    /// Whole packets without one: there is no end, only silence.
    Datagram,
}

/// A descriptor with its calls.
#[derive(Debug)]
pub struct Wire {
    descriptor: Arc<OwnedFd>,
    flow: Flow,
    /// How to read, and how to write, without waiting; found out when first needed.
    quick_read: OnceCell<Quick>,
    quick_write: OnceCell<Quick>,
    broken_pipe_kills: bool,
}

/// The file system of anonymous pipes, as statfs(2) names it.
const PIPEFS_MAGIC: rustix::fs::FsWord = 0x5049_5045;

/// How a pipe is called without waiting.
#[derive(Debug)]
enum Quick {
    /// With RWF_NOWAIT, which anonymous pipes know.
    Flag,
    /// Through a description of our own that has O_NONBLOCK.
    Other(OwnedFd),
    /// Poll first, then call: right as long as nobody else takes what was there.
    PollFirst,
}

impl Wire {
    /// The calls of a descriptor.
    #[must_use]
    pub fn new(descriptor: Arc<OwnedFd>, flow: Flow) -> Wire {
        Wire {
            descriptor,
            flow,
            quick_read: OnceCell::new(),
            quick_write: OnceCell::new(),
            broken_pipe_kills: flow == Flow::Pipe && pipe::broken_pipe_kills(),
        }
    }

    /// Which calls it takes.
    #[must_use]
    #[inline]
    pub fn flow(&self) -> Flow {
        self.flow
    }

    /// The descriptor.
    #[must_use]
    #[inline]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// The descriptor, to be held by another as well.
    #[must_use]
    pub fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.descriptor)
    }

    /// The descriptor itself; where others hold it too, a copy.
    ///
    /// # Errors
    /// Where the copy can't be made.
    pub fn into_descriptor(self) -> Result<OwnedFd, Errno> {
        match Arc::try_unwrap(self.descriptor) {
            Ok(descriptor) => Ok(descriptor),
            Err(shared) => rustix::io::fcntl_dupfd_cloexec(&*shared, 0),
        }
    }

    /// Reads from a byte stream, once: 0 is the end.
    ///
    /// # Errors
    /// What the system said; `EAGAIN` where it may not wait and nothing is there.
    #[inline(always)]
    pub fn read(&self, room: &mut [u8], how: Call) -> Result<usize, Errno> {
        match (self.flow, how) {
            (Flow::Pipe, Call::Blocking) => rustix::io::read(&self.descriptor, room),
            (Flow::Pipe, Call::Now) => match self.quick_read() {
                Quick::Flag => pipe::read_now(self.descriptor(), room),
                Quick::Other(other) => rustix::io::read(other, room),
                Quick::PollFirst => {
                    self.poll_first(PollFlags::IN)?;
                    rustix::io::read(&self.descriptor, room)
                }
            },
            _ => {
                let (count, _) = rustix::net::recv(&self.descriptor, room, receive_flags(how))?;
                Ok(count)
            }
        }
    }

    /// Takes one packet, and what comes beside it where there is room for that. The size is the whole
    /// packet's, of which as much is there as there was room for.
    ///
    /// # Errors
    /// As [`Wire::read`].
    #[inline(always)]
    pub fn read_packet(
        &self,
        room: &mut [u8],
        beside: Option<&mut Beside>,
        how: Call,
    ) -> Result<Received, Errno> {
        let flags = RecvFlags::TRUNC | receive_flags(how);
        match beside {
            Some(beside) => ancillary::receive(self.descriptor(), room, beside, flags),
            None if self.flow == Flow::Datagram => {
                let (_, size, source) = rustix::net::recvfrom(&self.descriptor, room, flags)?;
                Ok(Received { size, source, ..Received::default() })
            }
            None => {
                let (_, size) = rustix::net::recv(&self.descriptor, room, flags)?;
                Ok(Received { size, ..Received::default() })
            }
        }
    }

    /// Whether no packet is there. Where one is, or something is wrong, reading tells more.
    #[inline]
    #[must_use]
    pub fn has_nothing(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let mut nothing: [u8; 0] = [];
        rustix::net::recv(&self.descriptor, &mut nothing, flags).err() == Some(Errno::AGAIN)
    }

    /// Reads from a Unix stream, with what comes beside.
    ///
    /// # Errors
    /// As [`Wire::read`].
    #[inline]
    pub fn read_beside(
        &self,
        room: &mut [u8],
        beside: &mut Beside,
        how: Call,
    ) -> Result<Received, Errno> {
        ancillary::receive(self.descriptor(), room, beside, receive_flags(how))
    }

    /// Writes what is left of a frame after `done` bytes, once. Small ones are put together in
    /// `gathered` and go with one plain call, which costs less than `writev`.
    ///
    /// # Errors
    /// What the system said; nothing was written.
    #[inline(always)]
    pub fn write(
        &self,
        frame: &Frame<'_>,
        done: usize,
        how: Call,
        gathered: &mut Vec<u8>,
    ) -> Result<usize, Errno> {
        let head = frame.head.get(done..).unwrap_or(&[]);
        let body = &frame.body[done.saturating_sub(frame.head.len())..];
        if done == 0 && !frame.descriptors.is_empty() {
            return self.write_with_descriptors(frame, how);
        }
        if head.is_empty() {
            return self.write_bytes(body, how);
        }
        if body.is_empty() {
            return self.write_bytes(head, how);
        }
        if head.len() + body.len() <= GATHER_MAX {
            gathered.clear();
            gathered.extend_from_slice(head);
            gathered.extend_from_slice(body);
            return self.write_bytes(gathered, how);
        }
        self.write_slices(&[IoSlice::new(head), IoSlice::new(body)], how)
    }

    /// Sends a datagram to an address.
    ///
    /// # Errors
    /// As [`Wire::write`].
    pub fn write_to(
        &self,
        to: &SocketAddrAny,
        frame: &Frame<'_>,
        how: Call,
    ) -> Result<usize, Errno> {
        let slices = [IoSlice::new(frame.head), IoSlice::new(frame.body)];
        with_descriptors(frame, |beside| {
            rustix::net::sendmsg_addr(&self.descriptor, to, &slices, beside, send_flags(how))
        })
    }

    #[inline(always)]
    fn write_bytes(&self, bytes: &[u8], how: Call) -> Result<usize, Errno> {
        match (self.flow, how) {
            (Flow::Pipe, Call::Blocking) => {
                self.quietly(|| rustix::io::write(&self.descriptor, bytes))
            }
            (Flow::Pipe, Call::Now) => match self.quick_write() {
                Quick::Flag => self.quietly(|| pipe::write_now(self.descriptor(), bytes)),
                Quick::Other(other) => self.quietly(|| rustix::io::write(other, bytes)),
                Quick::PollFirst => {
                    self.poll_first(PollFlags::OUT)?;
                    // A pipe that shows room takes PIPE_BUF bytes without waiting, not more.
                    let bytes = &bytes[..bytes.len().min(crate::limits::PIPE_ATOMIC)];
                    self.quietly(|| rustix::io::write(&self.descriptor, bytes))
                }
            },
            _ => rustix::net::send(&self.descriptor, bytes, send_flags(how)),
        }
    }

    fn write_slices(&self, slices: &[IoSlice<'_>], how: Call) -> Result<usize, Errno> {
        match (self.flow, how) {
            (Flow::Pipe, Call::Blocking) => {
                self.quietly(|| rustix::io::writev(&self.descriptor, slices))
            }
            // The calls that don't wait take one slice, and a stream goes on from there.
            (Flow::Pipe, Call::Now) => self.write_bytes(&slices[0], how),
            _ => {
                let mut nothing = SendAncillaryBuffer::default();
                rustix::net::sendmsg(&self.descriptor, slices, &mut nothing, send_flags(how))
            }
        }
    }

    fn write_with_descriptors(&self, frame: &Frame<'_>, how: Call) -> Result<usize, Errno> {
        let slices = [IoSlice::new(frame.head), IoSlice::new(frame.body)];
        with_descriptors(frame, |beside| {
            rustix::net::sendmsg(&self.descriptor, &slices, beside, send_flags(how))
        })
    }

    /// A write to a pipe, without the signal that a missing reader would raise.
    #[inline(always)]
    fn quietly(&self, write: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
        if self.broken_pipe_kills { pipe::without_signal(write) } else { write() }
    }

    fn quick_read(&self) -> &Quick {
        self.quick_read.get_or_init(|| self.quick(OFlags::RDONLY))
    }

    fn quick_write(&self) -> &Quick {
        self.quick_write.get_or_init(|| self.quick(OFlags::WRONLY))
    }

    /// Anonymous pipes know the flag. A FIFO doesn't, and is opened once more through /proc, with
    /// flags of our own; others (a terminal, a FIFO of another user) are polled first.
    fn quick(&self, access: OFlags) -> Quick {
        if rustix::fs::fstatfs(&self.descriptor).is_ok_and(|fs| fs.f_type == PIPEFS_MAGIC) {
            return Quick::Flag;
        }
        let is_fifo = rustix::fs::fstat(&self.descriptor)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if !is_fifo {
            return Quick::PollFirst;
        }
        let path = format!("/proc/self/fd/{}", self.descriptor.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map_or(Quick::PollFirst, Quick::Other)
    }

    fn poll_first(&self, events: PollFlags) -> Result<(), Errno> {
        match Wait::Not.until_ready(self.descriptor(), events) {
            Ok(true) => Ok(()),
            _ => Err(Errno::AGAIN),
        }
    }
}

#[inline]
fn receive_flags(how: Call) -> RecvFlags {
    match how {
        Call::Blocking => RecvFlags::empty(),
        Call::Now => RecvFlags::DONTWAIT,
    }
}

#[inline]
fn send_flags(how: Call) -> SendFlags {
    match how {
        Call::Blocking => SendFlags::NOSIGNAL,
        Call::Now => SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    }
}
