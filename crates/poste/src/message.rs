//! A message that was received: lent by the channel, or owned.

use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::credentials::Credentials;
use crate::error::{Error, Kind};
use crate::mechanism::{Arrival, RecvEnd, Settle, Settler};
use crate::outgoing::Outgoing;

/// The message that a receiver has taken last, and the end that keeps its bytes.
pub(crate) struct Taken {
    pub(crate) end: Box<dyn RecvEnd>,
    pub(crate) arrival: Arrival,
    pub(crate) place: Place,
    pub(crate) priority: u16,
    pub(crate) sequence: u64,
    /// A message that came in pieces.
    pub(crate) joined: Vec<u8>,
    /// A message that is dropped comes again; else it is done.
    pub(crate) manual: bool,
}

/// Where the body lies.
#[derive(Debug)]
pub(crate) enum Place {
    /// In the end, this part of the piece.
    Piece(Range<usize>),
    /// Put together.
    Joined,
}

impl Taken {
    /// Ends the message, if it is to be ended.
    fn end(&mut self, how: Settle) -> Result<(), Error> {
        match std::mem::take(&mut self.arrival.token) {
            0 => Ok(()),
            token => self.end.settle(token, how),
        }
    }

    /// Ends a message that nobody said anything about.
    pub(crate) fn end_as_dropped(&mut self) {
        let how = if self.manual { Settle::Again } else { Settle::Done };
        // A message that was no more this receiver's comes again.
        let _ = self.end(how);
    }

    fn body(&self) -> &[u8] {
        match &self.place {
            Place::Piece(range) => &self.end.bytes(&self.arrival)[range.clone()],
            Place::Joined => &self.joined,
        }
    }
}

/// A message, lent by its receiver until the next one is received. It reads as its bytes.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// let (mut sender, mut receiver) = poste::local()?;
/// sender.send("hello")?;
/// let message = receiver.recv()?;
/// assert_eq!(&message[..], b"hello");
/// assert_eq!((message.text()?, message.priority(), message.sequence()), ("hello", 0, 1));
/// # Ok(()) }
/// ```
///
/// A message that is received within a loop can't be returned from it: [`Message::into_owned`] can.
pub struct Message<'a> {
    pub(crate) taken: &'a mut Taken,
}

impl Message<'_> {
    /// The body as text.
    ///
    /// # Errors
    /// `Corrupt` where it is no UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        text(self)
    }

    /// The priority it was sent with, 0 where the mechanism's raw form has none.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.taken.priority
    }

    /// Its place among the messages of its sender, from 1; 0 where that isn't known (raw).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.taken.sequence
    }

    /// Who sent it, as far as the kernel vouches for that.
    #[must_use]
    pub fn sender(&self) -> &Credentials {
        &self.taken.arrival.credentials
    }

    /// The type of a System V message; `None` elsewhere.
    #[must_use]
    pub fn message_type(&self) -> Option<i64> {
        self.taken.arrival.message_type
    }

    /// Whether it was handed out before, and comes again.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.taken.arrival.deliveries > 0
    }

    /// The descriptors that came with it; the second time there are none.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.taken.arrival.descriptors)
    }

    /// Says that the message is done. A message that is dropped is done too, unless its receiver is
    /// [manual](crate::Receiver::manual).
    ///
    /// # Errors
    /// `Corrupt` where it was not this receiver's any more; what the system said.
    pub fn acknowledge(self) -> Result<(), Error> {
        self.taken.end(Settle::Done)
    }

    /// Gives the message back: it comes again, to whoever receives next.
    ///
    /// # Errors
    /// `NotSupported` where the channel can't hand it out again; as [`Message::acknowledge`].
    pub fn reject(self) -> Result<(), Error> {
        if self.taken.arrival.token == 0 {
            return Err(cannot_reject());
        }
        self.taken.end(Settle::Again)
    }

    /// The message as one that may be kept. With a [manual](crate::Receiver::manual) receiver it
    /// is still to be acknowledged; else it is done.
    #[must_use]
    pub fn into_owned(mut self) -> OwnedMessage {
        let body = match self.taken.place {
            Place::Joined => std::mem::take(&mut self.taken.joined),
            Place::Piece(_) => self.taken.body().to_vec(),
        };
        OwnedMessage {
            body,
            priority: self.taken.priority,
            sequence: self.taken.sequence,
            credentials: self.taken.arrival.credentials,
            message_type: self.taken.arrival.message_type,
            redelivered: self.redelivered(),
            descriptors: self.take_descriptors(),
            ticket: self.take_ticket(),
        }
    }

    /// What is left to do about the message, by hand.
    fn take_ticket(&mut self) -> Option<Ticket> {
        if !self.taken.manual || self.taken.arrival.token == 0 {
            return None;
        }
        let settler = self.taken.end.settler(self.taken.arrival.token)?;
        Some(Ticket { settler, token: std::mem::take(&mut self.taken.arrival.token) })
    }
}

impl Drop for Message<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.taken.arrival.token != 0 {
            self.taken.end_as_dropped();
        }
    }
}

/// A message that was kept and is still to be ended. Dropped, it comes again.
struct Ticket {
    settler: Arc<dyn Settler>,
    token: u64,
}

impl Ticket {
    fn end(mut self, how: Settle) -> Result<(), Error> {
        self.settler.settle(std::mem::take(&mut self.token), how)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.token != 0 {
            // A message that was no more this receiver's comes again anyhow.
            let _ = self.settler.settle(self.token, Settle::Again);
        }
    }
}

impl Deref for Message<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.taken.body()
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Message", self, self.priority(), self.sequence())
    }
}

/// A message that is kept.
#[derive(Default)]
pub struct OwnedMessage {
    body: Vec<u8>,
    priority: u16,
    sequence: u64,
    credentials: Credentials,
    message_type: Option<i64>,
    redelivered: bool,
    descriptors: Vec<OwnedFd>,
    /// It is to be ended by hand.
    ticket: Option<Ticket>,
}

impl OwnedMessage {
    /// Says that the message is done; where it was not taken by a
    /// [manual](crate::Receiver::manual) receiver it is done already.
    ///
    /// # Errors
    /// `Corrupt` where it was not this receiver's any more; what the system said.
    pub fn acknowledge(mut self) -> Result<(), Error> {
        self.ticket.take().map_or(Ok(()), |ticket| ticket.end(Settle::Done))
    }

    /// Gives the message back: it comes again, to whoever receives next. One of a
    /// [manual](crate::Receiver::manual) receiver that is dropped comes again too.
    ///
    /// # Errors
    /// `NotSupported` where it is done already, or the channel can't hand it out again.
    pub fn reject(mut self) -> Result<(), Error> {
        match self.ticket.take() {
            Some(ticket) => ticket.end(Settle::Again),
            None => Err(cannot_reject()),
        }
    }

    /// The body as text.
    ///
    /// # Errors
    /// `Corrupt` where it is no UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        text(self)
    }

    /// The priority it was sent with.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// Its place among the messages of its sender, from 1; 0 where that isn't known.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Who sent it, as far as the kernel vouches for that.
    #[must_use]
    pub fn sender(&self) -> &Credentials {
        &self.credentials
    }

    /// The type of a System V message; `None` elsewhere.
    #[must_use]
    pub fn message_type(&self) -> Option<i64> {
        self.message_type
    }

    /// Whether it was handed out before, and comes again.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// The descriptors that came with it; the second time there are none.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    /// The body alone.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

impl Deref for OwnedMessage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.body
    }
}

impl fmt::Debug for OwnedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "OwnedMessage", self, self.priority, self.sequence)
    }
}

impl<'a> From<&'a Message<'_>> for Outgoing<'a> {
    fn from(message: &'a Message<'_>) -> Self {
        Outgoing::of(message).priority(message.priority())
    }
}

impl<'a> From<&'a OwnedMessage> for Outgoing<'a> {
    fn from(message: &'a OwnedMessage) -> Self {
        Outgoing::of(message).priority(message.priority())
    }
}

fn cannot_reject() -> Error {
    Error::new(Kind::NotSupported, "the message is done, it can't be given back").with_hint(
        "keep messages open with Receiver::manual, on a channel that redelivers, such as shm:",
    )
}

fn text(body: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(body)
        .map_err(|error| Error::new(Kind::Corrupt, format!("the message is no text: {error}")))
}

fn debug(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    body: &[u8],
    priority: u16,
    sequence: u64,
) -> fmt::Result {
    let shown = body.escape_ascii().to_string();
    f.debug_struct(name)
        .field("body", &shown)
        .field("priority", &priority)
        .field("sequence", &sequence)
        .finish_non_exhaustive()
}
