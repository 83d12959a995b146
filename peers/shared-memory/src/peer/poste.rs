//! poste's mailbox in shared memory.

use poste::{Options, Spin};

use super::{Outcome, Receiver, Sender, Setup, check, fill};

/// How messages are given to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A slice, one by one.
    Send,
    /// `feed` and `flush`, `recv_many`.
    Batch,
    /// Written in place.
    Loan,
}

pub struct Sending {
    sender: poste::Sender,
    how: How,
    body: Vec<u8>,
}

pub struct Receiving {
    receiver: poste::Receiver,
    how: How,
    size: usize,
}

fn options(spin: Spin) -> Options {
    Options::new().create().spin(spin)
}

pub fn sender(name: &str, setup: Setup, spin: Spin, how: How) -> Outcome<Sending> {
    let sender = poste::Sender::open_with(format!("shm:{name}"), &options(spin))?;
    Ok(Sending { sender, how, body: vec![0; setup.size] })
}

pub fn receiver(name: &str, setup: Setup, spin: Spin, how: How) -> Outcome<Receiving> {
    let receiver = poste::Receiver::open_with(format!("shm:{name}"), &options(spin))?;
    Ok(Receiving { receiver, how, size: setup.size })
}

pub fn remove(name: &str) -> Outcome<()> {
    Ok(poste::remove(format!("shm:{name}"))?)
}

impl Sender for Sending {
    #[inline]
    fn send(&mut self, number: u64) -> Outcome<()> {
        if self.how == How::Loan {
            let mut loan = self.sender.loan(self.body.len())?;
            fill(&mut loan, number);
            loan.send()?;
        } else {
            fill(&mut self.body, number);
            self.sender.send(&self.body)?;
        }
        Ok(())
    }

    fn batch(&mut self, first: u64, count: u64) -> Outcome<()> {
        if self.how != How::Batch {
            return (first..first + count).try_for_each(|number| self.send(number));
        }
        for number in first..first + count {
            fill(&mut self.body, number);
            self.sender.feed(&self.body)?;
        }
        self.sender.flush()?;
        Ok(())
    }
}

impl Receiver for Receiving {
    #[inline]
    fn receive(&mut self) -> Outcome<u64> {
        Ok(check(&self.receiver.recv()?, self.size))
    }

    fn receive_many(&mut self) -> Outcome<u64> {
        if self.how != How::Batch {
            return self.receive().map(|_| 1);
        }
        let size = self.size;
        Ok(self.receiver.recv_many(256, |message| _ = check(&message, size))? as u64)
    }
}
