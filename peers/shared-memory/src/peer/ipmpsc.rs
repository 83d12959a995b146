//! ipmpsc: a ring under a mutex and a condition variable in shared memory, serialised by bincode.

use ipmpsc::{Receiver as Theirs, Sender as TheirSender, SharedRingBuffer};
use serde_bytes::Bytes;

use super::{Outcome, Receiver, Sender, Setup, check, fill};

pub struct Sending {
    sender: TheirSender,
    body: Vec<u8>,
}

pub struct Receiving {
    receiver: Theirs,
    size: usize,
}

fn path(name: &str) -> String {
    format!("/dev/shm/{name}")
}

pub fn sender(name: &str, setup: Setup) -> Outcome<Sending> {
    let sender = TheirSender::new(SharedRingBuffer::open(&path(name))?);
    Ok(Sending { sender, body: vec![0; setup.size] })
}

/// Makes it.
pub fn receiver(name: &str, setup: Setup) -> Outcome<Receiving> {
    let bytes = ((setup.size + 16) * setup.depth()).next_multiple_of(4096);
    let receiver = Theirs::new(SharedRingBuffer::create(&path(name), u32::try_from(bytes)?)?);
    Ok(Receiving { receiver, size: setup.size })
}

pub fn remove(name: &str) -> Outcome<()> {
    Ok(std::fs::remove_file(path(name))?)
}

impl Sender for Sending {
    fn send(&mut self, number: u64) -> Outcome<()> {
        fill(&mut self.body, number);
        Ok(self.sender.send(&Bytes::new(&self.body))?)
    }
}

impl Receiver for Receiving {
    fn receive(&mut self) -> Outcome<u64> {
        let mut context = self.receiver.zero_copy_context();
        let body: &[u8] = context.recv()?;
        Ok(check(body, self.size))
    }
}
