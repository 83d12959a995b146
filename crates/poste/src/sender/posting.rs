//! How a message becomes what its end sends: envelope, pieces, what is held and fed.

use super::{Level, Sender};
use crate::envelope::{BLOCK, HEADER_MAX, Header, Part, PieceKind, body_check};
use crate::error::Error;
use crate::limits::READ_MAX;
use crate::mechanism::Frame;
use crate::outgoing::Outgoing;
use crate::wait::Wait;

/// Whether a message is to be sent now, or with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Post {
    Send,
    Feed,
}

#[inline]
pub(super) fn piece<'a>(head: &'a [u8], body: &'a [u8], message: &Outgoing<'a>) -> Frame<'a> {
    Frame {
        head,
        body,
        priority: message.priority,
        message_type: message.message_type,
        descriptors: message.descriptors,
        goes_on: message.goes_on,
        ..Frame::default()
    }
}

impl Sender {
    /// The largest message that goes over this end.
    #[inline]
    pub(super) fn message_size(&self) -> usize {
        if let Some(size) = self.traits.message_size {
            if self.options.is_raw() || self.traits.pieces {
                return size;
            }
        }
        if self.options.is_raw() && !self.traits.bare {
            return usize::MAX;
        }
        if self.traits.pieces {
            self.options.message_size_or_default()
        } else {
            let fits = self.traits.piece_size.saturating_sub(self.head_size(false, false));
            self.traits.message_size.map_or(fits, |size| size.min(fits))
        }
    }

    /// The size of a message's envelope, for one piece or one of several.
    #[inline]
    pub(super) fn head_size(&self, is_part: bool, is_call: bool) -> usize {
        if self.traits.bare {
            return 0;
        }
        let hello = if self.introduces_now() { BLOCK * 2 } else { 0 };
        let blocks = 1
            + usize::from(!self.traits.introduces)
            + usize::from(is_part)
            + usize::from(is_call)
            + usize::from(self.options.check);
        hello + blocks * BLOCK
    }

    #[inline]
    fn introduces_now(&self) -> bool {
        self.traits.introduces && !self.introduced
    }

    #[inline(always)]
    pub(super) fn post(
        &mut self,
        message: &Outgoing<'_>,
        how: Post,
        wait: Wait,
    ) -> Result<Level, Error> {
        self.check(message)?;
        if self.traits.bare {
            return self.post_bare(message, how, wait);
        }
        // Descriptors can't be held: what is held goes first, then they go by themselves.
        let how = if message.descriptors.is_empty() { how } else { Post::Send };
        let is_raw = self.options.is_raw();
        let head_size = if is_raw { 0 } else { self.head_size(false, message.call.is_some()) };
        let one_piece = is_raw || head_size + message.body.len() <= self.traits.piece_size;
        let simple = one_piece && how == Post::Send && self.outbox.is_empty();
        let wait = if simple { wait } else { wait.begin() };
        self.make_room(how, wait)?;
        let mut head = [0; HEADER_MAX * 2];
        let level = if one_piece {
            let size = self.head(&mut head, message, None);
            self.post_piece(&piece(&head[..size], message.body, message), how, wait)?
        } else {
            self.post_pieces(message, how, wait)?
        };
        self.introduced = true;
        self.count(message.body.len());
        Ok(level)
    }

    /// A message on a mechanism that needs no envelope, and holds what is fed itself.
    #[inline(always)]
    fn post_bare(&mut self, message: &Outgoing<'_>, how: Post, wait: Wait) -> Result<Level, Error> {
        let mut frame = piece(&[], message.body, message);
        frame.sequence = self.speaker.sequence;
        frame.sender = self.speaker.sender;
        frame.more = how == Post::Feed;
        self.end.send(&frame, wait)?;
        self.count(message.body.len());
        Ok(if how == Post::Feed { Level::Held } else { Level::Queued })
    }

    #[inline]
    pub(super) fn count(&mut self, size: usize) {
        self.speaker.sequence += 1;
        self.counters.messages += 1;
        self.counters.bytes += size as u64;
    }

    /// What is held goes first; feeding waits only where as much is fed as is taken in.
    #[inline]
    pub(super) fn make_room(&mut self, how: Post, wait: Wait) -> Result<(), Error> {
        if self.outbox.is_empty() || (how == Post::Feed && self.outbox.len() < READ_MAX) {
            return Ok(());
        }
        self.outbox.drain(&mut *self.end, self.traits.gather, wait)
    }

    #[inline(always)]
    fn post_piece(&mut self, frame: &Frame<'_>, how: Post, wait: Wait) -> Result<Level, Error> {
        if how == Post::Feed {
            self.outbox.push(frame);
            return Ok(Level::Held);
        }
        let done = self.end.send(frame, wait)?;
        if done < frame.size() {
            self.outbox.push(&frame.after(done));
            return Ok(Level::Held);
        }
        Ok(Level::Queued)
    }

    /// A message in several pieces. Once the first is accepted the message is begun: what doesn't go
    /// after it is held, whatever the reason, and the next call is told that.
    fn post_pieces(
        &mut self,
        message: &Outgoing<'_>,
        mut how: Post,
        wait: Wait,
    ) -> Result<Level, Error> {
        let total = message.body.len() as u64;
        let mut level = Level::Queued;
        let mut offset = 0;
        while offset < message.body.len() {
            let room = self.traits.piece_size - self.head_size(true, message.call.is_some());
            let body = &message.body[offset..message.body.len().min(offset + room)];
            let mut head = [0; HEADER_MAX * 2];
            let part = Part { total, offset: offset as u64 };
            let size = self.head(&mut head, &Outgoing { body, ..*message }, Some(part));
            let mut frame = piece(&head[..size], body, message);
            frame.more = offset + body.len() < message.body.len();
            if offset > 0 {
                frame.descriptors = &[];
                frame.goes_on = true;
            }
            match self.post_piece(&frame, how, wait) {
                Ok(done) => level = done,
                Err(_) if offset > 0 => {
                    self.outbox.push(&frame);
                    level = Level::Held;
                }
                Err(error) => return Err(error),
            }
            if level == Level::Held {
                how = Post::Feed;
            }
            self.introduced = true;
            offset += body.len();
        }
        Ok(level)
    }

    /// Writes the envelope of a piece, with the introduction before it where one is due.
    #[inline(always)]
    fn head(&self, buffer: &mut [u8], message: &Outgoing<'_>, part: Option<Part>) -> usize {
        if self.options.is_raw() {
            return 0;
        }
        let size = if self.introduces_now() { self.hello(buffer) } else { 0 };
        let header = Header {
            kind: PieceKind::Message,
            descriptors: if part.is_none_or(|part| part.offset == 0) {
                message.descriptors.len() as u8
            } else {
                0
            },
            priority: message.priority,
            size: message.body.len() as u32,
            speaker: (!self.traits.introduces).then_some(self.speaker),
            part,
            call: message.call,
            body_check: self.options.check.then(|| body_check(message.body)),
        };
        size + header.encode(&mut buffer[size..])
    }

    /// Writes the introduction: its size.
    #[cold]
    fn hello(&self, buffer: &mut [u8]) -> usize {
        let hello =
            Header { kind: PieceKind::Hello, speaker: Some(self.speaker), ..Header::message(0) };
        hello.encode(buffer)
    }
}
