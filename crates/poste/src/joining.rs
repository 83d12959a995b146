//! Messages that come in several pieces, put together again; bounded in count and bytes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use crate::envelope::Part;
use crate::error::{Error, Kind};
use crate::limits::{HALVES_DESCRIPTORS, HALVES_MAX, HALVES_MESSAGES, READ_MAX};

/// Which message a piece belongs to: the connection it came over, its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) source: u64,
    pub(crate) sender: u64,
    pub(crate) priority: u16,
}

/// The messages that are not whole yet. One for each sender and priority: a newer one ends it.
#[derive(Debug)]
pub(crate) struct Joining {
    halves: HashMap<Origin, Half>,
    bytes: usize,
    descriptors: usize,
    message_max: usize,
    /// Counts up, so that the oldest is known when one must go.
    clock: u64,
    given_up: u64,
}

#[derive(Debug)]
struct Half {
    sequence: u64,
    total: u64,
    body: Vec<u8>,
    /// Those that came with its first piece.
    descriptors: Vec<OwnedFd>,
    touched: u64,
}

/// A message that is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) body: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Joining {
    /// Nothing begun yet; messages go up to `message_max` bytes.
    pub(crate) fn new(message_max: usize) -> Joining {
        let halves = HashMap::new();
        Joining { halves, bytes: 0, descriptors: 0, message_max, clock: 0, given_up: 0 }
    }

    /// Adds a piece; the whole message where it was the last one.
    ///
    /// # Errors
    /// `TooLarge` where the message is larger than this receiver takes.
    pub(crate) fn add(
        &mut self,
        origin: Origin,
        sequence: u64,
        part: Part,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
    ) -> Result<Option<Whole>, Error> {
        if part.total > self.message_max as u64 {
            self.give_up(origin);
            if part.offset > 0 {
                return Ok(None);
            }
            self.given_up += 1;
            let limit = self.message_max as u64;
            let kind = Kind::TooLarge { size: part.total, limit };
            return Err(Error::new(kind, "").with_hint(format!(
                "receive it with a larger message size (--message-size {}), or have it sent with \
                 --lines or --raw",
                part.total
            )));
        }
        if part.offset == 0 {
            self.give_up(origin);
            self.begin(origin, sequence, part.total);
        }
        self.clock += 1;
        let Some(half) = self.halves.get_mut(&origin) else {
            // Its beginning was lost, or given up; that was counted then.
            return Ok(None);
        };
        let fits = half.sequence == sequence
            && half.total == part.total
            && half.body.len() as u64 == part.offset;
        if !fits {
            self.give_up(origin);
            return Ok(None);
        }
        half.touched = self.clock;
        half.body.extend_from_slice(bytes);
        self.bytes += bytes.len();
        self.descriptors += descriptors.len();
        half.descriptors.extend(descriptors);
        if half.body.len() as u64 == half.total {
            return Ok(self
                .take(origin)
                .map(|Half { body, descriptors, .. }| Whole { body, descriptors }));
        }
        while self.bytes > self.message_max.saturating_mul(HALVES_MESSAGES)
            || self.descriptors > HALVES_DESCRIPTORS
        {
            self.give_up_oldest();
        }
        Ok(None)
    }

    /// Memory grows as bytes arrive: a header that promises much allocates little.
    fn begin(&mut self, origin: Origin, sequence: u64, total: u64) {
        if self.halves.len() >= HALVES_MAX {
            self.give_up_oldest();
        }
        let body = Vec::with_capacity((total as usize).min(READ_MAX * 2));
        let half = Half { sequence, total, body, descriptors: Vec::new(), touched: self.clock };
        self.halves.insert(origin, half);
    }

    fn take(&mut self, origin: Origin) -> Option<Half> {
        let half = self.halves.remove(&origin)?;
        self.bytes -= half.body.len();
        self.descriptors -= half.descriptors.len();
        Some(half)
    }

    fn give_up(&mut self, origin: Origin) {
        self.given_up += u64::from(self.take(origin).is_some());
    }

    fn give_up_oldest(&mut self) {
        let oldest = self.halves.iter().min_by_key(|(_, half)| half.touched);
        if let Some(origin) = oldest.map(|(origin, _)| *origin) {
            self.give_up(origin);
        }
    }

    /// A connection has ended: what it began will never be whole.
    pub(crate) fn end_of(&mut self, source: u64) {
        let ended: Vec<_> =
            self.halves.keys().filter(|origin| origin.source == source).copied().collect();
        ended.into_iter().for_each(|origin| self.give_up(origin));
    }

    /// Everybody is gone: nothing that was begun will ever be whole.
    pub(crate) fn end_of_all(&mut self) {
        self.given_up += self.halves.len() as u64;
        self.halves.clear();
        (self.bytes, self.descriptors) = (0, 0);
    }

    /// How many were given up so far.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Origin = Origin { source: 0, sender: 1, priority: 0 };

    fn part(total: u64, offset: u64) -> Part {
        Part { total, offset }
    }

    impl Joining {
        /// Adds a piece that came without descriptors: the body where that made it whole.
        fn join(
            &mut self,
            origin: Origin,
            sequence: u64,
            part: Part,
            bytes: &[u8],
        ) -> Result<Option<Vec<u8>>, Error> {
            let whole = self.add(origin, sequence, part, bytes, Vec::new())?;
            Ok(whole.map(|whole| whole.body))
        }
    }

    #[test]
    fn two_senders_pieces_are_kept_apart() {
        let two = Origin { sender: 2, ..ONE };
        let mut joining = Joining::new(100);
        assert_eq!(joining.join(ONE, 1, part(4, 0), b"ab").unwrap(), None);
        assert_eq!(joining.join(two, 1, part(4, 0), b"AB").unwrap(), None);
        assert_eq!(joining.join(ONE, 1, part(4, 2), b"cd").unwrap().unwrap(), b"abcd");
        assert_eq!(joining.join(two, 1, part(4, 2), b"CD").unwrap().unwrap(), b"ABCD");
        assert_eq!(joining.given_up(), 0);
        assert_eq!(joining.bytes, 0);
    }

    #[test]
    fn a_newer_message_ends_an_older_half() {
        let mut joining = Joining::new(100);
        joining.join(ONE, 1, part(4, 0), b"ab").unwrap();
        joining.join(ONE, 2, part(4, 0), b"AB").unwrap();
        assert_eq!(joining.given_up(), 1);
        assert_eq!(joining.join(ONE, 1, part(4, 2), b"cd").unwrap(), None);
        assert_eq!(joining.given_up(), 2);
    }

    #[test]
    fn what_is_begun_is_bounded() {
        let mut joining = Joining::new(1000);
        for sender in 0..3000 {
            joining.join(Origin { sender, ..ONE }, 1, part(1000, 0), &[0; 900]).unwrap();
            assert!(joining.bytes <= 4000 && joining.halves.len() <= HALVES_MAX);
        }
        assert!(joining.given_up() >= 2990);
    }

    #[test]
    fn what_is_too_large_is_told_once_and_counted() {
        let mut joining = Joining::new(10);
        assert!(joining.join(ONE, 1, part(20, 0), b"ab").is_err());
        assert_eq!(joining.join(ONE, 1, part(20, 2), b"cd").unwrap(), None);
        assert_eq!((joining.given_up(), joining.bytes), (1, 0));
    }

    #[test]
    fn descriptors_stay_with_their_message_and_are_bounded() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let mut joining = Joining::new(1000);
        for sender in 0..20 {
            let set = (0..100).map(|_| file()).collect();
            let origin = Origin { sender, ..ONE };
            assert!(joining.add(origin, 1, part(2, 0), b"a", set).unwrap().is_none());
            assert!(joining.descriptors <= HALVES_DESCRIPTORS);
        }
        let last = Origin { sender: 19, ..ONE };
        let whole = joining.add(last, 1, part(2, 1), b"b", Vec::new()).unwrap().unwrap();
        assert_eq!((&whole.body[..], whole.descriptors.len()), (&b"ab"[..], 100));
        joining.end_of_all();
        assert_eq!(joining.descriptors, 0);
    }
}
