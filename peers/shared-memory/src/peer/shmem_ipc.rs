//! shmem-ipc: a ring in a sealed memory, with an eventfd for each direction. One sender; no message
//! boundaries, so that a message here is as many words as its size. Its descriptors go to the other
//! process over a Unix socket.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use poste::{Outgoing, Wait};
use shmem_ipc::sharedring;

use super::{Outcome, Receiver, Sender, Setup};

pub struct Sending {
    ring: sharedring::Sender<u64>,
    words: usize,
}

pub struct Receiving {
    ring: sharedring::Receiver<u64>,
    words: usize,
}

const LIMIT: Wait = Wait::For(Duration::from_secs(10));

fn address(name: &str) -> String {
    format!("unix:@{name}")
}

/// What a receiver made and has yet to give to its sender.
pub struct Offer {
    receiver: Option<sharedring::Receiver<u64>>,
    desk: poste::Receiver,
    words: usize,
}

fn capacity(setup: Setup) -> usize {
    setup.depth() * setup.size / 8
}

/// Makes it, before there is a sender.
pub fn offer(name: &str, setup: Setup) -> Outcome<Offer> {
    let receiver = sharedring::Receiver::new(capacity(setup))?;
    let desk = poste::Receiver::create(address(name))?;
    Ok(Offer { receiver: Some(receiver), desk, words: setup.size / 8 })
}

impl Offer {
    /// Waits for the sender, and gives it what it needs.
    pub fn accept(&mut self) -> Outcome<Receiving> {
        let ring = self.receiver.take().ok_or("given away")?;
        let mut request = self.desk.recv_wait(LIMIT)?;
        let files = [ring.memfd().as_file(), ring.empty_signal(), ring.full_signal()];
        request.reply(Outgoing::from(&b"ring"[..]).descriptors(&files.map(AsFd::as_fd)))?;
        drop(request);
        Ok(Receiving { ring, words: self.words })
    }
}

pub fn sender(name: &str, setup: Setup) -> Outcome<Sending> {
    let options = poste::Options::new().patience(LIMIT);
    let mut desk = poste::Sender::open_with(address(name), &options)?;
    let mut answer = desk.call("ring", LIMIT)?;
    let mut files = answer.take_descriptors().into_iter().map(|each: OwnedFd| File::from(each));
    let mut next = || files.next().ok_or("a descriptor is missing");
    let (memory, empty, full) = (next()?, next()?, next()?);
    let ring = sharedring::Sender::open(capacity(setup), memory, empty, full)?;
    Ok(Sending { ring, words: setup.size / 8 })
}

impl Sender for Sending {
    fn send(&mut self, number: u64) -> Outcome<()> {
        let mut written = 0;
        while written < self.words {
            self.ring.block_until_writable()?;
            let left = self.words - written;
            let mut now = 0;
            // SAFETY: this is the only sender, the other process has the only receiver, and both
            // reach the memory through the ring alone.
            unsafe {
                self.ring.send_trusted(|slots| {
                    now = slots.len().min(left);
                    for (at, slot) in slots[..now].iter_mut().enumerate() {
                        *slot = number.wrapping_add((written + at) as u64);
                    }
                    now
                })?
            };
            written += now;
        }
        Ok(())
    }
}

impl Receiver for Receiving {
    fn receive(&mut self) -> Outcome<u64> {
        let (mut read, mut sum, mut first) = (0, 0_u64, 0);
        while read < self.words {
            self.ring.block_until_readable()?;
            let left = self.words - read;
            let mut now = 0;
            // SAFETY: as in `send`: one receiver, one sender, and nobody else.
            unsafe {
                self.ring.receive_trusted(|slots| {
                    now = slots.len().min(left);
                    if read == 0 {
                        first = slots[0];
                    }
                    sum = slots[..now].iter().fold(sum, |sum, word| sum.wrapping_add(*word));
                    now
                })?
            };
            read += now;
        }
        let words = self.words as u64;
        assert_eq!(sum, first.wrapping_mul(words).wrapping_add(words * (words - 1) / 2), "torn");
        Ok(first)
    }
}
