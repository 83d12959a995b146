//! What has arrived and lies in user space: pieces found in a byte stream, or whole packets.
//!
//! Algorithms only: the link reads, the inbox cuts. It reads of a header as much as it needs to find
//! the piece's end, its priority and who introduced the connection; nothing else is its business.
//!
//! ```text
//!            base                                              absolute offsets →
//!  buffer    | taken … | piece | piece | … | piece | a beginning |        room        |
//!            0                                     scanned        filled       buffer.len()
//! ```

use std::collections::VecDeque;

use rustix::io::Errno;

use super::window::Window;
use super::{Arrival, News};
use crate::credentials::Credentials;
use crate::envelope::{BLOCK, Fault, Header, PieceKind, Speaker};
use crate::error::{Error, Kind};
use crate::limits::{LOOK_BELOW, LOOK_EVERY, PIECE_MAX, READ_FIRST, READ_MAX};
use crate::options::Framing;

/// What was read and not yet delivered.
#[derive(Debug)]
pub struct Inbox {
    framing: Framing,
    /// Whether each read gives a whole packet.
    packets: bool,
    /// The largest delimited message.
    message_max: usize,
    buffer: Vec<u8>,
    /// The absolute offset of `buffer[0]`.
    base: u64,
    filled: usize,
    scanned: usize,
    /// How far the beginning of a delimited message was searched for its mark, after `scanned`.
    searched: usize,
    /// The delimited message that has begun is too large: it is passed over up to its mark.
    passing_over: bool,
    window: Window<Piece>,
    delivered_since_look: u32,
    speaker: Speaker,
    ended: bool,
    /// What was wrong and has not been told: of a stream at most one, of packets one for each.
    faults: VecDeque<Fault>,
    beside: Beside,
    /// How many sets of descriptors the pieces so far have laid claim to.
    sets: u64,
}

/// Where a piece lies, and what must be known to deliver it in the right order.
#[derive(Clone, Copy, Debug)]
struct Piece {
    at: u64,
    size: u32,
    priority: u16,
    speaker: Speaker,
    /// Who sent its packet, where the kernel says it of each.
    credentials: Credentials,
    /// Where its datagram came from.
    source: u64,
    /// Which set of descriptors belongs to it; 0: none.
    set: u64,
}

/// What came beside the bytes that are being taken in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// Who sent them, as far as the kernel said it of these.
    pub credentials: Credentials,
    /// Where a datagram came from, by its number; 0: nowhere that could be answered.
    pub source: u64,
    /// A set of descriptors came with them.
    pub has_set: bool,
}

impl Inbox {
    /// An inbox for one byte stream or one row of packets.
    #[must_use]
    pub fn new(framing: Framing, packets: bool, message_max: usize) -> Inbox {
        Inbox {
            framing,
            packets,
            message_max,
            buffer: Vec::new(),
            base: 0,
            filled: 0,
            scanned: 0,
            searched: 0,
            passing_over: false,
            window: Window::default(),
            delivered_since_look: 0,
            speaker: Speaker { sender: 0, sequence: 1 },
            ended: false,
            faults: VecDeque::new(),
            beside: Beside::default(),
            sets: 0,
        }
    }

    /// Reads from a byte stream into the room that is left, and cuts what came into pieces.
    /// Returns what `read` did: 0 is the end. `wanted`: so many more messages, and not a byte
    /// beyond them.
    ///
    /// # Errors
    /// What `read` said.
    #[inline(always)]
    pub fn fill(
        &mut self,
        wanted: Option<u64>,
        read: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        self.fill_with(wanted, |room| read(room).map(|count| (count, Beside::default())))
    }

    /// As [`Inbox::fill`], where something may come beside the bytes.
    ///
    /// # Errors
    /// What `read` said.
    #[inline(always)]
    pub fn fill_with(
        &mut self,
        wanted: Option<u64>,
        read: impl FnOnce(&mut [u8]) -> Result<(usize, Beside), Errno>,
    ) -> Result<usize, Errno> {
        self.make_room(READ_FIRST);
        let mut room = self.buffer.len() - self.filled;
        if let Some(wanted) = wanted {
            room = room.min(self.bytes_wanted(wanted));
        }
        let (count, beside) = read(&mut self.buffer[self.filled..self.filled + room])?;
        self.beside = beside;
        self.filled += count;
        self.ended |= count == 0;
        if count == room && room < READ_MAX {
            // The room was the limit: the next read may take more.
            let larger = (self.buffer.len() * 2).min(READ_MAX + PIECE_MAX);
            self.buffer.resize(larger.max(self.buffer.len()), 0);
        }
        self.cut();
        self.delivered_since_look = 0;
        Ok(count)
    }

    /// Takes in one whole packet.
    pub fn push_packet(&mut self, packet: &[u8]) {
        self.push_packet_with(packet, Beside::default());
    }

    /// Takes in one whole packet, and knows what came beside it.
    #[inline]
    pub fn push_packet_with(&mut self, packet: &[u8], beside: Beside) {
        self.beside = beside;
        self.make_room(packet.len());
        self.buffer[self.filled..self.filled + packet.len()].copy_from_slice(packet);
        self.filled += packet.len();
        self.delivered_since_look = 0;
        if self.framing == Framing::Enveloped {
            let told = self.faults.len();
            self.cut();
            if packet.is_empty() {
                self.faults.push_back(Fault::Short(BLOCK));
            } else if self.scanned < self.filled && self.faults.len() == told {
                self.faults.push_back(Fault::Field("size"));
            }
        } else {
            self.keep(packet.len(), 0, 0, Speaker::default());
        }
        // Whatever a packet holds ends with it.
        self.scanned = self.filled;
    }

    /// How many sets of descriptors the pieces so far have laid claim to.
    #[must_use]
    pub fn sets(&self) -> u64 {
        self.sets
    }

    /// Whether a piece has begun whose header may still lay claim to a set.
    #[must_use]
    pub fn has_beginning(&self) -> bool {
        self.scanned < self.filled
    }

    /// The next piece, of the highest priority that is here, if there is one: which set of
    /// descriptors belongs to it, 0 for none.
    #[inline(always)]
    pub fn take(&mut self, arrival: &mut Arrival) -> Option<u64> {
        let (_, piece) = self.window.pop()?;
        self.delivered_since_look += 1;
        arrival.news = News::Piece;
        arrival.at = (piece.at - self.base) as usize;
        arrival.size = piece.size as usize;
        arrival.sender = piece.speaker.sender;
        arrival.sequence = piece.speaker.sequence;
        arrival.more = !self.window.is_empty() || !self.faults.is_empty();
        arrival.credentials = piece.credentials;
        arrival.source = piece.source;
        Some(piece.set)
    }

    /// The bytes of the piece taken last.
    #[must_use]
    #[inline]
    pub fn bytes(&self, arrival: &Arrival) -> &[u8] {
        &self.buffer[arrival.at..arrival.at + arrival.size]
    }

    /// How many pieces are here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether no piece is here.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// The priority of the next piece.
    #[must_use]
    pub fn priority(&self) -> Option<u16> {
        self.window.priority()
    }

    /// Whether something more urgent than what is here may have come: look before delivering.
    #[must_use]
    #[inline]
    pub fn should_look(&self) -> bool {
        let len = self.window.len();
        !self.ended
            && self.faults.is_empty()
            && self.framing == Framing::Enveloped
            && (len < LOOK_BELOW || self.delivered_since_look >= LOOK_EVERY)
            // What lies here is bounded.
            && self.filled - self.free_in_front() <= READ_MAX
    }

    /// Whether the other side has ended the stream.
    #[must_use]
    #[inline]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The other side has ended it.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// A packet came that was larger than any that is expected: its rest is gone.
    pub fn note_truncated(&mut self, size: usize) {
        self.faults.push_back(Fault::Short(size + 1));
    }

    /// The other side may go on after all: a FIFO has another writer.
    pub fn reopen(&mut self) {
        self.ended = false;
        self.drop_beginning();
    }

    /// What was wrong with what came, once; what lies behind it is passed over up to the next
    /// header.
    #[inline]
    pub fn take_fault(&mut self) -> Option<Error> {
        let fault = self.faults.pop_front()?;
        if !self.packets && !matches!(fault, Fault::Short(_)) {
            self.skip_garbage();
        }
        if let Framing::Delimited(_) = self.framing {
            let text = format!("no mark stands within {} bytes", self.message_max);
            return Some(Error::new(Kind::Corrupt, text).with_hint(
                "receive it with a larger message size (--message-size), or without marks",
            ));
        }
        Some(Error::new(Kind::Corrupt, fault.text()).with_hint(
            "a peer that knows nothing of poste is spoken to in raw mode (--raw, Options::raw)",
        ))
    }

    /// The beginning of a message whose end will never come: whether there was one.
    pub fn drop_beginning(&mut self) -> bool {
        let was_there = self.scanned < self.filled;
        self.scanned = self.filled;
        self.searched = 0;
        self.passing_over = false;
        was_there
    }

    /// So many bytes may be read without touching what follows `wanted` more messages.
    fn bytes_wanted(&self, wanted: u64) -> usize {
        let begun = &self.buffer[self.scanned..self.filled];
        let (least, current) = match self.framing {
            Framing::Enveloped => match Header::decode(begun) {
                Ok((header, length)) => {
                    (BLOCK, (length + header.size as usize).saturating_sub(begun.len()))
                }
                Err(Fault::Short(need)) => (BLOCK, need - begun.len()),
                Err(_) => (BLOCK, 1),
            },
            // The mark is one byte, and may be the next one.
            Framing::Delimited(_) => (1, 1),
            Framing::Raw => return READ_MAX,
        };
        let further = usize::try_from(wanted.saturating_sub(1)).unwrap_or(usize::MAX);
        further.saturating_mul(least).saturating_add(current).min(READ_MAX)
    }

    /// Finds the pieces in what was read.
    #[inline(always)]
    fn cut(&mut self) {
        // Packets stand for themselves: what is wrong with one says nothing of the next.
        if !self.packets && !self.faults.is_empty() {
            return;
        }
        match self.framing {
            Framing::Enveloped => while self.cut_enveloped() {},
            Framing::Delimited(mark) => self.cut_delimited(mark),
            Framing::Raw => {
                let size = self.filled - self.scanned;
                if size > 0 {
                    self.keep(size, 0, 0, Speaker::default());
                }
            }
        }
    }

    /// Finds the next enveloped piece; says whether to go on.
    #[inline(always)]
    fn cut_enveloped(&mut self) -> bool {
        let bytes = &self.buffer[self.scanned..self.filled];
        if bytes.is_empty() {
            return false;
        }
        let (header, length) = match Header::decode(bytes) {
            Ok(decoded) => decoded,
            Err(Fault::Short(_)) if !self.packets => return false,
            Err(fault) => {
                self.faults.push_back(fault);
                return false;
            }
        };
        let size = length + header.size as usize;
        if size > PIECE_MAX {
            self.faults.push_back(Fault::Field("size"));
            return false;
        }
        if bytes.len() < size {
            if self.packets {
                self.faults.push_back(Fault::Short(size));
            }
            return false;
        }
        if header.kind == PieceKind::Hello {
            if let Some(speaker) = header.speaker {
                self.speaker = speaker;
            }
            self.scanned += size;
            return true;
        }
        let speaker = match header.speaker {
            Some(_) => Speaker::default(),
            None => self.speaker,
        };
        let is_last = header.part.is_none_or(|p| p.offset + u64::from(header.size) == p.total);
        if header.kind == PieceKind::Message && header.speaker.is_none() && is_last {
            // It begins where the peer says, which may be at the end of all numbers.
            self.speaker.sequence = self.speaker.sequence.wrapping_add(1);
        }
        self.keep(size, header.priority, header.descriptors, speaker);
        true
    }

    fn cut_delimited(&mut self, mark: u8) {
        while self.faults.is_empty() {
            let from = self.scanned + self.searched;
            let found = self.buffer[from..self.filled].iter().position(|byte| *byte == mark);
            let size = found.map_or(self.filled - self.scanned, |found| self.searched + found);
            if size > self.message_max && !self.passing_over {
                self.faults.push_back(Fault::Field("size"));
                self.passing_over = true;
            }
            let is_whole = found.is_some() || (self.ended && size > 0);
            if self.passing_over {
                self.scanned += size;
            } else if is_whole {
                // The last one needs no mark.
                self.keep(size, 0, 0, Speaker::default());
            }
            if found.is_none() {
                self.searched = self.filled - self.scanned;
                return;
            }
            self.scanned += 1;
            self.searched = 0;
            self.passing_over = false;
        }
    }

    #[inline(always)]
    fn keep(&mut self, size: usize, priority: u16, descriptors: u8, speaker: Speaker) {
        let at = self.base + self.scanned as u64;
        let claims = match self.framing {
            // A packet's set came with it, or was lost; a stream's may have come before its header.
            Framing::Enveloped => descriptors > 0 && (!self.packets || self.beside.has_set),
            Framing::Raw | Framing::Delimited(_) => self.beside.has_set,
        };
        self.sets += u64::from(claims);
        let set = if claims { self.sets } else { 0 };
        if self.packets || self.framing != Framing::Enveloped {
            self.beside.has_set = false;
        }
        let Beside { credentials, source, .. } = self.beside;
        let piece = Piece { at, size: size as u32, priority, speaker, credentials, source, set };
        self.window.push(piece.priority, piece);
        self.scanned += size;
    }

    /// Passes over bytes that are no header, up to the next that may be one; a delimited message
    /// that is too large was passed over already.
    fn skip_garbage(&mut self) {
        if self.framing == Framing::Enveloped {
            while self.scanned < self.filled {
                self.scanned += 1;
                match Header::decode(&self.buffer[self.scanned..self.filled]) {
                    Ok(_) => break,
                    Err(Fault::Short(_)) => break,
                    Err(_) => {}
                }
            }
        }
        self.cut();
    }

    /// The bytes in front that nothing needs any more.
    #[inline]
    fn free_in_front(&self) -> usize {
        let oldest = self.window.fronts().map(|piece| piece.at).min();
        oldest.map_or(self.scanned, |oldest| (oldest - self.base) as usize)
    }

    /// Makes room for at least `need` bytes behind what is filled. What was lent before is over.
    #[inline]
    fn make_room(&mut self, need: usize) {
        let free = self.free_in_front();
        if free == self.filled {
            self.base += free as u64;
            (self.scanned, self.filled) = (0, 0);
        } else if free > 0 && self.buffer.len() - self.filled < need.max(self.buffer.len() / 2) {
            self.buffer.copy_within(free..self.filled, 0);
            self.base += free as u64;
            self.scanned -= free;
            self.filled -= free;
        }
        let begun = match self.framing {
            Framing::Enveloped if !self.packets && self.scanned < self.filled => {
                match Header::decode(&self.buffer[self.scanned..self.filled]) {
                    Ok((header, length)) => (length + header.size as usize).min(PIECE_MAX),
                    Err(_) => 0,
                }
            }
            _ => 0,
        };
        let size = (self.filled + need).max(self.scanned + begun);
        if self.buffer.len() < size {
            let size = size.max(self.buffer.len().min(READ_MAX) * 2).max(READ_FIRST);
            self.buffer.resize(size, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::HEADER_MAX;

    fn piece(header: Header, body: &[u8]) -> Vec<u8> {
        let mut buffer = [0; HEADER_MAX];
        let length = header.encode(&mut buffer);
        [&buffer[..length], body].concat()
    }

    fn read(inbox: &mut Inbox, bytes: &[u8]) {
        let count = inbox.fill(None, |room| {
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        });
        assert_eq!(count, Ok(bytes.len()));
    }

    fn next(inbox: &mut Inbox) -> Option<Vec<u8>> {
        let mut arrival = Arrival::default();
        inbox.take(&mut arrival)?;
        Some(inbox.bytes(&arrival).to_vec())
    }

    #[test]
    fn a_broken_packet_costs_none_but_itself() {
        let good = piece(Header::message(2), b"hi");
        let mut inbox = Inbox::new(Framing::Enveloped, true, 100);
        for packet in [b"garbage", &good[..], b"", b"more garbage", &good[..]] {
            inbox.push_packet(packet);
        }
        assert_eq!((next(&mut inbox), next(&mut inbox)), (Some(good.clone()), Some(good)));
        let faults = std::iter::from_fn(|| inbox.take_fault()).count();
        assert_eq!(faults, 3);
    }

    #[test]
    fn a_line_too_long_is_passed_over_up_to_its_mark() {
        for cut in 1..8 {
            let mut inbox = Inbox::new(Framing::Delimited(b'\n'), false, 3);
            let (one, two) = b"abcdefg\nhi\nj".split_at(cut);
            let mut faults = 0;
            for bytes in [one, two, b""] {
                read(&mut inbox, bytes);
                faults += std::iter::from_fn(|| inbox.take_fault()).count();
            }
            assert_eq!(faults, 1, "cut at {cut}");
            let lines: Vec<_> = std::iter::from_fn(|| next(&mut inbox)).collect();
            assert_eq!(lines, [b"hi".to_vec(), b"j".to_vec()], "cut at {cut}");
        }
    }

    #[test]
    fn a_hello_at_the_end_of_all_numbers_is_no_end() {
        let speaker = Some(Speaker { sender: 1, sequence: u64::MAX });
        let hello = Header { kind: PieceKind::Hello, speaker, ..Header::message(0) };
        let mut inbox = Inbox::new(Framing::Enveloped, false, 100);
        read(&mut inbox, &piece(hello, b""));
        read(&mut inbox, &piece(Header::message(2), b"hi"));
        assert!(next(&mut inbox).is_some());
    }
}
