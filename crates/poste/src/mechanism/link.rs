//! A wire with the inbox before it: the end of every mechanism that is one connection.
//!
//! A link reads, writes and waits. It knows nothing of names, of connecting or of merging.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

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
use crate::wait::{Halt, Wait};

/// A wire and what has arrived on it.
#[derive(Debug)]
pub struct Link {
    wire: Wire,
    inbox: Inbox,
    framing: Framing,
    /// Packets are received into here; made at the first one, and zeroed by the kernel.
    packet: Option<Vec<u8>>,
    gathered: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    credentials: Credentials,
    /// So many more messages are wanted, where another may read after us.
    wanted: Option<u64>,
    farewell: Option<Farewell>,
}

/// Tells the other side, when dropped, that nothing more comes, though another half still reads.
#[derive(Debug)]
struct Farewell(Option<Arc<OwnedFd>>);

impl Farewell {
    /// Nothing is told: the descriptor lives on elsewhere.
    fn withhold(mut self) {
        self.0 = None;
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(descriptor) = &self.0 {
            // The other side may be gone already; then there is nobody to tell.
            let _ = rustix::net::shutdown(descriptor, Shutdown::Write);
        }
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
            packet: None,
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
        self.farewell = Some(Farewell(Some(self.wire.share())));
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
    #[inline]
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
    #[inline(always)]
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
    #[inline(always)]
    pub fn read(&mut self, wait: Wait) -> Result<usize, Halt> {
        let (wire, inbox) = (&self.wire, &mut self.inbox);
        match wire.flow() {
            Flow::Packet | Flow::Datagram => self.read_packets(wait),
            Flow::Stream | Flow::Pipe => {
                let wanted = self.wanted;
                wait.run(wire.descriptor(), PollFlags::IN, |how| {
                    inbox.fill(wanted, |room| wire.read(room, how))
                })
            }
        }
    }

    /// Reads one packet within `wait`, and then those that are there as well: a more urgent one may
    /// be among them. (One `recvmmsg` for both costs more than two calls of `recv`.)
    #[inline]
    fn read_packets(&mut self, wait: Wait) -> Result<usize, Halt> {
        let (wire, inbox) = (&self.wire, &mut self.inbox);
        let is_enveloped = self.framing == Framing::Enveloped;
        let room = if is_enveloped { PIECE_MAX } else { RAW_PACKET_MAX };
        let packet = self.packet.get_or_insert_with(|| vec![0; room]);
        // Without an envelope there is no priority to look for.
        let most = if is_enveloped { PACKETS_AT_ONCE } else { 1 };
        let most = self.wanted.map_or(most, |wanted| most.min(wanted.max(1) as usize));
        let mut size = 0;
        for index in 0..most {
            let wait = if index == 0 { wait } else { Wait::Not };
            let received =
                wait.run(wire.descriptor(), PollFlags::IN, |how| wire.read_packet(packet, how));
            match received {
                Ok(0) if wire.flow() == Flow::Packet => {
                    inbox.end();
                    break;
                }
                Ok(whole) if whole > room => inbox.note_truncated(whole),
                Ok(count) => {
                    inbox.push_packet(&packet[..count]);
                    size += count.max(1);
                }
                Err(halt) if index == 0 => return Err(halt),
                // What is wrong with the connection is met again when it matters.
                Err(_) => break,
            }
        }
        Ok(size)
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
            farewell.withhold();
        }
        self.wire.into_descriptor()
    }
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
