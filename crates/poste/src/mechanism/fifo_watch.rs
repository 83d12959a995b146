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

use super::fifo_names::Name;
use crate::error::{Error, Kind};

/// The epoll entries of a reader.
const DATA: u64 = 0;
pub(super) const GONE: u64 = 1;

/// Ready when the FIFO has something, or its last writer went, or its name may be gone.
///
/// The FIFO stands in it only while this is waited on: each write to a descriptor on watch costs its
/// writer more.
pub(super) struct Watch {
    pub(super) epoll: OwnedFd,
    name: Name,
    has_data: bool,
}

impl Watch {
    pub(super) fn new(path: &Path) -> Result<Watch, Error> {
        let name = Name::new(path)?;
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            name.show_in(&epoll, GONE)?;
            Ok(epoll)
        };
        let epoll = make().map_err(|errno: Errno| Error::system(errno, ""))?;
        Ok(Watch { epoll, name, has_data: false })
    }

    /// Makes the news of the name quiet; the caller looks whether it is gone.
    ///
    /// # Errors
    /// As [`Watch::new`], in a forked child, which watches anew.
    pub(super) fn hear(&mut self, path: &Path) -> Result<(), Error> {
        if self.name.is_ours() {
            self.name.hear();
            return Ok(());
        }
        let name = Name::new(path)?;
        self.name.hide_from(&self.epoll);
        name.show_in(&self.epoll, GONE).map_err(|errno| Error::system(errno, ""))?;
        self.name = name;
        Ok(())
    }

    /// The name is gone, and that stays news.
    pub(super) fn keep_telling(&self) {
        self.name.ring();
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

impl Drop for Watch {
    fn drop(&mut self) {
        if self.name.is_ours() {
            self.name.hide_from(&self.epoll);
        }
    }
}

/// An inotify descriptor on the object at a path: what happens to it, and that it goes.
///
/// # Errors
/// `Limit` where this user has as many of them, or of watches, as it may.
pub(super) fn watch(path: &Path, flags: WatchFlags) -> Result<OwnedFd, Error> {
    let descriptor = instance()?;
    watch_in(&descriptor, path, flags)?;
    Ok(descriptor)
}

/// An inotify descriptor that watches nothing yet.
pub(super) fn instance() -> Result<OwnedFd, Error> {
    let create = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    inotify::init(create).map_err(|errno| match errno {
        // One errno for two limits; there is a descriptor to be had where this process's isn't it.
        Errno::MFILE if rustix::event::eventfd(0, EventfdFlags::CLOEXEC).is_ok() => {
            limit(errno, "fs.inotify.max_user_instances", "1024")
        }
        _ => Error::system(errno, ""),
    })
}

/// Has an inotify descriptor watch the object at a path: the number of the watch.
pub(super) fn watch_in(
    descriptor: impl AsFd,
    path: &Path,
    flags: WatchFlags,
) -> Result<i32, Error> {
    let flags = flags | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
    inotify::add_watch(descriptor, path, flags).map_err(|errno| match errno {
        Errno::NOSPC => limit(errno, "fs.inotify.max_user_watches", "1048576"),
        _ => Error::system(errno, ""),
    })
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

/// Reads away what an inotify descriptor has to say: whether it said something, which is enough.
pub(super) fn drain(descriptor: impl AsFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(descriptor, &mut buffer);
    let mut said = false;
    while reader.next().is_ok() {
        said = true;
    }
    said
}
