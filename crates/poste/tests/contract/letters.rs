//! What is sent: bodies that tell from whom they are and are otherwise random, so that whatever is
//! lost, torn, doubled or out of order is seen by the one who receives them.

/// Random numbers, the same again for the same seed (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub(crate) fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    pub(crate) fn shuffle<T>(&mut self, things: &mut [T]) {
        for end in (1..things.len()).rev() {
            things.swap(end, self.below(end + 1));
        }
    }
}

/// The letters of several writers: the same for the same seed, wherever they are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Letters {
    pub(crate) seed: u64,
    /// Sizes are from 1 to this.
    pub(crate) size_max: usize,
}

impl Letters {
    /// A writer's letter number `index`, from 0. Half of them are small.
    pub(crate) fn letter(&self, writer: u8, index: u32) -> Vec<u8> {
        let place = (u64::from(writer) << 32) | u64::from(index);
        let mut random = Random::new(self.seed ^ place.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let max = if random.next() % 2 == 0 { self.size_max.min(200) } else { self.size_max };
        let size = 1 + random.below(max);
        let mut letter = random.bytes(size);
        letter[0] = writer;
        letter
    }
}

/// Sees to it that each writer's letters come whole and in order.
#[derive(Debug)]
pub(crate) struct Checker {
    letters: Letters,
    next: Vec<u32>,
    may_lose: bool,
    pub(crate) received: u64,
}

impl Checker {
    pub(crate) fn new(letters: Letters, writers: usize, may_lose: bool) -> Checker {
        Checker { letters, next: vec![0; writers], may_lose, received: 0 }
    }

    /// Checks the next letter that came; `sequence` is its own claim of its place, from 1.
    pub(crate) fn check(&mut self, body: &[u8], sequence: u64) {
        let writer = *body.first().expect("a letter of 0 bytes came, and none was sent");
        let next = self
            .next
            .get_mut(usize::from(writer))
            .unwrap_or_else(|| panic!("a letter of writer {writer}, who doesn't exist"));
        if self.may_lose {
            assert!(sequence > u64::from(*next), "letter {sequence} of {writer} came after {next}");
            *next = sequence as u32 - 1;
        } else if sequence != 0 {
            assert_eq!(sequence, u64::from(*next) + 1, "the sequence of writer {writer}");
        }
        let expected = self.letters.letter(writer, *next);
        if body != expected {
            let at = body.iter().zip(&expected).position(|(a, b)| a != b);
            panic!(
                "letter {next} of writer {writer} is torn or out of order: {} bytes instead of {}, \
                 the first wrong one at {at:?}",
                body.len(),
                expected.len(),
            );
        }
        *next += 1;
        self.received += 1;
    }

    /// How many letters of a writer are known to have been sent.
    pub(crate) fn seen_of(&self, writer: u8) -> u32 {
        self.next[usize::from(writer)]
    }
}
