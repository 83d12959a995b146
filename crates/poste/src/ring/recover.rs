//! What the dead have taken becomes ready again. Every step may be the last one of whoever does it,
//! and may be done twice: the words say what is left to do.

use poste_sys::atomic::Ordering;

use super::lane::Lane;
use super::layout::State;

impl Lane {
    /// The messages that `receiver` has taken and not ended; it takes no more.
    ///
    /// Every descriptor is looked at: others go on meanwhile, so that the head is soon behind, and
    /// where it was there may stand a message of the next lap. What was taken stays ahead of it, by
    /// less than a lap.
    pub(crate) fn taken_by(&self, receiver: u16) -> Vec<u64> {
        let is_its =
            |number: &u64| self.look(*number).is_some_and(|word| word.is_taken_by(receiver));
        let head = self.head().load(Ordering::Acquire);
        (0..self.slots()).map(|step| head.wrapping_add(step)).filter(is_its).collect()
    }

    /// Whether all that was published is done. For a lane that has no sender.
    pub(crate) fn is_drained(&self) -> bool {
        let is_done = |number| self.look(number).is_some_and(|word| word.state() == State::Done);
        self.published().all(is_done)
    }

    /// Counts a message that was set aside.
    pub(crate) fn count_aside(&self) {
        self.aside().fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(poste_loom)))]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use poste_sys::mapping::{Access, Mapping, reserve};

    use super::*;
    use crate::ring::claim::Reader;
    use crate::ring::layout::Place;
    use crate::ring::producer::{Kind, Producer};

    fn file(size: usize) -> OwnedFd {
        let file = rustix::fs::memfd_create("lane", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        reserve(file.as_fd(), size).unwrap();
        file
    }

    /// What somebody has taken is found while a sender and another receiver go round and round.
    #[test]
    fn what_was_taken_is_found_however_busy_the_lane_is() {
        const SLOTS: u64 = 16;
        let control = Lane::control_size(SLOTS);
        let words = Mapping::new(file(control), 0, control, Access::Write).unwrap();
        Lane::format(&words, SLOTS, control, [1, 2]);
        let lane = Arc::new(Lane::over(words, SLOTS).unwrap());
        let bodies = Mapping::new(file(64 << 10), 0, 64 << 10, Access::Write).unwrap();
        let mut producer = Producer::resume(Arc::clone(&lane), bodies, SLOTS).unwrap();
        let is_over = AtomicBool::new(false);
        let next = |reader: &mut Reader, receiver| {
            let (number, word) = reader.find(0).unwrap()?;
            lane.take(number, word, receiver).then_some(number)
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if let Ok(offset) = producer.room_for(8) {
                        let kind = Kind { priority: 0, raw: false };
                        producer.write(Place { offset, size: 8 }, kind, 0, 0);
                        producer.publish();
                    }
                }
            });
            scope.spawn(|| {
                let mut reader = Reader::new(Arc::clone(&lane));
                while !is_over.load(Ordering::Relaxed) {
                    if let Some(number) = next(&mut reader, 1) {
                        lane.finish(number, 1).unwrap();
                    }
                }
            });
            let mut reader = Reader::new(Arc::clone(&lane));
            let (mut missed, mut taken) = (0, 0);
            while taken < 2000 {
                let Some(number) = next(&mut reader, 2) else { continue };
                taken += 1;
                missed += (0..20).filter(|_| lane.taken_by(2) != [number]).count();
                lane.finish(number, 2).unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(missed, 0, "what was taken was not found");
        });
    }
}
