//! The receiving side: envelope, joining; the same over every mechanism.

mod sorting;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::capabilities::{Capabilities, Counters, Facts};
use crate::duplex::Duplex;
use crate::error::{Error, Kind};
use crate::inheritance::{self, Role};
use crate::joining::Joining;
use crate::mechanism::{
    Arrival, EndTraits, Mechanism, Opened, Opening, Pollable, RecvEnd, Settle, inherited, resolve,
};
use crate::message::{Handed, Message, OwnedMessage, Place, Taken};
use crate::options::{Create, Options};
use crate::readiness::Readiness;
use crate::sender::Sender;
use crate::sequence::Sequences;
use crate::wait::Wait;

/// The receiving end of a channel.
///
/// ```
/// use std::time::Duration;
/// use poste::{Kind, Receiver, Sender};
/// # fn main() -> Result<(), poste::Error> {
/// # let address = format!("unix:@poste-receiver-{}", std::process::id());
/// let mut receiver = Receiver::create(&address)?;
/// assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
/// let soon = Duration::from_millis(5);
/// assert_eq!(receiver.recv_timeout(soon).unwrap_err().kind(), Kind::TimedOut);
/// Sender::open(&address)?.send("hello")?;
/// assert_eq!(receiver.recv()?.text()?, "hello");
/// # Ok(()) }
/// ```
pub struct Receiver {
    taken: Taken,
    mechanism: &'static Mechanism,
    traits: EndTraits,
    address: Address,
    options: Options,
    joining: Joining,
    sequences: Sequences,
    readiness: Option<Readiness>,
    counters: Counters,
    /// So many more messages are wanted from a channel that another may read after us.
    wanted: Option<u64>,
    /// What ended a batch, and is told by the next call.
    untold: Option<Error>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Receiver {
    /// Opens the channel at an address. A socket's address is taken and listened on; others must
    /// be there.
    ///
    /// # Errors
    /// `NotFound`, `NameInUse`, `Permission`, `Invalid`, `NotSupported`; the hint says what to do.
    pub fn open(address: impl AsRef<str>) -> Result<Receiver, Error> {
        Receiver::open_with(address, &Options::new())
    }

    /// Opens the channel at an address, and makes it where it is absent.
    ///
    /// # Errors
    /// As [`Receiver::open`], and `Limit` where the system allows no more.
    pub fn create(address: impl AsRef<str>) -> Result<Receiver, Error> {
        Receiver::open_with(address, &Options::new().create())
    }

    /// Opens the channel at an address as the options say.
    ///
    /// # Errors
    /// As [`Receiver::open`]; `Mismatch` where it is there with other attributes than asked for.
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Receiver, Error> {
        let address = address.as_ref();
        let address = Address::parse(address).map_err(|error| error.on("open", &address))?;
        let on = |error: Error| error.on("open", &address);
        let (mechanism, options) = resolve(&address, options).map_err(on)?;
        if options.sealed {
            return crate::sealed::receiver_at(&address, &options).map_err(on);
        }
        let opened = (mechanism.open_receiver)(&Opening { address: &address, options: &options })
            .map_err(on)?;
        Ok(Receiver::over(mechanism, opened, options))
    }

    /// A receiver over an end that is open already: how a mechanism of another crate joins.
    #[must_use]
    pub fn over(
        mechanism: &'static Mechanism,
        opened: Opened<dyn RecvEnd>,
        options: Options,
    ) -> Receiver {
        Receiver {
            taken: Taken {
                end: opened.end,
                arrival: Arrival::default(),
                place: Place::Joined,
                priority: 0,
                sequence: 0,
                joined: Vec::new(),
                if_dropped: Settle::Done,
                way_back: None,
            },
            mechanism,
            traits: opened.traits,
            address: opened.address.bare(),
            joining: Joining::new(options.message_size_or_default()),
            sequences: Sequences::default(),
            readiness: None,
            counters: Counters::default(),
            wanted: options.take,
            untold: None,
            options,
        }
    }

    /// Receives a message, waiting for it as long as it takes.
    ///
    /// # Errors
    /// `Disconnected` where nothing can come any more; `Corrupt` where what came is no message of
    /// poste's (it is passed over); `TooLarge` where it is larger than this end takes; `Removed`
    /// (a POSIX queue's removal wakes nobody: a timed form notices it within a second; one that
    /// blocks already doesn't, nor who polls).
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, Error> {
        self.recv_wait(Wait::Forever)
    }

    /// Receives a message if one is there.
    ///
    /// # Errors
    /// `Empty`, and as [`Receiver::recv`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, Error> {
        self.recv_wait(Wait::Not)
    }

    /// Receives a message, waiting for it at most so long.
    ///
    /// # Errors
    /// `TimedOut`, and as [`Receiver::recv`].
    #[inline]
    pub fn recv_timeout(&mut self, time: Duration) -> Result<Message<'_>, Error> {
        self.recv_wait(Wait::For(time))
    }

    /// Receives a message, waiting for it until a moment of the monotonic clock.
    ///
    /// # Errors
    /// `TimedOut`, and as [`Receiver::recv`].
    #[inline]
    pub fn recv_deadline(&mut self, end: Instant) -> Result<Message<'_>, Error> {
        self.recv_wait(Wait::Until(end))
    }

    /// Receives a message within `wait`: what the four forms come down to.
    ///
    /// # Errors
    /// As [`Receiver::recv`]; `Empty` or `TimedOut` where only the time was missing.
    #[inline]
    pub fn recv_wait(&mut self, wait: Wait) -> Result<Message<'_>, Error> {
        match self.next(wait) {
            Ok(()) => Ok(self.lent()),
            Err(error) => Err(error.on("receive from", &self.address)),
        }
    }

    /// The message that was taken last.
    #[inline]
    pub(crate) fn lent(&mut self) -> Message<'_> {
        let ticket = self.taken.take_ticket();
        Message { taken: &mut self.taken, ticket }
    }

    /// Takes the next message, if one is there; [`Receiver::lent`] lends it.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn look(&mut self) -> Result<bool, Error> {
        match self.next(Wait::Not) {
            Ok(()) => Ok(true),
            Err(error) if error.is_passing() => Ok(false),
            Err(error) => Err(error.on("receive from", &self.address)),
        }
    }

    /// Whether messages lie in user space, where no descriptor of the end's own shows them.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.taken.arrival.more || self.untold.is_some()
    }

    /// Whether to look again before waiting.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn linger(&mut self) -> crate::mechanism::Linger {
        self.taken.end.linger()
    }

    /// Whether nothing is left to find, as of the last look.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn is_drained(&self) -> bool {
        self.taken.end.is_drained()
    }

    /// What the end itself waits on: it shows what [`Receiver::has_more`] doesn't.
    pub(crate) fn watched(&mut self) -> Result<Pollable<'_>, Error> {
        self.taken.end.pollable().map_err(|error| error.on("poll", &self.address))
    }

    /// The next connection by itself, both ways, instead of merged with the others. What comes on
    /// it is not received here; those that were merged before stay so.
    ///
    /// # Errors
    /// `NotSupported` where no connections come; `Empty` and `TimedOut` where none came in time;
    /// `Limit` where this process may open no more descriptors.
    pub fn accept(&mut self, wait: Wait) -> Result<Duplex, Error> {
        let halves = self.taken.end.accept(wait);
        let (sending, receiving) =
            halves.map_err(|error| error.on("accept from", &self.address))?;
        let (traits, address) = (self.traits, &self.address);
        let options = Options { take: None, ..self.options.clone() };
        let sending = Opened { end: sending, traits, address: address.clone() };
        let receiving = Opened { end: receiving, traits, address: address.clone() };
        let sender = Sender::over(self.mechanism, sending, options.clone());
        Ok(Duplex::of(sender, Receiver::over(self.mechanism, receiving, options)))
    }

    /// The messages as they come, each owned, until there can be no more.
    pub fn iter(&mut self) -> impl Iterator<Item = Result<OwnedMessage, Error>> {
        std::iter::from_fn(|| match self.recv() {
            Ok(message) => Some(Ok(message.into_owned())),
            Err(error) if error.is(&Kind::Disconnected) => None,
            Err(error) => Some(Err(error)),
        })
    }

    /// Receives up to `max` messages: waits for the first, and takes what else is there. Returns
    /// how many there were. An error after the first ends the batch, and the next call returns it.
    /// From a mailbox they are claimed together: what `each` did not get, because it panicked or this
    /// process ended, comes again marked as redelivered.
    ///
    /// # Errors
    /// As [`Receiver::recv`], for the first.
    pub fn recv_many(&mut self, max: usize, each: impl FnMut(Message<'_>)) -> Result<usize, Error> {
        self.recv_many_wait(max, each, Wait::Forever)
    }

    /// As [`Receiver::recv_many`], within `wait`.
    pub(crate) fn recv_many_wait(
        &mut self,
        max: usize,
        mut each: impl FnMut(Message<'_>),
        wait: Wait,
    ) -> Result<usize, Error> {
        let mut count = 0;
        while count < max {
            self.taken.end.batch(max - count);
            if let Err(error) = self.next(if count == 0 { wait } else { Wait::Not }) {
                let error = error.on("receive from", &self.address);
                if count == 0 {
                    return Err(error);
                }
                // Most are said only once.
                self.untold = Some(error).filter(|error| !error.is(&Kind::Empty));
                self.show();
                break;
            }
            each(Handed(&mut self.taken).lend());
            count += 1;
        }
        Ok(count)
    }

    /// Acknowledges by hand: a message that is dropped without [`Message::acknowledge`] comes again,
    /// to whoever receives next, and one that was taken by a process that dies does in any case.
    /// Where the channel can't hand a message out twice (its capabilities' `redelivers` says so)
    /// nothing changes.
    #[must_use]
    pub fn manual(mut self) -> Receiver {
        self.taken.if_dropped = Settle::Again;
        self
    }

    /// Says that a message which was kept is done.
    ///
    /// # Errors
    /// As [`OwnedMessage::acknowledge`].
    pub fn acknowledge(&mut self, message: OwnedMessage) -> Result<(), Error> {
        message.acknowledge()
    }

    /// Gives a message which was kept back: it comes again.
    ///
    /// # Errors
    /// As [`OwnedMessage::reject`].
    pub fn reject(&mut self, message: OwnedMessage) -> Result<(), Error> {
        message.reject()
    }

    /// Another receiver on the same channel.
    ///
    /// # Errors
    /// `NotSupported` where the channel has one receiver.
    pub fn try_clone(&self) -> Result<Receiver, Error> {
        let on = |error: Error| error.on("open another receiver of", &self.address);
        let options = Options { create: Create::No, ..self.options.clone() };
        if let Some(end) = self.taken.end.duplicate().map_err(on)? {
            let opened = Opened { end, traits: self.traits, address: self.address.clone() };
            return Ok(Receiver::over(self.mechanism, opened, options));
        }
        if !self.mechanism.capabilities.many_receivers && !self.options.shared {
            return Err(on(Error::new(Kind::NotSupported, "this channel has one receiver")));
        }
        let opening = Opening { address: &self.address, options: &options };
        let opened = (self.mechanism.open_receiver)(&opening).map_err(on)?;
        Ok(Receiver::over(self.mechanism, opened, options))
    }

    /// A level-triggered descriptor that is readable while a message is there, also where it lies
    /// in user space already; poll it for reading. After it says so a receive that doesn't wait may
    /// still find nothing: a part of a message has arrived, or another receiver was faster.
    ///
    /// On a System V queue the kernel has no descriptor: poste's senders ring a bell. Raw, or where
    /// other users may send, a thread waits instead; an empty raw message that makes it readable is
    /// taken out then, and lost with a process that is killed before it receives it.
    ///
    /// Where more than 16 receivers of FIFOs are polled in a process, it may be readable for nothing
    /// when the FIFO of another one is removed, renamed or has its mode changed: several share what
    /// tells of that, since a user may have few of them (inotify(7), `max_user_instances`).
    ///
    /// # Errors
    /// `NotSupported` where the mechanism has none (its capabilities say so); `Limit` where the
    /// system has no room for what it takes.
    pub fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error> {
        if self.readiness.is_none() {
            let made = self
                .taken
                .end
                .pollable()
                .and_then(|watched: Pollable<'_>| Readiness::new(watched)?.with_bell());
            let mut readiness = made.map_err(|error| error.on("poll", &self.address))?;
            readiness.show(self.taken.arrival.more || self.untold.is_some());
            self.readiness = Some(readiness);
        }
        match &self.readiness {
            Some(readiness) => Ok(readiness.descriptor()),
            None => unreachable!("it was just made"),
        }
    }

    /// What the mechanism can do.
    #[must_use]
    pub fn capabilities(&self) -> &'static Capabilities {
        &self.mechanism.capabilities
    }

    /// What this end can do now, and who is at the other one.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            message_size: self
                .traits
                .message_size
                .unwrap_or_else(|| self.options.message_size_or_default()),
            piece_size: self.traits.piece_size,
            capacity: self.traits.capacity,
            priority_max: self.traits.priority_max,
            peers: self.taken.end.peers(),
        }
    }

    /// What this end has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let (connections, corrupt) = self.taken.end.connections();
        Counters {
            lost: self.sequences.lost(),
            unfinished: self.joining.given_up(),
            connections,
            corrupt: self.counters.corrupt + corrupt,
            ..self.counters
        }
    }

    /// Where it is open, as the kernel knows it: with the port that it chose.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Gives the end's descriptor away, for a child's standard input or the like: before receiving,
    /// or from a receiver that was opened with [`Options::take`], since what was read ahead would
    /// be lost.
    ///
    /// # Errors
    /// `NotSupported` where the end is not one descriptor, or messages were read ahead.
    pub fn into_descriptor(self) -> Result<OwnedFd, Error> {
        self.taken.end.hand_down().map_err(|error| error.on("hand down", &self.address))
    }

    /// Starts a child that takes this end over ([`Receiver::inherited`]), and closes it here. No
    /// other child gets it: not one that another thread starts meanwhile, nor the next of this
    /// command.
    ///
    /// ```no_run
    /// use std::process::Command;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// // In the child: let mut jobs = poste::Receiver::inherited()?;
    /// let (mut jobs, theirs) = poste::pipe()?;
    /// let mut child = theirs.spawn(&mut Command::new("worker"))?;
    /// jobs.send("job 1")?;
    /// # child.wait()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Unsupported` where the end is not one descriptor (give the child the address instead), or
    /// messages were read ahead; what [`Command::spawn`] said. The end is closed then too.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        let (descriptor, options) = self.hand_down()?;
        inheritance::spawn(command, vec![(Role::Receiver, descriptor)], &options)
    }

    /// The receiving end that this process was started with, once.
    ///
    /// # Errors
    /// `NotFound` where none was handed down, or it was taken over before.
    pub fn inherited() -> Result<Receiver, Error> {
        let take = || {
            let (descriptor, options) = inheritance::take(Role::Receiver)?;
            let (mechanism, opened) = inherited::handed_receiver(descriptor, &options)?;
            Ok(Receiver::over(mechanism, opened, options))
        };
        take().map_err(|error: Error| error.on("take over", &"an inherited receiver"))
    }

    /// The end's descriptor, and how it was opened.
    pub(crate) fn hand_down(self) -> Result<(OwnedFd, Options), Error> {
        // What is left of the messages that were wanted.
        let options = Options { take: self.wanted, ..self.options.clone() };
        Ok((self.into_descriptor()?, options))
    }

    /// Takes the next whole message; what it is and where it lies stands in `taken`. Never inlined: what
    /// is around it is, so that a message is put together where it is used, not copied there.
    #[inline(never)]
    fn next(&mut self, wait: Wait) -> Result<(), Error> {
        let wait = wait.begin();
        if let Some(error) = self.untold.take() {
            self.show();
            return Err(error);
        }
        let result = loop {
            if let Some(wanted) = self.wanted {
                self.taken.end.want(wanted.max(1));
            }
            let received = self.taken.end.recv(&mut self.taken.arrival, wait);
            match received.and_then(|()| self.sort()) {
                Ok(true) => break Ok(()),
                Ok(false) => {}
                Err(error) => {
                    self.note(&error);
                    if !(error.is(&Kind::Corrupt) && self.ignores_garbage()) {
                        break Err(error);
                    }
                }
            }
        };
        self.show();
        result?;
        if let Some(wanted) = &mut self.wanted {
            *wanted = wanted.saturating_sub(1);
        }
        self.counters.messages += 1;
        self.counters.bytes += match &self.taken.place {
            Place::Piece(range) => range.len(),
            Place::Joined => self.taken.joined.len(),
        } as u64;
        Ok(())
    }

    /// Shows on the descriptor that is polled whether something lies here.
    #[inline]
    fn show(&mut self) {
        if let Some(readiness) = &mut self.readiness {
            readiness.show(self.taken.arrival.more || self.untold.is_some());
        }
    }

    fn note(&mut self, error: &Error) {
        if error.is(&Kind::Corrupt) {
            self.counters.corrupt += 1;
        }
    }

    /// Where strangers can come to an address, garbage must not end the receiver: it is counted and
    /// passed over. Elsewhere it is an error, which a person wants to see.
    fn ignores_garbage(&self) -> bool {
        self.mechanism.capabilities.made_by_listening
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::PollFlags;

    #[test]
    fn what_ends_a_batch_is_told_by_the_next_call() {
        for is_polled_before in [false, true] {
            let (mut sender, mut receiver) = open_small();
            if is_polled_before {
                receiver.pollable().unwrap();
            }
            sender.send("one").unwrap();
            sender.send(&[7; 100_000]).unwrap();
            let mut count = 0;
            assert_eq!(receiver.recv_many(10, |_| count += 1).unwrap(), 1);
            assert_eq!(count, 1);
            // Also for one who polls: the error lies in user space.
            let ready = Wait::Not.until_ready(receiver.pollable().unwrap(), PollFlags::IN);
            assert_eq!(ready, Ok(true));
            let error = receiver.recv_many(10, |_| {}).unwrap_err();
            assert!(matches!(error.kind(), Kind::TooLarge { .. }), "{error}");
            assert_eq!(receiver.try_recv().unwrap_err().kind(), Kind::Empty);
            let ready = Wait::Not.until_ready(receiver.pollable().unwrap(), PollFlags::IN);
            assert_eq!(ready, Ok(false));
            // That nothing more is there is no error.
            sender.send("two").unwrap();
            assert_eq!(receiver.recv_many(10, |_| {}).unwrap(), 1);
            sender.send("three").unwrap();
            assert_eq!(receiver.recv().unwrap().text().unwrap(), "three");
        }
    }

    /// A receiver that takes messages up to 70,000 bytes, and a sender.
    fn open_small() -> (Sender, Receiver) {
        let address = format!("unix:@poste-batch-{}", std::process::id());
        let small = Options::new().message_size(70_000);
        let receiver = Receiver::open_with(&address, &small).unwrap();
        (Sender::open(&address).unwrap(), receiver)
    }
}
