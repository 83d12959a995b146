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
//! [`futures`](crate::futures) says what futures promise here, and has the methods. There is no
//! thread and no task beside yours; a time limit is `tokio::time::timeout` around the future. Both
//! flavours of runtime will do, with input and output enabled. A receiver stays with the runtime that it
//! was opened in, a sender with the one that it first waits in. A step counts in the budget of its task (`tokio::task::coop`).
//!
//! Source: tokio's `AsyncFd`, which is edge-triggered.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use ::tokio::io::Interest;
use ::tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use ::tokio::runtime::Handle;
use ::tokio::task::coop::{RestoreOnPending, poll_proceed};

use crate::error::{Error, Kind};
use crate::futures;
use crate::futures::reactor::{Direction, Register, Shown, Turn};

/// The sending end of a channel, for tokio; [`futures::Sender`] has its methods.
pub type Sender = futures::Sender<Reactor>;

/// The receiving end of a channel, for tokio; [`futures::Receiver`] has its methods.
pub type Receiver = futures::Receiver<Reactor>;

/// A descriptor in tokio's epoll.
#[derive(Debug)]
pub struct Reactor(AsyncFd<OwnedFd>, Direction);

impl futures::Reactor for Reactor {}

impl Register for Reactor {
    type Turns = ();
    type Turn = RestoreOnPending;
    type Shown<'a> = AsyncFdReadyGuard<'a, OwnedFd>;

    fn is_here() -> Result<(), Error> {
        match Handle::try_current() {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(Kind::NotSupported, error.to_string())
                .with_hint("open it inside of a tokio runtime")),
        }
    }

    fn register(descriptor: OwnedFd, direction: Direction) -> io::Result<Reactor> {
        let interest = match direction {
            Direction::Read => Interest::READABLE,
            Direction::Write => Interest::WRITABLE,
        };
        // tokio calls this unsound where a descriptor can close or change while it is registered,
        // and its replacement is unsafe. An `OwnedFd` of our own does neither.
        #[allow(deprecated)]
        match AsyncFd::try_with_interest(descriptor, interest) {
            Ok(registered) => Ok(Reactor(registered, direction)),
            Err(error) => Err(error.into_parts().1),
        }
    }

    #[inline]
    fn poll_shown(
        &mut self,
        (): &mut (),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Self::Shown<'_>>> {
        match self.1 {
            Direction::Read => self.0.poll_read_ready(cx),
            Direction::Write => self.0.poll_write_ready(cx),
        }
    }

    #[inline]
    fn poll_turn((): &mut (), cx: &mut Context<'_>) -> Poll<RestoreOnPending> {
        poll_proceed(cx)
    }
}

impl Shown for AsyncFdReadyGuard<'_, OwnedFd> {
    /// Only what was shown by then: what came since the guard was made stays.
    #[inline]
    fn is_over(&mut self) {
        self.clear_ready();
    }
}

impl Turn for RestoreOnPending {
    #[inline]
    fn made_progress(&self) {
        RestoreOnPending::made_progress(self);
    }
}
