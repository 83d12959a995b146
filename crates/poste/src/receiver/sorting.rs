//! What arrived becomes a message: its envelope is checked and opened, its parts are joined, what is
//! late is dropped.
//!
//! Where the bytes come from is the end's; how long to wait for more is the receiver's.

use super::Receiver;
use crate::envelope::{CallBlock, PieceKind, Speaker};
use crate::error::Error;
use crate::joining::Origin;
use crate::mechanism::News;
use crate::message::{Place, WayBack};
use crate::piece;

impl Receiver {
    /// Looks at what arrived: whether it makes a whole message.
    #[inline(always)]
    pub(super) fn sort(&mut self) -> Result<bool, Error> {
        let arrival = &self.taken.arrival;
        match arrival.news {
            News::Piece if self.traits.bare || self.options.is_raw() => self.take_bare(),
            News::Piece => self.open_envelope(),
            News::Ended => {
                self.joining.end_of(arrival.source);
                Ok(false)
            }
            News::AllGone => {
                self.joining.end_of_all();
                Ok(false)
            }
        }
    }

    /// A piece that has no envelope is a message.
    #[inline(always)]
    fn take_bare(&mut self) -> Result<bool, Error> {
        self.taken.arrival.check_loss()?;
        let arrival = &self.taken.arrival;
        self.taken.place = Place::Piece(0..arrival.size);
        self.taken.way_back = Some(self.way_back(None));
        self.taken.priority = arrival.priority.unwrap_or(0);
        self.taken.sequence = if self.traits.bare { arrival.sequence } else { 0 };
        Ok(true)
    }

    /// Checks a piece against its envelope: whether it makes a whole message.
    #[inline(always)]
    fn open_envelope(&mut self) -> Result<bool, Error> {
        let arrival = &self.taken.arrival;
        let bytes = self.taken.end.bytes(arrival);
        let (header, length) = piece::open(bytes)?;
        let body = &bytes[length..];
        if header.kind != PieceKind::Message {
            // An answer that nobody here waits for, or a peer that says more than we understand.
            return Ok(false);
        }
        self.taken.arrival.keep_descriptors(header.descriptors)?;
        let arrival = &self.taken.arrival;
        let speaker = header
            .speaker
            .unwrap_or(Speaker { sender: arrival.sender, sequence: arrival.sequence });
        match header.part {
            None => self.taken.place = Place::Piece(length..length + body.len()),
            Some(part) => {
                let origin = Origin {
                    source: arrival.source,
                    sender: speaker.sender,
                    priority: header.priority,
                };
                let set = std::mem::take(&mut self.taken.arrival.descriptors);
                let Some(whole) = self.joining.add(origin, speaker.sequence, part, body, set)?
                else {
                    return Ok(false);
                };
                self.taken.joined = whole.body;
                self.taken.arrival.descriptors = whole.descriptors;
                self.taken.place = Place::Joined;
            }
        }
        if !self.traits.reliable
            && !self.sequences.note(speaker.sender, speaker.sequence, header.priority)
        {
            self.counters.late += 1;
            return Ok(false);
        }
        self.taken.priority = header.priority;
        self.taken.sequence = speaker.sequence;
        self.taken.way_back = header.call.map(|call| self.way_back(Some(call)));
        Ok(true)
    }

    /// How an answer goes back over this channel.
    #[inline(always)]
    fn way_back(&self, call: Option<CallBlock>) -> WayBack {
        let descriptors = self.mechanism.capabilities.descriptors;
        let check = self.options.check;
        WayBack { call, piece_size: self.traits.piece_size, descriptors, check }
    }
}
