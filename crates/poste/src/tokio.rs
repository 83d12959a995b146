//! The ends for tokio: the same constructors and names, futures instead of waits. Feature `tokio`.
//!
//! ```
//! # fn main() -> Result<(), poste::Error> {
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
//! # runtime.block_on(async {
//! # let name = format!("unix:@poste-tokio-{}", std::process::id());
//! let mut receiver = poste::tokio::Receiver::create(&name)?; // any address
//! let mut sender = poste::tokio::Sender::open(&name)?;
//! sender.send("hello").await?;
//! assert_eq!(receiver.recv().await?.text()?, "hello");
//! # Ok(()) }) }
//! ```
//!
//! Nothing is done here that the library doesn't do: a future makes the call that doesn't wait, and
//! where only time is missing it waits for the end's descriptor in tokio's own epoll. There is no
//! thread and no task beside yours. Opening, closing and [`Message::reply`](crate::Message::reply)
//! are the plain calls: a reply to one who doesn't read may wait some seconds.
//!
//! **Dropping a future** loses, doubles and tears nothing. Each method says what it means there; a
//! time limit is `tokio::time::timeout` around the future. Both flavours of runtime will do, with
//! input and output enabled; an end stays with the runtime that it first waits in.
//!
//! Sources: epoll(7) ("Level-triggered and edge-triggered"), tokio's `AsyncFd`.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::tokio::io::Interest;
use ::tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use ::tokio::runtime::Handle;
use ::tokio::task::coop::poll_proceed;
use futures_core::Stream;
use futures_sink::Sink;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::address::Address;
use crate::capabilities::{Capabilities, Counters, Facts};
use crate::error::{Error, Kind};
use crate::loan::Loan;
use crate::mechanism::{Linger, Pollable};
use crate::message::{Message, OwnedMessage};
use crate::options::Options;
use crate::outgoing::Outgoing;
use crate::receiver;
use crate::sender::{self, Level};
use crate::wait::Wait;

/// The sending end of a channel; as [`poste::Sender`](crate::Sender), with futures.
///
/// It is a [`Sink`] too, of whatever can be sent by reference: `Vec<u8>`, `String`,
/// [`OwnedMessage`]. What a sink has taken in goes with its next flush.
#[derive(Debug)]
pub struct Sender {
    /// Until it may send; made when it first has to wait.
    room: Option<Watch>,
    /// Until an answer comes; made when one is first waited for.
    answers: Option<Watch>,
    sender: sender::Sender,
    /// What the sink has taken in and the channel has not: it goes before anything else.
    kept: Option<(Vec<u8>, u16)>,
}

/// The receiving end of a channel; as [`poste::Receiver`](crate::Receiver), with futures.
///
/// It is a [`Stream`] of [`OwnedMessage`]s too, which ends where nothing can come any more.
#[derive(Debug)]
pub struct Receiver {
    watch: Watch,
    receiver: receiver::Receiver,
    /// What the descriptor last showed may be for somebody else: look before waiting for it.
    look_first: bool,
    /// So many messages that lie in user space may be taken before other tasks have a turn.
    at_once: u32,
}

/// A message that was read with others costs so little that so many count as one step of a task.
const AT_ONCE: u32 = 16;

impl Sender {
    /// As [`poste::Sender::open`](crate::Sender::open).
    ///
    /// # Errors
    /// As there, and `NotSupported` outside of a runtime, or where the mechanism has no descriptor
    /// to wait on.
    pub fn open(address: impl AsRef<str>) -> Result<Sender, Error> {
        Sender::open_with(address, &Options::new())
    }

    /// As [`poste::Sender::create`](crate::Sender::create).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn create(address: impl AsRef<str>) -> Result<Sender, Error> {
        Sender::open_with(address, &Options::new().create())
    }

    /// As [`poste::Sender::open_with`](crate::Sender::open_with).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Sender, Error> {
        Sender::over(sender::Sender::open_with(address, options)?)
    }

    /// As [`poste::Sender::inherited`](crate::Sender::inherited).
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn inherited() -> Result<Sender, Error> {
        Sender::over(sender::Sender::inherited()?)
    }

    /// Over a sender that is open already: of a pipe, a pair, a connection.
    ///
    /// # Errors
    /// `NotSupported` as [`Sender::open`] says it.
    pub fn over(sender: sender::Sender) -> Result<Sender, Error> {
        may_wait(sender.capabilities()).map_err(|error| error.on("poll", sender.address()))?;
        Ok(Sender { room: None, answers: None, sender, kept: None })
    }

    /// Sends a message, waiting for room as long as it takes.
    ///
    /// Cancel-safe: a future that is dropped has sent nothing, or it has begun, and then the message
    /// is *held*: the next send, flush or close of this sender finishes it before anything else.
    /// Which it was, [`Sender::counters`] tells: a message that was begun is counted.
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
        self.let_kept_go()?;
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
        if self.kept.is_none() && self.sender.takes_in() && message.descriptors.is_empty() {
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
            poll_until(&mut self.answers, watched, &mut self.sender, cx, |sender| {
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
    pub fn try_clone(&self) -> Result<Sender, Error> {
        Sender::over(self.sender.try_clone()?)
    }

    /// The connection both ways; as [`poste::Sender::into_duplex`](crate::Sender::into_duplex).
    ///
    /// # Errors
    /// As there.
    pub fn into_duplex(self) -> Result<(Sender, Receiver), Error> {
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

    /// The sender itself, for waits of the other forms. What a sink took in and was not flushed is
    /// given up.
    #[must_use]
    pub fn into_inner(self) -> sender::Sender {
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
        let (kept, watched) = (&mut self.kept, sender::Sender::watched);
        poll_until(&mut self.room, watched, &mut self.sender, cx, |sender| {
            feed_kept(kept, sender)?;
            attempt(sender)
        })
    }

    fn let_kept_go(&mut self) -> Result<(), Error> {
        feed_kept(&mut self.kept, &mut self.sender)
    }
}

/// Feeds what the sink kept, if it has to be: it is first.
#[inline]
fn feed_kept(kept: &mut Option<(Vec<u8>, u16)>, sender: &mut sender::Sender) -> Result<(), Error> {
    if let Some((body, priority)) = kept {
        sender.try_feed(Outgoing::of(body).priority(*priority))?;
        *kept = None;
    }
    Ok(())
}

/// As `try_flush`; what is still held is said as an error that passes.
fn flush_now(sender: &mut sender::Sender) -> Result<Level, Error> {
    match sender.try_flush()? {
        Level::Held => Err(Error::new(Kind::Full, "")),
        level => Ok(level),
    }
}

impl<M> Sink<M> for Sender
where
    for<'a> &'a M: Into<Outgoing<'a>>,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_room(cx, |sender| sender.make_room_to_feed())
    }

    fn start_send(mut self: Pin<&mut Self>, item: M) -> Result<(), Error> {
        self.let_kept_go()?;
        let message: Outgoing<'_> = (&item).into();
        match self.sender.try_feed(message) {
            // A mailbox's lane is full, which is known only now that the message is: it is the
            // sink's, and goes first.
            Err(error) if error.is_passing() && message.descriptors.is_empty() => {
                self.kept = Some((message.body.to_vec(), message.priority));
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

impl Receiver {
    /// As [`poste::Receiver::open`](crate::Receiver::open).
    ///
    /// # Errors
    /// As there, and `NotSupported` outside of a runtime, or where the mechanism has no descriptor
    /// to wait on.
    pub fn open(address: impl AsRef<str>) -> Result<Receiver, Error> {
        Receiver::open_with(address, &Options::new())
    }

    /// As [`poste::Receiver::create`](crate::Receiver::create).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn create(address: impl AsRef<str>) -> Result<Receiver, Error> {
        Receiver::open_with(address, &Options::new().create())
    }

    /// As [`poste::Receiver::open_with`](crate::Receiver::open_with).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn open_with(address: impl AsRef<str>, options: &Options) -> Result<Receiver, Error> {
        Receiver::over(receiver::Receiver::open_with(address, options)?)
    }

    /// As [`poste::Receiver::inherited`](crate::Receiver::inherited).
    ///
    /// # Errors
    /// As [`Receiver::open`].
    pub fn inherited() -> Result<Receiver, Error> {
        Receiver::over(receiver::Receiver::inherited()?)
    }

    /// Over a receiver that is open already: of a pipe, a pair, a connection.
    ///
    /// # Errors
    /// `NotSupported` as [`Receiver::open`] says it.
    pub fn over(mut receiver: receiver::Receiver) -> Result<Receiver, Error> {
        may_wait(receiver.capabilities()).map_err(|error| error.on("poll", receiver.address()))?;
        let watch =
            Watch::on(receiver.watched()?).map_err(|error| error.on("poll", receiver.address()))?;
        Ok(Receiver { watch, receiver, look_first: true, at_once: AT_ONCE })
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
    pub async fn accept(&mut self) -> Result<(Sender, Receiver), Error> {
        let duplex = poll_fn(|cx| self.poll_accept(cx)).await?;
        let (sender, receiver) = duplex.split();
        Ok((Sender::over(sender)?, Receiver::over(receiver)?))
    }

    /// As [`poste::Receiver::manual`](crate::Receiver::manual).
    #[must_use]
    pub fn manual(self) -> Receiver {
        Receiver { receiver: self.receiver.manual(), ..self }
    }

    /// As [`poste::Receiver::try_clone`](crate::Receiver::try_clone).
    ///
    /// # Errors
    /// As there.
    pub fn try_clone(&self) -> Result<Receiver, Error> {
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
            let budget = ready!(poll_proceed(cx));
            if self.receiver.look()? {
                budget.made_progress();
                return Poll::Ready(Ok(()));
            }
        }
        loop {
            // What is shown is taken note of before the look: what comes during it shows anew.
            let mut shown = ready!(self.watch.poll(cx))?;
            let found = self.receiver.look()?;
            if !found || self.receiver.is_drained() {
                shown.is_over();
            }
            if found {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<crate::duplex::Duplex, Error>> {
        // What shows may be a message: `recv` is to look for it.
        self.look_first = true;
        let budget = ready!(poll_proceed(cx));
        let mut accepted = self.receiver.accept(Wait::Not);
        loop {
            match accepted {
                Err(error) if error.is_passing() => {}
                done => {
                    budget.made_progress();
                    return Poll::Ready(done);
                }
            }
            let mut shown = ready!(self.watch.poll(cx))?;
            accepted = self.receiver.accept(Wait::Not);
            if accepted.as_ref().is_err_and(Error::is_passing) {
                shown.is_over();
            }
        }
    }
}

impl Stream for Receiver {
    type Item = Result<OwnedMessage, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.poll_look(cx)) {
            Ok(()) => Poll::Ready(Some(Ok(self.receiver.lent().into_owned()))),
            Err(error) if error.is(&Kind::Disconnected) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

/// Makes a sender's call until it is done; waits for what it watches in between.
fn poll_until<T>(
    watch: &mut Option<Watch>,
    watched: fn(&mut sender::Sender) -> Result<Pollable<'_>, Error>,
    sender: &mut sender::Sender,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&mut sender::Sender) -> Result<T, Error>,
) -> Poll<Result<T, Error>> {
    let budget = ready!(poll_proceed(cx));
    let mut done = attempt(sender);
    loop {
        match done {
            Err(error) if error.is_passing() => {}
            done => {
                budget.made_progress();
                return Poll::Ready(done);
            }
        }
        let watch = match watch {
            Some(watch) => watch,
            None => watch.insert(Watch::on(watched(sender)?)?),
        };
        let mut shown = ready!(watch.poll(cx))?;
        done = attempt(sender);
        if done.as_ref().is_err_and(Error::is_passing) {
            shown.is_over();
        }
    }
}

/// Refuses where nothing could be waited for.
fn may_wait(capabilities: &Capabilities) -> Result<(), Error> {
    if !capabilities.pollable {
        return Err(Error::new(Kind::NotSupported, "this mechanism has no descriptor to wait on"));
    }
    match Handle::try_current() {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::new(Kind::NotSupported, error.to_string())
            .with_hint("open it inside of a tokio runtime")),
    }
}

/// What an end waits on, in tokio's epoll. The descriptor is a copy of our own, so that it is open
/// as long as it is registered.
#[derive(Debug)]
enum Watch {
    On(AsyncFd<OwnedFd>, PollFlags),
    /// A file, which epoll doesn't take.
    AlwaysReady,
}

/// The descriptor has shown that the end may go on.
struct Shown<'a>(Option<AsyncFdReadyGuard<'a, OwnedFd>>);

impl Shown<'_> {
    /// It may not any more, as of a look that was made after this was shown.
    fn is_over(&mut self) {
        if let Some(guard) = &mut self.0 {
            guard.clear_ready();
        }
    }
}

impl Watch {
    fn on(watched: Pollable<'_>) -> Result<Watch, Error> {
        let copy = rustix::io::fcntl_dupfd_cloexec(watched.descriptor, 0)
            .map_err(|errno| Error::system(errno, ""))?;
        let interest =
            if watched.events == PollFlags::OUT { Interest::WRITABLE } else { Interest::READABLE };
        // tokio calls this unsound where a descriptor can close or change while it is registered,
        // and its replacement is unsafe. An `OwnedFd` of our own does neither.
        #[allow(deprecated)]
        match AsyncFd::try_with_interest(copy, interest) {
            Ok(descriptor) => Ok(Watch::On(descriptor, watched.events)),
            Err(error) => match Errno::from_io_error(&error.into_parts().1) {
                Some(Errno::PERM) => Ok(Watch::AlwaysReady),
                errno => Err(Error::system(errno.unwrap_or(Errno::IO), "tokio can't wait for it")),
            },
        }
    }

    /// Whether it shows; else the task is woken when it does.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Result<Shown<'_>, Error>> {
        let shown = match self {
            Watch::On(descriptor, PollFlags::OUT) => ready!(descriptor.poll_write_ready(cx)),
            Watch::On(descriptor, _) => ready!(descriptor.poll_read_ready(cx)),
            Watch::AlwaysReady => return Poll::Ready(Ok(Shown(None))),
        };
        let guard = shown.map_err(|error| Error::new(Kind::System, error.to_string()))?;
        Poll::Ready(Ok(Shown(Some(guard))))
    }
}
