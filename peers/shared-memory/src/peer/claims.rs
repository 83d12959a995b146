//! The least that a ring can be whose messages any of several receivers may claim, and which come
//! again when one dies: beside each body a word that goes from ready to taken to done, each step an
//! atomic operation of its own, and a full barrier after a message, to look who sleeps. No priorities,
//! one size, it always spins. What stands between this and `bare` is the price of the promise.

use std::sync::atomic::{AtomicU64, Ordering};

use poste_sys::mapping::Mapping;

use super::{Outcome, Receiver, Sender, Setup, bare, check, fill};

/// Bytes beside a body: the word, and what a message says of itself.
const WORD: usize = 32;
const READY: u64 = 1;
const TAKEN: u64 = 2;
const DONE: u64 = 3;

/// Either side of it.
pub struct Ring {
    map: Mapping,
    slots: u64,
    size: usize,
    next: u64,
}

pub fn open(name: &str, setup: Setup) -> Outcome<Ring> {
    let slots = setup.depth();
    let map = bare::map(name, slots * WORD + (setup.size * slots).next_multiple_of(4096))?;
    // Numbers begin with the second lap: a word of zeros is older than any.
    Ok(Ring { map, slots: slots as u64, size: setup.size, next: slots as u64 })
}

impl Ring {
    fn word(&self, number: u64) -> &AtomicU64 {
        self.map.word((number % self.slots) as usize * WORD)
    }

    fn body(&self, number: u64) -> usize {
        self.slots as usize * WORD + (number % self.slots) as usize * self.size
    }

    fn write(&mut self, number: u64) -> Outcome<()> {
        let before = self.next - self.slots;
        let free = if before < self.slots { 0 } else { before << 2 | DONE };
        while self.word(self.next).load(Ordering::Acquire) != free {
            std::hint::spin_loop();
        }
        let at = self.body(self.next);
        fill(self.map.slice_mut(at, self.size).ok_or("out of the ring")?, number);
        self.next += 1;
        Ok(())
    }

    /// Claims the next message, if it is there.
    fn claim(&self) -> bool {
        let (word, ready) = (self.word(self.next), self.next << 2 | READY);
        let taken = self.next << 2 | TAKEN;
        word.load(Ordering::Acquire) == ready
            && word.compare_exchange(ready, taken, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Reads what was claimed, and ends it.
    fn end(&mut self) -> Outcome<u64> {
        let body = self.map.slice(self.body(self.next), self.size).ok_or("out of the ring")?;
        let number = check(body, self.size);
        let (taken, done) = (self.next << 2 | TAKEN, self.next << 2 | DONE);
        let word = self.word(self.next);
        word.compare_exchange(taken, done, Ordering::SeqCst, Ordering::SeqCst)
            .map_err(|_| "somebody else ended it")?;
        self.next += 1;
        Ok(number)
    }
}

impl Sender for Ring {
    #[inline]
    fn send(&mut self, number: u64) -> Outcome<()> {
        self.batch(number, 1)
    }

    fn batch(&mut self, first: u64, count: u64) -> Outcome<()> {
        for number in first..first + count {
            self.write(number)?;
            let (at, ready) = (self.next - 1, (self.next - 1) << 2 | READY);
            if number + 1 < first + count {
                self.word(at).store(ready, Ordering::Release);
            } else {
                self.word(at).swap(ready, Ordering::SeqCst);
            }
        }
        Ok(())
    }
}

impl Receiver for Ring {
    #[inline]
    fn receive(&mut self) -> Outcome<u64> {
        while !self.claim() {
            std::hint::spin_loop();
        }
        self.end()
    }

    fn receive_many(&mut self) -> Outcome<u64> {
        self.receive()?;
        let mut count = 1;
        while count < 256 && self.claim() {
            self.end()?;
            count += 1;
        }
        Ok(count)
    }
}
