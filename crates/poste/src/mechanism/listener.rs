//! A listening socket, and the one rule by which those who come are accepted.
//!
//! Who has gone again before it was accepted is passed over, who may not come is turned away, and
//! that this process may open no more is an error. A socket that was made here doesn't block. One
//! that was inherited is shared with others and stays as it is: if it blocks, it is asked only when
//! poll(2) says that somebody is there. The kernel has no call that accepts without waiting on such
//! a socket; where another process takes that connection away between the two calls, accepting
//! waits for the next one. Sources: accept(2) ("Error handling"), socket(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_domain;
use rustix::net::{AddressFamily, SocketFlags, accept_with};

use super::link::Link;
use super::socket::peer;
use super::wire::Flow;
use crate::options::Options;
use crate::wait::{Call, Halt, Wait};

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    flow: Flow,
    options: Options,
    is_unix: bool,
    blocks: bool,
    refused: u64,
}

impl Listener {
    /// Over a socket that listens, or is about to.
    pub(super) fn new(socket: OwnedFd, flow: Flow, options: Options) -> Listener {
        let blocks =
            rustix::fs::fcntl_getfl(&socket).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK));
        let is_unix = socket_domain(&socket) == Ok(AddressFamily::UNIX);
        Listener { socket, flow, options, is_unix, blocks, refused: 0 }
    }

    /// How many connections came that may not.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Accepts the next one within `wait`; `None` is one that is gone again, or was turned away.
    ///
    /// # Errors
    /// `Later` where nobody came; what the system said of this socket or this process.
    pub(super) fn accept(&mut self, wait: Wait) -> Result<Option<Link>, Halt> {
        let accepted = wait.run(self.as_fd(), PollFlags::IN, |how| self.accept_one(how));
        let socket = match accepted {
            Err(Halt::System(errno)) if is_about_who_came(errno) => return Ok(None),
            accepted => accepted?,
        };
        super::tcp::prepare(&socket);
        let credentials = peer(&socket);
        if !self.options.allowed.allows(&credentials) {
            // Closing it tells the other side.
            self.refused += 1;
            return Ok(None);
        }
        let link = Link::new(socket, self.flow, &self.options).with_credentials(credentials);
        Ok(Some(if self.is_unix { link.unix(&self.options) } else { link }))
    }

    fn accept_one(&self, how: Call) -> Result<OwnedFd, Errno> {
        let asks_first = self.blocks && how == Call::Now;
        if asks_first && Wait::Not.until_ready(self.as_fd(), PollFlags::IN) != Ok(true) {
            return Err(Errno::AGAIN);
        }
        accept_with(&self.socket, SocketFlags::CLOEXEC)
    }
}

/// Whether an error of accepting is the connection's own, and the next one may be sound.
fn is_about_who_came(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::PROTO
            | Errno::PERM
            | Errno::NETDOWN
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NONET
            | Errno::NOPROTOOPT
    )
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    #[test]
    fn a_socket_that_blocks_is_asked_without_waiting_and_stays_as_it_is() {
        let name = format!("poste-listener-{}", std::process::id());
        let name = SocketAddr::from_abstract_name(name).unwrap();
        let theirs = UnixListener::bind_addr(&name).unwrap();
        let copy = theirs.try_clone().unwrap().into();
        let mut listener = Listener::new(copy, Flow::Stream, Options::new());
        assert_eq!(listener.accept(Wait::Not).unwrap_err(), Halt::Later);
        let _coming = UnixStream::connect_addr(&name).unwrap();
        assert!(listener.accept(Wait::Not).unwrap().is_some());
        assert_eq!(listener.accept(Wait::Not).unwrap_err(), Halt::Later);
        let flags = rustix::fs::fcntl_getfl(&theirs).unwrap();
        assert!(!flags.contains(OFlags::NONBLOCK));
    }
}
