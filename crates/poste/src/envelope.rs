//! The header that poste puts before a body: encoding, decoding, and its checks.
//!
//! No I/O and no allocation here; the form is documented for other languages in docs/protocol.md,
//! whose vectors are this file's tests. All numbers are little-endian.
//!
//! ```text
//!   0  magic u16 = 0x5650 "PV" | version u8 = 1 | kind u8 | flags u8 | descriptors u8 | priority u16
//!   8  size u32 (bytes after the header, this piece) | check u32 (over all header words)
//! +16  IDENTITY  sender u64 | sequence u64      flag 0x01
//! +16  PART      total u64  | offset u64        flag 0x02
//! +16  CALL      call u64   | deadline u64      flag 0x04
//! +16  CHECK     crc32c u32 of this piece's body | 0 u32 | 0 u64   flag 0x08
//! ```

use crate::limits::DESCRIPTORS_MAX;

/// The first two bytes of every header: `P`, `V`.
pub const MAGIC: u16 = u16::from_le_bytes(*b"PV");
/// The version of this form.
pub const VERSION: u8 = 1;
/// A header without blocks; every block has the same size.
pub const BLOCK: usize = 16;
/// The longest header.
pub const HEADER_MAX: usize = BLOCK * 5;

const IDENTITY: u8 = 0x01;
const PART: u8 = 0x02;
const CALL: u8 = 0x04;
const CHECK: u8 = 0x08;
const KNOWN: u8 = IDENTITY | PART | CALL | CHECK;

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PieceKind {
    /// A message, or a part of one.
    Message = 0,
    /// The first piece of a connection: who speaks, and the sequence of its next message.
    Hello = 1,
    /// A receiver has taken a message.
    Taken = 2,
    /// The sender lets it be delivered.
    Granted = 3,
    /// The receiver is done with a message.
    Acknowledged = 4,
    /// The receiver gave a message back.
    Refused = 5,
    /// The answer to a call.
    Reply = 6,
    /// The answer to a call that failed, in words.
    Error = 7,
    /// The sender takes a message back.
    Withdraw = 8,
}

impl PieceKind {
    fn from_byte(byte: u8) -> Option<PieceKind> {
        Some(match byte {
            0 => PieceKind::Message,
            1 => PieceKind::Hello,
            2 => PieceKind::Taken,
            3 => PieceKind::Granted,
            4 => PieceKind::Acknowledged,
            5 => PieceKind::Refused,
            6 => PieceKind::Reply,
            7 => PieceKind::Error,
            8 => PieceKind::Withdraw,
            _ => return None,
        })
    }
}

/// Who speaks, and which of its messages this is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speaker {
    /// A number drawn at random when the sender was opened.
    pub sender: u64,
    /// 1, 2, 3… of that sender.
    pub sequence: u64,
}

/// Which part of a larger message a piece is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The size of the whole message.
    pub total: u64,
    /// Where this piece begins in it.
    pub offset: u64,
}

/// Which call a piece asks or answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallBlock {
    /// The caller's number for it.
    pub call: u64,
    /// How long the caller waits, in nanoseconds from now; 0 is for ever.
    pub deadline: u64,
}

/// A header, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the piece is.
    pub kind: PieceKind,
    /// How many descriptors came with it.
    pub descriptors: u8,
    /// The message's priority.
    pub priority: u16,
    /// The bytes of body that follow, in this piece.
    pub size: u32,
    /// Who speaks.
    pub speaker: Option<Speaker>,
    /// Which part it is.
    pub part: Option<Part>,
    /// Which call it belongs to.
    pub call: Option<CallBlock>,
    /// The CRC-32C of the body that follows.
    pub body_check: Option<u32>,
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// More bytes are needed: so many from the beginning.
    Short(usize),
    /// It doesn't begin like one.
    Magic,
    /// It is of a version that this program doesn't speak.
    Version(u8),
    /// A kind or a flag that this version doesn't have, or numbers that contradict each other.
    Field(&'static str),
    /// The header's check is wrong.
    Check,
}

impl Fault {
    /// The fault in words.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Fault::Short(_) => "it ends within poste's envelope".to_owned(),
            Fault::Magic => "it doesn't begin with poste's envelope".to_owned(),
            Fault::Version(version) => {
                format!("its envelope is of version {version}, this program speaks {VERSION}")
            }
            Fault::Field(field) => format!("its envelope's field {field} is wrong"),
            Fault::Check => "its envelope's check is wrong".to_owned(),
        }
    }
}

impl Header {
    /// A message's header with nothing special.
    #[must_use]
    #[inline]
    pub fn message(size: u32) -> Header {
        Header {
            kind: PieceKind::Message,
            descriptors: 0,
            priority: 0,
            size,
            speaker: None,
            part: None,
            call: None,
            body_check: None,
        }
    }

    /// The header's own size in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        BLOCK * (1 + self.flags().count_ones() as usize)
    }

    /// Whether a header is empty: it never is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    #[inline]
    fn flags(&self) -> u8 {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        flag(self.speaker.is_some(), IDENTITY)
            | flag(self.part.is_some(), PART)
            | flag(self.call.is_some(), CALL)
            | flag(self.body_check.is_some(), CHECK)
    }

    /// Writes the header to the beginning of `buffer`; returns its size.
    ///
    /// # Panics
    /// Where the buffer is shorter than [`HEADER_MAX`].
    #[inline]
    pub fn encode(&self, buffer: &mut [u8]) -> usize {
        let buffer: &mut [u8; HEADER_MAX] =
            buffer.first_chunk_mut().expect("the buffer takes the longest header");
        // Put together in registers: what was just written byte by byte can't be read again at once.
        let first = u64::from(MAGIC)
            | u64::from(VERSION) << 16
            | u64::from(self.kind as u8) << 24
            | u64::from(self.flags()) << 32
            | u64::from(self.descriptors) << 40
            | u64::from(self.priority) << 48;
        let mut check = CHECK_BEGIN;
        for word in [first as u32, (first >> 32) as u32, self.size] {
            check = check_on(check, word);
        }
        let mut length = BLOCK;
        let mut block = |low: u64, high: u64| {
            buffer[length..length + 8].copy_from_slice(&low.to_le_bytes());
            buffer[length + 8..length + 16].copy_from_slice(&high.to_le_bytes());
            for word in [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32] {
                check = check_on(check, word);
            }
            length += BLOCK;
        };
        if let Some(Speaker { sender, sequence }) = self.speaker {
            block(sender, sequence);
        }
        if let Some(Part { total, offset }) = self.part {
            block(total, offset);
        }
        if let Some(CallBlock { call, deadline }) = self.call {
            block(call, deadline);
        }
        if let Some(check) = self.body_check {
            block(u64::from(check), 0);
        }
        let second = u64::from(self.size) | u64::from(check) << 32;
        buffer[0..8].copy_from_slice(&first.to_le_bytes());
        buffer[8..16].copy_from_slice(&second.to_le_bytes());
        length
    }

    /// Reads the header at the beginning of `bytes`; returns it with its own size.
    ///
    /// # Errors
    /// [`Fault::Short`] says how many bytes are needed to go on; the others are final.
    #[inline(always)]
    pub fn decode(bytes: &[u8]) -> Result<(Header, usize), Fault> {
        let Some(first) = bytes.first_chunk::<BLOCK>() else {
            let magic = MAGIC.to_le_bytes();
            let known = bytes.len().min(magic.len());
            let begins = bytes[..known] == magic[..known];
            return Err(if begins { Fault::Short(BLOCK) } else { Fault::Magic });
        };
        if u16::from_le_bytes([first[0], first[1]]) != MAGIC {
            return Err(Fault::Magic);
        }
        if first[2] != VERSION {
            return Err(Fault::Version(first[2]));
        }
        let flags = first[4];
        if flags & !KNOWN != 0 {
            return Err(Fault::Field("flags"));
        }
        let length = BLOCK * (1 + flags.count_ones() as usize);
        let Some(whole) = bytes.get(..length) else { return Err(Fault::Short(length)) };
        let check = u32::from_le_bytes([first[12], first[13], first[14], first[15]]);
        if header_check(whole) != check {
            return Err(Fault::Check);
        }
        let kind = PieceKind::from_byte(first[3]).ok_or(Fault::Field("kind"))?;
        if usize::from(first[5]) > DESCRIPTORS_MAX {
            return Err(Fault::Field("descriptors"));
        }
        let mut blocks = whole[BLOCK..].chunks_exact(BLOCK).map(|block| {
            let (low, high) = block.split_at(8);
            (word(low), word(high))
        });
        let mut next = |flag: u8| if flags & flag != 0 { blocks.next() } else { None };
        let header = Header {
            kind,
            descriptors: first[5],
            priority: u16::from_le_bytes([first[6], first[7]]),
            size: u32::from_le_bytes([first[8], first[9], first[10], first[11]]),
            speaker: next(IDENTITY).map(|(sender, sequence)| Speaker { sender, sequence }),
            part: next(PART).map(|(total, offset)| Part { total, offset }),
            call: next(CALL).map(|(call, deadline)| CallBlock { call, deadline }),
            body_check: next(CHECK).map(|(check, _)| check as u32),
        };
        if let Some(part) = header.part {
            let end = part.offset.checked_add(u64::from(header.size));
            if end.is_none_or(|end| end > part.total) {
                return Err(Fault::Field("part"));
            }
        }
        Ok((header, length))
    }
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// What the check of a header begins with.
const CHECK_BEGIN: u32 = 0x9E37_79B9;

/// One word more of a header's check.
#[inline(always)]
fn check_on(state: u32, word: u32) -> u32 {
    let state = (state ^ word).wrapping_mul(0x85EB_CA6B);
    state ^ state >> 13
}

/// The check over a header's 32-bit words, its own word left out.
///
/// Each step is a bijection of the state, so that a change within one word is always noticed.
#[inline]
fn header_check(header: &[u8]) -> u32 {
    let mut state = CHECK_BEGIN;
    for (index, word) in header.chunks_exact(4).enumerate() {
        if index != 3 {
            state = check_on(state, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    state
}

/// The CRC-32C (Castagnoli) of a body, as in RFC 3720, B.4.
#[must_use]
pub fn body_check(body: &[u8]) -> u32 {
    let mut crc = !0_u32;
    let mut words = body.chunks_exact(8);
    for word in &mut words {
        let low = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let high = u32::from_le_bytes([word[4], word[5], word[6], word[7]]);
        crc = TABLES[7][(low & 0xff) as usize]
            ^ TABLES[6][(low >> 8 & 0xff) as usize]
            ^ TABLES[5][(low >> 16 & 0xff) as usize]
            ^ TABLES[4][(low >> 24) as usize]
            ^ TABLES[3][(high & 0xff) as usize]
            ^ TABLES[2][(high >> 8 & 0xff) as usize]
            ^ TABLES[1][(high >> 16 & 0xff) as usize]
            ^ TABLES[0][(high >> 24) as usize];
    }
    for byte in words.remainder() {
        crc = TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize] ^ crc >> 8;
    }
    !crc
}

/// `TABLES[k][b]`: what byte `b` does to the CRC when `k` bytes follow it (slicing by 8).
static TABLES: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        table += 1;
    }
    tables
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_rfc() {
        assert_eq!(body_check(&[0; 32]), 0x8A91_36AA);
        assert_eq!(body_check(&[0xff; 32]), 0x62A8_AB43);
        assert_eq!(body_check(b"123456789"), 0xE306_9283);
        assert_eq!(body_check(b""), 0);
    }

    #[test]
    fn every_prefix_of_a_header_asks_for_more() {
        let mut header = Header::message(5);
        header.speaker = Some(Speaker { sender: 1, sequence: 2 });
        header.part = Some(Part { total: 10, offset: 5 });
        let mut bytes = [0; HEADER_MAX];
        let length = header.encode(&mut bytes);
        for end in 0..length {
            assert!(matches!(Header::decode(&bytes[..end]), Err(Fault::Short(need)) if need > end));
        }
        assert_eq!(Header::decode(&bytes), Ok((header, length)));
    }

    #[test]
    fn every_single_changed_bit_is_noticed() {
        let mut header = Header::message(5);
        header.speaker = Some(Speaker { sender: 77, sequence: 2 });
        let mut bytes = [0; HEADER_MAX];
        let length = header.encode(&mut bytes);
        for bit in 0..length * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&changed[..length]).is_err(), "bit {bit}");
        }
    }
}
