//! The least that a ring in shared memory can be: two indices and slots of one size, one sender, one
//! receiver, no priorities, nobody who dies. It spins, or sleeps on a futex at once.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{Ordering, fence};

use poste_sys::mapping::{Access, Mapping, reserve};

use super::{Outcome, Receiver, Sender, Setup, check, fill};

const SENT: usize = 0;
const RECEIVED: usize = 128;
const WAITING_RECEIVER: usize = 256;
const WAITING_SENDER: usize = 384;
const SLOTS: usize = 4096;

/// Either side of it.
pub struct Ring {
    map: Mapping,
    slots: u64,
    size: usize,
    sleeps: bool,
    /// This side's own index.
    mine: u64,
    /// What the other's was when it was last looked at.
    seen: u64,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/dev/shm").join(name)
}

/// A ring's memory, which either side may make.
pub fn map(name: &str, bytes: usize) -> Outcome<Mapping> {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(path(name))?;
    let file = OwnedFd::from(file);
    reserve(file.as_fd(), bytes)?;
    Ok(Mapping::new(file, 0, bytes, Access::Write)?)
}

pub fn open(name: &str, setup: Setup, sleeps: bool) -> Outcome<Ring> {
    let slots = setup.depth();
    let map = map(name, SLOTS + (setup.size * slots).next_multiple_of(4096))?;
    Ok(Ring { map, slots: slots as u64, size: setup.size, sleeps, mine: 0, seen: 0 })
}

pub fn remove(name: &str) -> Outcome<()> {
    Ok(std::fs::remove_file(path(name))?)
}

impl Ring {
    fn slot(&self, index: u64) -> usize {
        SLOTS + (index % self.slots) as usize * self.size
    }

    /// Until the word at `other` isn't `than` any more.
    fn wait(&self, waiting: usize, other: usize, than: u64) -> u64 {
        let other = self.map.word(other);
        loop {
            let now = other.load(Ordering::Acquire);
            if now != than {
                return now;
            }
            if !self.sleeps {
                std::hint::spin_loop();
                continue;
            }
            let word = self.map.half(waiting);
            word.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if other.load(Ordering::Acquire) == than {
                // Woken, interrupted or late: the index tells.
                let _ = poste_sys::futex::wait(word, 1, None);
            }
            word.store(0, Ordering::Relaxed);
        }
    }

    fn publish(&self, index: usize, waiting: usize) {
        self.map.word(index).store(self.mine, Ordering::Release);
        if self.sleeps {
            fence(Ordering::SeqCst);
            let word = self.map.half(waiting);
            if word.load(Ordering::Relaxed) == 1 {
                word.store(0, Ordering::Relaxed);
                poste_sys::futex::wake(word);
            }
        }
    }

    fn write(&mut self, number: u64) -> Outcome<()> {
        if self.mine - self.seen >= self.slots {
            self.publish(SENT, WAITING_RECEIVER);
            self.seen = self.map.word(RECEIVED).load(Ordering::Acquire);
            if self.mine - self.seen >= self.slots {
                self.seen = self.wait(WAITING_SENDER, RECEIVED, self.seen);
            }
        }
        let at = self.slot(self.mine);
        fill(self.map.slice_mut(at, self.size).ok_or("out of the ring")?, number);
        self.mine += 1;
        Ok(())
    }

    fn read(&mut self) -> Outcome<u64> {
        let at = self.slot(self.mine);
        let number = check(self.map.slice(at, self.size).ok_or("out of the ring")?, self.size);
        self.mine += 1;
        Ok(number)
    }

    fn look(&mut self) {
        if self.mine >= self.seen {
            self.seen = self.wait(WAITING_RECEIVER, SENT, self.mine);
        }
    }
}

impl Sender for Ring {
    #[inline]
    fn send(&mut self, number: u64) -> Outcome<()> {
        self.write(number)?;
        self.publish(SENT, WAITING_RECEIVER);
        Ok(())
    }

    fn batch(&mut self, first: u64, count: u64) -> Outcome<()> {
        (first..first + count).try_for_each(|number| self.write(number))?;
        self.publish(SENT, WAITING_RECEIVER);
        Ok(())
    }
}

impl Receiver for Ring {
    #[inline]
    fn receive(&mut self) -> Outcome<u64> {
        self.look();
        let number = self.read()?;
        self.publish(RECEIVED, WAITING_SENDER);
        Ok(number)
    }

    fn receive_many(&mut self) -> Outcome<u64> {
        self.look();
        let count = self.seen - self.mine;
        for _ in 0..count {
            self.read()?;
        }
        self.publish(RECEIVED, WAITING_SENDER);
        Ok(count)
    }
}
