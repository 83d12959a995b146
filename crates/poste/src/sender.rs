//! The sending side: envelope, pieces, outbox; the same over every mechanism.

mod call;
mod posting;
mod refusal;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use self::posting::{Post, piece};
use crate::address::Address;
use crate::answers::Answers;
use crate::capabilities::{Capabilities, Counters, Facts};
use crate::duplex::Duplex;
use crate::envelope::Speaker;
use crate::error::{Error, Kind};
use crate::inheritance::{self, Role};
use crate::loan::Loan;
use crate::mechanism::{
    EndTraits, Frame, Mechanism, Opened, Opening, Pollable, SendEnd, inherited, resolve,
};
use crate::options::{Create, Options};
use crate::outbox::Outbox;
#[cfg(feature = "futures")]
use crate::outgoing::Kept;
use crate::outgoing::Outgoing;
use crate::readiness::Readiness;
use crate::receiver::Receiver;
use crate::wait::Wait;

/// How far a message has come. A level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Begun or fed; this sender finishes it before anything else ([`Sender::flush`], the next
    /// send, or [`Sender::close`]).
    Held,
    /// The channel holds it.
    Queued,
    /// A receiver has it.
    Taken,
    /// The receiver said that it is done.
    Acknowledged,
}

/// The sending end of a channel.
///
/// ```
/// use poste::{Level, Receiver, Sender};
/// # fn main() -> Result<(), poste::Error> {
/// # let address = format!("unix:@poste-sender-{}", std::process::id());
/// let mut receiver = Receiver::create(&address)?;
/// let mut sender = Sender::open(&address)?;
/// assert_eq!(sender.send("one")?, Level::Queued);
/// assert_eq!(sender.feed("two")?, Level::Held); // goes with the next flush
/// sender.flush()?;
/// assert_eq!(receiver.recv()?.text()?, "one");
/// assert_eq!(receiver.recv()?.text()?, "two");
/// # Ok(()) }
/// ```
pub struct Sender {
    end: Box<dyn SendEnd>,
    mechanism: &'static Mechanism,
    traits: EndTraits,
    address: Address,
    options: Options,
    speaker: Speaker,
    introduced: bool,
    outbox: Outbox,
    readiness: Option<Readiness>,
    /// Made at the first call.
    answers: Option<Box<Answers>>,
    counters: Counters,
    /// What a sink has taken in while there was no room: it goes before anything else.
    #[cfg(feature = "futures")]
    pub(crate) kept: Option<Kept>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Sender {
    /// Opens the channel at an address, which must be there.
    ///
    /// # Errors
    /// `NotFound`, `NoReceiver` (nobody listens at a socket's address), `Permission`, `Invalid`,
    /// `NotSupported`; the hint says what to do.
    pub fn open(address: impl AsRef<str>) -> Result<Sender, Error> {
        Sender::open_with(address, &Options::new())
    }

    /// Opens the channel at an address, and makes it where it is absent.
    ///
    /// # Errors
    /// As [`Sender::open`], and `Limit` where the system allows no more.
    pub fn create(address: impl AsRef<str>) -> Result<Sender, Error> {
        Sender::open_with(address, &Options::new().create())
    }

    /// Opens the channel at an address as the options say.
    ///
    /// # Errors
    /// As [`Sender::open`]; `Mismatch` where it is there with other attributes than asked for.
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Sender, Error> {
        let address = address.as_ref();
        let address = Address::parse(address).map_err(|error| error.on("open", &address))?;
        let on = |error: Error| error.on("open", &address);
        let (mechanism, options) = resolve(&address, options).map_err(on)?;
        if options.sealed {
            return crate::sealed::sender_at(&address, &options).map_err(on);
        }
        let opened = (mechanism.open_sender)(&Opening { address: &address, options: &options })
            .map_err(on)?;
        Ok(Sender::over(mechanism, opened, options))
    }

    /// A sender over an end that is open already: how a mechanism of another crate joins.
    #[must_use]
    pub fn over(
        mechanism: &'static Mechanism,
        opened: Opened<dyn SendEnd>,
        options: Options,
    ) -> Sender {
        Sender {
            end: opened.end,
            mechanism,
            traits: opened.traits,
            address: opened.address.bare(),
            options,
            speaker: Speaker { sender: crate::sequence::draw(), sequence: 1 },
            introduced: false,
            outbox: Outbox::default(),
            readiness: None,
            answers: None,
            counters: Counters::default(),
            #[cfg(feature = "futures")]
            kept: None,
        }
    }

    /// Sends a message, waiting for room as long as it takes. [`Level::Held`] is what it returns
    /// where the receiver went in the middle of this message: the next call says so.
    ///
    /// # Errors
    /// `TooLarge` with the limit, `Disconnected`, `NoReceiver`, `Removed` (of a full POSIX queue a
    /// timed form notices it within a second, one that blocks already doesn't), and others as the
    /// system says. Not one byte was accepted then, and the message is still the caller's. Something
    /// that was held before it may be lost then: [`Sender::flush`] says what.
    pub fn send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.send_wait(message, Wait::Forever)
    }

    /// Sends a message if there is room for it now.
    ///
    /// # Errors
    /// `Full`, and as [`Sender::send`].
    pub fn try_send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.send_wait(message, Wait::Not)
    }

    /// Sends a message, waiting for room at most so long.
    ///
    /// # Errors
    /// `TimedOut`, and as [`Sender::send`].
    pub fn send_timeout<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        time: Duration,
    ) -> Result<Level, Error> {
        self.send_wait(message, Wait::For(time))
    }

    /// Sends a message, waiting for room until a moment of the monotonic clock.
    ///
    /// # Errors
    /// `TimedOut`, and as [`Sender::send`].
    pub fn send_deadline<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        end: Instant,
    ) -> Result<Level, Error> {
        self.send_wait(message, Wait::Until(end))
    }

    /// Sends a message within `wait`: what the four forms come down to.
    ///
    /// # Errors
    /// As [`Sender::send`]; `Full` or `TimedOut` where only the time was missing.
    pub fn send_wait<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        wait: Wait,
    ) -> Result<Level, Error> {
        let message = message.into();
        self.post(&message, Post::Send, wait).map_err(|error| self.explain(error, &message))
    }

    /// What the end itself waits on until it may send.
    #[cfg(feature = "futures")]
    pub(crate) fn watched(&mut self) -> Result<Pollable<'_>, Error> {
        self.end.pollable().map_err(|error| error.on("poll", &self.address))
    }

    /// Lends memory of the channel to write a message in, waiting for room as long as it takes: no
    /// copy is made. What is lent and not sent was never there.
    ///
    /// # Errors
    /// `NotSupported` where the channel has no such memory; as [`Sender::send`].
    pub fn loan(&mut self, size: usize) -> Result<Loan<'_>, Error> {
        self.loan_wait(size, Wait::Forever)
    }

    /// As [`Sender::loan`], without waiting.
    ///
    /// # Errors
    /// `Full`, and as [`Sender::loan`].
    pub fn try_loan(&mut self, size: usize) -> Result<Loan<'_>, Error> {
        self.loan_wait(size, Wait::Not)
    }

    /// As [`Sender::loan`], within `wait`.
    ///
    /// # Errors
    /// `Full` or `TimedOut` where only the time was missing, and as [`Sender::loan`].
    pub fn loan_wait(&mut self, size: usize, wait: Wait) -> Result<Loan<'_>, Error> {
        self.lend(size, wait)?;
        Ok(Loan::new(self, size))
    }

    /// Sees to it that memory is lent.
    pub(crate) fn lend(&mut self, size: usize, wait: Wait) -> Result<(), Error> {
        let limit = self.message_size();
        if size > limit {
            let kind = Kind::TooLarge { size: size as u64, limit: limit as u64 };
            let error = Error::new(kind, "").with_hint(self.way_out(size));
            return Err(error.on("send to", &self.address));
        }
        let lent = self.end.loan(size, wait);
        lent.map_err(|error| error.on("send to", &self.address))
    }

    /// What was lent.
    pub(crate) fn lent(&self) -> &[u8] {
        self.end.lent()
    }

    /// What was lent, to be written.
    pub(crate) fn lent_mut(&mut self) -> &mut [u8] {
        self.end.lent_mut()
    }

    /// Sends the beginning of what was lent.
    pub(crate) fn send_lent(&mut self, size: usize, priority: u16) -> Result<Level, Error> {
        let message = Outgoing::of(&[]).priority(priority);
        self.check(&message).map_err(|error| error.on("send to", &self.address))?;
        let mut frame = piece(&[], &[], &message);
        frame.sequence = self.speaker.sequence;
        frame.sender = self.speaker.sender;
        let sent = self.end.send_loan(size, &frame);
        sent.map_err(|error| error.on("send to", &self.address))?;
        self.count(size);
        Ok(Level::Queued)
    }

    /// Takes a message in to be sent with others, with fewer system calls, at the next
    /// [`Sender::flush`], send or close. Where 64 KiB are fed it sends them, waiting for room.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn feed<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.feed_wait(message, Wait::Forever)
    }

    /// As [`Sender::feed`], without waiting.
    ///
    /// # Errors
    /// `Full` where as much is fed as is taken in, and as [`Sender::send`].
    pub fn try_feed<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.feed_wait(message, Wait::Not)
    }

    /// As [`Sender::feed`], within `wait`.
    ///
    /// # Errors
    /// As [`Sender::send_wait`].
    pub fn feed_wait<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        wait: Wait,
    ) -> Result<Level, Error> {
        let message = message.into();
        self.post(&message, Post::Feed, wait).map_err(|error| self.explain(error, &message))
    }

    /// Whether one more that is fed is held here, whatever the channel has room for.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn takes_in(&self) -> bool {
        !self.traits.bare && self.outbox.len() < crate::limits::READ_MAX
    }

    /// Makes room to feed one more, where as much is fed as is taken in.
    #[cfg(feature = "futures")]
    pub(crate) fn make_room_to_feed(&mut self) -> Result<(), Error> {
        let done = self.make_room(Post::Feed, Wait::Not);
        done.map_err(|error| error.on("send to", &self.address))
    }

    /// Feeds what a sink has kept. Without room it stays kept; what the channel refuses is given up, as
    /// it is at a flush.
    #[cfg(feature = "futures")]
    #[inline]
    pub(crate) fn feed_kept(&mut self) -> Result<(), Error> {
        let Some(kept) = self.kept.take() else { return Ok(()) };
        // Else the error may be that of a message before it.
        let is_first = self.outbox.is_empty();
        let fed = kept.lend(|message| self.try_feed(message));
        if fed.as_ref().is_err_and(|error| !is_first || error.is_retryable()) {
            self.kept = Some(kept);
        }
        fed.map(drop)
    }

    /// Sends what is held, waiting for room as long as it takes.
    ///
    /// # Errors
    /// `NoReceiver`, and a lack of memory or descriptors: all of it stays held. `Disconnected`: the
    /// receiver is gone in the middle of a message, and what is left of it is given up; the messages
    /// behind it stay held where another receiver can come (a FIFO, a sender that listens, a
    /// datagram's), else they are given up too. Others as the system says, of the first message,
    /// which is given up.
    pub fn flush(&mut self) -> Result<Level, Error> {
        self.flush_wait(Wait::Forever)
    }

    /// Sends what is held as far as there is room now: `Held` where some is left.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn try_flush(&mut self) -> Result<Level, Error> {
        self.flush_wait(Wait::Not)
    }

    /// Sends what is held within a time: `Held` where some is left.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn flush_timeout(&mut self, time: Duration) -> Result<Level, Error> {
        self.flush_wait(Wait::For(time))
    }

    /// Sends what is held until a moment: `Held` where some is left.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn flush_deadline(&mut self, end: Instant) -> Result<Level, Error> {
        self.flush_wait(Wait::Until(end))
    }

    /// Sends what is held within `wait`: `Held` where some is left.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn flush_wait(&mut self, wait: Wait) -> Result<Level, Error> {
        let wait = wait.begin();
        let on = |error: Error, address: &Address| error.on("send to", address);
        match self.outbox.drain(&mut *self.end, self.traits.gather, wait) {
            Ok(()) => {}
            Err(error) if error.is(&Kind::Full) || error.is(&Kind::TimedOut) => {
                return Ok(Level::Held);
            }
            Err(error) => return Err(on(error, &self.address)),
        }
        self.end.flush(wait).map_err(|error| on(error, &self.address))?;
        Ok(Level::Queued)
    }

    /// Finishes what is held, and closes this end.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub fn close(mut self) -> Result<(), Error> {
        self.flush().map(drop)
    }

    /// Closes this end without sending what is held: what was begun arrives nowhere, and what was
    /// fed is forgotten (but by a mailbox, which has it already). Dropping a sender sends as much of
    /// it as there is room for.
    ///
    /// ```
    /// # fn main() -> Result<(), poste::Error> {
    /// let (mut sender, mut receiver) = poste::pipe()?;
    /// sender.send("one")?;
    /// sender.feed("two")?;
    /// sender.abandon();
    /// assert_eq!(receiver.recv()?.text()?, "one");
    /// assert_eq!(receiver.recv().unwrap_err().kind(), poste::Kind::Disconnected);
    /// # Ok(()) }
    /// ```
    pub fn abandon(mut self) {
        self.outbox.give_up();
    }

    /// Another sender on the same channel, with its own connection and its own sequence.
    ///
    /// # Errors
    /// `NotSupported` where the channel has one sender (a socket pair).
    pub fn try_clone(&self) -> Result<Sender, Error> {
        let on = |error: Error| error.on("open another sender of", &self.address);
        let options = Options { create: Create::No, ..self.options.clone() };
        match self.end.duplicate().map_err(on)? {
            Some(end) => {
                let opened = Opened { end, traits: self.traits, address: self.address.clone() };
                Ok(Sender::over(self.mechanism, opened, options))
            }
            None => {
                let opening = Opening { address: &self.address, options: &options };
                let opened = (self.mechanism.open_sender)(&opening).map_err(on)?;
                Ok(Sender::over(self.mechanism, opened, options))
            }
        }
    }

    /// The connection both ways: what the other side sends comes to a receiver of its own.
    ///
    /// ```
    /// use poste::{Receiver, Sender, Wait};
    /// # fn main() -> Result<(), poste::Error> {
    /// # let address = format!("unix:@poste-duplex-{}", std::process::id());
    /// let mut server = Receiver::create(&address)?;
    /// let mut here = Sender::open(&address)?.into_duplex()?;
    /// let mut there = server.accept(Wait::Forever)?;
    /// here.send("ping")?;
    /// assert_eq!(there.recv()?.text()?, "ping");
    /// there.send("pong")?;
    /// assert_eq!(here.recv()?.text()?, "pong");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `NotSupported` where it is no connection that goes both ways.
    pub fn into_duplex(mut self) -> Result<Duplex, Error> {
        let end = std::mem::replace(&mut self.end, Box::new(Gone));
        let (sending, receiving) =
            end.split().map_err(|error| error.on("receive from", &self.address))?;
        self.end = sending;
        let opened = Opened { end: receiving, traits: self.traits, address: self.address.clone() };
        let receiver = Receiver::over(self.mechanism, opened, self.options.clone());
        Ok(Duplex::of(self, receiver))
    }

    /// A level-triggered descriptor that is readable while this end may send; poll it for reading.
    /// On a System V queue it is so up to 8 ms late: there the kernel tells nobody of room. On a FIFO
    /// it takes an inotify instance, of which a user may have `fs.inotify.max_user_instances`.
    ///
    /// # Errors
    /// `NotSupported` where the mechanism has none (its capabilities say so); `Limit` where the
    /// system has no room for what it takes.
    pub fn pollable(&mut self) -> Result<BorrowedFd<'_>, Error> {
        if self.readiness.is_none() {
            let made = self.end.pollable().and_then(|watched| Readiness::new(watched));
            self.readiness = Some(made.map_err(|error| error.on("poll", &self.address))?);
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

    /// What this end can do now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            message_size: self.message_size(),
            piece_size: self.traits.piece_size,
            capacity: self.traits.capacity,
            priority_max: self.traits.priority_max,
            peers: self.end.peers(),
        }
    }

    /// What this end has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Where it is open, as the kernel knows it.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Gives the end's descriptor away, for a child's standard output or the like. What is held is
    /// sent first.
    ///
    /// # Errors
    /// `NotSupported` where the end is not one descriptor; as [`Sender::flush`].
    pub fn into_descriptor(mut self) -> Result<OwnedFd, Error> {
        self.flush()?;
        let Sender { ref address, .. } = self;
        let address = address.clone();
        let end = std::mem::replace(&mut self.end, Box::new(Gone));
        end.hand_down().map_err(|error| error.on("hand down", &address))
    }

    /// Starts a child that takes this end over ([`Sender::inherited`]), and closes it here. No other
    /// child gets it: not one that another thread starts meanwhile, nor the next of this command.
    ///
    /// # Errors
    /// `Unsupported` where the end is not one descriptor (give the child the address instead); what
    /// [`Command::spawn`] said. The end is closed then too.
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        let (descriptor, options) = self.hand_down()?;
        inheritance::spawn(command, vec![(Role::Sender, descriptor)], &options)
    }

    /// The sending end that this process was started with, once.
    ///
    /// # Errors
    /// `NotFound` where none was handed down, or it was taken over before.
    pub fn inherited() -> Result<Sender, Error> {
        let take = || {
            let (descriptor, options) = inheritance::take(Role::Sender)?;
            let (mechanism, opened) = inherited::handed_sender(descriptor, &options)?;
            Ok(Sender::over(mechanism, opened, options))
        };
        take().map_err(|error: Error| error.on("take over", &"an inherited sender"))
    }

    /// The end's descriptor, and how it was opened.
    pub(crate) fn hand_down(self) -> Result<(OwnedFd, Options), Error> {
        let options = self.options.clone();
        Ok((self.into_descriptor()?, options))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // What is held is sent as far as that goes without waiting; `close` waits and says more.
        #[cfg(feature = "futures")]
        let _ = self.feed_kept().or_else(|_| self.feed_kept());
        while !self.outbox.is_empty() {
            let drained = self.outbox.drain(&mut *self.end, self.traits.gather, Wait::Not);
            if drained.is_err_and(|error| error.is_retryable()) {
                break;
            }
        }
    }
}

/// What stands in a sender whose end was given away.
struct Gone;

impl SendEnd for Gone {
    fn send(&mut self, _frame: &Frame<'_>, _wait: Wait) -> Result<usize, Error> {
        Err(Error::new(Kind::Disconnected, "this end was given away"))
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        Err(Error::new(Kind::Disconnected, "this end was given away"))
    }
}
