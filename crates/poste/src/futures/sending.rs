//! The sending end: each call without a wait, and a wait for room where there is none.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_sink::Sink;

use super::reactor::{may_wait, poll_until};
use super::{Reactor, Receiver, Sender};
use crate::address::Address;
use crate::capabilities::{Capabilities, Counters, Facts};
use crate::error::{Error, Kind};
use crate::loan::Loan;
use crate::message::OwnedMessage;
use crate::options::Options;
use crate::outgoing::{Kept, Outgoing};
use crate::sender::{self, Level};
use crate::wait::Wait;

impl<R: Reactor> Sender<R> {
    /// As [`poste::Sender::open`](crate::Sender::open).
    ///
    /// # Errors
    /// As there, and `NotSupported` outside of a runtime, or where the mechanism has no descriptor
    /// to wait on.
    pub fn open(address: impl AsRef<str>) -> Result<Sender<R>, Error> {
        Sender::open_with(address, &Options::new())
    }

    /// As [`poste::Sender::create`](crate::Sender::create).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn create(address: impl AsRef<str>) -> Result<Sender<R>, Error> {
        Sender::open_with(address, &Options::new().create())
    }

    /// As [`poste::Sender::open_with`](crate::Sender::open_with).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Sender<R>, Error> {
        Sender::over(sender::Sender::open_with(address, options)?)
    }

    /// As [`poste::Sender::inherited`](crate::Sender::inherited).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn inherited() -> Result<Sender<R>, Error> {
        Sender::over(sender::Sender::inherited()?)
    }

    /// Over a sender that is open already: of a pipe, a pair, a connection.
    ///
    /// # Errors
    /// `NotSupported` as [`Sender::open`] says it.
    pub fn over(sender: sender::Sender) -> Result<Sender<R>, Error> {
        may_wait::<R>(sender.capabilities()).map_err(|error| error.on("poll", sender.address()))?;
        let turns = R::Turns::default();
        Ok(Sender { room: None, answers: None, turns, sender })
    }

    /// Sends a message, waiting for room as long as it takes.
    ///
    /// Cancel-safe: a future that is dropped has sent nothing, or it has begun, and then the message
    /// is *held*: the next send, flush or close of this sender finishes it before anything else.
    /// Which it was, [`Sender::counters`] tells: a message that was begun is counted. (So is what a
    /// sink took in and there was no room for, when it goes: flush a sink first.)
    ///
    /// # Errors
    /// As [`poste::Sender::send`](crate::Sender::send).
    pub async fn send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        let message = message.into();
        match self.when_room(|sender| sender.try_send(message)).await? {
            Level::Held => self.flush().await,
            level => Ok(level),
        }
    }

    /// As [`poste::Sender::try_send`](crate::Sender::try_send): it doesn't wait.
    ///
    /// # Errors
    /// As there.
    pub fn try_send<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        self.sender.feed_kept()?;
        self.sender.try_send(message)
    }

    /// Takes a message in to be sent with others at the next [`Sender::flush`], send or close. Where
    /// 64 KiB are fed it sends them, waiting for room.
    ///
    /// Cancel-safe: a future that is dropped has not taken this message in.
    ///
    /// # Errors
    /// As [`poste::Sender::feed`](crate::Sender::feed).
    pub async fn feed<'a>(&mut self, message: impl Into<Outgoing<'a>>) -> Result<Level, Error> {
        let message = message.into();
        // Where it is only taken in there is nothing to wait for.
        if self.sender.kept.is_none() && self.sender.takes_in() && message.descriptors.is_empty() {
            return self.sender.try_feed(message);
        }
        self.when_room(|sender| sender.try_feed(message)).await
    }

    /// Sends what is held, waiting for room as long as it takes.
    ///
    /// Cancel-safe: what a dropped future has not sent is still held.
    ///
    /// # Errors
    /// As [`poste::Sender::flush`](crate::Sender::flush).
    pub async fn flush(&mut self) -> Result<Level, Error> {
        self.when_room(flush_now).await
    }

    /// Lends memory of the channel to write a message in, waiting for room as long as it takes.
    ///
    /// Cancel-safe: what is lent and not sent was never there.
    ///
    /// # Errors
    /// As [`poste::Sender::loan`](crate::Sender::loan).
    pub async fn loan(&mut self, size: usize) -> Result<Loan<'_>, Error> {
        self.when_room(|sender| sender.lend(size, Wait::Not)).await?;
        Ok(Loan::new(&mut self.sender, size))
    }

    /// Sends a message and waits for the answer to it. One call at a time.
    ///
    /// Cancel-safe: a future that is dropped while it sends is as one of [`Sender::send`]; later, the
    /// question is with the other side, and the answer to it is passed over. In raw mode nothing
    /// tells answers apart: there, give the sender up too.
    ///
    /// # Errors
    /// As [`poste::Sender::call`](crate::Sender::call), `TimedOut` excepted.
    pub async fn call<'a>(
        &mut self,
        message: impl Into<Outgoing<'a>>,
    ) -> Result<OwnedMessage, Error> {
        let answer = self.ask(message.into()).await;
        answer.map_err(|error| error.on("call", self.sender.address()))
    }

    async fn ask(&mut self, message: Outgoing<'_>) -> Result<OwnedMessage, Error> {
        let asked = self.when_room(|sender| sender.question(message, Wait::Not)).await?;
        if asked == Level::Held {
            self.flush().await?;
        }
        self.sender.asked()?;
        poll_fn(|cx| {
            let watched = sender::Sender::watched_back;
            let (answers, turns) = (&mut self.answers, &mut self.turns);
            poll_until(answers, turns, watched, &mut self.sender, cx, |sender| {
                sender.answer(Wait::Not)
            })
        })
        .await
    }

    /// Finishes what is held, and closes this end.
    ///
    /// Cancel-safe so far as a drop is: what is held is sent as far as that goes without waiting.
    ///
    /// # Errors
    /// As [`Sender::flush`].
    pub async fn close(mut self) -> Result<(), Error> {
        self.flush().await.map(drop)
    }

    /// As [`poste::Sender::try_clone`](crate::Sender::try_clone).
    ///
    /// # Errors
    /// As there.
    pub fn try_clone(&self) -> Result<Sender<R>, Error> {
        Sender::over(self.sender.try_clone()?)
    }

    /// The connection both ways; as [`poste::Sender::into_duplex`](crate::Sender::into_duplex).
    ///
    /// # Errors
    /// As there.
    pub fn into_duplex(self) -> Result<(Sender<R>, Receiver<R>), Error> {
        let (sender, receiver) = self.sender.into_duplex()?.split();
        Ok((Sender::over(sender)?, Receiver::over(receiver)?))
    }

    /// As [`poste::Sender::capabilities`](crate::Sender::capabilities).
    #[must_use]
    pub fn capabilities(&self) -> &'static Capabilities {
        self.sender.capabilities()
    }

    /// As [`poste::Sender::facts`](crate::Sender::facts).
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.sender.facts()
    }

    /// As [`poste::Sender::counters`](crate::Sender::counters).
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.sender.counters()
    }

    /// As [`poste::Sender::address`](crate::Sender::address).
    #[must_use]
    pub fn address(&self) -> &Address {
        self.sender.address()
    }

    /// The sender itself, for waits of the other forms, with what it holds. The last item that a sink
    /// took in is given up where there still is no room for it: flush first.
    #[must_use]
    pub fn into_inner(mut self) -> sender::Sender {
        // The first error may be that of a message before it. Later it would go behind what is sent
        // before.
        if self.sender.feed_kept().or_else(|_| self.sender.feed_kept()).is_err() {
            self.sender.kept = None;
        }
        self.sender
    }

    /// Tries until the call is done, and waits for room in between.
    async fn when_room<T>(
        &mut self,
        mut attempt: impl FnMut(&mut sender::Sender) -> Result<T, Error>,
    ) -> Result<T, Error> {
        poll_fn(|cx| self.poll_room(cx, &mut attempt)).await
    }

    fn poll_room<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut sender::Sender) -> Result<T, Error>,
    ) -> Poll<Result<T, Error>> {
        let watched = sender::Sender::watched;
        let (room, turns) = (&mut self.room, &mut self.turns);
        poll_until(room, turns, watched, &mut self.sender, cx, |sender| {
            sender.feed_kept()?;
            attempt(sender)
        })
    }
}

/// As `try_flush`; what is still held is said as an error that passes.
fn flush_now(sender: &mut sender::Sender) -> Result<Level, Error> {
    match sender.try_flush()? {
        Level::Held => Err(Error::new(Kind::Full, "")),
        level => Ok(level),
    }
}

impl<R, M> Sink<M> for Sender<R>
where
    R: Reactor,
    for<'a> &'a M: Into<Outgoing<'a>>,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_room(cx, |sender| sender.make_room_to_feed())
    }

    fn start_send(mut self: Pin<&mut Self>, item: M) -> Result<(), Error> {
        self.sender.feed_kept()?;
        let message: Outgoing<'_> = (&item).into();
        match self.sender.try_feed(message) {
            // A mailbox's lane is full, or a socket, for descriptors, or nobody receives: which is known
            // only now that the message is. It is the sink's, and goes first.
            Err(error) if error.is_passing() => {
                let kept = Kept::of(&message);
                self.sender.kept =
                    Some(kept.map_err(|error| error.on("send to", self.sender.address()))?);
                Ok(())
            }
            done => done.map(drop),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_room(cx, flush_now).map_ok(drop)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Sink::<M>::poll_flush(self, cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_a_channel_refuses_is_not_kept_for_ever() {
        let (mut sender, mut receiver) = crate::pipe().unwrap();
        let (end, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let ends = [end.as_fd()];
        sender.kept = Some(Kept::of(&Outgoing::from("x").descriptors(&ends)).unwrap());
        assert_eq!(sender.feed_kept().unwrap_err().kind(), Kind::NotSupported);
        sender.feed_kept().unwrap();
        sender.send("y").unwrap();
        assert_eq!(receiver.recv().unwrap()[..], *b"y");
    }
}
