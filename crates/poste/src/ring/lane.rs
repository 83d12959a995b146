//! A lane as everybody sees it: its words, and what must hold of them. Its sender's own side is
//! producer.rs, a receiver's claim.rs.

use poste_sys::atomic::{AtomicU64, Ordering};
use poste_sys::mapping::Mapping;

use super::layout::{Place, State, Word, descriptor, lane};

/// The part of a lane that everybody shares: its words.
#[derive(Debug)]
pub(crate) struct Lane {
    control: Mapping,
    /// How many descriptors it has, a power of two.
    slots: u64,
}

/// What is wrong with a lane's bytes.
pub(crate) type Fault = &'static str;

/// The value of `wanted` that means: whichever message is done next.
pub(crate) const ANY: u64 = u64::MAX;

impl Lane {
    /// The size of the words of a lane with so many descriptors.
    pub(crate) fn control_size(slots: u64) -> usize {
        (lane::DESCRIPTORS + slots as usize * descriptor::SIZE).next_multiple_of(4096)
    }

    /// Writes the words of a new lane, whose bodies begin at `bodies` in its file.
    pub(crate) fn format(control: &Mapping, slots: u64, bodies: usize, instance: [u64; 2]) {
        let set = |at, value| control.word(at).store(value, Ordering::Relaxed);
        set(lane::SLOTS, slots);
        set(lane::BODIES, bodies as u64);
        set(lane::INSTANCE, instance[0]);
        set(lane::INSTANCE + 8, instance[1]);
        // Numbers begin with the second lap, so that an untouched word is always an old one.
        set(lane::HEAD, slots);
        set(lane::MAGIC, super::layout::LANE_MAGIC);
    }

    /// Takes a lane's words as they are, after a look at what they say.
    pub(crate) fn over(control: Mapping, slots: u64) -> Result<Lane, Fault> {
        if !slots.is_power_of_two() || control.backed() < Lane::control_size(slots) {
            return Err("a lane's file is too short for its descriptors");
        }
        Ok(Lane { control, slots })
    }

    /// How many descriptors it has.
    pub(crate) fn slots(&self) -> u64 {
        self.slots
    }

    /// The word of message `number`; it is about this message only if it carries its number.
    #[inline]
    pub(crate) fn word(&self, number: u64) -> &AtomicU64 {
        &self.descriptor(number)[descriptor::WORD / 8]
    }

    /// Where the body of message `number` lies. To be asked by who has taken it, or wrote it.
    #[inline]
    pub(crate) fn place(&self, number: u64) -> Place {
        Place::read(self.descriptor(number)[descriptor::PLACE / 8].load(Ordering::Relaxed))
    }

    /// The message's number with its sender, and the sender's own.
    #[inline]
    pub(crate) fn origin(&self, number: u64) -> (u64, u64) {
        let words = self.descriptor(number);
        let read = |field: usize| words[field / 8].load(Ordering::Relaxed);
        (read(descriptor::SEQUENCE), read(descriptor::SENDER))
    }

    /// All messages before this number are done. Written by the sender with release, after it has
    /// read their `done` with acquire; read with acquire.
    #[inline]
    pub(crate) fn head(&self) -> &AtomicU64 {
        self.control.word(lane::HEAD)
    }

    /// One bit for each priority above 0 that may lie here.
    #[inline]
    pub(crate) fn urgent(&self) -> &AtomicU64 {
        self.control.word(lane::URGENT)
    }

    /// Counts how often messages became ready again.
    #[inline]
    pub(crate) fn rewinds(&self) -> &AtomicU64 {
        self.control.word(lane::REWINDS)
    }

    /// What the sender waits for: see the layout.
    #[inline]
    pub(crate) fn wanted(&self) -> &AtomicU64 {
        self.control.word(lane::WANTED)
    }

    /// The processor that the sender waited on last, plus 1.
    pub(crate) fn processor(&self) -> &AtomicU64 {
        self.control.word(lane::PROCESSOR)
    }

    /// How many messages came again.
    pub(crate) fn redelivered(&self) -> &AtomicU64 {
        self.control.word(lane::REDELIVERED)
    }

    /// How many messages were set aside.
    pub(crate) fn aside(&self) -> &AtomicU64 {
        self.control.word(lane::ASIDE)
    }

    /// A word of the lane's first page that isn't one of a mailbox's.
    pub(crate) fn control_word(&self, at: usize) -> &AtomicU64 {
        debug_assert!(at > lane::ASIDE && at < lane::DESCRIPTORS);
        self.control.word(at)
    }

    #[inline]
    pub(super) fn descriptor(&self, number: u64) -> &[AtomicU64; descriptor::SIZE / 8] {
        let slot = (number & (self.slots - 1)) as usize;
        self.control.words(lane::DESCRIPTORS + slot * descriptor::SIZE)
    }

    /// Fetches the descriptor of message `number`, to write it.
    #[inline]
    pub(crate) fn soon_written(&self, number: u64) {
        let slot = (number & (self.slots - 1)) as usize;
        self.control.soon_written(lane::DESCRIPTORS + slot * descriptor::SIZE);
    }

    /// The word of message `number`, if it is about it. Acquire: pairs with the release of who
    /// stored the state, so that what it says of the body is so.
    #[inline]
    pub(crate) fn look(&self, number: u64) -> Option<Word> {
        let word = Word::read(self.word(number).load(Ordering::Acquire));
        (word.number() == number as u32).then_some(word)
    }

    /// The published messages that are not known to be done: numbers from the head to the first
    /// that isn't there. What they hold is bounded by the descriptors, whatever a peer wrote.
    pub(crate) fn published(&self) -> std::ops::Range<u64> {
        let head = self.head().load(Ordering::Acquire);
        let there =
            (0..self.slots).take_while(|step| self.look(head.wrapping_add(*step)).is_some());
        head..head.wrapping_add(there.count() as u64)
    }

    /// How many messages wait, and how many are taken.
    pub(crate) fn depth(&self) -> (u64, u64) {
        self.published().fold((0, 0), |(ready, taken), number| {
            match self.look(number).map(Word::state) {
                Some(State::Ready) => (ready + 1, taken),
                Some(State::Taken) => (ready, taken + 1),
                _ => (ready, taken),
            }
        })
    }

    /// What must hold of a lane whenever nobody is within a step, whoever was killed where: what is
    /// published is a row of known states, its bodies lie in the file and don't overlap.
    pub(crate) fn check(&self, bodies: usize) -> Result<(), Fault> {
        let mut places = Vec::new();
        for number in self.published() {
            match self.look(number).map(Word::state) {
                Some(State::Unknown) | None => return Err("a message has no known state"),
                Some(State::Done) => {}
                Some(State::Ready | State::Taken) => places.push(self.place(number)),
            }
        }
        places.sort_by_key(|place| place.offset);
        for (index, place) in places.iter().enumerate() {
            let end = place.offset.saturating_add(place.room());
            if end > bodies || places.get(index + 1).is_some_and(|next| next.offset < end) {
                return Err("a message's body lies outside its lane, or in another's");
            }
        }
        Ok(())
    }
}
