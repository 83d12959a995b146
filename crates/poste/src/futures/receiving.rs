//! The receiving end: a look, and a wait for the descriptor where nothing is there.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;

use super::reactor::{Shown, Turn, Watch, may_wait};
use super::{Linger, Reactor, Receiver, Sender};
use crate::address::Address;
use crate::capabilities::{Capabilities, Counters, Facts};
use crate::duplex::Duplex;
use crate::error::{Error, Kind};
use crate::message::{Message, OwnedMessage};
use crate::options::Options;
use crate::receiver;
use crate::wait::Wait;

/// A message that was read with others costs so little that so many count as one step of a task.
const AT_ONCE: u32 = 16;

impl<R: Reactor> Receiver<R> {
    /// As [`poste::Receiver::open`](crate::Receiver::open).
    ///
    /// # Errors
    /// As there, and `NotSupported` outside of a runtime, or where the mechanism has no descriptor
    /// to wait on.
    pub fn open(address: impl AsRef<str>) -> Result<Receiver<R>, Error> {
        Receiver::open_with(address, &Options::new())
    }

    /// As [`poste::Receiver::create`](crate::Receiver::create).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn create(address: impl AsRef<str>) -> Result<Receiver<R>, Error> {
        Receiver::open_with(address, &Options::new().create())
    }

    /// As [`poste::Receiver::open_with`](crate::Receiver::open_with).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Receiver<R>, Error> {
        Receiver::over(receiver::Receiver::open_with(address, options)?)
    }

    /// As [`poste::Receiver::inherited`](crate::Receiver::inherited).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn inherited() -> Result<Receiver<R>, Error> {
        Receiver::over(receiver::Receiver::inherited()?)
    }

    /// Over a receiver that is open already: of a pipe, a pair, a connection.
    ///
    /// # Errors
    /// `NotSupported` as [`Receiver::open`] says it.
    pub fn over(mut receiver: receiver::Receiver) -> Result<Receiver<R>, Error> {
        may_wait::<R>(receiver.capabilities())
            .map_err(|error| error.on("poll", receiver.address()))?;
        let watch =
            Watch::on(receiver.watched()?).map_err(|error| error.on("poll", receiver.address()))?;
        let turns = R::Turns::default();
        Ok(Receiver { watch, turns, receiver, look_first: true, at_once: AT_ONCE })
    }

    /// Receives a message, waiting for it as long as it takes. It is lent until the next one:
    /// [`Message::into_owned`] keeps it.
    ///
    /// Cancel-safe: a future that is dropped has taken nothing; what has arrived of a message stays
    /// with this receiver.
    ///
    /// # Errors
    /// As [`poste::Receiver::recv`](crate::Receiver::recv).
    pub async fn recv(&mut self) -> Result<Message<'_>, Error> {
        poll_fn(|cx| self.poll_look(cx)).await?;
        Ok(self.receiver.lent())
    }

    /// As [`poste::Receiver::try_recv`](crate::Receiver::try_recv): it doesn't wait.
    ///
    /// # Errors
    /// As there.
    pub fn try_recv(&mut self) -> Result<Message<'_>, Error> {
        self.receiver.try_recv()
    }

    /// Receives up to `max` messages: waits for the first, and takes what else is there. Returns
    /// how many there were.
    ///
    /// Cancel-safe: it waits only before the first, so that a future that is dropped has taken none.
    ///
    /// # Errors
    /// As [`Receiver::recv`], for the first.
    pub async fn recv_many(
        &mut self,
        max: usize,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<usize, Error> {
        if max == 0 {
            return Ok(0);
        }
        each(self.recv().await?);
        // What goes wrong behind the first is met again by the next call.
        Ok(1 + self.receiver.recv_many_wait(max - 1, each, Wait::Not).unwrap_or(0))
    }

    /// The next connection by itself, both ways; as
    /// [`poste::Receiver::accept`](crate::Receiver::accept).
    ///
    /// Cancel-safe: a future that is dropped has accepted none.
    ///
    /// # Errors
    /// As there, but for those that say that only time was missing.
    pub async fn accept(&mut self) -> Result<(Sender<R>, Receiver<R>), Error> {
        let duplex = poll_fn(|cx| self.poll_accept(cx)).await?;
        let (sender, receiver) = duplex.split();
        Ok((Sender::over(sender)?, Receiver::over(receiver)?))
    }

    /// As [`poste::Receiver::manual`](crate::Receiver::manual).
    #[must_use]
    pub fn manual(self) -> Receiver<R> {
        Receiver { receiver: self.receiver.manual(), ..self }
    }

    /// As [`poste::Receiver::try_clone`](crate::Receiver::try_clone).
    ///
    /// # Errors
    /// As there.
    pub fn try_clone(&self) -> Result<Receiver<R>, Error> {
        Receiver::over(self.receiver.try_clone()?)
    }

    /// As [`poste::Receiver::capabilities`](crate::Receiver::capabilities).
    #[must_use]
    pub fn capabilities(&self) -> &'static Capabilities {
        self.receiver.capabilities()
    }

    /// As [`poste::Receiver::facts`](crate::Receiver::facts).
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.receiver.facts()
    }

    /// As [`poste::Receiver::counters`](crate::Receiver::counters).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.receiver.counters()
    }

    /// As [`poste::Receiver::address`](crate::Receiver::address).
    #[must_use]
    pub fn address(&self) -> &Address {
        self.receiver.address()
    }

    /// The receiver itself, for waits of the other forms; with what it has read ahead.
    #[must_use]
    pub fn into_inner(self) -> receiver::Receiver {
        self.receiver
    }

    /// Takes the next message, which the receiver then lends.
    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.receiver.has_more() && self.at_once > 0 {
            self.at_once -= 1;
            if self.receiver.look()? {
                return Poll::Ready(Ok(()));
            }
        }
        self.at_once = AT_ONCE;
        let mut look_first = std::mem::take(&mut self.look_first) || self.receiver.has_more();
        match self.receiver.linger() {
            Linger::Found => look_first = true,
            Linger::Again => {
                // Other tasks first; nobody else would wake this one.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Linger::Over => {}
        }
        if look_first {
            let turn = ready!(R::poll_turn(&mut self.turns, cx));
            if self.receiver.look()? {
                turn.made_progress();
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            // What is shown is taken note of before the look: what comes during it shows anew.
            let shown = ready!(self.watch.poll(&mut self.turns, cx));
            let mut shown = shown.map_err(|error| error.on("poll", self.receiver.address()))?;
            let found = self.receiver.look()?;
            if !found || self.receiver.is_drained() {
                shown.is_over();
            }
            if found {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Duplex, Error>> {
        // What shows may be a message: `recv` is to look for it.
        self.look_first = true;
        let turn = ready!(R::poll_turn(&mut self.turns, cx));
        let mut accepted = self.receiver.accept(Wait::Not);
        loop {
            match accepted {
                Err(error) if error.is_passing() => {}
                done => {
                    turn.made_progress();
                    return Poll::Ready(done);
                }
            }
            let shown = ready!(self.watch.poll(&mut self.turns, cx));
            let mut shown = shown.map_err(|error| error.on("poll", self.receiver.address()))?;
            accepted = self.receiver.accept(Wait::Not);
            if accepted.as_ref().is_err_and(Error::is_passing) {
                shown.is_over();
            }
        }
    }
}

impl<R: Reactor> Stream for Receiver<R> {
    type Item = Result<OwnedMessage, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.poll_look(cx)) {
            Ok(()) => Poll::Ready(Some(Ok(self.receiver.lent().into_owned()))),
            Err(error) if error.is(&Kind::Disconnected) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
