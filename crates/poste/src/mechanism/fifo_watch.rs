//! What tells a FIFO's end that the other one came, that data did, or that the name went.
//!
//! Sources: inotify(7), epoll(7).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

/// The epoll entries of a reader.
const DATA: u64 = 0;
pub(super) const GONE: u64 = 1;

/// Ready when the FIFO has something, or its last writer went, or its name is gone.
///
/// The FIFO stands in it only while this is waited on: each write to a descriptor on watch costs its
/// writer more.
pub(super) struct Watch {
    pub(super) epoll: OwnedFd,
    pub(super) gone: OwnedFd,
    has_data: bool,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Result<Watch, Errno> {
        let gone = watch(path, WatchFlags::DELETE_SELF)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &gone, EventData::new_u64(GONE), EventFlags::IN)?;
        Ok(Watch { epoll, gone, has_data: false })
    }

    pub(super) fn add(&mut self, fifo: impl AsFd) -> Result<(), Errno> {
        if !self.has_data {
            epoll::add(&self.epoll, fifo, EventData::new_u64(DATA), EventFlags::IN)?;
            self.has_data = true;
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, fifo: impl AsFd) -> Result<(), Errno> {
        if self.has_data {
            epoll::delete(&self.epoll, fifo)?;
            self.has_data = false;
        }
        Ok(())
    }
}

/// An inotify descriptor on the object at a path: what happens to it, and that it goes.
pub(super) fn watch(path: &Path, flags: WatchFlags) -> Result<OwnedFd, Errno> {
    let create = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let descriptor = inotify::init(create)?;
    inotify::add_watch(&descriptor, path, flags | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF)?;
    Ok(descriptor)
}

/// Reads away what an inotify descriptor has to say: that it said something is enough.
pub(super) fn drain(descriptor: impl AsFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    while reader.next().is_ok() {}
}
