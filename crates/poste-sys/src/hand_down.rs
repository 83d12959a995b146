//! A descriptor that one child inherits, and nobody else.
//!
//! Close-on-exec stays set in this process, where other threads may be starting other children. It is
//! cleared in the child alone, between fork and exec, by a call that is safe there. In the child the
//! descriptor is taken over once, by the number that its parent told.
//! Sources: fork(2), execve(2), fcntl(2) (F_SETFD), signal-safety(7).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::last_errno;

/// Descriptors with lower numbers are a child's standard input, output and errors.
const FIRST: i32 = 3;

/// No descriptor: there is nothing to hand down any more.
const NONE: i32 = -1;

/// A descriptor on its way to the next child of one [`Command`]; dropped, it is closed here, and the
/// command hands nothing down any more.
#[derive(Debug)]
pub struct Handed {
    descriptor: OwnedFd,
    /// The number as the command's hook sees it, or [`NONE`].
    number: Arc<AtomicI32>,
}

impl Handed {
    /// Sees to it that children of `command` have the descriptor, as long as this value lives.
    ///
    /// # Errors
    /// Where the descriptor is a standard one and can't be copied.
    pub fn new(command: &mut Command, descriptor: OwnedFd) -> Result<Handed, Errno> {
        let descriptor = if descriptor.as_raw_fd() < FIRST {
            rustix::io::fcntl_dupfd_cloexec(&descriptor, FIRST)?
        } else {
            descriptor
        };
        let number = Arc::new(AtomicI32::new(descriptor.as_raw_fd()));
        let seen = Arc::clone(&number);
        let keep_open = move || {
            // Relaxed: the child is a copy of the thread that stored it.
            match seen.load(Ordering::Relaxed) {
                NONE => Ok(()),
                // SAFETY: F_SETFD takes any number and touches no memory; the parent holds this
                // descriptor until the child has started.
                number => match unsafe { libc::fcntl(number, libc::F_SETFD, 0) } {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                },
            }
        };
        // SAFETY: the hook loads an atomic, makes one system call and allocates nothing: all that is
        // safe between fork and exec (signal-safety(7)).
        unsafe { command.pre_exec(keep_open) };
        Ok(Handed { descriptor, number })
    }

    /// The descriptor's number, in this process and in the child.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        // The command may live on, and the number will soon be another descriptor's.
        self.number.store(NONE, Ordering::Relaxed);
    }
}

/// The open file that a descriptor stands for: device and number, which no other has while it is
/// open.
pub type Identity = (u64, u64);

/// Which open file a descriptor stands for.
///
/// # Errors
/// What fstat(2) said.
pub fn identity(descriptor: &OwnedFd) -> Result<Identity, Errno> {
    rustix::fs::fstat(descriptor).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Takes over the descriptor with this number that this process was started with: it is this value's
/// from now on, closed on exec. Each can be taken once.
///
/// # Errors
/// `EBADF` where none with this number and identity was inherited, or it was taken before.
pub fn take(number: i32, expected: Identity) -> Result<OwnedFd, Errno> {
    static TAKEN: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if number < FIRST || taken.contains(&number) {
        return Err(Errno::BADF);
    }
    // SAFETY: F_GETFD takes any number and changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // What this process opened itself is closed on exec: only what it was started with is not.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: all-zero bytes are valid for this C structure of integers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the structure outlives the call, and any number is allowed.
    if unsafe { libc::fstat(number, &raw mut stat) } != 0 || (stat.st_dev, stat.st_ino) != expected
    {
        return Err(Errno::BADF);
    }
    // SAFETY: F_SETFD takes any number.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(last_errno());
    }
    taken.push(number);
    // SAFETY: it is open, it survived an exec and is the very file that the parent named as handed
    // down to whoever asks first; the list sees to it that this is done once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// The descriptors of a shell that `command` starts, as `/proc` shows them there.
    fn open_in(command: &mut Command) -> String {
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    }

    #[test]
    fn one_child_has_it_and_the_next_has_not() {
        let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let (_, inode) = identity(&reader).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "ls -l /proc/$$/fd"]);
        let handed = Handed::new(&mut command, reader).unwrap();
        let shown = format!("{} -> pipe:[{inode}]", handed.number());
        assert!(!open_in(Command::new("sh").args(["-c", "ls -l /proc/$$/fd"])).contains(&shown));
        assert!(open_in(&mut command).contains(&shown));
        let flags = rustix::io::fcntl_getfd(handed.descriptor.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        drop(handed);
        assert!(!open_in(&mut command).contains(&shown));
    }

    #[test]
    fn what_this_process_opened_is_not_inherited() {
        let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let identity = identity(&reader).unwrap();
        assert_eq!(take(reader.as_raw_fd(), identity).unwrap_err(), Errno::BADF);
        let other = (identity.0, identity.1 + 1);
        assert_eq!(take(reader.as_raw_fd(), other).unwrap_err(), Errno::BADF);
        assert_eq!(take(1, identity).unwrap_err(), Errno::BADF);
    }
}
