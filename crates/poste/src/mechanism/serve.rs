//! A sender that listens: it sends to whoever connects first, and when that one is gone to the next.
//!
//! What was begun for one is for no other: who comes next gets whole messages.
//! Sources: unix(7), tcp(7).

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::link::Link;
use super::listener::Listener;
use super::socket::Bound;
use super::wire::Flow;
use super::{Frame, GONE_IN_THE_MIDDLE, Pollable, RecvEnd, SendEnd};
use crate::capabilities::Peers;
use crate::error::{Error, Kind};
use crate::options::Options;
use crate::wait::{Halt, Wait};

/// A listening socket that sends: to whoever connects first, and when that one is gone to the next.
pub struct Serve {
    listener: Listener,
    link: Option<Link>,
    /// What is polled: the link while there is one, else the listener. Made when it is asked for.
    epoll: Option<OwnedFd>,
    accepted: u64,
    _bound: Option<Bound>,
}

impl Serve {
    /// Over a listening socket.
    #[must_use]
    pub fn new(listener: OwnedFd, flow: Flow, options: &Options, bound: Option<Bound>) -> Serve {
        let listener = Listener::new(listener, flow, options.clone());
        Serve { listener, link: None, epoll: None, accepted: 0, _bound: bound }
    }

    fn link(&mut self, wait: Wait) -> Result<&mut Link, Error> {
        while self.link.is_none() {
            let accepted = self.listener.accept(wait).map_err(|halt| match halt {
                Halt::Later => Error::new(Kind::NoReceiver, "nobody has connected")
                    .with_hint("start the receiver, with --connect"),
                Halt::System(errno) => Error::system(errno, ""),
            })?;
            self.accepted += u64::from(accepted.is_some());
            self.link = accepted.map(Link::lingering);
            if self.link.is_some() {
                self.watch()?;
            }
        }
        match &mut self.link {
            Some(link) => Ok(link),
            None => unreachable!("it was just made"),
        }
    }

    /// Who was served is gone.
    fn disconnect(&mut self) -> Result<(), Error> {
        if let (Some(epoll), Some(link)) = (&self.epoll, &self.link) {
            // Before it is closed: a forked child may hold a copy.
            let _ = epoll::delete(epoll, link.descriptor());
        }
        self.link = None;
        self.watch()
    }

    /// While nobody is connected a connection is news, and else room to send.
    fn watch(&mut self) -> Result<(), Error> {
        let Some(epoll) = &self.epoll else { return Ok(()) };
        let data = EventData::new_u64(0);
        let done = match &self.link {
            Some(link) => {
                // It isn't there where the link came first.
                let _ = epoll::delete(epoll, &self.listener);
                epoll::add(epoll, link.descriptor(), data, EventFlags::OUT)
            }
            None => epoll::add(epoll, &self.listener, data, EventFlags::IN),
        };
        done.map_err(|errno| Error::system(errno, ""))
    }
}

impl SendEnd for Serve {
    fn send(&mut self, frame: &Frame<'_>, wait: Wait) -> Result<usize, Error> {
        let wait = wait.begin();
        loop {
            if frame.goes_on && self.link.is_none() {
                return Err(Error::new(Kind::Disconnected, GONE_IN_THE_MIDDLE));
            }
            match self.link(wait)?.send(frame, wait) {
                // Not one byte was accepted: it is the next one's, if it begins a message.
                Err(error) if error.is(&Kind::Disconnected) => self.disconnect()?,
                done => return done,
            }
        }
    }

    fn pollable(&mut self) -> Result<Pollable<'_>, Error> {
        if self.epoll.is_none() {
            let made = epoll::create(CreateFlags::CLOEXEC);
            self.epoll = Some(made.map_err(|errno| Error::system(errno, ""))?);
            self.watch()?;
        }
        match &self.epoll {
            Some(epoll) => Ok(Pollable { descriptor: epoll.as_fd(), events: PollFlags::IN }),
            None => unreachable!("it was just made"),
        }
    }

    fn back(&mut self) -> Option<&mut dyn RecvEnd> {
        self.link.as_mut().and_then(|link| SendEnd::back(link))
    }

    fn half_close(&mut self) -> Result<(), Error> {
        self.link.as_mut().map_or(Ok(()), Link::half_close)
    }

    fn peers(&self) -> Peers {
        match (&self.link, self.accepted) {
            (Some(_), _) => Peers::Present(1),
            (None, 0) => Peers::NobodyYet,
            (None, _) => Peers::AllGone,
        }
    }
}
