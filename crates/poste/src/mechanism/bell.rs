//! The bell: a FIFO whose owner polls it, readable while it is rung. Any process that may write it
//! can ring it by its name; who it is for is the caller's business. Source: fifo(7).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// An open bell.
#[derive(Debug)]
pub(crate) struct Bell {
    fifo: OwnedFd,
}

/// Rings a bell by its name. One that is full is rung.
///
/// # Errors
/// `ENOENT`: there is none; `ENXIO`: nobody has it open any more.
pub(crate) fn ring(folder: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fifo = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let _ = rustix::io::write(&fifo, &[1]);
    Ok(())
}

/// Opens somebody's bell, to ring it more than once. For reading too: it never breaks, also where
/// its owner is gone.
///
/// # Errors
/// `ENOENT`: there is none.
pub(crate) fn open(folder: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// Rings a bell that was opened.
pub(crate) fn ring_open(fifo: &OwnedFd) {
    // Full is rung.
    let _ = rustix::io::write(fifo, &[1]);
}

impl Bell {
    /// Hangs one up under a name that nobody has.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn hang_up(folder: BorrowedFd<'_>, name: &str) -> Result<Bell, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(folder, name, FileType::Fifo, mode, 0)?;
        // For writing too: so it never reads as hung up.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Bell { fifo: rustix::fs::openat(folder, name, flags, mode)? })
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
