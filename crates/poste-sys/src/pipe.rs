//! Writing to pipes without the signal, and without waiting where the kernel can do that.
//!
//! Sources: pipe(7), signal(7), preadv2(2) (RWF_NOWAIT), sigtimedwait(2).

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::Errno;

use crate::last_errno;

/// Whether a write to a pipe without a reader would end this process: everywhere but in programs
/// that ignore SIGPIPE, as every Rust program does.
#[must_use]
pub fn broken_pipe_kills() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; the old one is written to memory of the right type.
    let result = unsafe { libc::sigaction(libc::SIGPIPE, ptr::null(), action.as_mut_ptr()) };
    if result != 0 {
        return true;
    }
    // SAFETY: sigaction succeeded and filled it.
    unsafe { action.assume_init() }.sa_sigaction == libc::SIG_DFL
}

/// Makes a call that may raise SIGPIPE, and takes that signal away if it did: the process's
/// disposition is never touched.
///
/// # Errors
/// What the call said.
pub fn without_signal<T>(call: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    // SAFETY: the sets are initialised by sigemptyset before they are used, and all calls get valid
    // pointers; only the calling thread's mask changes, and is put back.
    unsafe {
        let mut pipe = MaybeUninit::<libc::sigset_t>::uninit();
        let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(pipe.as_mut_ptr());
        libc::sigaddset(pipe.as_mut_ptr(), libc::SIGPIPE);
        libc::sigemptyset(pending.as_mut_ptr());
        libc::sigpending(pending.as_mut_ptr());
        let was_pending = libc::sigismember(pending.as_ptr(), libc::SIGPIPE) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, pipe.as_ptr(), old.as_mut_ptr());
        let result = call();
        // Also of a write that went in part the signal comes.
        if !was_pending {
            let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            while libc::sigtimedwait(pipe.as_ptr(), ptr::null_mut(), &raw const now) < 0
                && last_errno() == Errno::INTR
            {}
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, old.as_ptr(), ptr::null_mut());
        result
    }
}

/// Reads without waiting, whatever the description's flags say.
///
/// # Errors
/// `EAGAIN` where nothing is there; `EOPNOTSUPP` where the kernel has no such read (a FIFO, a
/// terminal).
pub fn read_now(descriptor: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the vector describes `buffer`, which is borrowed exclusively for the call.
    let count = unsafe {
        libc::preadv2(descriptor.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT)
    };
    usize::try_from(count).map_err(|_| last_errno())
}

/// Writes without waiting, whatever the description's flags say: all or nothing up to 4096 bytes.
///
/// # Errors
/// `EAGAIN` where there is no room; `EOPNOTSUPP` where the kernel has no such write.
pub fn write_now(descriptor: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: the vector describes `bytes`, which the kernel only reads.
    let count = unsafe {
        libc::pwritev2(descriptor.as_raw_fd(), &raw const vector, 1, -1, libc::RWF_NOWAIT)
    };
    usize::try_from(count).map_err(|_| last_errno())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn reads_and_writes_of_a_blocking_pipe_do_not_wait() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read_now(reader.as_fd(), &mut buffer), Err(Errno::AGAIN));
        assert_eq!(write_now(writer.as_fd(), b"hello"), Ok(5));
        assert_eq!(read_now(reader.as_fd(), &mut buffer), Ok(5));
        while write_now(writer.as_fd(), &[0; 4096]).is_ok() {}
        assert_eq!(write_now(writer.as_fd(), &[0; 4096]), Err(Errno::AGAIN));
    }

    /// What a child of this test does, as its variable says.
    const DOES: &str = "POSTE_SYS_BROKEN_PIPE";

    /// Every Rust program ignores SIGPIPE, so a child tries it that doesn't.
    #[test]
    fn a_broken_pipe_leaves_no_signal_behind() {
        match std::env::var(DOES).as_deref() {
            Err(_) => {
                let name = "pipe::tests::a_broken_pipe_leaves_no_signal_behind";
                let end = |does: &str| {
                    let mut child = Command::new(std::env::current_exe().unwrap());
                    child.args(["--exact", name, "--nocapture"]).env(DOES, does);
                    child.output().unwrap().status
                };
                let killed = end("without care").signal();
                assert_eq!(killed, Some(libc::SIGPIPE), "the child can be killed by it");
                assert!(end("at once").success());
                assert!(end("in the middle").success());
            }
            Ok(does) => break_a_pipe(does),
        }
    }

    fn break_a_pipe(does: &str) {
        assert!(!broken_pipe_kills());
        crate::testing::let_broken_pipes_kill();
        assert!(broken_pipe_kills());
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let reading = std::thread::spawn(move || {
            let mut some = vec![0; 1 << 16];
            if does_in_the_middle() {
                rustix::io::read(&reader, &mut some).unwrap();
            }
            drop(reader);
        });
        if !does_in_the_middle() {
            reading.join().unwrap();
        }
        let write = || rustix::io::write(&writer, &vec![7; 1 << 20]);
        let result = if does == "without care" { write() } else { without_signal(write) };
        if does == "in the middle" {
            assert!((1..1 << 20).contains(&result.unwrap()), "a part of it went");
        } else {
            assert_eq!(result, Err(Errno::PIPE));
        }
        // A signal that is left behind comes with the next one that is let through.
        assert_eq!(without_signal(|| rustix::io::write(&writer, b"x")), Err(Errno::PIPE));
    }

    fn does_in_the_middle() -> bool {
        std::env::var(DOES).as_deref() == Ok("in the middle")
    }
}
