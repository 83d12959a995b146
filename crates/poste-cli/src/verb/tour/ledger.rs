//! What the messages of the tour contain, and the book that is kept of those that arrive.
//!
//! Every body says who sent it, its place among those of its sender, and its size; the rest follows
//! from these, so that one wrong bit is seen. Nothing here passes a message: with wrong data these
//! functions must fail, and the tests below see to it.
//!
//! ```text
//!  0        4        8                16
//!  +--------+--------+----------------+------------------------------+
//!  | writer | index  | size           | filling, from writer & index |
//!  +--------+--------+----------------+------------------------------+
//! ```

use std::collections::BTreeMap;

/// The smallest body that says all this, in bytes.
pub(super) const BODY_MIN: usize = 16;

/// The sizes that a writer's messages have in turn: within one piece, and in several.
const SIZES: [usize; 6] = [BODY_MIN, 64, 1000, 4096, 20_000, 100];

/// What may lose messages gets small ones, which leave room in the receiver's buffer.
const SIZE_MAX_WHERE_LOST: usize = 1000;

/// What is wrong with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

impl Fault {
    /// A fault in our own words.
    pub(super) fn new(text: impl Into<String>) -> Fault {
        Fault(text.into())
    }
}

impl From<poste::Error> for Fault {
    fn from(error: poste::Error) -> Fault {
        Fault(error.to_string())
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault(error.to_string())
    }
}

/// The size of a writer's message, at most `size_max`.
pub(super) fn size_of(index: u32, size_max: usize, may_lose: bool) -> usize {
    let size_max = if may_lose { size_max.min(SIZE_MAX_WHERE_LOST) } else { size_max };
    SIZES[index as usize % SIZES.len()].min(size_max)
}

/// Fills `body` with a writer's message of `size` bytes, at least [`BODY_MIN`].
pub(super) fn write(body: &mut Vec<u8>, writer: u32, index: u32, size: usize) {
    body.clear();
    body.extend_from_slice(&writer.to_le_bytes());
    body.extend_from_slice(&index.to_le_bytes());
    body.extend_from_slice(&(size as u64).to_le_bytes());
    let mut filling = Filling::new(writer, index);
    while body.len() < size {
        let word = filling.next().to_le_bytes();
        body.extend_from_slice(&word[..word.len().min(size - body.len())]);
    }
}

/// Who sent a body and its place; a fault where a byte of it is not as it was written.
pub(super) fn read(body: &[u8]) -> Result<(u32, u32), Fault> {
    let Some((head, rest)) = body.split_at_checked(BODY_MIN) else {
        return Err(Fault(format!("a message of {} bytes that nobody sent", body.len())));
    };
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (writer, index) = (number(0), number(4));
    let size = u64::from(number(8)) | u64::from(number(12)) << 32;
    if size != body.len() as u64 {
        let came = body.len();
        return Err(Fault(format!(
            "message {index} of writer {writer} is torn: {came} of {size} bytes"
        )));
    }
    let mut filling = Filling::new(writer, index);
    for chunk in rest.chunks(8) {
        if chunk != &filling.next().to_le_bytes()[..chunk.len()] {
            return Err(Fault(format!("message {index} of writer {writer} holds wrong bytes")));
        }
    }
    Ok((writer, index))
}

/// The words that fill a body (a multiplication and a shift a word: Knuth's MMIX generator).
struct Filling(u64);

impl Filling {
    fn new(writer: u32, index: u32) -> Filling {
        Filling(u64::from(writer) << 32 | u64::from(index))
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 33
    }
}

/// What arrived from each writer.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The index expected next, for each writer.
    next: BTreeMap<u32, u32>,
    received: u64,
    lost: u64,
    may_lose: bool,
}

impl Ledger {
    /// An empty book; a mechanism that may lose messages may leave gaps.
    pub(super) fn new(may_lose: bool) -> Ledger {
        Ledger { may_lose, ..Ledger::default() }
    }

    /// Enters what arrived; a fault where it is torn, out of order, there twice, or one is missing.
    pub(super) fn enter(&mut self, body: &[u8]) -> Result<(), Fault> {
        let (writer, index) = read(body)?;
        let next = self.next.entry(writer).or_default();
        if index < *next {
            return Err(Fault(format!(
                "message {index} of writer {writer} came after its message {}",
                *next - 1
            )));
        }
        if index > *next && !self.may_lose {
            return Err(Fault(format!(
                "message {next} of writer {writer} is missing: {index} came"
            )));
        }
        self.lost += u64::from(index - *next);
        *next = index + 1;
        self.received += 1;
        Ok(())
    }

    /// Whether gaps are allowed.
    pub(super) fn may_lose(&self) -> bool {
        self.may_lose
    }

    /// How many arrived.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// How many are known to be lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Closes the book on `writers` writers (0, 1, …) of `count` messages each.
    pub(super) fn close(mut self, writers: u32, count: u32) -> Result<Ledger, Fault> {
        if let Some(stranger) = self.next.keys().find(|&&writer| writer >= writers) {
            return Err(Fault(format!("a message of writer {stranger}, whom nobody started")));
        }
        for writer in 0..writers {
            self.owe(writer, count)?;
        }
        Ok(self)
    }

    /// Sees to it that a writer's first `count` messages arrived; it may have sent more.
    pub(super) fn owe(&mut self, writer: u32, count: u32) -> Result<(), Fault> {
        let came = self.next.get(&writer).copied().unwrap_or(0);
        if came >= count {
            return Ok(());
        }
        if !self.may_lose {
            return Err(Fault(format!(
                "of {count} messages that writer {writer} sent {came} arrived"
            )));
        }
        self.lost += u64::from(count - came);
        Ok(())
    }
}

/// The priorities that are sent, in this order, before the highest: with it as many as lie in the
/// window of a receiver of packets, which is the smallest.
pub(super) const PRIORITIES: [u16; 7] = [0, 3, 0, 31, 3, 17, 0];

const _: () = assert!(PRIORITIES.len() < poste::limits::PACKETS_AT_ONCE);

/// Sees to it that messages came with the highest priority first, and in the order sent within one.
/// Each is a priority and its place among those sent.
pub(super) fn highest_first(sent: &[u16], came: &[(u16, u32)]) -> Result<(), Fault> {
    let mut expected: Vec<_> = sent.iter().copied().zip(0..).collect();
    // Sorting keeps the order of equals.
    expected.sort_by_key(|&(priority, _)| std::cmp::Reverse(priority));
    if came == expected {
        return Ok(());
    }
    let show = |list: &[(u16, u32)]| {
        let list: Vec<_> =
            list.iter().map(|(priority, place)| format!("{priority}({place})")).collect();
        list.join(" ")
    };
    Err(Fault(format!("priorities came as {}, not as {}", show(came), show(&expected))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(writer: u32, index: u32, size: usize) -> Vec<u8> {
        let mut body = Vec::new();
        write(&mut body, writer, index, size);
        body
    }

    fn entered(may_lose: bool, indices: &[u32]) -> Result<Ledger, Fault> {
        let mut ledger = Ledger::new(may_lose);
        for &index in indices {
            ledger.enter(&body(0, index, 64))?;
        }
        Ok(ledger)
    }

    #[test]
    fn a_body_is_read_back() {
        for size in [16, 17, 24, 1000, 1 << 20] {
            let body = body(3, 7, size);
            assert_eq!(body.len(), size);
            assert_eq!(read(&body), Ok((3, 7)));
        }
    }

    #[test]
    fn each_wrong_byte_is_seen() {
        let sound = body(3, 7, 40);
        for at in 0..sound.len() {
            let mut wrong = sound.clone();
            wrong[at] ^= 1;
            assert!(read(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_torn_body_is_seen() {
        let sound = body(0, 0, 100);
        for size in 0..100 {
            assert!(read(&sound[..size]).is_err(), "{size} bytes");
        }
        let joined = [sound.clone(), sound].concat();
        assert!(read(&joined).is_err());
    }

    #[test]
    fn gaps_repeats_and_wrong_order_are_seen() {
        assert!(entered(false, &[0, 1, 2]).is_ok());
        assert!(entered(false, &[0, 2]).is_err());
        assert!(entered(false, &[0, 1, 1]).is_err());
        assert!(entered(false, &[1]).is_err());
        assert_eq!(entered(true, &[0, 3]).unwrap().lost(), 2);
        assert!(entered(true, &[3, 0]).is_err());
    }

    #[test]
    fn what_is_missing_at_the_end_is_seen() {
        assert!(entered(false, &[0, 1]).unwrap().close(1, 2).is_ok());
        assert!(entered(false, &[0, 1]).unwrap().close(1, 3).is_err());
        assert!(entered(false, &[0, 1]).unwrap().close(2, 2).is_err());
        assert!(entered(false, &[0, 1]).unwrap().close(0, 0).is_err());
        assert_eq!(entered(true, &[0, 1]).unwrap().close(1, 5).unwrap().lost(), 3);
    }

    #[test]
    fn wrong_priorities_are_seen() {
        let sent = [0, 31, 3];
        assert!(highest_first(&sent, &[(31, 1), (3, 2), (0, 0)]).is_ok());
        assert!(highest_first(&sent, &[(0, 0), (31, 1), (3, 2)]).is_err());
        assert!(highest_first(&sent, &[(31, 1), (3, 2)]).is_err());
        assert!(highest_first(&[5, 5], &[(5, 1), (5, 0)]).is_err());
    }
}
