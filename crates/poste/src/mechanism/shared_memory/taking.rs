//! What a receiver has of a mailbox: its place, the lanes that it takes from, and what ends a message,
//! from whichever thread and after the receiver is gone.

use std::sync::Arc;

use super::aside;
use super::lane_file::LaneFile;
use super::mailbox::Mailbox;
use crate::error::{Error, Kind};
use crate::mechanism::{Settle, Settler};
use crate::ring::claim::{Reader, Wanted};

/// A receiver's place in the mailbox; given back when the end and all that it took are gone.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) mailbox: Mailbox,
    pub(super) place: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.mailbox.is_ours() {
            self.mailbox.detach_receiver(self.place);
        }
    }
}

/// A lane, and who takes from it: what ends its messages, from whichever thread.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) file: LaneFile,
    pub(super) seat: Arc<Seat>,
}

impl Settler for Taking {
    #[inline]
    fn settle(&self, token: u64, how: Settle) -> Result<(), Error> {
        let (mailbox, lane) = (&self.seat.mailbox, &self.file.lane);
        mailbox.check_life()?;
        let (number, receiver) = (token, self.seat.place as u16);
        let was_ours = match how {
            Settle::Done => match lane.finish(number, receiver) {
                Some(Wanted::Yes) => {
                    mailbox.notify_sender(self.file.place);
                    true
                }
                Some(Wanted::No) => true,
                None => false,
            },
            Settle::Again => {
                let was_ours = aside::give_back(mailbox, &self.file, number, receiver);
                lane.rewind();
                mailbox.notify();
                was_ours
            }
        };
        if was_ours {
            return Ok(());
        }
        Err(not_ours())
    }
}

#[cold]
pub(super) fn not_ours() -> Error {
    Error::new(Kind::Corrupt, "the message was this receiver's no more")
}

/// A lane as this receiver knows it.
pub(super) struct Known {
    pub(super) reader: Reader,
    pub(super) taking: Arc<Taking>,
    /// Its sender is gone.
    pub(super) orphan: bool,
    /// Its bytes made no sense: it is left alone.
    pub(super) broken: bool,
    /// The priorities above 0 that may lie here, as of the last look.
    pub(super) urgent: u64,
}

impl Known {
    pub(super) fn new(file: LaneFile, seat: &Arc<Seat>) -> Known {
        let reader = Reader::new(Arc::clone(&file.lane));
        let taking = Arc::new(Taking { file, seat: Arc::clone(seat) });
        Known { reader, taking, orphan: false, broken: false, urgent: 0 }
    }
}
