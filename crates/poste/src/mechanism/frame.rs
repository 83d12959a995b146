//! What an end is given to send.

use std::os::fd::BorrowedFd;

/// One piece on its way out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    /// The envelope; empty in raw mode.
    pub head: &'a [u8],
    /// The body, or the part of it that this piece carries.
    pub body: &'a [u8],
    /// The priority, for mechanisms that keep the order themselves.
    pub priority: u16,
    /// The type of a raw System V message.
    pub message_type: Option<i64>,
    /// To whom: the `source` of an arrival; `None` is whoever is there.
    pub to: Option<u64>,
    /// The message's place among those of its sender, where the mechanism keeps it.
    pub sequence: u64,
    /// The sender's own number, where the mechanism keeps it.
    pub sender: u64,
    /// Descriptors that go beside it.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// More pieces follow at once: they may be made visible together.
    pub more: bool,
    /// It goes on with what was begun before: only who got that can use it, not the next receiver.
    pub goes_on: bool,
}

impl Frame<'_> {
    /// The bytes that are to be moved.
    #[must_use]
    #[inline]
    pub fn size(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What is left of it when `done` bytes were accepted; its descriptors went with the first.
    #[must_use]
    pub fn after(&self, done: usize) -> Self {
        if done == 0 {
            return *self;
        }
        let head = self.head.get(done..).unwrap_or(&[]);
        let body = &self.body[done.saturating_sub(self.head.len())..];
        Frame { head, body, descriptors: &[], goes_on: true, ..*self }
    }
}
