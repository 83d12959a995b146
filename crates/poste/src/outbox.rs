//! What a sender has begun or fed and not yet sent: whole pieces in a row, and the rest of one.

use std::collections::VecDeque;

use crate::error::{Error, Kind};
use crate::mechanism::{Frame, SendEnd};
use crate::wait::Wait;

/// Pieces that go before anything else of their sender.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    pieces: VecDeque<Held>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    size: usize,
    priority: u16,
    message_type: Option<i64>,
}

impl Outbox {
    /// Whether nothing is held.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes are held.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Holds a piece, or what is left of it after `done` bytes.
    pub(crate) fn push(&mut self, frame: &Frame<'_>, done: usize) {
        let head = frame.head.get(done..).unwrap_or(&[]);
        let body = &frame.body[done.saturating_sub(frame.head.len())..];
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(body);
        self.pieces.push_back(Held {
            size: head.len() + body.len(),
            priority: frame.priority,
            message_type: frame.message_type,
        });
    }

    /// Sends what is held; up to `gather` bytes of whole pieces go with one call.
    ///
    /// # Errors
    /// `Full`, `TimedOut`, and `NoReceiver` of an end that waits for one, where some of it is still
    /// held; others end the connection, and what is held is given up.
    pub(crate) fn drain(
        &mut self,
        end: &mut dyn SendEnd,
        gather: usize,
        wait: Wait,
    ) -> Result<(), Error> {
        while let Some(first) = self.pieces.front().copied() {
            let (mut size, mut pieces) = (first.size, 1);
            for next in self.pieces.iter().skip(1) {
                // An empty piece is a message of its own where nothing is gathered.
                if gather == 0 || size + next.size > gather {
                    break;
                }
                size += next.size;
                pieces += 1;
            }
            let frame = Frame {
                head: &self.bytes[self.sent..self.sent + size],
                priority: first.priority,
                message_type: first.message_type,
                more: self.sent + size < self.bytes.len(),
                ..Frame::default()
            };
            match end.send(&frame, wait) {
                Ok(count) => {
                    self.forget(count, pieces);
                    if count < size {
                        let kind = if wait == Wait::Not { Kind::Full } else { Kind::TimedOut };
                        return Err(Error::new(kind, ""));
                    }
                }
                Err(error) => {
                    if !error.is_passing() {
                        *self = Outbox::default();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Forgets the first `count` bytes, which are sent: of so many pieces, and no empty one behind
    /// them.
    fn forget(&mut self, mut count: usize, pieces: usize) {
        self.sent += count;
        for _ in 0..pieces {
            let Some(first) = self.pieces.front_mut() else { break };
            if first.size > count {
                first.size -= count;
                break;
            }
            count -= first.size;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}
