//! What makes a receiver's descriptor readable: its bell, which senders ring while it is armed.

use poste_sys::atomic::Ordering;

use super::Receiving;
use crate::mechanism::shared_memory::spinner::here;
use crate::ring::wake::Set;

impl Receiving {
    /// Whether nothing is there to be taken. Where the table has changed it can't be told: what was
    /// taken last is known by its lane's index, so the lanes stay as they are until the next is received.
    #[inline]
    pub(super) fn is_empty(&mut self) -> bool {
        self.claimed.is_empty()
            && self.epoch == Some(self.seat.mailbox.epoch())
            && self.find_in_known().is_ok_and(|found| found.is_none())
    }

    /// After something was taken: where the bell is neither rung nor will be by somebody who chose
    /// this one, what is left must ring it.
    #[inline]
    pub(super) fn keep_bell(&mut self) {
        let (header, place) = (self.seat.mailbox.header(), self.seat.place);
        if !self.is_rung && Set::Armed.holds(header, place) && !self.is_empty() {
            self.ring();
        }
    }

    /// Where nothing was found: silences the bell and arms, or rings where something has come.
    #[cold]
    pub(super) fn arm_bell(&mut self) {
        if let Some(bell) = &self.bell {
            bell.silence();
        }
        self.is_rung = false;
        self.drowsiness.begin(&self.seat.mailbox, self.seat.place);
        Set::Armed.enter(self.seat.mailbox.header(), self.seat.place);
        // After the announcement one more look.
        if !self.is_empty() {
            self.ring();
        }
    }

    #[cold]
    pub(super) fn ring(&mut self) {
        if let Some(bell) = &self.bell {
            bell.ring();
            self.is_rung = true;
        }
    }

    /// Whether the sender of the last message ran last on this processor.
    pub(super) fn is_beside(&self) -> bool {
        let last = self.lanes.get(self.turn);
        last.is_some_and(|known| known.reader.lane().processor().load(Ordering::Relaxed) == here())
    }
}
