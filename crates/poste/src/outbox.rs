//! What a sender has begun or fed and not yet sent: messages in a row, the first perhaps begun.
//!
//! What is begun belongs to the receiver that got its beginning. When that one is gone, the rest of
//! that message goes with it, and an error says so; the messages behind it are whole, and wait for
//! the next receiver.

use std::collections::VecDeque;

use crate::error::{Error, Kind};
use crate::limits::READ_MAX;
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
    /// It goes on with a message that is begun, here or at the receiver.
    goes_on: bool,
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

    /// Holds a piece.
    pub(crate) fn push(&mut self, frame: &Frame<'_>) {
        if self.sent >= READ_MAX {
            // A sender that never catches up must not keep what it has sent.
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        self.bytes.extend_from_slice(frame.head);
        self.bytes.extend_from_slice(frame.body);
        self.pieces.push_back(Held {
            size: frame.size(),
            priority: frame.priority,
            message_type: frame.message_type,
            goes_on: frame.goes_on,
        });
    }

    /// Sends what is held; up to `gather` bytes of whole pieces go with one call.
    ///
    /// # Errors
    /// After those that may pass everything is still held. Where the receiver is gone in the middle
    /// of a message that message is given up, where no other can come all of them; after other
    /// errors the first.
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
                goes_on: first.goes_on,
                ..Frame::default()
            };
            match end.send(&frame, wait) {
                Ok(count) => {
                    self.forget(count, pieces);
                    if count < size && wait.left().is_some_and(|left| left.is_zero()) {
                        let kind = if wait == Wait::Not { Kind::Full } else { Kind::TimedOut };
                        return Err(Error::new(kind, ""));
                    }
                }
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    let is_over = error.is(&Kind::Disconnected) || error.is(&Kind::Removed);
                    if is_over && !first.goes_on {
                        self.give_up();
                    } else {
                        self.drop_first();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives up all that is held.
    pub(crate) fn give_up(&mut self) {
        *self = Outbox::default();
    }

    /// Gives up the first message, or what is left of it.
    fn drop_first(&mut self) {
        let first = self.pieces.pop_front();
        self.sent += first.map_or(0, |piece| piece.size);
        while let Some(next) = self.pieces.front().filter(|next| next.goes_on) {
            self.sent += next.size;
            self.pieces.pop_front();
        }
        self.tidy();
    }

    /// Forgets the first `count` bytes, which are sent: of so many pieces, and no empty one behind
    /// them.
    fn forget(&mut self, mut count: usize, pieces: usize) {
        self.sent += count;
        for _ in 0..pieces {
            let Some(first) = self.pieces.front_mut() else { break };
            if first.size > count {
                first.size -= count;
                first.goes_on |= count > 0;
                break;
            }
            count -= first.size;
            self.pieces.pop_front();
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.pieces.is_empty() {
            self.sent = 0;
            self.bytes.clear();
            self.bytes.shrink_to(2 * READ_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mechanism::Pollable;

    /// An end that accepts so many bytes of the next frame, or fails.
    struct Script {
        answers: VecDeque<Result<usize, Kind>>,
        sent: Vec<(Vec<u8>, bool)>,
    }

    impl Script {
        fn of(answers: impl Into<VecDeque<Result<usize, Kind>>>) -> Script {
            Script { answers: answers.into(), sent: Vec::new() }
        }
    }

    impl SendEnd for Script {
        fn send(&mut self, frame: &Frame<'_>, _wait: Wait) -> Result<usize, Error> {
            let answer = self.answers.pop_front().unwrap_or(Ok(usize::MAX));
            let count = answer.map_err(|kind| Error::new(kind, ""))?.min(frame.size());
            self.sent.push((frame.head[..count].to_vec(), frame.goes_on));
            Ok(count)
        }

        fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
            Err(Error::new(Kind::NotSupported, ""))
        }
    }

    fn piece(body: &[u8], goes_on: bool) -> Frame<'_> {
        Frame { body, goes_on, ..Frame::default() }
    }

    fn three() -> Outbox {
        let mut outbox = Outbox::default();
        outbox.push(&piece(b"one ", false));
        outbox.push(&piece(b"two ", false));
        outbox.push(&piece(b"and more ", true));
        outbox.push(&piece(b"three", false));
        outbox
    }

    #[test]
    fn what_is_begun_goes_with_its_receiver_and_what_is_whole_waits_for_the_next() {
        let mut end = Script::of([Ok(6), Err(Kind::Disconnected)]);
        let mut outbox = three();
        let error = outbox.drain(&mut end, READ_MAX, Wait::Forever).unwrap_err();
        assert_eq!((error.kind(), outbox.len()), (Kind::Disconnected, 5));
        outbox.drain(&mut end, READ_MAX, Wait::Forever).unwrap();
        let sent = [(b"one tw".to_vec(), false), (b"three".to_vec(), false)];
        assert_eq!(end.sent, sent);
    }

    #[test]
    fn what_is_retryable_keeps_all_and_the_end_of_the_channel_nothing() {
        for kind in [Kind::Full, Kind::TimedOut, Kind::NoReceiver] {
            let mut outbox = three();
            let error = outbox.drain(&mut Script::of([Err(kind)]), 0, Wait::Not).unwrap_err();
            assert!(error.is_retryable() && outbox.len() == 22);
        }
        let mut outbox = three();
        let mut end = Script::of([Err(Kind::Disconnected)]);
        outbox.drain(&mut end, 0, Wait::Not).unwrap_err();
        assert!(outbox.is_empty(), "nobody will ever read it");
        let mut outbox = three();
        let mut end = Script::of([Ok(4), Err(Kind::Permission)]);
        outbox.drain(&mut end, 0, Wait::Not).unwrap_err();
        outbox.drain(&mut end, 0, Wait::Not).unwrap();
        assert_eq!(end.sent[1..], [(b"three".to_vec(), false)], "one message is given up");
    }

    /// Fed a little more than is sent, for ever: as with a receiver that is a little slower.
    #[test]
    fn what_is_sent_is_not_kept() {
        let body = [7; 4000];
        let mut outbox = Outbox::default();
        for round in 0..10_000 {
            outbox.push(&piece(&body, false));
            if outbox.len() > READ_MAX / 2 {
                let mut end = Script::of([Ok(3000), Err(Kind::Full)]);
                outbox.drain(&mut end, 0, Wait::Not).unwrap_err();
                let mut end = Script::of([Ok(4000), Err(Kind::Full)]);
                outbox.drain(&mut end, 0, Wait::Not).unwrap_err();
            }
            assert!(!outbox.is_empty());
            assert!(outbox.bytes.capacity() < 4 * READ_MAX, "in round {round}");
        }
    }
}
