//! What a runtime has to do for the ends, and what is the same for all of them: a copy of an end's
//! descriptor in the runtime's epoll, until it shows that the end may go on.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::capabilities::Capabilities;
use crate::error::{Error, Kind};
use crate::mechanism::Pollable;
use crate::sender;

/// What is waited for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A descriptor in the epoll of a runtime.
pub(crate) trait Register: fmt::Debug + Send + Sized + Sync + Unpin {
    /// What a runtime has to know of an end so that its task lets others have their turn.
    type Turns: fmt::Debug + Default + Send + Sync + Unpin;
    type Turn: Turn;
    type Shown<'a>: Shown
    where
        Self: 'a;

    /// Refuses where the runtime has to be there and isn't.
    fn is_here() -> Result<(), Error>;

    /// The descriptor is our own, and stays open and what it is as long as it is registered.
    fn register(descriptor: OwnedFd, direction: Direction) -> io::Result<Self>;

    /// Whether it shows that the end may go on, or may show it: it stays so until a look was in vain.
    /// Else the task is woken when it does. It is a step of the task.
    fn poll_shown(
        &mut self,
        turns: &mut Self::Turns,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Shown<'_>>>;

    /// One step of a task; pending where others are to have their turn first.
    fn poll_turn(turns: &mut Self::Turns, cx: &mut Context<'_>) -> Poll<Self::Turn>;
}

/// The descriptor has shown that the end may go on.
pub(crate) trait Shown {
    /// It may not any more, as of a look that was made after this was shown.
    fn is_over(&mut self);
}

/// A step that a task may take.
pub(crate) trait Turn {
    /// It was taken.
    fn made_progress(&self);
}

/// What an end waits on.
#[derive(Debug)]
pub(super) enum Watch<R> {
    On(R),
    /// A file, which epoll doesn't take.
    AlwaysReady,
}

impl<R: Register> Watch<R> {
    /// The descriptor is copied, so that it is open as long as it is registered.
    pub(super) fn on(watched: Pollable<'_>) -> Result<Watch<R>, Error> {
        let copy = rustix::io::fcntl_dupfd_cloexec(watched.descriptor, 3)
            .map_err(|errno| Error::system(errno, ""))?;
        let direction = match watched.events {
            PollFlags::OUT => Direction::Write,
            _ => Direction::Read,
        };
        match R::register(copy, direction) {
            Ok(registered) => Ok(Watch::On(registered)),
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::PERM) => Ok(Watch::AlwaysReady),
                errno => {
                    let errno = errno.unwrap_or(Errno::IO);
                    Err(Error::system(errno, "the runtime can't wait for it"))
                }
            },
        }
    }

    /// Whether it shows; else the task is woken when it does.
    #[inline]
    pub(super) fn poll(
        &mut self,
        turns: &mut R::Turns,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<R::Shown<'_>>, Error>> {
        match self {
            Watch::On(registered) => {
                let shown = ready!(registered.poll_shown(turns, cx));
                let shown = shown.map_err(|error| Error::new(Kind::System, error.to_string()))?;
                Poll::Ready(Ok(Some(shown)))
            }
            Watch::AlwaysReady => {
                ready!(R::poll_turn(turns, cx)).made_progress();
                Poll::Ready(Ok(None))
            }
        }
    }
}

/// Of what is always ready, no look is in vain.
impl<S: Shown> Shown for Option<S> {
    #[inline]
    fn is_over(&mut self) {
        if let Some(shown) = self {
            shown.is_over();
        }
    }
}

/// Refuses where nothing could be waited for.
pub(super) fn may_wait<R: Register>(capabilities: &Capabilities) -> Result<(), Error> {
    if !capabilities.pollable {
        return Err(Error::new(Kind::NotSupported, "this mechanism has no descriptor to wait on"));
    }
    R::is_here()
}

/// Makes a sender's call until it is done; waits for what it watches in between.
#[inline]
pub(super) fn poll_until<R: Register, T>(
    watch: &mut Option<Watch<R>>,
    turns: &mut R::Turns,
    watched: fn(&mut sender::Sender) -> Result<Pollable<'_>, Error>,
    sender: &mut sender::Sender,
    cx: &mut Context<'_>,
    mut attempt: impl FnMut(&mut sender::Sender) -> Result<T, Error>,
) -> Poll<Result<T, Error>> {
    let turn = ready!(R::poll_turn(turns, cx));
    let mut done = attempt(sender);
    loop {
        match done {
            Err(error) if error.is_passing() => {}
            done => {
                turn.made_progress();
                return Poll::Ready(done);
            }
        }
        let watch = match watch {
            Some(watch) => watch,
            None => {
                let made = watched(sender).and_then(Watch::on);
                watch.insert(made.map_err(|error| error.on("poll", sender.address()))?)
            }
        };
        let shown = ready!(watch.poll(turns, cx));
        let mut shown = shown.map_err(|error| error.on("poll", sender.address()))?;
        done = attempt(sender);
        if done.as_ref().is_err_and(Error::is_passing) {
            shown.is_over();
        }
    }
}
