//! A wire with the inbox before it: the end of every mechanism that is one connection.
//!
//! A link reads, writes and waits. It knows nothing of names, of connecting or of merging.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use poste_sys::ancillary::{self, Beside};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown};

use super::descriptor_sets::DescriptorSets;
use super::inbox::{self, Inbox};
use super::linger::Linger;
use super::sources::Sources;
use super::vouchers::Vouchers;
use super::wire::{Flow, Wire};
use super::{Arrival, Frame, Halves, Pollable, RecvEnd, SendEnd};
use crate::capabilities::Peers;
use crate::credentials::{Allowed, Credentials};
use crate::error::{Error, Kind};
use crate::limits::{PACKETS_AT_ONCE, PIECE_MAX, RAW_PACKET_MAX, READ_MAX};
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
    /// Room for descriptors and credentials, where they are asked for.
    beside: Option<Beside>,
    /// The descriptors that have come.
    sets: DescriptorSets,
    /// Where datagrams came from, to answer them.
    sources: Sources,
    /// What the kernel's words about a packet's sender mean.
    vouchers: Vouchers,
    /// Who may send datagrams, where that matters; connections are asked before.
    allowed: Allowed,
    refused: u64,
    credentials: Credentials,
    /// So many more messages are wanted, where another may read after us.
    wanted: Option<u64>,
    /// The last read took all that the kernel had.
    is_drained: bool,
    farewell: Option<Farewell>,
    linger: Option<Linger>,
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
            beside: None,
            sets: DescriptorSets::default(),
            sources: Sources::default(),
            vouchers: Vouchers::default(),
            allowed: options.allowed,
            refused: 0,
            credentials: Credentials::default(),
            wanted: options.take,
            is_drained: false,
            farewell: None,
            linger: None,
        }
    }

    /// One of two halves: when it goes, the other side learns that nothing more comes.
    #[must_use]
    pub fn half(mut self) -> Link {
        self.farewell = Some(Farewell(Some(self.wire.share())));
        self
    }

    /// A connection on which we send: what was sent arrives also where the other side has said
    /// something that nobody read.
    #[must_use]
    pub fn lingering(mut self) -> Link {
        if self.wire.flow() == Flow::Stream {
            self.linger = Some(Linger::new(self.wire.share()));
        }
        self
    }

    /// Over a Unix socket: takes in descriptors and credentials too, unless only bodies are wanted.
    /// Nobody can send descriptors then, or what was sent is closed by an older kernel.
    #[must_use]
    pub fn unix(mut self, options: &Options) -> Link {
        if options.body_only {
            let _ = ancillary::refuse_descriptors(self.wire.descriptor());
        }
        // Who may send datagrams is seen from what comes beside each.
        let asks_each = self.wire.flow() == Flow::Datagram && options.allowed.is_restricted();
        if !options.body_only || asks_each {
            self.beside = Some(Beside::default());
        }
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

    /// How many packets came from those who may not send.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes the next piece out of the inbox.
    #[inline(always)]
    pub fn take(&mut self, arrival: &mut Arrival) -> bool {
        let Some(set) = self.inbox.take(arrival) else { return false };
        if arrival.credentials == Credentials::default() {
            arrival.credentials = self.credentials;
        }
        if set > 0 {
            self.sets.give(set, arrival);
        }
        true
    }

    /// Reads once, within `wait`: 0 is the end.
    ///
    /// # Errors
    /// Why nothing could be read.
    #[inline(always)]
    pub fn read(&mut self, wait: Wait) -> Result<usize, Halt> {
        let (wire, inbox, is_drained) = (&self.wire, &mut self.inbox, &mut self.is_drained);
        match wire.flow() {
            Flow::Packet | Flow::Datagram => self.read_packets(wait),
            Flow::Stream | Flow::Pipe => {
                let wanted = self.wanted;
                if self.beside.is_some() {
                    return self.read_beside(wait);
                }
                wait.run(wire.descriptor(), PollFlags::IN, |how| {
                    inbox.fill(wanted, |room| {
                        let count = wire.read(room, how)?;
                        *is_drained = count < room.len();
                        Ok(count)
                    })
                })
            }
        }
    }

    /// Reads a byte stream with the descriptors that come beside it. A read never goes beyond the
    /// bytes that descriptors came with, so it is followed by others: something more urgent may be
    /// behind them.
    #[inline]
    fn read_beside(&mut self, wait: Wait) -> Result<usize, Halt> {
        let mut has_set = false;
        let count = self.read_segment(wait, &mut has_set)?;
        while has_set && self.wanted.is_none() && self.should_look() {
            // What is wrong with the connection, or that it ended, is met again when it matters.
            match self.read_segment(Wait::Not, &mut has_set) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        Ok(count)
    }

    /// Reads a byte stream once, and says whether descriptors came beside it.
    #[inline]
    fn read_segment(&mut self, wait: Wait, has_set: &mut bool) -> Result<usize, Halt> {
        let (wire, inbox, wanted) = (&self.wire, &mut self.inbox, self.wanted);
        let (beside, sets) = (self.beside.get_or_insert_default(), &mut self.sets);
        let is_drained = &mut self.is_drained;
        let count = wait.run(wire.descriptor(), PollFlags::IN, |how| {
            inbox.fill_with(wanted, |room| {
                let taken = wire.read_beside(room, beside, how)?;
                *has_set = taken.descriptors_lost || !taken.descriptors.is_empty();
                *is_drained = taken.size < room.len() && !*has_set;
                if *has_set {
                    sets.push(taken.descriptors, taken.descriptors_lost);
                }
                Ok((taken.size, inbox::Beside { has_set: *has_set, ..inbox::Beside::default() }))
            })
        })?;
        self.sets.settle(self.inbox.sets(), self.inbox.has_beginning());
        Ok(count)
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
        self.is_drained = false;
        for index in 0..most {
            let wait = if index == 0 { wait } else { Wait::Not };
            if index > 0 && self.sets.are_many() {
                break;
            }
            let beside = &mut self.beside;
            // Mostly there is no second one, which costs less to learn without what comes beside.
            let received = if index == 1 && beside.is_some() && wire.has_nothing() {
                Err(Halt::Later)
            } else {
                wait.run(wire.descriptor(), PollFlags::IN, |how| {
                    wire.read_packet(packet, beside.as_mut(), how)
                })
            };
            match received {
                Ok(taken) if taken.size == 0 && wire.flow() == Flow::Packet => {
                    inbox.end();
                    break;
                }
                Ok(taken) => {
                    let count = taken.size;
                    let has_set = taken.descriptors_lost || !taken.descriptors.is_empty();
                    let credentials = self.vouchers.credentials(taken.credentials);
                    if wire.flow() == Flow::Datagram && !self.allowed.allows(&credentials) {
                        self.refused += 1;
                        continue;
                    }
                    if count > room {
                        inbox.note_truncated(count);
                        continue;
                    }
                    let source = self.sources.number(taken.source);
                    let sets = inbox.sets();
                    let beside = inbox::Beside { credentials, source, has_set };
                    inbox.push_packet_with(&packet[..count], beside);
                    // What no header lays claim to is closed.
                    if inbox.sets() > sets {
                        let is_cut = taken.descriptors_lost;
                        self.sets.push_claimed(inbox.sets(), taken.descriptors, is_cut);
                    }
                    size += count.max(1);
                    if size >= READ_MAX {
                        break;
                    }
                }
                Err(halt) if index == 0 => return Err(halt),
                // What is wrong with the connection is met again when it matters.
                Err(halt) => {
                    self.is_drained = halt == Halt::Later;
                    break;
                }
            }
        }
        Ok(size)
    }

    /// Sends a datagram back to where one came from.
    fn answer(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let Some(to) = frame.to.and_then(|to| self.sources.address(to)) else {
            return Err(Error::new(Kind::NotSupported, "who sent it has no address to answer to"));
        };
        // A caller on this machine that takes none of its answers must not hold up the others. Only
        // the rest of an answer waits until it has read the beginning. A network takes them by itself.
        let is_unix = to.address_family() == AddressFamily::UNIX;
        let wait = if is_unix && !frame.goes_on { Wait::Not } else { wait };
        let wire = &self.wire;
        wait.run(wire.descriptor(), PollFlags::OUT, |how| wire.write_to(to, frame, how))
            .map_err(|halt| halt.sending(wait))
    }

    /// Tells the other side that nothing more comes; what it sends still arrives.
    ///
    /// # Errors
    /// What the system said.
    pub fn half_close(&mut self) -> Result<(), Error> {
        rustix::net::shutdown(self.wire.descriptor(), Shutdown::Write)
            .map_err(|errno| Error::system(errno, ""))
    }

    /// Whether something more urgent than what lies here may have come: look before delivering.
    #[inline]
    pub fn should_look(&self) -> bool {
        self.inbox.should_look() && !self.sets.are_many()
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
        if let Some(linger) = self.linger.take() {
            linger.withhold();
        }
        self.wire.into_descriptor()
    }
}

impl SendEnd for Link {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        if frame.to.is_some() && self.wire.flow() == Flow::Datagram {
            return self.answer(frame, wait);
        }
        let (size, mut done) = (frame.size(), 0);
        let (wire, gathered) = (&self.wire, &mut self.gathered);
        loop {
            let wrote = wait.run(wire.descriptor(), PollFlags::OUT, |how| {
                wire.write(frame, done, how, gathered)
            });
            match wrote {
                Ok(count) => done += count,
                // Why no more goes the next call is told: what went is accepted.
                Err(_) if done > 0 => break,
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
            // The other half of a pair reads what comes back.
            _ if self.farewell.is_some() => None,
            Flow::Pipe => None,
            _ => Some(self),
        }
    }

    fn half_close(&mut self) -> Result<(), Error> {
        Link::half_close(self)
    }

    fn dismiss(&mut self, _to: u64) -> Result<(), Error> {
        if !matches!(self.wire.flow(), Flow::Stream | Flow::Packet) {
            return Err(Error::new(Kind::NotSupported, "there is no connection to end"));
        }
        rustix::net::shutdown(self.wire.descriptor(), Shutdown::Both)
            .map_err(|errno| Error::system(errno, ""))
    }

    fn split(self: Box<Self>) -> Result<Halves, Error> {
        let flow = self.wire.flow();
        if !matches!(flow, Flow::Stream | Flow::Packet) || self.farewell.is_some() {
            let text = "this end has no connection that goes both ways";
            return Err(Error::new(Kind::NotSupported, text));
        }
        let options = Options { framing: self.framing, ..Options::default() };
        let sending = Link::new(self.wire.share(), flow, &options).half();
        Ok((Box::new(sending), self))
    }

    /// A foreign peer may close its own half and still read; poste's never does.
    fn peers(&self) -> Peers {
        let mut gone = PollFlags::HUP | PollFlags::ERR;
        if self.framing == Framing::Enveloped {
            gone |= PollFlags::RDHUP;
        }
        let descriptor = self.wire.descriptor();
        let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::RDHUP)];
        match poll(&mut polled, Some(&Timespec::default())) {
            Ok(1) if polled[0].revents().intersects(gone) => Peers::AllGone,
            _ => Peers::Unknown,
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
        arrival.reset();
        if !self.inbox.is_empty() {
            if self.should_look() {
                self.look();
            }
            self.take(arrival);
            return Ok(());
        }
        let wait = wait.begin();
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

    #[inline]
    fn is_drained(&self) -> bool {
        self.is_drained && self.inbox.is_empty() && !self.inbox.has_ended()
    }

    fn want(&mut self, messages: u64) {
        self.wanted = Some(messages);
    }

    fn back(&mut self) -> Option<&mut dyn SendEnd> {
        if self.wire.flow() == Flow::Pipe { None } else { Some(self) }
    }

    fn peers(&self) -> Peers {
        if self.inbox.has_ended() { Peers::AllGone } else { Peers::Unknown }
    }

    fn hand_down(self: Box<Self>) -> Result<OwnedFd, Error> {
        if !self.inbox.is_empty() || self.inbox.has_beginning() {
            let detail = "messages that were read ahead would be lost";
            return Err(Error::new(Kind::NotSupported, detail)
                .with_hint("receive them before, or open it with Options::take"));
        }
        self.into_descriptor().map_err(|errno| Error::system(errno, ""))
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor()
    }
}
