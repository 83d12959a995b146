//! A message that was received: lent by the channel, or owned.

use std::fmt;
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::credentials::Credentials;
use crate::envelope::{CallBlock, HEADER_MAX, Header, Part, PieceKind, body_check};
use crate::error::{Error, Kind};
use crate::limits::ANSWER_PATIENCE;
use crate::mechanism::{Arrival, Frame, RecvEnd, Settle, Settler};
use crate::outgoing::Outgoing;
use crate::wait::Wait;

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
    pub(crate) if_dropped: Settle,
    /// How it may be answered, once.
    pub(crate) way_back: Option<WayBack>,
}

/// How a message is answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayBack {
    /// The caller's number for the call; `None`: raw, the answer is bytes.
    pub(crate) call: Option<CallBlock>,
    /// The largest piece that goes back.
    pub(crate) piece_size: usize,
    /// Whether descriptors can go along.
    pub(crate) descriptors: bool,
    /// Whether the answer's body is checked.
    pub(crate) check: bool,
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
    /// What is left to do about the message, where something is.
    #[inline]
    pub(crate) fn take_ticket(&mut self) -> Option<Ticket> {
        if self.arrival.token == 0 {
            return None;
        }
        let settler = self.end.settler()?;
        let token = std::mem::take(&mut self.arrival.token);
        Some(Ticket { settler, token, if_dropped: self.if_dropped })
    }

    /// Ends the message, where that is left to do and no ticket was made for it.
    #[inline]
    fn settle(&mut self, how: Settle) -> Option<Result<(), Error>> {
        let token = std::mem::take(&mut self.arrival.token);
        (token != 0).then(|| self.end.settle(token, how))
    }

    /// Sends an answer the way the message came, in pieces where it must be.
    fn answer(&mut self, kind: PieceKind, answer: &Outgoing<'_>) -> Result<(), Error> {
        let Some(WayBack { call, piece_size, descriptors, check }) = self.way_back.take() else {
            return Err(Error::new(Kind::NotSupported, "it is no call, or has been answered"));
        };
        answer.check_descriptors(descriptors)?;
        let Outgoing { body, mut descriptors, priority, .. } = *answer;
        let to = Some(self.arrival.source);
        let wait = Wait::For(ANSWER_PATIENCE).begin();
        let Some(back) = self.end.back() else {
            return Err(Error::new(Kind::NotSupported, "this channel has no way back"));
        };
        if call.is_none() && kind == PieceKind::Error {
            return back.dismiss(self.arrival.source);
        }
        if call.is_none() {
            return back.send_whole(&Frame { body, to, descriptors, ..Frame::default() }, wait);
        }
        let room = piece_size - HEADER_MAX;
        let total = body.len() as u64;
        let mut rest = body;
        loop {
            let (part, after) = rest.split_at(rest.len().min(room));
            let offset = total - rest.len() as u64;
            let header = Header {
                kind,
                call,
                part: (body.len() > room).then_some(Part { total, offset }),
                descriptors: descriptors.len() as u8,
                priority,
                body_check: check.then(|| body_check(part)),
                ..Header::message(part.len() as u32)
            };
            let mut head = [0; HEADER_MAX];
            let length = header.encode(&mut head);
            let head = &head[..length];
            let goes_on = offset > 0;
            let frame = Frame { head, body: part, to, descriptors, goes_on, ..Frame::default() };
            back.send_whole(&frame, wait)?;
            // They went with the first piece.
            descriptors = &[];
            rest = after;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    fn body(&self) -> &[u8] {
        match &self.place {
            Place::Piece(range) => &self.end.bytes(&self.arrival)[range.clone()],
            Place::Joined => &self.joined,
        }
    }
}

/// A message that is lent for one call only and has no ticket: it ends with this.
pub(crate) struct Handed<'a>(pub(crate) &'a mut Taken);

impl Handed<'_> {
    /// The message.
    #[inline]
    pub(crate) fn lend(&mut self) -> Message<'_> {
        Message { taken: self.0, ticket: None }
    }
}

impl Drop for Handed<'_> {
    #[inline]
    fn drop(&mut self) {
        // A message that was no more this receiver's comes again anyhow.
        let _ = self.0.settle(self.0.if_dropped);
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
    pub(crate) ticket: Option<Ticket>,
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

    /// Whether somebody waits for an answer to it, which has not been given. In raw mode nothing
    /// tells a question from other messages: then it says so of each.
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.taken.way_back.is_some()
    }

    /// The descriptors that came with it; the second time there are none.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.taken.arrival.descriptors)
    }

    /// Answers a call; descriptors go along as with any message. In raw mode it sends bytes back to
    /// where the message came from.
    ///
    /// # Errors
    /// `NotSupported` where the message is no call, has been answered, there is no way back, or the
    /// answer has descriptors that can't travel here; `Limit` where it has too many;
    /// `Disconnected` where the caller is gone; `TimedOut` where it doesn't read for 5 seconds (where
    /// it has read a part of the answer, its connection is ended too); `Full`, at once, where it sent
    /// a datagram and has no room for another.
    pub fn reply<'b>(&mut self, answer: impl Into<Outgoing<'b>>) -> Result<(), Error> {
        self.taken.answer(PieceKind::Reply, &answer.into())
    }

    /// Answers a call with an error, in words: the caller gets [`Kind::Failed`]. In raw mode, where
    /// bytes can't be told from an answer, it ends the caller's connection instead.
    ///
    /// # Errors
    /// As [`Message::reply`]; in raw mode `NotSupported` where there is no connection to end.
    pub fn reply_error(&mut self, text: &str) -> Result<(), Error> {
        self.taken.answer(PieceKind::Error, &text.into())
    }

    /// Says that the message is done. A message that is dropped is done too, unless its receiver is
    /// [manual](crate::Receiver::manual).
    ///
    /// # Errors
    /// `Corrupt` where it was not this receiver's any more; what the system said.
    pub fn acknowledge(self) -> Result<(), Error> {
        self.end(Settle::Done).unwrap_or(Ok(()))
    }

    /// Gives the message back: it comes again, to whoever receives next.
    ///
    /// # Errors
    /// `NotSupported` where the channel can't hand it out again; as [`Message::acknowledge`].
    pub fn reject(self) -> Result<(), Error> {
        self.end(Settle::Again).unwrap_or_else(|| Err(cannot_reject()))
    }

    fn end(self, how: Settle) -> Option<Result<(), Error>> {
        match self.ticket {
            Some(ticket) => Some(ticket.end(how)),
            None => self.taken.settle(how),
        }
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
            ticket: self
                .ticket
                .take()
                .or_else(|| self.taken.take_ticket())
                .filter(|ticket| ticket.if_dropped == Settle::Again),
        }
    }
}

/// What is left to do about a message that can come again. It borrows nothing, so that a message
/// which is not used any more doesn't keep its receiver from receiving the next one.
pub(crate) struct Ticket {
    settler: Arc<dyn Settler>,
    /// 0: it is done.
    token: u64,
    if_dropped: Settle,
}

impl Ticket {
    fn end(mut self, how: Settle) -> Result<(), Error> {
        self.settler.settle(std::mem::take(&mut self.token), how)
    }
}

impl Drop for Ticket {
    #[inline]
    fn drop(&mut self) {
        if self.token != 0 {
            // A message that was no more this receiver's comes again anyhow.
            let _ = self.settler.settle(self.token, self.if_dropped);
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

    /// A message that came by itself.
    pub(crate) fn of(body: Vec<u8>, arrival: &mut Arrival, priority: u16) -> OwnedMessage {
        OwnedMessage {
            body,
            priority,
            credentials: arrival.credentials,
            descriptors: std::mem::take(&mut arrival.descriptors),
            ..OwnedMessage::default()
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
