//! Two ways in one: the forms of a sender and a receiver on one object.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::mechanism::local;
use crate::message::Message;
use crate::options::Options;
use crate::outgoing::Outgoing;
use crate::receiver::Receiver;
use crate::sender::{Level, Sender};
use crate::wait::Wait;

/// One side of a connection that goes both ways.
#[derive(Debug)]
pub struct Duplex {
    sender: Sender,
    receiver: Receiver,
}

/// A channel inside this process: the same sender and receiver, without the kernel.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// let (mut sender, mut receiver) = poste::local()?;
/// std::thread::spawn(move || sender.send("from another thread"));
/// assert_eq!(receiver.recv()?.text()?, "from another thread");
/// # Ok(()) }
/// ```
///
/// # Errors
/// None today; the form is that of the other channels.
pub fn local() -> Result<(Sender, Receiver), Error> {
    let options = Options::new();
    let (sending, receiving) = local::pair(&options)?;
    Ok((
        Sender::over(&local::MECHANISM, sending, options.clone()),
        Receiver::over(&local::MECHANISM, receiving, options),
    ))
}

impl Duplex {
    pub(crate) fn of(sender: Sender, receiver: Receiver) -> Duplex {
        Duplex { sender, receiver }
    }

    /// The two directions, each to be used, or given away, by itself.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// As [`Sender::send`].
    ///
    /// # Errors
    /// As there.
    pub fn send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.sender.send(message)
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    /// As there.
    pub fn try_send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.sender.try_send(message)
    }

    /// As [`Sender::send_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn send_timeout<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        time: Duration,
    ) -> Result<Level, Error> {
        self.sender.send_timeout(message, time)
    }

    /// As [`Sender::send_deadline`].
    ///
    /// # Errors
    /// As there.
    pub fn send_deadline<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
        end: Instant,
    ) -> Result<Level, Error> {
        self.sender.send_deadline(message, end)
    }

    /// As [`Receiver::recv`].
    ///
    /// # Errors
    /// As there.
    pub fn recv(&mut self) -> Result<Message<'_>, Error> {
        self.receiver.recv()
    }

    /// As [`Receiver::try_recv`].
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&mut self) -> Result<Message<'_>, Error> {
        self.receiver.try_recv()
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_timeout(&mut self, time: Duration) -> Result<Message<'_>, Error> {
        self.receiver.recv_timeout(time)
    }

    /// As [`Receiver::recv_deadline`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_deadline(&mut self, end: Instant) -> Result<Message<'_>, Error> {
        self.receiver.recv_deadline(end)
    }

    /// As [`Receiver::recv_wait`].
    ///
    /// # Errors
    /// As there.
    pub fn recv_wait(&mut self, wait: Wait) -> Result<Message<'_>, Error> {
        self.receiver.recv_wait(wait)
    }

    /// The sending half, for what it alone can do.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The receiving half, for what it alone can do.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }
}
