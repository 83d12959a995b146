//! The one descriptor to wait on, always for reading: an epoll over the end's own descriptor, and
//! for receivers an eventfd that shows what lies in user space. Made only when asked for.
//!
//! Source: epoll(7): an epoll descriptor is readable while one of its entries is ready.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFlags, eventfd};
use rustix::io::Errno;

use crate::error::Error;
use crate::mechanism::Pollable;

/// Readable as long as the end may go on; now and then also where it then finds that it can't.
#[derive(Debug)]
pub(crate) struct Readiness {
    epoll: OwnedFd,
    /// Readable while pieces lie in user space; `None` for senders.
    bell: Option<Bell>,
    /// What is always ready stands in for a file, which epoll doesn't take.
    _always: Option<OwnedFd>,
}

#[derive(Debug)]
struct Bell {
    eventfd: OwnedFd,
    is_rung: bool,
}

impl Readiness {
    /// Over what an end waits on.
    pub(crate) fn new(watched: Pollable<'_>) -> Result<Readiness, Error> {
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let events =
                if watched.events == PollFlags::OUT { EventFlags::OUT } else { EventFlags::IN };
            match epoll::add(&epoll, watched.descriptor, EventData::new_u64(0), events) {
                // A file is always ready, and epoll doesn't take it; it is what rings then.
                Err(Errno::PERM) => {
                    let ready = eventfd(1, EventfdFlags::CLOEXEC)?;
                    epoll::add(&epoll, &ready, EventData::new_u64(0), EventFlags::IN)?;
                    Ok((epoll, Some(ready)))
                }
                done => done.map(|()| (epoll, None)),
            }
        };
        let (epoll, always) = make().map_err(|errno: Errno| Error::system(errno, ""))?;
        Ok(Readiness { epoll, bell: None, _always: always })
    }

    /// Shows too that something lies in user space.
    pub(crate) fn with_bell(mut self) -> Result<Readiness, Error> {
        let make = || {
            let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            epoll::add(&self.epoll, &eventfd, EventData::new_u64(1), EventFlags::IN)?;
            Ok(Bell { eventfd, is_rung: false })
        };
        self.bell = Some(make().map_err(|errno: Errno| Error::system(errno, ""))?);
        Ok(self)
    }

    /// Says whether something lies in user space; a system call only where that changes.
    pub(crate) fn show(&mut self, more: bool) {
        let Some(bell) = &mut self.bell else { return };
        if bell.is_rung != more {
            let mut count = [0; 8];
            let done = if more {
                rustix::io::write(&bell.eventfd, &1_u64.to_ne_bytes())
            } else {
                rustix::io::read(&bell.eventfd, &mut count)
            };
            debug_assert!(done == Ok(8), "an eventfd of ours takes and gives eight bytes");
            bell.is_rung = more;
        }
    }

    /// The descriptor.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
