//! The receiving side of a lane: find the next message of a priority, claim it, end it.
//!
//! A receiver keeps for each lane and priority the number before which none of that priority is
//! ready. It is private, so that receivers share no word but those of the messages themselves; when
//! messages become ready again, `rewinds` tells everybody to look from the head.

use std::sync::Arc;

use poste_sys::atomic::{Ordering, exchange_fenced};

use super::lane::{ANY, Fault, Lane};
use super::layout::{State, Word};
use super::producer::AHEAD;

/// What a receiver knows of a lane.
#[derive(Debug)]
pub(crate) struct Reader {
    lane: Arc<Lane>,
    next: [u64; 32],
    rewinds: u64,
}

impl Reader {
    /// Begins at the lane's head.
    pub(crate) fn new(lane: Arc<Lane>) -> Reader {
        // Acquire: pairs with the release of who made messages ready again. Before the head: what
        // becomes ready later is seen by the count.
        let rewinds = lane.rewinds().load(Ordering::Acquire);
        let head = lane.head().load(Ordering::Acquire);
        Reader { lane, next: [head; 32], rewinds }
    }

    /// The lane.
    #[inline]
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// The priorities above 0 of which messages may lie here, one bit each. Looks too whether
    /// messages became ready again.
    #[inline]
    pub(crate) fn urgent(&mut self) -> u64 {
        let rewinds = self.lane.rewinds().load(Ordering::Acquire);
        if rewinds != self.rewinds {
            self.rewinds = rewinds;
            self.next = [self.lane.head().load(Ordering::Acquire); 32];
        }
        self.lane.urgent().load(Ordering::Acquire)
    }

    /// The oldest ready message of a priority: its number and its word. Looks at each descriptor
    /// once for each priority in use, and at no more than there are.
    ///
    /// # Errors
    /// A message without a known state: the lane is not to be read.
    #[inline]
    pub(crate) fn find(&mut self, priority: u8) -> Result<Option<(u64, Word)>, Fault> {
        let priority_index = usize::from(priority & 31);
        let mut left = self.lane.slots() + 1;
        while left > 0 {
            left -= 1;
            let number = self.next[priority_index];
            let word = Word::read(self.lane.word(number).load(Ordering::Acquire));
            if word.number() != number as u32 {
                if is_older(word.number(), number) || !self.catch_up(priority_index)? {
                    return Ok(None);
                }
                continue;
            }
            if word.is_ready(priority) {
                return Ok(Some((number, word)));
            }
            if word.state() == State::Unknown {
                return Err("a message has no known state");
            }
            self.next[priority_index] = number.wrapping_add(1);
        }
        Ok(None)
    }

    /// Claims the ready messages of a priority for `receiver`, oldest first and up to `most`, in one
    /// pass over the descriptors; each that was won goes to `taken`.
    ///
    /// # Errors
    /// As [`Reader::find`]; what was claimed before stays claimed.
    pub(crate) fn claim(
        &mut self,
        priority: u8,
        receiver: u16,
        most: usize,
        mut taken: impl FnMut(u64),
    ) -> Result<(), Fault> {
        let mut left = most;
        while left > 0 {
            let Some((number, word)) = self.find(priority)? else { break };
            self.lane.soon_written(number + AHEAD);
            if self.lane.take(number, word, receiver) {
                taken(number);
                left -= 1;
            }
            // Ours or another's: it is ready no more, unless a rewind says so.
            self.next[usize::from(priority & 31)] = number.wrapping_add(1);
        }
        Ok(())
    }

    /// Goes to the head, after which the sender has written new messages over old ones: whether that
    /// is ahead.
    #[cold]
    fn catch_up(&mut self, priority_index: usize) -> Result<bool, Fault> {
        let head = self.lane.head().load(Ordering::Acquire);
        let ahead = head.wrapping_sub(self.next[priority_index]);
        if ahead == 0 || ahead > u64::MAX / 2 {
            return Err("a message has another's number");
        }
        let there = Word::read(self.lane.word(head).load(Ordering::Acquire));
        let lap = self.lane.slots() as u32;
        let expected = [head as u32, (head as u32).wrapping_sub(lap)];
        if !expected.contains(&there.number()) && self.lane.head().load(Ordering::Acquire) == head {
            return Err("a lane's head is not among its messages");
        }
        self.next[priority_index] = head;
        Ok(true)
    }
}

/// Whether a word is left from a lap before, so that this message isn't there yet.
#[inline]
fn is_older(found: u32, number: u64) -> bool {
    found.wrapping_sub(number as u32) > u32::MAX / 2
}

impl Lane {
    /// Claims a message that was found ready: whether it is now `receiver`'s. Acquire on success,
    /// with the load that found it: what its sender wrote is to be read. Two receivers race here, and
    /// one wins.
    #[inline]
    pub(crate) fn take(&self, number: u64, found: Word, receiver: u16) -> bool {
        let (word, taken) = (self.word(number), found.taken(receiver).write());
        word.compare_exchange(found.write(), taken, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Ends a message that `receiver` has taken: whether it was its to end, and the sender waits for
    /// it. The full barrier puts the look at `wanted` after the word, as [`super::producer::Producer`]
    /// looks at the word after it said what it wants.
    #[inline]
    pub(crate) fn finish(&self, number: u64, receiver: u16) -> Option<Wanted> {
        let taken = self.look(number)?;
        if !taken.is_taken_by(receiver) {
            return None;
        }
        if !exchange_fenced(self.word(number), taken.write(), taken.done().write()) {
            return None;
        }
        Some(self.is_wanted(number))
    }

    /// Whether the sender waits for this message's end; who finds it so takes it on to wake it.
    #[inline]
    fn is_wanted(&self, number: u64) -> Wanted {
        let wanted = self.wanted().load(Ordering::Relaxed);
        if wanted == 0 || (wanted != ANY && wanted != number.wrapping_add(1)) {
            return Wanted::No;
        }
        let mine = self.wanted().compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Relaxed);
        if mine.is_ok() { Wanted::Yes } else { Wanted::No }
    }

    /// Makes a message ready again that `receiver` has taken, one delivery more: whether it was its
    /// to give back. The caller then says so by [`Lane::rewind`].
    pub(crate) fn give_back(&self, number: u64, receiver: u16) -> bool {
        let Some(taken) = self.look(number) else { return false };
        if !taken.is_taken_by(receiver) {
            return false;
        }
        if !exchange_fenced(self.word(number), taken.write(), taken.again().write()) {
            return false;
        }
        self.redelivered().fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Tells every receiver to look at this lane from its head. A full barrier: the look at who
    /// sleeps comes after it.
    pub(crate) fn rewind(&self) {
        self.rewinds().fetch_add(1, Ordering::SeqCst);
        poste_sys::atomic::fence(Ordering::SeqCst);
    }
}

/// Whether the sender of a lane is to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Yes,
    No,
}
