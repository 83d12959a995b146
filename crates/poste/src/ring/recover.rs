//! What the dead have taken becomes ready again. Every step may be the last one of whoever does it,
//! and may be done twice: the words say what is left to do.

use poste_sys::atomic::Ordering;

use super::lane::Lane;
use super::layout::State;

impl Lane {
    /// The messages that `receiver` has taken and not ended.
    pub(crate) fn taken_by(&self, receiver: u16) -> Vec<u64> {
        let is_its = |number: &u64| {
            self.look(*number)
                .is_some_and(|word| word.state == State::Taken && word.receiver == receiver)
        };
        self.published().filter(is_its).collect()
    }

    /// Whether all that was published is done. For a lane that has no sender.
    pub(crate) fn is_drained(&self) -> bool {
        let is_done = |number| self.look(number).is_some_and(|word| word.state == State::Done);
        self.published().all(is_done)
    }

    /// Counts a message that was set aside.
    pub(crate) fn count_aside(&self) {
        self.aside().fetch_add(1, Ordering::Relaxed);
    }
}
