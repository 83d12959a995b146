//! The ends for `async-io`, the reactor of smol: the same constructors and names, futures instead of
//! waits. Feature `async-io`.
//!
//! ```
//! # fn main() -> Result<(), poste::Error> {
//! # async_io::block_on(async {
//! # let name = format!("unix:@poste-async-io-{}", std::process::id());
//! let mut receiver = poste::async_io::Receiver::create(&name)?; // any address
//! let mut sender = poste::async_io::Sender::open(&name)?;
//! sender.send("hello").await?;
//! assert_eq!(receiver.recv().await?.text()?, "hello");
//! # Ok(()) }) }
//! ```
//!
//! [`futures`](crate::futures) says what futures promise here, and has the methods. Any executor will
//! do, and an end may go from one to another: the reactor is one for the process, with a thread of
//! its own (`async-io`) for when no executor of its kind is at work. A time limit is a race with
//! `async_io::Timer`.
//!
//! Source: the crate async-io, whose epoll is level-triggered, and asked anew for each wait.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use ::async_io::Async;

use crate::error::Error;
use crate::futures;
use crate::futures::reactor::{Direction, Register, Shown, Turn};

/// The sending end of a channel, for async-io; [`futures::Sender`] has its methods.
pub type Sender = futures::Sender<Reactor>;

/// The receiving end of a channel, for async-io; [`futures::Receiver`] has its methods.
pub type Receiver = futures::Receiver<Reactor>;

/// A descriptor in async-io's epoll.
#[derive(Debug)]
pub struct Reactor {
    descriptor: Async<OwnedFd>,
    direction: Direction,
    /// It has shown that the end may go on, and no look since was in vain.
    is_shown: bool,
}

/// So many steps of an end are taken in a row before other tasks have a turn, since async-io's
/// executors count none; as many as tokio gives.
const STEPS: u32 = 128;

impl futures::Reactor for Reactor {}

impl Register for Reactor {
    /// How many steps were taken since others had a turn.
    type Turns = u32;
    type Turn = ();
    type Shown<'a> = &'a mut bool;

    fn is_here() -> Result<(), Error> {
        Ok(())
    }

    fn register(descriptor: OwnedFd, direction: Direction) -> io::Result<Reactor> {
        // `Async::new` would change the flags of a description that others may share.
        let descriptor = Async::new_nonblocking(descriptor)?;
        Ok(Reactor { descriptor, direction, is_shown: true })
    }

    #[inline]
    fn poll_shown(&mut self, steps: &mut u32, cx: &mut Context<'_>) -> Poll<io::Result<&mut bool>> {
        if self.is_shown {
            ready!(Reactor::poll_turn(steps, cx));
        } else {
            ready!(match self.direction {
                Direction::Read => self.descriptor.poll_readable(cx),
                Direction::Write => self.descriptor.poll_writable(cx),
            })?;
            self.is_shown = true;
        }
        Poll::Ready(Ok(&mut self.is_shown))
    }

    #[inline]
    fn poll_turn(steps: &mut u32, cx: &mut Context<'_>) -> Poll<()> {
        if *steps == STEPS {
            *steps = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        *steps += 1;
        Poll::Ready(())
    }
}

impl Shown for &mut bool {
    #[inline]
    fn is_over(&mut self) {
        **self = false;
    }
}

impl Turn for () {
    fn made_progress(&self) {}
}
