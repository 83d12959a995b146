//! Who is to be woken. A waiter announces itself, looks once more, and only then sleeps; who changes
//! something looks for announcements after it, with a full barrier between on both sides: one of the
//! two sees the other. The sender's half of the barrier is made for it by the waiter where senders were
//! told that nobody sleeps: a receiver says first that it is drowsy
//! (mechanism/shared_memory/drowsiness.rs).
//!
//! Each waiter sleeps on a word of its own, so that a wake-up is spent on one that was chosen. If
//! that one is dead, its process's end is noticed by the watchers of those who still sleep
//! (mechanism/shared_memory/watcher.rs), who wake everybody.

use poste_sys::atomic::{AtomicU64, Ordering, light_fence, set_fenced};
use poste_sys::mapping::Mapping;

use super::layout::{PARTICIPANTS, header, participant, participant_at};

const WORDS: usize = PARTICIPANTS / 64;

/// A set of participants in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// Receivers that sleep; a message wakes one of them.
    Asleep,
    /// Receivers whose descriptor is to be rung; a message rings all.
    Armed,
    /// Receivers that may be in one of the others, now or soon.
    Drowsy,
}

impl Set {
    fn at(self) -> usize {
        match self {
            Set::Asleep => header::ASLEEP,
            Set::Armed => header::ARMED,
            Set::Drowsy => header::DROWSY,
        }
    }

    fn word(self, header: &Mapping, place: usize) -> (&AtomicU64, u64) {
        (header.word(self.at() + place / 64 * 8), 1 << (place % 64))
    }

    /// Announces a participant. The full barrier: its next look at the lanes comes after.
    pub(crate) fn enter(self, header: &Mapping, place: usize) {
        let (word, bit) = self.word(header, place);
        set_fenced(word, bit);
    }

    /// Whether a participant is announced, and nobody has chosen it. Acquire: pairs with the release in
    /// `leave`, so that who was chosen sees what it was chosen for.
    #[inline]
    pub(crate) fn holds(self, header: &Mapping, place: usize) -> bool {
        let (word, bit) = self.word(header, place);
        word.load(Ordering::Acquire) & bit != 0
    }

    /// Takes the announcement back: whether it still stood. If not, somebody has chosen this one,
    /// and counts on it.
    pub(crate) fn leave(self, header: &Mapping, place: usize) -> bool {
        let (word, bit) = self.word(header, place);
        word.fetch_and(!bit, Ordering::AcqRel) & bit != 0
    }

    /// Chooses one of the set, which leaves it: no two choose the same.
    #[inline]
    pub(crate) fn choose(self, header: &Mapping) -> Option<usize> {
        self.choose_from(header, 0)
    }

    /// As [`Set::choose`], from a place on.
    #[inline]
    pub(crate) fn choose_from(self, header: &Mapping, from: usize) -> Option<usize> {
        (from / 64..WORDS).find_map(|index| {
            let word = header.word(self.at() + index * 8);
            let mut bits = word.load(Ordering::Relaxed);
            if index == from / 64 {
                bits &= !0 << (from % 64);
            }
            while bits != 0 {
                let place = index * 64 + bits.trailing_zeros() as usize;
                if self.leave(header, place) {
                    return Some(place);
                }
                bits &= bits - 1;
            }
            None
        })
    }
}

/// Whether nobody is drowsy, as a sender finds right after it has published: then there is nobody to
/// look for. Without a barrier of its own: who becomes drowsy makes one on every processor where a
/// sender runs, and what was published before that is seen by its next look. Only for senders that
/// take part in such barriers.
#[inline]
pub(crate) fn is_everybody_awake(header: &Mapping) -> bool {
    light_fence();
    let drowsy = header.words::<WORDS>(header::DROWSY);
    drowsy.iter().fold(0, |bits, word| bits | word.load(Ordering::Relaxed)) == 0
}

/// Whether nobody is to be woken or rung: what almost every send finds. To be asked after a full
/// barrier; all that it reads lies in one cache line.
#[inline]
pub(crate) fn nobody(header: &Mapping) -> bool {
    let both = header.words::<{ 2 * WORDS }>(header::ASLEEP);
    both.iter().fold(0, |bits, word| bits | word.load(Ordering::Relaxed)) == 0
}

/// The word that a participant sleeps on: 0 asleep, 1 look again.
#[inline]
pub(crate) fn word(header: &Mapping, place: usize) -> &poste_sys::atomic::AtomicU32 {
    header.half(participant_at(place) + participant::WORD)
}

/// Makes a participant look again. It is woken whatever its word says: who set it before may have
/// been stopped before it woke.
pub(crate) fn alert(header: &Mapping, place: usize) {
    let word = word(header, place);
    // The release in it pairs with the acquire of the sleeper's swap to 0 (`Wait::sleep`): where that takes
    // this 1 away, the look that follows it sees what was stored before.
    word.swap(1, Ordering::AcqRel);
    poste_sys::futex::wake(word);
}
