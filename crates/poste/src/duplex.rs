//! Two ways in one: the forms of a sender and a receiver on one object.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use poste_sys::hand_down::identity;

use crate::error::{Error, Kind};
use crate::inheritance::{self, Role};
use crate::mechanism::{check, inherited, local, pair, pipe};
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

/// A pipe: what is sent into one end comes out of the other, also in a child that inherits it.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// let (mut sender, mut receiver) = poste::pipe()?;
/// sender.send("through the kernel")?;
/// drop(sender);
/// assert_eq!(receiver.recv()?.text()?, "through the kernel");
/// assert_eq!(receiver.recv().unwrap_err().kind(), poste::Kind::Disconnected);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Limit` where this process may open no more descriptors.
pub fn pipe() -> Result<(Sender, Receiver), Error> {
    pipe_with(&Options::new())
}

/// A pipe, opened as the options say: raw, of another capacity.
///
/// # Errors
/// As [`pipe`]; `Limit` where the system allows no pipe so large.
pub fn pipe_with(options: &Options) -> Result<(Sender, Receiver), Error> {
    let (sending, receiving) = check(&pipe::MECHANISM, options)
        .and_then(|()| pipe::pair(options))
        .map_err(|error| error.on("make", &"pipe:"))?;
    Ok((
        Sender::over(&pipe::MECHANISM, sending, options.clone()),
        Receiver::over(&pipe::MECHANISM, receiving, options.clone()),
    ))
}

/// A socket pair: two sides of one connection, each sends and receives.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// let (mut here, mut there) = poste::pair()?;
/// here.send("ping")?;
/// assert_eq!(there.recv()?.text()?, "ping");
/// there.send("pong")?;
/// assert_eq!(here.recv()?.text()?, "pong");
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Limit` where this process may open no more descriptors.
pub fn pair() -> Result<(Duplex, Duplex), Error> {
    pair_with(&Options::new())
}

/// A socket pair, opened as the options say.
///
/// # Errors
/// As [`pair`].
pub fn pair_with(options: &Options) -> Result<(Duplex, Duplex), Error> {
    let (one, two) = check(&pair::MECHANISM, options)
        .and_then(|()| pair::pair(options))
        .map_err(|error| error.on("make", &"pair:"))?;
    let side = |(sending, receiving)| Duplex {
        sender: Sender::over(&pair::MECHANISM, sending, options.clone()),
        receiver: Receiver::over(&pair::MECHANISM, receiving, options.clone()),
    };
    Ok((side(one), side(two)))
}

/// Two pipes, one for each direction: two sides, each sends and receives.
///
/// ```
/// # fn main() -> Result<(), poste::Error> {
/// let (mut here, mut there) = poste::pipes()?;
/// here.send("ping")?;
/// there.send("pong")?;
/// assert_eq!((here.recv()?.text()?, there.recv()?.text()?), ("pong", "ping"));
/// # Ok(()) }
/// ```
///
/// # Errors
/// `Limit` where this process may open no more descriptors.
pub fn pipes() -> Result<(Duplex, Duplex), Error> {
    pipes_with(&Options::new())
}

/// Two pipes, opened as the options say.
///
/// # Errors
/// As [`pipes`].
pub fn pipes_with(options: &Options) -> Result<(Duplex, Duplex), Error> {
    let (to, from_here) = pipe_with(options)?;
    let (back, from_there) = pipe_with(options)?;
    let here = Duplex { sender: to, receiver: from_there };
    Ok((here, Duplex { sender: back, receiver: from_here }))
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
    local_with(&Options::new())
}

/// A channel inside this process, opened as the options say.
///
/// # Errors
/// As [`local`].
pub fn local_with(options: &Options) -> Result<(Sender, Receiver), Error> {
    let (sending, receiving) = check(&local::MECHANISM, options)
        .and_then(|()| local::pair(options))
        .map_err(|error| error.on("make", &"local:"))?;
    Ok((
        Sender::over(&local::MECHANISM, sending, options.clone()),
        Receiver::over(&local::MECHANISM, receiving, options.clone()),
    ))
}

impl Duplex {
    /// Of two directions of one channel.
    pub(crate) fn of(sender: Sender, receiver: Receiver) -> Duplex {
        Duplex { sender, receiver }
    }

    /// The two directions, each to be used, or given away, by itself.
    #[must_use]
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// Starts a child that takes this side over ([`Duplex::inherited`]), and closes it here. No other
    /// child gets it: not one that another thread starts meanwhile, nor the next of this command.
    ///
    /// # Errors
    /// As [`Sender::spawn`] and [`Receiver::spawn`].
    pub fn spawn(self, command: &mut Command) -> io::Result<Child> {
        let (sending, _) = self.sender.hand_down()?;
        // Both were opened with the same settings; of these the receiver has more to say.
        let (receiving, options) = self.receiver.hand_down()?;
        let ends = if identity(&sending)? == identity(&receiving)? {
            vec![(Role::Side, receiving)]
        } else {
            vec![(Role::Sender, sending), (Role::Receiver, receiving)]
        };
        inheritance::spawn(command, ends, &options)
    }

    /// The side of a connection that this process was started with, once.
    ///
    /// # Errors
    /// `NotFound` where none was handed down, or it was taken over before.
    pub fn inherited() -> Result<Duplex, Error> {
        let take = |(descriptor, options): (OwnedFd, Options)| {
            let (sending, receiving) = inherited::handed_side(descriptor, &options)?;
            Ok(Duplex {
                sender: Sender::over(&pair::MECHANISM, sending, options.clone()),
                receiver: Receiver::over(&pair::MECHANISM, receiving, options),
            })
        };
        match inheritance::take(Role::Side).and_then(take) {
            Err(error) if error.is(&Kind::NotFound) => {
                Ok(Duplex { sender: Sender::inherited()?, receiver: Receiver::inherited()? })
            }
            taken => taken.map_err(|error| error.on("take over", &"an inherited connection")),
        }
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
