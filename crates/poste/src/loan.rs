//! Memory of the channel, lent to write a message in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::error::Error;
use crate::sender::{Level, Sender};

/// A message being written where its receiver will read it: no copy is made.
///
/// ```
/// use poste::{Receiver, Sender};
/// # fn main() -> Result<(), poste::Error> {
/// # let address = format!("shm:poste-loan-{}", std::process::id());
/// let mut receiver = Receiver::create(&address)?;
/// let mut sender = Sender::open(&address)?;
/// let mut loan = sender.loan(4096)?;
/// loan[..5].copy_from_slice(b"hello");
/// loan.shrink(5);
/// loan.send()?;
/// assert_eq!(receiver.recv()?.text()?, "hello");
/// # drop((sender, receiver));
/// # poste::remove(&address)?;
/// # Ok(()) }
/// ```
///
/// What stood in the memory before is undefined, but always bytes; a loan that is dropped sends
/// nothing, and its memory goes back to the channel.
pub struct Loan<'a> {
    sender: &'a mut Sender,
    size: usize,
    priority: u16,
}

impl<'a> Loan<'a> {
    pub(crate) fn new(sender: &'a mut Sender, size: usize) -> Loan<'a> {
        Loan { sender, size, priority: 0 }
    }

    /// Makes the message smaller; a size that is larger changes nothing.
    pub fn shrink(&mut self, size: usize) {
        self.size = self.size.min(size);
    }

    /// The priority to send it with, 0 unless told.
    #[must_use]
    pub fn priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Sends it.
    ///
    /// # Errors
    /// As [`Sender::send`]; the memory went back to the channel then.
    pub fn send(self) -> Result<Level, Error> {
        self.sender.send_lent(self.size, self.priority)
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let lent = self.sender.lent();
        &lent[..self.size.min(lent.len())]
    }
}

impl DerefMut for Loan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let lent = self.sender.lent_mut();
        let size = self.size.min(lent.len());
        &mut lent[..size]
    }
}

impl fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("size", &self.size).finish_non_exhaustive()
    }
}
