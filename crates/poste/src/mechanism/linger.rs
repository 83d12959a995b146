//! Closing a connection whose other side has said something that nobody read.
//!
//! TCP closed with bytes unread is reset: what was sent and not yet taken in is thrown away, and
//! nobody is told. So they are read away first, until the other side has taken in what it was sent.
//! Sources: tcp(7) (SIOCINQ, SIOCOUTQ), RFC 2525 section 2.17.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poste_sys::descriptor;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use crate::limits::LINGER;
use crate::wait::{Halt, Wait};

/// How often it is asked whether the other side has taken in all.
const LOOK: Duration = Duration::from_millis(10);

/// Stays, when it is dropped, until what was sent has arrived; only where closing would lose it.
#[derive(Debug)]
pub struct Linger(Option<Arc<OwnedFd>>);

impl Linger {
    /// For a connection that nobody else reads.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>) -> Linger {
        Linger(Some(socket))
    }

    /// The descriptor lives on elsewhere, and so does what it has to read.
    pub fn withhold(mut self) {
        self.0 = None;
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        let Some(socket) = self.0.take() else { return };
        if rustix::io::ioctl_fionread(&socket).is_ok_and(|unread| unread > 0) {
            read_away(&socket);
        }
    }
}

/// Reads and forgets until the other side closes too, or takes in nothing more for a while.
fn read_away(socket: &OwnedFd) {
    let mut unsent = usize::MAX;
    let mut end = Instant::now();
    // Who reads up to the end answers this with its own.
    if shutdown(socket, Shutdown::Write).is_err() {
        return;
    }
    loop {
        let left = descriptor::unsent(socket.as_fd()).unwrap_or(0);
        if left == 0 {
            // The other side has all of it: nothing is lost by closing.
            return;
        }
        if Instant::now() >= end {
            if left >= unsent {
                return;
            }
            (unsent, end) = (left, Instant::now() + LINGER);
        }
        let mut room = [0; 4096];
        let read =
            Wait::Until(end.min(Instant::now() + LOOK)).run(socket.as_fd(), PollFlags::IN, |_| {
                recv(socket, &mut room, RecvFlags::DONTWAIT).map(|(count, _)| count)
            });
        match read {
            Ok(0) | Err(Halt::System(_)) => return,
            Ok(_) | Err(Halt::Later) => {}
        }
    }
}
