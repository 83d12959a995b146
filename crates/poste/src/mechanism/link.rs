//! A wire with the inbox before it: the end of every mechanism that is one connection.
//!
//! A link reads, writes and waits. It knows nothing of names, of connecting or of merging.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use poste_sys::packets::Slots;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::Shutdown;

use super::inbox::Inbox;
use super::wire::{Flow, Wire};
use super::{Arrival, Frame, Pollable, RecvEnd, SendEnd};
use crate::capabilities::Peers;
use crate::credentials::Credentials;
use crate::error::{Error, Kind};
use crate::limits::{PACKETS_AT_ONCE, PIECE_MAX, RAW_PACKET_MAX};
use crate::options::{Framing, Options};
use crate::wait::{Call, Halt, Wait};

/// A wire and what has arrived on it.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    inbox: Inbox,
    framing: Framing,
    /// Packets are received into here; made at the first one.
    slots: Option<Slots>,
    gathered: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    credentials: Credentials,
    /// So many more messages are wanted, where another may read after us.
    wanted: Option<u64>,
    farewell: Option<Farewell>,
}

/// Tells the other side, when dropped, that nothing more comes, though another half still reads.
#[derive(Debug)]
struct Farewell(Arc<OwnedFd>);

impl Drop for Farewell {
    fn drop(&mut self) {
        // The other side may be gone already; then there is nobody to tell.
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }
}

impl Link {
    /// A link over a descriptor, with an empty inbox.
    #[must_use]
    pub fn new(descriptor: impl Into<Arc<OwnedFd>>, flow: Flow, options: &Options) -> Link {
        let packets = matches!(flow, Flow::Packet | Flow::Datagram);
        Link {
            wire: Wire::new(descriptor.into(), flow),
            inbox: Inbox::new(options.framing, packets, options.message_size_or_default()),
            framing: options.framing,
            slots: None,
            gathered: Vec::new(),
            descriptors: VecDeque::new(),
            credentials: Credentials::default(),
            wanted: options.take,
            farewell: None,
        }
    }

    /// One of two halves: when it goes, the other side learns that nothing more comes.
    #[must_use]
    pub fn half(mut self) -> Link {
        self.farewell = Some(Farewell(self.wire.share()));
        self
    }

    /// With what the kernel says of the other side.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Link {
        self.credentials = credentials;
        self
    }

    /// Uses another descriptor from now on (a FIFO opened afresh); the old one is closed.
    pub fn replace(&mut self, descriptor: OwnedFd) {
        self.wire = Wire::new(Arc::new(descriptor), self.wire.flow());
        self.inbox.reopen();
    }

    /// The descriptor.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.wire.descriptor()
    }

    /// The descriptor, to be held by another half as well.
    #[must_use]
    pub fn share(&self) -> Arc<OwnedFd> {
        self.wire.share()
    }

    /// What has arrived.
    #[must_use]
    pub fn inbox(&mut self) -> &mut Inbox {
        &mut self.inbox
    }

    /// Takes the next piece out of the inbox.
    pub fn take(&mut self, arrival: &mut Arrival) -> bool {
        let Some(descriptors) = self.inbox.take(arrival) else { return false };
        arrival.credentials = self.credentials;
        let count = usize::from(descriptors).min(self.descriptors.len());
        arrival.descriptors.extend(self.descriptors.drain(..count));
        true
    }

    /// Reads once, within `wait`: 0 is the end.
    ///
    /// # Errors
    /// Why nothing could be read.
    pub fn read(&mut self, wait: Wait) -> Result<usize, Halt> {
        let (wire, inbox) = (&self.wire, &mut self.inbox);
        match wire.flow() {
            Flow::Packet | Flow::Datagram => {
                let slots = self.slots.get_or_insert_with(|| match self.framing {
                    Framing::Enveloped => Slots::new(PACKETS_AT_ONCE, PIECE_MAX),
                    _ => Slots::new(1, RAW_PACKET_MAX),
                });
                let most = self.wanted.map_or(usize::MAX, |wanted| wanted.max(1) as usize);
                wait.run(wire.descriptor(), PollFlags::IN, |how| {
                    slots.receive(wire.descriptor(), most, how == Call::Blocking)
                })?;
                Ok(sort_packets(slots, inbox, wire.flow()))
            }
            Flow::Stream | Flow::Pipe => {
                let wanted = self.wanted;
                wait.run(wire.descriptor(), PollFlags::IN, |how| {
                    inbox.fill(wanted, |room| wire.read(room, how))
                })
            }
        }
    }

    /// Takes in what has come since, if anything has: something more urgent may be among it.
    pub fn look(&mut self) {
        if self.wanted.is_none() {
            // That nothing came is no news, and what went wrong is met again when it matters.
            let _ = self.read(Wait::Not);
        }
    }

    /// Gives the descriptor away; the other side is told nothing.
    ///
    /// # Errors
    /// Where a half's descriptor can't be copied.
    pub fn into_descriptor(mut self) -> Result<OwnedFd, Errno> {
        if let Some(farewell) = self.farewell.take() {
            // Not dropped as a farewell: the descriptor lives on in the child.
            let copy = rustix::io::fcntl_dupfd_cloexec(&farewell.0, 0);
            std::mem::forget(farewell);
            return copy;
        }
        self.wire.into_descriptor()
    }
}

/// Puts received packets into the inbox: the bytes that came, 0 at the end of a connection.
fn sort_packets(slots: &mut Slots, inbox: &mut Inbox, flow: Flow) -> usize {
    let mut size = 0;
    for (bytes, packet) in slots.packets() {
        if bytes.is_empty() && flow == Flow::Packet {
            inbox.end();
            break;
        }
        size += bytes.len().max(1);
        if packet.truncated {
            inbox.note_truncated(packet.size);
        } else {
            inbox.push_packet(bytes);
        }
    }
    size
}

impl SendEnd for Link {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        let (size, mut done) = (frame.size(), 0);
        let (wire, gathered) = (&self.wire, &mut self.gathered);
        loop {
            let wrote = wait.run(wire.descriptor(), PollFlags::OUT, |how| {
                wire.write(frame, done, how, gathered)
            });
            match wrote {
                Ok(count) => done += count,
                Err(Halt::Later) if done > 0 => break,
                Err(halt) => return Err(halt.sending(wait)),
            }
            if done >= size {
                break;
            }
        }
        Ok(done)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Ok(Pollable { descriptor: self.descriptor(), events: PollFlags::OUT })
    }

    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        match self.wire.flow() {
            Flow::Stream | Flow::Packet => Some(self),
            Flow::Pipe | Flow::Datagram => None,
        }
    }

    fn duplicate(&self) -> Result<Option<Box<dyn SendEnd>>, Error> {
        match self.wire.flow() {
            // Writers of one pipe don't disturb each other; those of one connection would.
            Flow::Pipe => {
                let options = Options { framing: self.framing, ..Options::default() };
                let copy = rustix::io::fcntl_dupfd_cloexec(self.descriptor(), 0)
                    .map_err(|errno| Error::system(errno, ""))?;
                Ok(Some(Box::new(Link::new(copy, Flow::Pipe, &options))))
            }
            _ => Ok(None),
        }
    }

    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        self.into_descriptor().map_err(|errno| Error::system(errno, ""))
    }
}

impl RecvEnd for Link {
    fn recv(&mut self, arrival: &mut Arrival, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        arrival.reset();
        if !self.inbox.is_empty() {
            if self.inbox.should_look() {
                self.look();
            }
            self.take(arrival);
            return Ok(());
        }
        loop {
            if self.take(arrival) {
                return Ok(());
            }
            if let Some(error) = self.inbox.take_fault() {
                return Err(error);
            }
            if self.inbox.has_ended() {
                let torn = self.inbox.drop_beginning();
                let text =
                    if torn { "the other end is gone in the middle of a message" } else { "" };
                return Err(Error::new(Kind::Disconnected, text));
            }
            match self.read(wait) {
                Ok(_) => {}
                // The other end went away without reading all: what it had sent was read before.
                Err(Halt::System(Errno::CONNRESET)) => self.inbox.end(),
                Err(halt) => return Err(halt.receiving(wait)),
            }
        }
    }

    fn bytes(&self, arrival: &Arrival) -> &[u8] {
        self.inbox.bytes(arrival)
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Ok(Pollable { descriptor: self.descriptor(), events: PollFlags::IN })
    }

    fn want(&mut self, messages: u64) {
        self.wanted = Some(messages);
    }

    fn back(&mut self) -> Option<&mut dyn SendEnd> {
        match self.wire.flow() {
            Flow::Stream | Flow::Packet => Some(self),
            Flow::Pipe | Flow::Datagram => None,
        }
    }

    fn peers(&self) -> Peers {
        if self.inbox.has_ended() { Peers::AllGone } else { Peers::Unknown }
    }

    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        self.into_descriptor().map_err(|errno| Error::system(errno, ""))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}
