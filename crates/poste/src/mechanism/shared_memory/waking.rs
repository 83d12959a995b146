//! Waking the participants of a mailbox that sleep, and ringing those who are polled. Who is to be
//! woken is ring/wake.rs' to say.

use poste_sys::atomic::Ordering;

use super::bell;
use super::mailbox::Mailbox;
use crate::ring::layout::{Part, participant};
use crate::ring::wake::{self, Set};

impl Mailbox {
    /// Wakes one receiver that sleeps, and rings everybody who asked for it: a message is there. To
    /// be called after a full barrier.
    #[inline]
    pub(crate) fn notify(&self) {
        if !wake::nobody(self.header()) {
            self.notify_somebody();
        }
    }

    #[cold]
    fn notify_somebody(&self) {
        if let Some(place) = Set::Asleep.choose(self.header()) {
            wake::alert(self.header(), place);
        }
        // Each once: who arms again meanwhile has looked after the message was there.
        let mut from = 0;
        while let Some(place) = Set::Armed.choose_from(self.header(), from) {
            if !bell::ring(self, place) {
                // The next message, or another sender's, tries again.
                Set::Armed.enter(self.header(), place);
            }
            from = place + 1;
        }
    }

    /// Wakes the sender of a lane, which waits for room.
    #[cold]
    pub(crate) fn notify_sender(&self, place: usize) {
        wake::alert(self.header(), place);
        if self.field(place, participant::BELL).load(Ordering::Acquire) != 0 {
            bell::ring(self, place);
        }
    }

    /// Makes everybody look again. Nobody's announcement is taken away: a sleeper whose was, and who
    /// was then not woken because this process was killed between, would be passed over from then
    /// on, and nobody may know of this process that it died.
    pub(crate) fn wake_all(&self) {
        for (place, part) in self.parts() {
            if part != Part::Orphan {
                wake::alert(self.header(), place);
                if self.field(place, participant::BELL).load(Ordering::Relaxed) != 0 {
                    bell::ring(self, place);
                }
            }
        }
    }
}
