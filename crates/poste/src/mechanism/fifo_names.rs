//! Tells the readers of FIFOs that a name may have gone. A user may have 128 inotify instances for
//! all programs: where there are many readers in a process, they share.
//!
//! No thread: each reader's epoll holds the instance and a bell of its own. Who finds something in
//! the instance reads it away and rings the others that share it; whoever was rung looks at its own
//! name, and mostly finds it in place. A forked child shares nothing with its parent, whose news it would read away: it gets an
//! instance of its own. Sources: inotify(7), epoll(7).

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use poste_sys::fork::Life;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;

use super::fifo_watch::{drain, instance, watch_in};
use crate::error::Error;
use crate::limits::{FIFO_NAMES_APART, FIFO_NAMES_TOGETHER};

/// The instances of this process that are in use.
static GROUPS: Mutex<Vec<Group>> = Mutex::new(Vec::new());

struct Group {
    life: Life,
    inotify: Arc<OwnedFd>,
    members: Vec<Member>,
}

struct Member {
    /// The same for all that read one FIFO.
    watch: i32,
    bell: Arc<OwnedFd>,
}

/// That one reader is told.
pub(super) struct Name {
    life: Life,
    inotify: Arc<OwnedFd>,
    bell: Arc<OwnedFd>,
}

impl Name {
    /// Watches the name from now on.
    ///
    /// # Errors
    /// `Limit` where this user has as many inotify instances, or watches, as it may.
    pub(super) fn new(path: &Path) -> Result<Name, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = eventfd(0, flags).map_err(|errno| Error::system(errno, ""))?;
        let bell = Arc::new(bell);
        let mut groups = groups();
        // After a fork there are the parent's.
        groups.retain(|group| group.life.lasts());
        let roomy = (0..groups.len()).min_by_key(|&place| groups[place].members.len());
        let roomy = roomy.filter(|&place| groups[place].members.len() < FIFO_NAMES_TOGETHER);
        let place = match roomy {
            Some(place) if groups.len() >= FIFO_NAMES_APART => place,
            // Where no other is to be had it shares one too.
            Some(place) => begin(&mut groups).unwrap_or(place),
            None => begin(&mut groups)?,
        };
        let Group { life, inotify, members } = &mut groups[place];
        let (life, inotify) = (*life, Arc::clone(inotify));
        match watch_in(&inotify, path, WatchFlags::DELETE_SELF) {
            Ok(watch) => members.push(Member { watch, bell: Arc::clone(&bell) }),
            Err(error) => {
                groups.retain(|group| !group.members.is_empty());
                return Err(error);
            }
        }
        Ok(Name { life, inotify, bell })
    }

    /// Whether it is this process's, and not the parent's.
    pub(super) fn is_ours(&self) -> bool {
        self.life.lasts()
    }

    /// Lets an epoll show when there may be news.
    pub(super) fn show_in(&self, epoll: impl AsFd, data: u64) -> Result<(), Errno> {
        for descriptor in [&self.inotify, &self.bell] {
            epoll::add(&epoll, descriptor, EventData::new_u64(data), EventFlags::IN)?;
        }
        Ok(())
    }

    /// Takes it out again: a forked child may hold the epoll open, and what stands in many is slow
    /// to wake.
    pub(super) fn hide_from(&self, epoll: impl AsFd) {
        for descriptor in [&self.inotify, &self.bell] {
            // It isn't there where adding it failed.
            let _ = epoll::delete(&epoll, descriptor);
        }
    }

    /// Makes it quiet, and tells the others: the caller looks at its name after this.
    pub(super) fn hear(&self) {
        // Before the look: what rings from now on shows anew.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        let groups = groups();
        // With the lock: nobody joins between the reading and the ringing.
        if drain(&self.inotify) {
            let own = groups.iter().find(|group| Arc::ptr_eq(&group.inotify, &self.inotify));
            for member in own.into_iter().flat_map(|group| &group.members) {
                if !Arc::ptr_eq(&member.bell, &self.bell) {
                    ring(&member.bell);
                }
            }
        }
    }

    /// Shows that there may be news, until it is heard.
    pub(super) fn ring(&self) {
        ring(&self.bell);
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let mut groups = groups();
        let own = |group: &Group| Arc::ptr_eq(&group.inotify, &self.inotify);
        let Some(place) = groups.iter().position(own) else { return };
        let members = &mut groups[place].members;
        let is_it = |member: &Member| Arc::ptr_eq(&member.bell, &self.bell);
        if let Some(member) = members.iter().position(is_it) {
            let watch = members.swap_remove(member).watch;
            if members.iter().all(|member| member.watch != watch) {
                // With the FIFO it is gone already.
                let _ = inotify::remove_watch(&self.inotify, watch);
            }
        }
        if members.is_empty() {
            groups.swap_remove(place);
        }
    }
}

/// One more instance, that nobody shares yet: its place.
fn begin(groups: &mut Vec<Group>) -> Result<usize, Error> {
    let (life, inotify, members) = (Life::this(), Arc::new(instance()?), Vec::new());
    groups.push(Group { life, inotify, members });
    Ok(groups.len() - 1)
}

fn groups() -> MutexGuard<'static, Vec<Group>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ring(bell: &OwnedFd) {
    // One that is full rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
