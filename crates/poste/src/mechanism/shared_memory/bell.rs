//! The bell: a FIFO for each participant whose descriptor is asked for, readable while it is rung.
//! Any process can ring it by its name. Source: fifo(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::folder::unlink;
use super::mailbox::Mailbox;

/// One participant's bell.
#[derive(Debug)]
pub(crate) struct Bell {
    fifo: OwnedFd,
}

fn name(place: usize) -> String {
    format!("bell.{place}")
}

/// Takes the bell of a place away; one that isn't there is fine.
pub(crate) fn remove(mailbox: &Mailbox, place: usize) {
    unlink(mailbox, &name(place));
}

/// Rings the bell of a place. One that isn't there belongs to nobody any more, and one that is full
/// is rung.
pub(crate) fn ring(mailbox: &Mailbox, place: usize) {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(fifo) = rustix::fs::openat(mailbox.folder(), name(place), flags, Mode::empty()) {
        let _ = rustix::io::write(&fifo, &[1]);
    }
}

impl Bell {
    /// Hangs up the bell of a place.
    pub(crate) fn new(mailbox: &Mailbox, place: usize) -> Result<Bell, Errno> {
        let name = name(place);
        unlink(mailbox, &name);
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(mailbox.folder(), &name, FileType::Fifo, mode, 0)?;
        // For writing too: so it never reads as hung up.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Bell { fifo: rustix::fs::openat(mailbox.folder(), &name, flags, mode)? })
    }

    /// Makes it readable.
    pub(crate) fn ring(&self) {
        // Full is rung.
        let _ = rustix::io::write(&self.fifo, &[1]);
    }

    /// Makes it quiet.
    pub(crate) fn silence(&self) {
        let mut bytes = [0; 64];
        while matches!(rustix::io::read(&self.fifo, &mut bytes), Ok(count) if count == bytes.len())
        {
        }
    }

    /// What to wait on.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fifo.as_fd()
    }
}
