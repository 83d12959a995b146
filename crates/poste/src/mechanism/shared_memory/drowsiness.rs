//! What a receiver says of itself to senders: that it may sleep. Only then do they look for who does.

use super::barrier;
use super::mailbox::Mailbox;
use crate::limits::AWAKE_AFTER;
use crate::ring::wake::Set;

/// Whether a receiver has said so, and how long it has not slept.
#[derive(Debug)]
pub(super) struct Drowsiness {
    is_said: bool,
    /// So many messages it has taken without sleeping.
    taken: u32,
    /// It can't make barriers in other processes, and so stays what it was to begin with.
    stays: bool,
}

impl Drowsiness {
    /// Of the receiver that has just taken this place.
    pub(super) fn new(mailbox: &Mailbox, place: usize) -> Drowsiness {
        let stays = !barrier::is_possible();
        if stays {
            Set::Drowsy.enter(mailbox.header(), place);
            // Who was in the middle of sending is through by then, however it is stopped: a processor
            // keeps a store for itself no longer than some microseconds.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Drowsiness { is_said: stays, taken: 0, stays }
    }

    /// It is about to announce that it sleeps, or is to be rung.
    ///
    /// Whoever published before the barrier and did not see this has made its message visible to the
    /// look that follows; whoever publishes after it sees this, and looks for sleepers.
    #[inline]
    pub(super) fn begin(&mut self, mailbox: &Mailbox, place: usize) {
        self.taken = 0;
        // Also where a peer's slip in a word took it back.
        if !self.is_said || !Set::Drowsy.holds(mailbox.header(), place) {
            Set::Drowsy.enter(mailbox.header(), place);
            if !self.stays {
                barrier::everywhere();
            }
            self.is_said = true;
        }
    }

    /// It has taken a message without sleeping.
    #[inline]
    pub(super) fn took(&mut self, mailbox: &Mailbox, place: usize) {
        if self.is_said {
            self.taken += 1;
            if self.taken >= AWAKE_AFTER && !self.stays {
                Set::Drowsy.leave(mailbox.header(), place);
                self.is_said = false;
            }
        }
    }
}
