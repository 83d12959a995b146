//! The bytes of a mailbox: its header file, and a lane's file. All words are eight bytes, aligned,
//! in the machine's own order, and reached as atomics.

/// Begins a header file.
pub(crate) const MAGIC: u64 = u64::from_ne_bytes(*b"poste-mb");

/// Begins a lane's file.
pub(crate) const LANE_MAGIC: u64 = u64::from_ne_bytes(*b"poste-ln");

/// What `life` says of a mailbox that was taken away: no word that a slip writes.
pub(crate) const REMOVED: u64 = u64::from_ne_bytes(*b"poste-rm");

/// The version of the layout, and a mark that reads otherwise in another byte order.
pub(crate) const VERSION: u64 = (2 << 32) | 0x0102_0304;

/// The header file.
///
/// ```text
///    0  magic        8  version      16  page size    24  instance, 2 words
///   40  boot, 2 words               56  largest message
///   64  capacity of a lane, in messages: 0 is as many as there are descriptors
///   72  deliveries after which a message is set aside: 0 is never
///   80  1: the bodies of each lane lie on huge pages; 0: on the machine's
///   96  drowsy, 4 words: a bit for each receiver that may sleep    read by every send
///  128  epoch: counts the changes of the table below           read often, written seldom
///  136  life: REMOVED when it is taken away; whatever else stands there, it is in use
///  144  how many senders there were ever    152  how many receivers
///  160  how often messages came again
///  192  asleep, 4 words: one bit for each participant          read by sends while one is drowsy
///  224  armed, 4 words: whose bell is to be rung
///  256  the table: 256 participants of 128 bytes
/// ```
pub(crate) mod header {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const VERSION: usize = 8;
    pub(crate) const PAGE: usize = 16;
    pub(crate) const INSTANCE: usize = 24;
    pub(crate) const BOOT: usize = 40;
    pub(crate) const MESSAGE_SIZE: usize = 56;
    pub(crate) const CAPACITY: usize = 64;
    pub(crate) const DELIVERIES: usize = 72;
    pub(crate) const HUGE_PAGES: usize = 80;
    pub(crate) const DROWSY: usize = 96;
    pub(crate) const EPOCH: usize = 128;
    pub(crate) const LIFE: usize = 136;
    pub(crate) const SENDERS: usize = 144;
    pub(crate) const RECEIVERS: usize = 152;
    pub(crate) const REDELIVERED: usize = 160;
    pub(crate) const ASLEEP: usize = 192;
    pub(crate) const ARMED: usize = 224;
    pub(crate) const TABLE: usize = 256;

    const _: () =
        assert!(ASLEEP % 64 == 0 && ARMED + 32 == TABLE && EPOCH % 64 == 0 && DROWSY + 32 == EPOCH);
}

/// How many participants a mailbox has room for: senders, receivers, and lanes of those who left.
pub(crate) const PARTICIPANTS: usize = 256;

/// A participant's part of the table.
///
/// ```text
///   0  state: what it is | how often this place was taken, shifted by 8
///   8  process   16  its start   24  its namespace   32  the number in its lane's file name
///  40  litter: 1 while files of a lane may lie there that nobody has
///  64  word to sleep on (4 bytes): 0 asleep, 1 look again
///  72  the processor that it waited on last, plus 1
///  80  whether its descriptor is asked for: 1
/// ```
pub(crate) mod participant {
    pub(crate) const SIZE: usize = 128;
    pub(crate) const STATE: usize = 0;
    pub(crate) const PROCESS: usize = 8;
    pub(crate) const START: usize = 16;
    pub(crate) const NAMESPACE: usize = 24;
    pub(crate) const LANE: usize = 32;
    pub(crate) const LITTER: usize = 40;
    pub(crate) const WORD: usize = 64;
    pub(crate) const PROCESSOR: usize = 72;
    pub(crate) const BELL: usize = 80;

    const _: () = assert!(BELL < SIZE && SIZE % 64 == 0 && WORD % 64 == 0);
}

/// Where a participant's part begins.
pub(crate) const fn participant_at(place: usize) -> usize {
    header::TABLE + place * participant::SIZE
}

/// The size of a header file.
pub(crate) const HEADER_SIZE: usize = (participant_at(PARTICIPANTS)).next_multiple_of(4096);

/// A lane's file: this page, then the descriptors, then the bodies, each beginning on a page; the
/// bodies on a huge one, after a hole, where they lie on such.
///
/// ```text
///    0  magic    8  descriptors, a power of two    16  where the bodies begin
///   24  instance of the mailbox, 2 words
///   64  urgent: one bit for each priority above 0 that may lie here   } read by each receive,
///   72  rewinds: counts how often messages became ready again         } written seldom
///   80  wanted: 1 + the number of the message whose end the sender waits for; 0: it doesn't
///   88  the processor that the sender waited on last, plus 1
///  128  head: all messages before this number are done                  written by the sender
///  192  how many messages came again     200  how many were set aside
/// 4096  descriptors
/// ```
pub(crate) mod lane {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const SLOTS: usize = 8;
    pub(crate) const BODIES: usize = 16;
    pub(crate) const INSTANCE: usize = 24;
    pub(crate) const URGENT: usize = 64;
    pub(crate) const REWINDS: usize = 72;
    pub(crate) const WANTED: usize = 80;
    pub(crate) const PROCESSOR: usize = 88;
    pub(crate) const HEAD: usize = 128;
    pub(crate) const REDELIVERED: usize = 192;
    pub(crate) const ASIDE: usize = 200;
    pub(crate) const DESCRIPTORS: usize = 4096;
}

/// A descriptor, two of them to a cache line.
///
/// ```text
///   0  word: number, low half | deliveries 8 | receiver 12 | priority 5, zeros 3 | raw 1 | state 3
///   8  place: offset of the body in lines of 64 bytes | size in bytes, each 4 bytes
///  16  sequence: the message's number with its sender
///  24  sender: a number that it drew
/// ```
pub(crate) mod descriptor {
    pub(crate) const SIZE: usize = 32;
    pub(crate) const WORD: usize = 0;
    pub(crate) const PLACE: usize = 8;
    pub(crate) const SEQUENCE: usize = 16;
    pub(crate) const SENDER: usize = 24;
}

/// Bodies begin on lines of so many bytes, so that none shares a cache line with another.
pub(crate) const LINE: usize = 64;

/// What a participant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nobody.
    Free,
    /// A sender, with a lane.
    Sender,
    /// A receiver.
    Receiver,
    /// The lane of a sender that is gone; the next sender goes on with it.
    Orphan,
    /// What no version of ours writes.
    Unknown,
}

impl Part {
    pub(crate) fn of(state: u64) -> Part {
        match state & 0xff {
            0 => Part::Free,
            1 => Part::Sender,
            2 => Part::Receiver,
            3 => Part::Orphan,
            _ => Part::Unknown,
        }
    }

    /// The state word for the next taking, or leaving, of a place.
    pub(crate) fn after(self, state: u64) -> u64 {
        let part = match self {
            Part::Free | Part::Unknown => 0,
            Part::Sender => 1,
            Part::Receiver => 2,
            Part::Orphan => 3,
        };
        ((state >> 8).wrapping_add(1) << 8) | part
    }
}

/// The states of a message. A word whose number is another message's says nothing of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits for a receiver.
    Ready,
    /// A receiver has it.
    Taken,
    /// It is done; its room is the sender's again.
    Done,
    /// What no version of ours writes.
    Unknown,
}

/// A descriptor's first word, as it was read once. Its parts are taken out where they are asked for:
/// it travels in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(u64);

impl Word {
    const READY: u64 = 1;
    const TAKEN: u64 = 2;
    const DONE: u64 = 3;
    const STATE: u64 = 7;
    const RAW: u64 = 1 << 3;
    const PRIORITY: u32 = 7;
    const RECEIVER: u32 = 12;
    const DELIVERIES: u32 = 24;
    const NUMBER: u32 = 32;
    /// The largest receiver's place, and a mask.
    const RECEIVER_MAX: u64 = 0xfff;

    #[inline]
    pub(crate) fn read(word: u64) -> Word {
        Word(word)
    }

    #[inline]
    pub(crate) fn write(self) -> u64 {
        self.0
    }

    /// The word of a message that is ready for the first time.
    #[inline]
    pub(crate) fn ready(number: u64, priority: u8, raw: bool) -> Word {
        let raw = if raw { Word::RAW } else { 0 };
        let priority = u64::from(priority & 31) << Word::PRIORITY;
        Word(number << Word::NUMBER | priority | raw | Word::READY)
    }

    /// Ready or given back, and now this receiver's.
    #[inline]
    pub(crate) fn taken(self, receiver: u16) -> Word {
        let receiver = u64::from(receiver) & Word::RECEIVER_MAX;
        let rest = self.0 & !(Word::RECEIVER_MAX << Word::RECEIVER | Word::STATE);
        Word(rest | receiver << Word::RECEIVER | Word::TAKEN)
    }

    /// Taken before, and now done.
    #[inline]
    pub(crate) fn done(self) -> Word {
        Word(self.0 & !Word::STATE | Word::DONE)
    }

    /// Taken before, and ready once more.
    pub(crate) fn again(self) -> Word {
        let deliveries = u64::from(self.deliveries().saturating_add(1));
        let rest = self.0 & !(0xff << Word::DELIVERIES) & !Word::STATE;
        let rest = rest & !(Word::RECEIVER_MAX << Word::RECEIVER);
        Word(rest | deliveries << Word::DELIVERIES | Word::READY)
    }

    /// The low half of the message's number.
    #[inline]
    pub(crate) fn number(self) -> u32 {
        (self.0 >> Word::NUMBER) as u32
    }

    #[inline]
    pub(crate) fn state(self) -> State {
        match self.0 & Word::STATE {
            Word::READY => State::Ready,
            Word::TAKEN => State::Taken,
            Word::DONE => State::Done,
            _ => State::Unknown,
        }
    }

    /// Whether it is ready and has this priority.
    #[inline]
    pub(crate) fn is_ready(self, priority: u8) -> bool {
        let asked = u64::from(priority) << Word::PRIORITY | Word::READY;
        self.0 & (31 << Word::PRIORITY | Word::STATE) == asked
    }

    /// Whether this receiver has it.
    #[inline]
    pub(crate) fn is_taken_by(self, receiver: u16) -> bool {
        self.state() == State::Taken && self.receiver() == receiver
    }

    /// How often it became ready again.
    #[inline]
    pub(crate) fn deliveries(self) -> u8 {
        (self.0 >> Word::DELIVERIES) as u8
    }

    #[inline]
    pub(crate) fn receiver(self) -> u16 {
        (self.0 >> Word::RECEIVER & Word::RECEIVER_MAX) as u16
    }

    #[inline]
    pub(crate) fn priority(self) -> u8 {
        (self.0 >> Word::PRIORITY) as u8 & 31
    }

    /// It was sent raw: it is no message of poste's.
    #[inline]
    pub(crate) fn is_raw(self) -> bool {
        self.0 & Word::RAW != 0
    }
}

/// Where a body lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes from the beginning of the bodies, a multiple of [`LINE`].
    pub(crate) offset: usize,
    /// Bytes.
    pub(crate) size: usize,
}

impl Place {
    #[inline]
    pub(crate) fn read(word: u64) -> Place {
        Place { offset: (word >> 32) as usize * LINE, size: (word & 0xffff_ffff) as usize }
    }

    #[inline]
    pub(crate) fn write(self) -> u64 {
        ((self.offset / LINE) as u64) << 32 | self.size as u64
    }

    /// How many bytes of the bodies it takes up.
    #[inline]
    pub(crate) fn room(self) -> usize {
        room(self.size)
    }
}

/// How many bytes of the bodies a body takes up; one of nothing takes a line, so that a full lane
/// and an empty one differ.
#[inline]
pub(crate) fn room(size: usize) -> usize {
    size.max(1).next_multiple_of(LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written() {
        let ready = Word::ready(0x7_dead_beef, 31, true);
        assert_eq!((ready.number(), ready.state()), (0xdead_beef, State::Ready));
        assert_eq!((ready.priority(), ready.is_raw(), ready.deliveries()), (31, true, 0));
        assert!(ready.is_ready(31) && !ready.is_ready(30));
        let taken = ready.taken(255);
        assert!(taken.is_taken_by(255) && !taken.is_taken_by(254) && !taken.is_ready(31));
        assert_eq!((taken.number(), taken.priority(), taken.is_raw()), (0xdead_beef, 31, true));
        assert_eq!(taken.done().state(), State::Done);
        assert_eq!(taken.done().receiver(), 255);
        let again = taken.again();
        assert!(again.is_ready(31) && again.deliveries() == 1 && again.receiver() == 0);
        let often = (0..300).fold(again, |word, _| word.taken(3).again());
        assert_eq!((often.deliveries(), often.number()), (255, 0xdead_beef));
        // Whatever a peer writes there.
        assert_eq!(Word::read(u64::MAX).state(), State::Unknown);
        assert_eq!(Word::read(0).state(), State::Unknown);
        let place = Place { offset: 64 * 77, size: 4321 };
        assert_eq!(Place::read(place.write()), place);
        assert_eq!(place.room(), 4352);
        assert_eq!(room(0), LINE);
    }
}
