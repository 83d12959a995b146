//! The sender's own side of a lane.
//!
//! The sender alone writes descriptors, bodies and `head`; it finds room, writes, and publishes. What
//! it knows it can read back from the lane: a sender that takes an orphan over goes on where the
//! dead one stopped, and what that one had not published was never there.

use std::sync::Arc;

use poste_sys::atomic::{Ordering, store_fenced};
use poste_sys::mapping::Mapping;

use super::lane::{ANY, Fault, Lane};
use super::layout::{LINE, Place, State, Word, descriptor, room};

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The bodies have no room for so many bytes in a row.
    Bodies(usize),
    /// As many messages lie there as may.
    Messages,
}

/// The sender's side.
#[derive(Debug)]
pub(crate) struct Producer {
    lane: Arc<Lane>,
    bodies: Mapping,
    /// How many messages may lie there.
    capacity: u64,
    /// As the word `head`.
    head: u64,
    /// Messages before this number are published.
    published: u64,
    /// What the messages after those are, which are written and held back.
    held: Vec<Kind>,
    /// Where the next body goes, unless the ring ends there.
    write: usize,
    /// Where the body of message `head` lies, if there is one: free room ends there.
    oldest: usize,
    /// How many messages of each priority are not known to be done.
    lying: [u32; 32],
    /// Room that is lent to be written in place.
    lent: Option<Place>,
}

/// No lane ever carries so many messages.
const NUMBER_MAX: u64 = 1 << 56;

/// What is done is looked for after each such number of messages: each look is a cache line's way
/// from a receiver, and a ring that is emptied early stays in the nearer caches.
const RECLAIM_EVERY: u64 = 256;

/// How many descriptors ahead their lines are asked for.
pub(super) const AHEAD: u64 = 8;

impl Producer {
    /// Goes on with a lane as it is, new or somebody's before.
    pub(crate) fn resume(lane: Arc<Lane>, bodies: Mapping, capacity: u64) -> Result<Self, Fault> {
        let mut lying = [0; 32];
        let range = lane.published();
        if range.start < lane.slots() || range.start > NUMBER_MAX {
            return Err("a lane's head is before its beginning, or beyond any end");
        }
        let mut write = 0;
        for number in range.clone() {
            let word = lane.look(number).ok_or("a lane changed while nobody had it")?;
            let place = lane.place(number);
            if place.offset.saturating_add(place.room()) > bodies.backed() {
                return Err("a message's body lies outside of its lane");
            }
            lying[usize::from(word.priority())] += 1;
            write = place.offset + place.room();
        }
        let urgent = (1..32).filter(|priority| lying[*priority] > 0);
        let urgent = urgent.fold(0, |bits, priority| bits | 1 << priority);
        lane.urgent().store(urgent, Ordering::Release);
        lane.wanted().store(0, Ordering::Release);
        let capacity = capacity.clamp(1, lane.slots());
        let (head, published) = (range.start, range.end);
        let oldest = if head < published { lane.place(head).offset } else { 0 };
        let held = Vec::new();
        let lent = None;
        Ok(Producer { lane, bodies, capacity, head, published, held, write, oldest, lying, lent })
    }

    /// The lane.
    #[inline]
    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// How many bytes of bodies the lane has.
    pub(crate) fn size(&self) -> usize {
        self.bodies.backed()
    }

    /// Makes the room for bodies so many bytes: the file grows.
    ///
    /// # Errors
    /// As `Mapping::extend`.
    pub(crate) fn grow(&self, size: usize) -> Result<(), rustix::io::Errno> {
        self.bodies.extend(size)
    }

    /// How many messages are written and not published.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether all that was published is done.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.reclaim();
        self.head == self.published
    }

    /// Whether what was published is still there: nobody else writes a lane's numbers.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        match self.lane.published().end >= self.published {
            true => self.lane.check(self.bodies.backed()),
            false => Err("somebody wrote over this lane's messages"),
        }
    }

    /// The number of the next message.
    #[inline]
    fn tail(&self) -> u64 {
        self.published + self.held.len() as u64
    }

    /// Room for a body: its offset. Nothing is taken by asking.
    #[inline]
    pub(crate) fn room_for(&mut self, size: usize) -> Result<usize, Obstacle> {
        let lying = self.tail() - self.head;
        if lying >= self.capacity || lying >= RECLAIM_EVERY && lying % RECLAIM_EVERY == 0 {
            self.reclaim();
            self.check_count()?;
        }
        let need = room(size);
        if let Some(offset) = self.find(need) {
            return Ok(offset);
        }
        self.reclaim();
        self.find(need).ok_or(Obstacle::Bodies(need))
    }

    /// Whether one more message may lie here.
    fn check_count(&self) -> Result<(), Obstacle> {
        let lying = self.tail() - self.head;
        if lying >= self.lane.slots() || (lying >= self.capacity && self.live() >= self.capacity) {
            return Err(Obstacle::Messages);
        }
        Ok(())
    }

    /// How many messages are not done, also behind the oldest.
    fn live(&self) -> u64 {
        let done = (self.head..self.published).filter(|number| self.is_done(*number)).count();
        self.tail() - self.head - done as u64
    }

    #[inline]
    fn is_done(&self, number: u64) -> bool {
        // Acquire, by `look`: pairs with the receiver's `done`, so that its reads of the body come
        // before our next write there.
        self.lane.look(number).is_some_and(|word| word.state() == State::Done)
    }

    /// A place for so many bytes in the ring of bodies.
    #[inline]
    fn find(&mut self, need: usize) -> Option<usize> {
        let end = self.bodies.backed();
        if self.head == self.tail() {
            // Nothing lies here: begin anew, where the memory is warm.
            self.write = 0;
            return (need <= end).then_some(0);
        }
        if self.write > self.oldest {
            if need <= end.saturating_sub(self.write) {
                return Some(self.write);
            }
            return (need <= self.oldest).then_some(0);
        }
        (need <= self.oldest - self.write).then_some(self.write)
    }

    /// Passes over what is done at the ring's old end.
    fn reclaim(&mut self) {
        let old = self.head;
        while self.head < self.published {
            self.lane.soon_written(self.head + AHEAD);
            let Some(word) = self.lane.look(self.head) else { break };
            if word.state() != State::Done {
                break;
            }
            self.forget(word);
            self.head += 1;
        }
        if self.head == old {
            return;
        }
        if self.head < self.tail() {
            self.oldest = self.lane.place(self.head).offset;
        }
        // Before any descriptor is written again. Release: who reads it comes after the messages
        // that it passes over, which were done when they were read above.
        self.lane.head().store(self.head, Ordering::Release);
    }

    fn forget(&mut self, word: Word) {
        let lying = &mut self.lying[usize::from(word.priority())];
        *lying = lying.saturating_sub(1);
        if word.priority() > 0 && *lying == 0 {
            let urgent = self.lane.urgent();
            urgent
                .store(urgent.load(Ordering::Relaxed) & !(1 << word.priority()), Ordering::Release);
        }
    }

    /// The room at an offset that [`Producer::room_for`] gave.
    #[inline]
    pub(crate) fn body(&mut self, offset: usize, size: usize) -> Option<&mut [u8]> {
        self.bodies.slice_mut(offset, size)
    }

    /// Lends room that [`Producer::room_for`] gave, until it is taken back.
    pub(crate) fn lend(&mut self, place: Place) {
        self.lent = Some(place);
    }

    /// What stands in the room that is lent.
    pub(crate) fn lent(&self) -> &[u8] {
        self.lent.and_then(|place| self.bodies.slice(place.offset, place.size)).unwrap_or(&[])
    }

    /// The room that is lent.
    pub(crate) fn lent_mut(&mut self) -> &mut [u8] {
        match self.lent {
            Some(place) => self.body(place.offset, place.size).unwrap_or(&mut []),
            None => &mut [],
        }
    }

    /// Takes back what is lent: the place of so many bytes there, if there was room for so many.
    pub(crate) fn take_lent(&mut self, size: usize) -> Option<Place> {
        let place = self.lent.take().filter(|place| size <= place.size)?;
        Some(Place { size, ..place })
    }

    /// Writes a message's descriptor, and holds the message back.
    #[inline]
    pub(crate) fn write(&mut self, place: Place, kind: Kind, sequence: u64, sender: u64) {
        let number = self.tail();
        let words = self.lane.descriptor(number);
        let set = |field: usize, value| words[field / 8].store(value, Ordering::Relaxed);
        set(descriptor::PLACE, place.write());
        set(descriptor::SEQUENCE, sequence);
        set(descriptor::SENDER, sender);
        if self.head == number {
            self.oldest = place.offset;
        }
        self.write = place.offset + place.room();
        // The lines of the next ones travel here from their last reader meanwhile.
        self.bodies.soon_written(self.write + 4 * LINE);
        self.lane.soon_written(number + AHEAD);
        self.note(kind.priority);
        self.held.push(kind);
    }

    /// Counts a priority. One above 0 is announced before its message is there, and the bit goes
    /// when none of it lies here any more: it says "may".
    #[inline]
    fn note(&mut self, priority: u8) {
        let lying = &mut self.lying[usize::from(priority & 31)];
        *lying += 1;
        if priority > 0 && *lying == 1 {
            let urgent = self.lane.urgent();
            // Only this sender writes it. Release, and the word after it: who sees the message ready
            // with acquire sees the bit.
            urgent.store(urgent.load(Ordering::Relaxed) | 1 << priority, Ordering::Release);
        }
    }

    /// Publishes what is held back: the commit point of each message is the store of its word. Release
    /// pairs with the acquire of `Lane::look`. A look at who sleeps needs a full barrier before it, as
    /// the sleeper's look at the words comes after its announcement (wake.rs).
    #[inline]
    pub(crate) fn publish(&mut self) {
        for kind in &self.held {
            let word = self.lane.word(self.published);
            word.store(kind.ready(self.published), Ordering::Release);
            self.published += 1;
        }
        self.held.clear();
    }

    /// The message whose end to wait for when there was no room: in the middle of what lies here,
    /// so that waking pays. `None`: something is done already, look again.
    pub(crate) fn to_wait_for(&self, obstacle: Obstacle) -> Option<u64> {
        let count = self.published - self.head;
        if count == 0 || self.is_done(self.head) {
            return None;
        }
        if obstacle == Obstacle::Messages && count <= ANY_BELOW {
            return Some(ANY);
        }
        Some(self.undone_up_to((count - 1) / 2))
    }

    /// As [`Producer::to_wait_for`], for one who looks again and again meanwhile: the sooner it goes on
    /// the better.
    pub(crate) fn to_look_for(&self, sleeping: u64) -> u64 {
        match sleeping {
            ANY => ANY,
            number => self.undone_up_to((number - self.head).min(ANY_BELOW)),
        }
    }

    /// The last message that is not done, of so many after the oldest, which is not.
    fn undone_up_to(&self, count: u64) -> u64 {
        let numbers = self.head..=self.head + count;
        numbers.rev().find(|number| !self.is_done(*number)).unwrap_or(self.head)
    }

    /// Says which message's end is waited for; the caller then looks whether it came before, and
    /// sleeps only if not. A full barrier; pairs with `Lane::finish`.
    pub(crate) fn want(&self, number: u64) {
        store_fenced(self.lane.wanted(), number.wrapping_add(u64::from(number != ANY)));
    }

    /// Waits for nothing any more.
    pub(crate) fn want_nothing(&self) {
        self.lane.wanted().store(0, Ordering::Release);
    }

    /// Whether what is waited for has come: after [`Producer::want`].
    pub(crate) fn came(&self, number: u64) -> bool {
        if number == ANY { self.live() < self.tail() - self.head } else { self.is_done(number) }
    }
}

/// Where so few messages may lie, each that is done is worth being woken for.
const ANY_BELOW: u64 = 32;

/// What a message is beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// 0 to 31, the higher first.
    pub(crate) priority: u8,
    /// It is no message of poste's.
    pub(crate) raw: bool,
}

impl Kind {
    /// The word of such a message, ready.
    #[inline]
    fn ready(self, number: u64) -> u64 {
        Word::ready(number, self.priority, self.raw).write()
    }
}

#[cfg(all(test, not(poste_loom)))]
mod tests {
    use super::*;
    use crate::ring::claim::Reader;
    use poste_sys::mapping::{Access, reserve};
    use std::collections::VecDeque;
    use std::os::fd::AsFd;

    fn file(size: usize) -> std::os::fd::OwnedFd {
        let file = rustix::fs::memfd_create("lane", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        reserve(file.as_fd(), size).unwrap();
        file
    }

    /// What is sent comes out as it was, whatever the sizes, however late it is ended and whoever
    /// goes on; and the invariant holds after each step.
    #[test]
    fn a_lane_keeps_its_messages_whatever_the_order_of_their_ends() {
        const SLOTS: u64 = 32;
        let control = Lane::control_size(SLOTS);
        let words = Mapping::new(file(control), 0, control, Access::Write).unwrap();
        Lane::format(&words, SLOTS, control, [1, 2]);
        let lane = Arc::new(Lane::over(words, SLOTS).unwrap());
        let bodies = file(16 << 10);
        let map = |access| {
            let copy = rustix::io::fcntl_dupfd_cloexec(&bodies, 0).unwrap();
            Mapping::new(copy, 0, 64 << 10, access).unwrap()
        };
        let resume = || Producer::resume(Arc::clone(&lane), map(Access::Write), 20).unwrap();
        let (mut producer, mut reader) = (resume(), Reader::new(Arc::clone(&lane)));
        let reading = map(Access::Read);
        let (mut waiting, mut taken) = (VecDeque::new(), Vec::new());
        let mut dice = 0x2545_f491_4f6c_dd1d_u64;
        let mut roll = |sides: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % sides
        };
        for sequence in 0..20_000_u64 {
            match roll(8) {
                0..=3 => {
                    let size = roll(3000) as usize;
                    if let Ok(offset) = producer.room_for(size) {
                        producer.body(offset, size).unwrap().fill(sequence as u8);
                        let kind = Kind { priority: 0, raw: false };
                        producer.write(Place { offset, size }, kind, sequence, 0);
                        producer.publish();
                        waiting.push_back((sequence, size));
                    }
                }
                4 | 5 => {
                    let found = reader.urgent() == 0 && !waiting.is_empty();
                    if let (true, Some((number, word))) = (found, reader.find(0).unwrap()) {
                        assert!(lane.take(number, word, 7));
                        assert_eq!(
                            Some(lane.origin(number).0),
                            waiting.pop_front().map(|one| one.0)
                        );
                        taken.push(number);
                    }
                }
                6 if !taken.is_empty() => {
                    let number = taken.swap_remove(roll(taken.len() as u64) as usize);
                    let (place, (sequence, _)) = (lane.place(number), lane.origin(number));
                    let body = reading.slice(place.offset, place.size).unwrap();
                    assert!(body.iter().all(|byte| *byte == sequence as u8));
                    assert!(lane.finish(number, 7).is_some());
                }
                // The sender is gone, and another goes on.
                _ if roll(20) == 0 => producer = resume(),
                _ => {}
            }
            assert!(waiting.len() + taken.len() <= 20, "no more than its capacity");
            assert_eq!(lane.depth(), (waiting.len() as u64, taken.len() as u64));
            lane.check(16 << 10).unwrap();
        }
    }
}
