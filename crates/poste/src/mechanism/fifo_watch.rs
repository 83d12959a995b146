//! What tells a FIFO's end that the other one came, that data did, or that the name went.
//!
//! Sources: inotify(7), epoll(7).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::EventfdFlags;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use crate::error::{Error, Kind};

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
    pub(super) fn new(path: &Path) -> Result<Watch, Error> {
        let gone = watch(path, WatchFlags::DELETE_SELF)?;
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&epoll, &gone, EventData::new_u64(GONE), EventFlags::IN)?;
            Ok(epoll)
        };
        let epoll = make().map_err(|errno: Errno| Error::system(errno, ""))?;
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
///
/// # Errors
/// `Limit` where this user has as many of them, or of watches, as it may.
pub(super) fn watch(path: &Path, flags: WatchFlags) -> Result<OwnedFd, Error> {
    let create = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let descriptor = inotify::init(create).map_err(|errno| match errno {
        // One errno for two limits; there is a descriptor to be had where this process's isn't it.
        Errno::MFILE if rustix::event::eventfd(0, EventfdFlags::CLOEXEC).is_ok() => {
            limit(errno, "fs.inotify.max_user_instances", "1024")
        }
        _ => Error::system(errno, ""),
    })?;
    let flags = flags | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
    inotify::add_watch(&descriptor, path, flags).map_err(|errno| match errno {
        Errno::NOSPC => limit(errno, "fs.inotify.max_user_watches", "1048576"),
        _ => Error::system(errno, ""),
    })?;
    Ok(descriptor)
}

fn limit(errno: Errno, name: &'static str, more: &str) -> Error {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = std::fs::read_to_string(path).ok().and_then(|text| text.trim_end().parse().ok());
    Error::system(errno, "the FIFO can't be watched").as_kind(Kind::Limit {
        name,
        value: value.unwrap_or(0),
        raise_with: format!("sysctl -w {name}={more}"),
    })
}

/// Reads away what an inotify descriptor has to say: that it said something is enough.
pub(super) fn drain(descriptor: impl AsFd) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    while reader.next().is_ok() {}
}
